"""report.md, from a Jinja template; text from data is escaped where it is shown."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cbir.report.facts import Facts, Figure
from cbir.report.figures import figure
from cbir.report.filling import fill
from cbir.report.verdict import verdict
from cbir.shown import MOST_CHARACTERS, shown

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#+|~!&$-]|:(?=//)|(?<=www)\.)")  # and what GitHub makes web links and formulas of
_SHOWN_QUARANTINE, _SHOWN_DUPLICATES = 20, 10


def write_markdown(out: Path, facts: Facts) -> None:
    """Write the report."""
    fill(
        out,
        "report.md.j2",
        {"text": escaped},
        {"duplicate_heads": duplicate_heads, "row": row, "rule": rule, "figures": figures, "cells": cells},
        {
            "facts": facts,
            "verdict": verdict(facts),
            "shown_quarantine": _SHOWN_QUARANTINE,
            "shown_duplicates": _SHOWN_DUPLICATES,
        },
        html=False,  # Markdown: `text` escapes both
    )


def escaped(value: Any, most: int | None = MOST_CHARACTERS) -> str:
    """Text from data as one line of Markdown that shows it (see `shown`) and does nothing else.

    >>> escaped("a|b <script>")
    'a\\\\|b \\\\<script\\\\>'
    """
    return _MARKUP.sub(r"\\\1", shown(value, most))


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
