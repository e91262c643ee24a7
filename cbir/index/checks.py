"""Checks of vectors and of k, before FAISS or numpy sees them."""

import numpy as np

from cbir.artifacts.vectors import NORM_TOLERANCE, Positions, Vectors
from cbir.core.errors import REPAIR, ConfigError, DataError


def check_matrix(rows: np.ndarray, dim: int, what: str) -> None:
    """Refuse anything but a float32 array of shape (n, dim).

    Raises DataError that names `what`, and the expected and the found dtype and shape.
    """
    if rows.dtype != np.float32 or rows.ndim != 2 or rows.shape[1] != dim:
        raise DataError(
            f"{what}: expected float32 vectors of shape (n, {dim}), found {rows.dtype} of shape {rows.shape}: "
            f"queries and gallery must come from one encoder; {REPAIR}"
        )


def check_k(k: int, n_gallery: int) -> None:
    """Refuse a k that exceeds the gallery.

    Raises ConfigError unless 1 <= k <= n_gallery.
    """
    if not 1 <= k <= n_gallery:
        problem = "smaller than 1" if k < 1 else f"larger than the gallery of {n_gallery} images"
        raise ConfigError(f"k = {k} is {problem}: set k to a value from 1 to {n_gallery}")


def check_finite(rows: Vectors, what: str, first: int) -> None:
    """Raise DataError for the first row that holds NaN or infinity.  first : the position of the first row."""
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        row = first + int(finite.argmin())
        raise DataError(f"{what} row {row}: expected finite values, found NaN or infinity: {REPAIR}")


def check_unit(rows: Vectors, what: str, positions: Positions) -> None:
    """Raise DataError for the first row whose norm is not 1.  positions : (n,) of the rows, for the message."""
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(rows, axis=1)
    unit = np.abs(norms - 1) <= NORM_TOLERANCE  # False for NaN
    if not unit.all():
        row = int(unit.argmin())
        raise DataError(
            f"{what} row {positions[row]}: expected norm 1 (within {NORM_TOLERANCE}), found {norms[row]:.6g}: {REPAIR}"
        )
