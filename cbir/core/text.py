"""Text from data, as it may be shown: a file's name may hold what moves a terminal's cursor or turns the writing around."""

from typing import Any

MAX_CHARACTERS = 200


def printable(value: Any, most: int | None = MAX_CHARACTERS) -> str:
    """The text on one line, what is longer than `most` cut.

    A character without a shape of its own, such as a control character or a change of writing direction, is shown by its
    number.

    >>> printable("red\\x1b[31m\\nstar")
    'redU+001B[31m star'
    """
    line = " ".join(str(value).split())
    if most is not None and len(line) > most:
        line = line[: most - 1] + "…"
    return "".join(character if character.isprintable() else f"U+{ord(character):04X}" for character in line)
