"""The tokenizers of encoders without their libraries, which import torch: the same tokens, by the library `tokenizers`.

towers/tokenizer.json is the tokenizer as that library writes it; towers/tokens.json holds the settings of the steps around
it: how a text is cleaned and split into words.
"""

import html
import string
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import ftfy
import numpy as np
import regex
from tokenizers import Tokenizer

from cbir.core.errors import REPAIR, WeightsError
from cbir.core.files import read_json, write_json
from cbir.encoders.base import Tokens

FILES = ("tokenizer.json", "tokens.json")

# texts with case, accents, contractions, digits, entities, quotes that ftfy mends, other scripts, and more tokens than fit
PROBES = (
    "",
    "a photo of a red star.",
    "A Photo  of\tthe DOG'S café, 1,234 times!",
    "they're &amp;quot;here&amp;quot; \u2014 \u201cquoted\u201d it\u2019s \u00c3\u00a9t\u00c3\u00a9",
    "\u732b\u306e\u5199\u771f \u0444\u043e\u0442\u043e \U0001f431\U0001f431 \u00bd \u00df \u0130",
    "under_score (brackets) [a-b] #tag @you 50% <b>bold</b>",
    "word " * 100,
    "\U0001f431" * 100,
)


class LibraryTokenizer(Protocol):
    """A tokenizer of the library that built an encoder.  name : for messages."""

    name: str

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """n texts -> int64 (n, context length)."""

    def convert(self) -> tuple[Tokenizer, dict[str, Any]]:
        """The arguments of a TextTokenizer that gives the same tokens.  Raises an exception of any type when there is none."""


def backend_of(tokenizer: Any, context_length: int) -> Tokenizer:
    """The `tokenizers` form of a tokenizer of transformers, which truncates and pads to the context length."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.enable_truncation(context_length, direction=tokenizer.truncation_side)
    backend.enable_padding(
        direction=tokenizer.padding_side,
        length=context_length,
        pad_id=tokenizer.pad_token_id,
        pad_token=tokenizer.pad_token,
    )
    return backend


class TextTokenizer:
    """n texts -> int64 (n, context length)."""

    def __init__(self, tokenizer: Tokenizer, settings: dict[str, Any]) -> None:
        """settings : "clean", how a text is cleaned (see CLEANERS); "words", null or the pattern of a word, used because
        `tokenizers` has an older version of Unicode; "replaced", null or [token id, the id that replaces it].
        """
        self._tokenizer, self._clean = tokenizer, CLEANERS[settings["clean"]]
        self._words = settings["words"] and regex.compile(settings["words"], regex.IGNORECASE)
        self._replaced = settings["replaced"]

    @classmethod
    def read(cls, folder: Path, expected: str | None) -> "TextTokenizer":
        """Read what `write_tokenizer` wrote.  Raises WeightsError when its sha256 is not `expected`."""
        actual = tokenizer_sha256(folder)
        if actual != expected:
            raise WeightsError(
                f"{folder / FILES[0]}: expected the tokenizer of sha256 {expected}, found {actual}; {REPAIR}"
            )
        tokenizer, settings = (folder / name for name in FILES)
        return cls(Tokenizer.from_file(str(tokenizer)), read_json(settings))

    def __call__(self, texts: Sequence[str]) -> Tokens:
        cleaned = [self._clean(text) for text in texts]
        inputs = cleaned if self._words is None else [self._words.findall(text) for text in cleaned]
        encodings = self._tokenizer.encode_batch(inputs, is_pretokenized=self._words is not None)
        tokens = np.array([encoding.ids for encoding in encodings], np.int64)
        if self._replaced is not None:
            tokens[tokens == self._replaced[0]] = self._replaced[1]
        return tokens


def tokenizer_sha256(folder: Path) -> str | None:
    """sha256 over the two files of a tokenizer; None when one is missing."""
    try:
        return sha256(b"".join(sha256((folder / name).read_bytes()).digest() for name in FILES)).hexdigest()
    except FileNotFoundError:
        return None


def write_tokenizer(folder: Path, source: LibraryTokenizer) -> str | None:
    """Convert a library's tokenizer and write it; when its tokens would differ, write nothing and return the reason."""
    try:
        tokenizer, settings = source.convert()
        same = np.array_equal(TextTokenizer(tokenizer, settings)(PROBES), source(PROBES))
    except Exception as error:  # a tokenizer of a form that `convert` does not know
        return f"tokenizer: {type(error).__name__}: {error}"
    if not same:
        return f"tokenizer: {source.name} gives other tokens than `tokenizers` does"
    tokenizer.save(str(folder / FILES[0]))
    write_json(folder / FILES[1], settings)
    return None


def _fixed(text: str) -> str:
    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def _whitespace(text: str) -> str:
    return " ".join(_fixed(text).split())


def _lower(text: str) -> str:
    return _whitespace(text).lower()


def _canonicalize(text: str) -> str:
    without_punctuation = _fixed(text).replace("_", " ").translate(str.maketrans("", "", string.punctuation))
    return " ".join(without_punctuation.lower().split())


def _unpunctuated(text: str) -> str:
    return " ".join(text.lower().translate(str.maketrans("", "", string.punctuation)).split())


# what precedes a tokenizer: open_clip's cleaning functions, by the names that it gives them, and for transformers "none",
# "lowercase", and "unpunctuated", which is SiglipTokenizer.canonicalize_text
CLEANERS: dict[str, Callable[[str], str]] = {
    "whitespace": _whitespace,
    "lower": _lower,
    "canonicalize": _canonicalize,
    "none": str,
    "lowercase": str.lower,
    "unpunctuated": _unpunctuated,
}
