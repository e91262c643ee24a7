"""Markdown of our own: escaped text from data, rows of tables."""

import re
from typing import Any

from cbir.core.text import MAX_CHARACTERS, printable

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#+|~!&$-]|:(?=//)|(?<=www)\.)")  # and what GitHub makes web links and formulas of


def escaped(value: Any, most: int | None = MAX_CHARACTERS) -> str:
    """Text from data as one line of Markdown that shows it (see `printable`) and does nothing else.

    >>> escaped("a|b <script>")
    'a\\\\|b \\\\<script\\\\>'
    """
    return _MARKUP.sub(r"\\\1", printable(value, most))


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
