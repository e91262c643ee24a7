"""Whether values that were read can be what they are said to be: numbers, finite, and in their range."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cbir.core.errors import REPAIR, DataError

_TOLERANCE = 1e-9  # of sums of float64


def check_column(path: Path, table: pa.Table, name: str, low: float = -math.inf, high: float = math.inf) -> None:
    """Raise DataError unless the numbers of a column are null, or finite and in [low, high].  path : for messages."""
    numbers = table[name].drop_null().to_numpy().astype(np.float64)
    wrong = ~(np.isfinite(numbers) & (numbers >= low - _TOLERANCE) & (numbers <= high + _TOLERANCE))
    if wrong.any():
        raise DataError(_message(path, f"column '{name}'", numbers[wrong][0], low, high))


def check_values(path: Path, where: str, value: Any, low: float, high: float) -> None:
    """Raise DataError unless each value of nested objects and lists is a number in [low, high].

    path, where : for messages, the latter the keys that lead to `value`.
    """
    if isinstance(value, Mapping | list):
        for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            check_values(path, f"{where}.{key}", part, low, high)
    elif (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not low - _TOLERANCE <= value <= high + _TOLERANCE
    ):
        raise DataError(_message(path, where, value, low, high))


def _message(path: Path, where: str, value: Any, low: float, high: float) -> str:
    limits = "finite numbers" if math.isinf(low) else f"numbers in [{low:g}, {high:g}]"
    return f"{path}: {where}: expected {limits}, found {value!s}: {REPAIR}"
