"""Text from data made safe to print: a file name may hold control codes of the terminal or change the writing direction."""

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

MAX_CHARACTERS = 200


def printable(value: Any, max_characters: int | None = MAX_CHARACTERS) -> str:
    """Return the text on one line, shortened to `max_characters`, with unprintable characters as U+XXXX.

    >>> printable("red\\x1b[31m\\nstar")
    'redU+001B[31m star'
    """
    line = " ".join(str(value).split())
    if max_characters is not None and len(line) > max_characters:
        line = line[: max_characters - 1] + "…"
    return "".join(character if character.isprintable() else f"U+{ord(character):04X}" for character in line)


def nfc(text: str) -> str:
    """Return the text in composed Unicode: macOS writes "ä" as two characters, other systems as one.

    >>> nfc("Ka\u0308fer") == "K\u00e4fer"
    True
    """
    return unicodedata.normalize("NFC", text)


def listed(words: Sequence[str], max_words: int | None = None) -> str:
    """Join words as a sentence lists them; of more than `max_words`, the last are counted.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed(list("abcdefgh"), 6)
    ('a', 'a, b and c', 'a, b, c, d, e and 3 others')
    """
    if max_words is not None and len(words) > max_words:
        words = [*words[: max_words - 1], f"{len(words) - max_words + 1} others"]
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def nearest_three(name: str, valid: Iterable[str]) -> str:
    """A phrase with the three nearest of the valid names, of which there may be too many to list."""
    return f"nearest: {', '.join(difflib.get_close_matches(name, sorted(valid), n=3, cutoff=0.0))}"


def nearest(name: str, valid: Iterable[str]) -> str:
    """A phrase that names the valid word nearest to `name`, or all of them (at most 20) when none is near."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    if close:
        return f"nearest: {close[0]}"
    return f"expected one of {', '.join(valid[:20])}" + (f" and {len(valid) - 20} others" if len(valid) > 20 else "")
