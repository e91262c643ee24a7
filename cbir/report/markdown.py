"""report.md, from a Jinja template; text from data is escaped where it is shown."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cbir.artifacts.files import replacing
from cbir.config import ENCODERS
from cbir.report.facts import TASKS, Facts, Figure
from cbir.shown import shown

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#+|~!&$-]|:(?=//)|(?<=www)\.)")  # and what GitHub makes web links and formulas of
_SHOWN_QUARANTINE, _SHOWN_DUPLICATES = 20, 10


def write_markdown(out: Path, facts: Facts) -> None:
    """Write the report."""
    environment = Environment(
        loader=PackageLoader("cbir.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Markdown, not HTML: `text` escapes both
    )
    environment.filters |= {"text": escaped, "figure": figure, "mb": megabytes, "whole": whole}
    environment.globals |= {
        "duplicate_heads": duplicate_heads,
        "row": row,
        "rule": rule,
        "ats": ats,
        "figures": figures,
        "cells": cells,
    }
    page = environment.get_template("report.md.j2").render(
        facts=facts,
        encoders=ENCODERS,
        tasks=TASKS,
        shown_quarantine=_SHOWN_QUARANTINE,
        shown_duplicates=_SHOWN_DUPLICATES,
    )
    with replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")


def escaped(value: Any) -> str:
    """Text from data as one line of Markdown that shows it (see `shown`) and does nothing else.

    >>> escaped("a|b <script>")
    'a\\\\|b \\\\<script\\\\>'
    """
    return _MARKUP.sub(r"\\\1", shown(value))


def figure(value: float | None, interval: Sequence[float] | None = None) -> str:
    """A metric with three decimals, and its interval where it has one; a dash where it is undefined.

    The sums behind two equal metrics may differ in their last bits; they are shown as equal.

    >>> figure(0.5), figure(0.5, [0.25, 0.75]), figure(None)
    ('0.500', '0.500 [0.250, 0.750]', '-')
    >>> figure(0.0125), figure(0.012499999999999999)
    ('0.013', '0.013')
    """
    if value is None:
        return "-"
    bounds = "" if interval is None else f" [{figure(interval[0])}, {figure(interval[1])}]"
    return f"{round(value, 9):.3f}{bounds}"


def megabytes(value: float) -> str:
    """Bytes as MB (10^6)."""
    return f"{value / 1e6:.1f} MB"


def whole(value: float) -> str:
    """A number without decimals: 12,345."""
    return f"{value:,.0f}"


def row(*cells: Any) -> str:
    """A row of a table; a list stands for as many cells.

    >>> row("precision", ["0.500", "0.400"])
    '| precision | 0.500 | 0.400 |'
    """
    every = [text for cell in cells for text in (cell if isinstance(cell, list) else [cell])]
    return f"| {' | '.join(map(str, every))} |"


def rule(texts: int, numbers: int = 0) -> str:
    """The line below a table's header: columns of text, then columns of numbers.

    >>> rule(1, 2)
    '|---|---:|---:|'
    """
    return "|" + "---|" * texts + "---:|" * numbers


def ats(ks: Sequence[int], family: str = "") -> list[str]:
    """The names of a metric at every k.

    >>> ats([1, 5], "precision")
    ['precision@1', 'precision@5']
    """
    return [f"{family}@{k}" for k in ks]


def figures(
    values: Mapping[str, float], names: Sequence[str], intervals: Mapping[str, Sequence[float]] | None = None
) -> list[str]:
    """The figures of these names, in this order, with their intervals where there are any."""
    return [figure(values.get(name), (intervals or {}).get(name)) for name in names]


def duplicate_heads(encoders: Sequence[str]) -> list[str]:
    """Two columns for each encoder.

    >>> duplicate_heads(["clip"])
    ['clip', 'clip without duplicates']
    """
    return [head for encoder in encoders for head in (encoder, f"{encoder} without duplicates")]


def cells(found: Sequence[Figure]) -> list[str]:
    """Figures with their intervals."""
    return [figure(*one) for one in found]
