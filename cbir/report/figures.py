"""Numbers as every form of the report shows them."""

from collections.abc import Sequence
from math import floor


def figure(value: float | None, interval: Sequence[float] | None = None) -> str:
    """A metric with three decimals, and its interval where it has one; a dash where it is undefined.

    The sums behind two equal metrics may differ in their last bits; they are shown as equal.

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
    """A difference, with its sign; none where it is nothing.

    >>> signed(0.1234), signed(-0.00001)
    ('+0.123', '0.000')
    """
    text = f"{round(value, 9):+.{digits}f}"
    return text if text.strip("+-0.") else text[1:]


def megabytes(value: float) -> str:
    """Bytes as MB (10^6)."""
    return f"{value / 1e6:.1f} MB"


def whole(value: float) -> str:
    """A number without decimals: 12,345."""
    return f"{value:,.0f}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number of things.

    >>> counted(1, "image"), counted(2000, "image"), counted(2, "class", "classes")
    ('1 image', '2,000 images', '2 classes')
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def seconds(value: float) -> str:
    """A time as a person says it.

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
    """A share in per cent.

    What is less than all is shown as less.

    >>> share(0.976), share(1.0), share(0.9999)
    ('97.6 %', '100 %', '99.9 %')
    """
    percent = floor(round(1000 * value, 6) + 0.5) / 10
    return f"{min(percent, 99.9) if round(value, 9) < 1 else percent:.1f}".removesuffix(".0") + " %"


def ats(ks: Sequence[int], family: str = "") -> list[str]:
    """The names of a metric at every k.

    >>> ats([1, 5], "precision")
    ['precision@1', 'precision@5']
    """
    return [f"{family}@{k}" for k in ks]
