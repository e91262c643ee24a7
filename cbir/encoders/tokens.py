"""The tokenizers of open_clip without open_clip, which imports torch: the same tokens, by the library `tokenizers`.

towers/tokenizer.json is the tokenizer as that library writes it, towers/tokens.json says what open_clip does around it.
"""

import html
import string
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
import numpy.typing as npt
import regex
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from cbir.core.errors import WeightsError
from cbir.core.files import read_json, write_json

Tokens = npt.NDArray[np.int64]

FILES = ("tokenizer.json", "tokens.json")

# texts that take every turn: case, accents, contractions, digits, entities, quotes mended by ftfy, other scripts, too long ones
_PROBES = (
    "",
    "a photo of a red star.",
    "A Photo  of\tthe DOG'S café, 1,234 times!",
    "they're &amp;quot;here&amp;quot; \u2014 \u201cquoted\u201d it\u2019s \u00c3\u00a9t\u00c3\u00a9",
    "\u732b\u306e\u5199\u771f \u0444\u043e\u0442\u043e \U0001f431\U0001f431 \u00bd \u00df \u0130",
    "under_score (brackets) [a-b] #tag @you 50% <b>bold</b>",
    "word " * 100,
    "\U0001f431" * 100,
)


class TextTokenizer:
    """n texts -> int64 (n, context length)."""

    def __init__(self, tokenizer: Tokenizer, settings: dict[str, Any]) -> None:
        """settings : clean, how texts are tidied; words, null or the pattern of a word, for the library's own knows an older
        Unicode; replaced, null or a token and what stands in its place.
        """
        self._tokenizer, self._clean = tokenizer, _CLEANERS[settings["clean"]]
        self._words = settings["words"] and regex.compile(settings["words"], regex.IGNORECASE)
        self._replaced = settings["replaced"]

    @classmethod
    def read(cls, folder: Path, expected: str | None) -> "TextTokenizer":
        """What `write_tokenizer` wrote.  Raises WeightsError where it is not what it wrote, by its hash."""
        found = tokenizer_sha256(folder)
        if found != expected:
            raise WeightsError(
                f"{folder / FILES[0]}: expected the tokenizer of sha256 {expected}, found {found}; "
                "run `dvc repro --force weights`"
            )
        tokenizer, settings = (folder / name for name in FILES)
        return cls(Tokenizer.from_file(str(tokenizer)), read_json(settings))

    def __call__(self, texts: Sequence[str]) -> Tokens:
        cleaned = [self._clean(text) for text in texts]
        inputs = cleaned if self._words is None else [self._words.findall(text) for text in cleaned]
        found = self._tokenizer.encode_batch(inputs, is_pretokenized=self._words is not None)
        tokens = np.array([one.ids for one in found], np.int64)
        if self._replaced is not None:
            tokens[tokens == self._replaced[0]] = self._replaced[1]
        return tokens


def tokenizer_sha256(folder: Path) -> str | None:
    """sha256 over the two files of a tokenizer; None where they are not there."""
    try:
        return sha256(b"".join(sha256((folder / name).read_bytes()).digest() for name in FILES)).hexdigest()
    except FileNotFoundError:
        return None


def write_tokenizer(folder: Path, theirs: Any) -> str | None:
    """Write one of open_clip's; returns why not, where its tokens would not be the same.

    theirs : a SimpleTokenizer or HFTokenizer.
    """
    try:
        tokenizer, settings = _converted(theirs)
        ours = TextTokenizer(tokenizer, settings)
        same = np.array_equal(ours(_PROBES), theirs(list(_PROBES)).numpy())
    except Exception as error:  # another kind of tokenizer, or one of a form that is not known here
        return f"tokenizer: {type(error).__name__}: {error}"
    if not same:
        return f"tokenizer: {type(theirs).__name__} gives other tokens than `tokenizers` does"
    tokenizer.save(str(folder / FILES[0]))
    write_json(folder / FILES[1], settings)
    return None


def _converted(theirs: Any) -> tuple[Tokenizer, dict[str, Any]]:
    clean = theirs.clean_fn.__name__.removeprefix("_clean_")
    if hasattr(theirs, "bpe_ranks"):
        if theirs.reduction_fn is not None:
            raise ValueError("a reduction of long texts")
        return _byte_pairs(theirs), {"clean": clean, "words": theirs.pat.pattern, "replaced": None}
    if theirs.tokenizer_mode:
        raise ValueError(f"the mode {theirs.tokenizer_mode}")
    own = theirs.tokenizer
    tokenizer = Tokenizer.from_str(own.backend_tokenizer.to_str())
    tokenizer.enable_truncation(theirs.context_length)
    tokenizer.enable_padding(
        direction=own.padding_side, length=theirs.context_length, pad_id=own.pad_token_id, pad_token=own.pad_token
    )
    return tokenizer, {
        "clean": clean,
        "words": None,
        "replaced": [own.sep_token_id, 0] if theirs.strip_sep_token else None,
    }


def _byte_pairs(theirs: Any) -> Tokenizer:
    """CLIP's byte pair encoding (open_clip.SimpleTokenizer)."""
    merges = list(theirs.bpe_ranks)
    tokenizer = Tokenizer(models.BPE(vocab=theirs.encoder, merges=merges, end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    start, end = (theirs.decoder[number] for number in (theirs.sot_token_id, theirs.eot_token_id))
    tokenizer.add_special_tokens([start, end])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, theirs.sot_token_id), (end, theirs.eot_token_id)]
    )
    tokenizer.enable_truncation(theirs.context_length)
    tokenizer.enable_padding(length=theirs.context_length, pad_id=0, pad_token="!")  # noqa: S106  (the token of number 0)
    return tokenizer


def _tidy(text: str) -> str:
    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def _whitespace(text: str) -> str:
    return " ".join(_tidy(text).split())


def _lower(text: str) -> str:
    return _whitespace(text).lower()


def _canonicalize(text: str) -> str:
    without = _tidy(text).replace("_", " ").translate(str.maketrans("", "", string.punctuation))
    return " ".join(without.lower().split())


_CLEANERS: dict[str, Callable[[str], str]] = {"whitespace": _whitespace, "lower": _lower, "canonicalize": _canonicalize}
