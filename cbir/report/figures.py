"""Numbers and nested values, formatted alike in all forms of the report."""

import json
from collections.abc import Mapping, Sequence
from math import floor
from typing import Any

from cbir.core.secrets import without_secrets


def figure(value: float | None, interval: Sequence[float] | None = None) -> str:
    """Format a metric with three decimals, and its interval if it has one; a dash if it is undefined.

    Rounding to nine decimals first makes equal metrics look equal though their sums may differ in the last bits.

    >>> figure(0.5), figure(0.5, [0.25, 0.75]), figure(None)
    ('0.500', '0.500 [0.250, 0.750]', '-')
    >>> figure(0.0125), figure(0.012499999999999999), figure(-0.0001)
    ('0.013', '0.013', '0.000')
    """
    if value is None:
        return "-"
    bounds = "" if interval is None else f" [{figure(interval[0])}, {figure(interval[1])}]"
    text = f"{round(value, 9):.3f}"
    return f"{'0.000' if text == '-0.000' else text}{bounds}"


def signed(value: float, digits: int = 3) -> str:
    """Format a difference with its sign; one that rounds to 0 has none.

    >>> signed(0.1234), signed(-0.00001)
    ('+0.123', '0.000')
    """
    text = f"{round(value, 9):+.{digits}f}"
    return text if text.strip("+-0.") else text[1:]


def megabytes(value: float) -> str:
    """Format bytes as MB (10^6).

    >>> megabytes(1_234_567)
    '1.2 MB'
    """
    return f"{value / 1e6:.1f} MB"


def whole(value: float | None) -> str:
    """Format a number without decimals; a dash if it is undefined.

    >>> whole(12345.4), whole(None)
    ('12,345', '-')
    """
    return "-" if value is None else f"{value:,.0f}"


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """Format a count with its noun.

    >>> counted(1, "image"), counted(2000, "image"), counted(2, "class", "classes")
    ('1 image', '2,000 images', '2 classes')
    """
    return f"{count:,} {singular if count == 1 else plural or f'{singular}s'}"


def seconds(value: float) -> str:
    """Format a duration.

    >>> seconds(0.126), seconds(12.34), seconds(75), seconds(3700)
    ('0.13 s', '12.3 s', '1 min 15 s', '1 h 2 min')
    """
    if value < 59.95:
        return f"{value:.2f} s" if value < 1 else f"{value:.1f} s"
    if (rounded := round(value)) < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    minutes = round(value / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def share(value: float) -> str:
    """Format a share in per cent; only 1, up to nine decimals, is shown as 100 %.

    >>> share(0.976), share(1.0), share(0.9999)
    ('97.6 %', '100 %', '99.9 %')
    """
    percent = floor(round(1000 * value, 6) + 0.5) / 10
    return f"{min(percent, 99.9) if round(value, 9) < 1 else percent:.1f}".removesuffix(".0") + " %"


def at_each(ks: Sequence[int], family: str = "") -> list[str]:
    """Return the names of a metric at each k.

    >>> at_each([1, 5], "precision")
    ['precision@1', 'precision@5']
    """
    return [f"{family}@{k}" for k in ks]


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested values under dotted names: strings without secrets of addresses, other values as JSON.

    >>> flatten({"index": {"kind": "flat", "nlist": None}, "url": "https://me:pw@host/a.zip"})
    {'index.kind': 'flat', 'index.nlist': 'null', 'url': 'https://***@host/a.zip'}
    """
    values: dict[str, str] = {}
    for name, value in node.items():
        if isinstance(value, Mapping):
            values |= flatten(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            values[prefix + name] = without_secrets(text)  # of a run before parameters with secrets were refused
    return values
