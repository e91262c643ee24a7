"""Markdown: escaped text and rows of tables."""

import re
from typing import Any

from cbir.core.text import MAX_CHARACTERS, printable

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#+|~!&$-]|:(?=//)|(?<=www)\.)")  # also what GitHub turns into links and formulas


def escaped(value: Any, max_characters: int | None = MAX_CHARACTERS) -> str:
    """Return text from data as one line of plain Markdown (see `printable`), without any markup.

    >>> escaped("a|b <script>")
    'a\\\\|b \\\\<script\\\\>'
    """
    return _MARKUP.sub(r"\\\1", printable(value, max_characters))


def row(*cells: Any) -> str:
    """Return a row of a table; a list gives one cell per item.

    >>> row("precision", ["0.500", "0.400"])
    '| precision | 0.500 | 0.400 |'
    """
    texts = [str(text) for cell in cells for text in (cell if isinstance(cell, list) else [cell])]
    return f"| {' | '.join(texts)} |"


def rule(text_columns: int, number_columns: int = 0) -> str:
    """Return the line below a table's header; columns of numbers follow those of text and align right.

    >>> rule(1, 2)
    '|---|---:|---:|'
    """
    return "|" + "---|" * text_columns + "---:|" * number_columns
