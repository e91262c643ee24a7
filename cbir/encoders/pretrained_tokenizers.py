"""transformers' tokenizers, with the settings under which their models were trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from cbir.core.errors import ConfigError
from cbir.core.params import first_line
from cbir.core.parsing import parse_json
from cbir.encoders.base import Tokens
from cbir.encoders.own_code import NO_CODE, own_code_error
from cbir.encoders.tokens import CLEANERS, backend_of

FILES = ("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model")
# this class needs the library sentencepiece; its tokenizer.json gives the same tokens of a text that is cleaned as here
_SENTENCEPIECE_CLEANING = {"SiglipTokenizer": "unpunctuated"}
_ENDLESS = 10**6  # of a tokenizer's `model_max_length`: it names no length


class PretrainedTokenizer:
    """A tokenizer of transformers, as a `cbir.encoders.tokens.LibraryTokenizer`."""

    def __init__(self, source: Any, context_length: int, clean: str) -> None:
        """clean : what precedes the tokenizer (see `cbir.encoders.tokens.CLEANERS`)."""
        self.name = type(source).__name__
        self._source, self._context_length, self._clean = source, context_length, clean
        self(["a"])  # sets length and padding now: two threads that did so at once would raise an error

    @classmethod
    def read(cls, folder: Path, settings: Mapping[str, str | int | bool]) -> "PretrainedTokenizer":
        """Read what `save` wrote.  settings : those of the encoder's card."""
        source = AutoTokenizer.from_pretrained(folder, **NO_CODE, local_files_only=True)
        return cls(source, int(settings["context_length"]), str(settings["clean"]))

    def save(self, folder: Path) -> None:
        """Write the files that transformers reads."""
        self._source.save_pretrained(folder)

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """n texts -> int64 (n, context length)."""
        return np.array(self.encode(texts)["input_ids"], np.int64)

    def encode(self, texts: Sequence[str]) -> Mapping[str, Any]:
        """n texts -> "input_ids" and "attention_mask": n lists of integers each."""
        cleaned = [CLEANERS[self._clean](text) for text in texts]
        encoded: Mapping[str, Any] = self._source(
            cleaned, padding="max_length", truncation=True, max_length=self._context_length, return_attention_mask=True
        )
        return encoded

    @property
    def settings(self) -> dict[str, str | int | bool]:
        """What determines the tokens of a text beside the tokenizer's files, for the encoder's card."""
        return {"context_length": self._context_length, "clean": self._clean}

    @property
    def padding(self) -> tuple[int, bool] | None:
        """The padding token and whether it ends a text as well; None for a model that was trained to read padding."""
        source = self._source
        if "attention_mask" not in source.model_input_names:
            return None
        return source.pad_token_id, source.pad_token_id == source.eos_token_id

    def convert(self) -> tuple[Tokenizer, dict[str, Any]]:
        """The same tokenizer in the library `tokenizers`, and the settings of a TextTokenizer."""
        return backend_of(self._source, self._context_length), {"clean": self._clean, "words": None, "replaced": None}


def load_tokenizer(key: str, folder: Path, text_config: Any) -> PretrainedTokenizer:
    """Load the tokenizer in `folder`, with the length and the cleaning that its files and the text tower's name.

    key : the parameter that names the folder, for messages.
    Raises ConfigError when there is no tokenizer that can be read, or when it has no padding token or no length.
    """
    try:
        source, clean = _load(folder)
    except Exception as error:  # of many types, one for each way in which a file can be wrong
        raise own_code_error(key, str(folder), error) or ConfigError(
            f"{key}: expected the files of a tokenizer in {folder}, found none that can be read: "
            f"{first_line(error) or type(error).__name__}"
        ) from error
    if source.pad_token_id is None:
        raise ConfigError(f"{key}: the tokenizer in {folder} has no padding token, without which texts make no batch")
    lengths = (source.model_max_length, getattr(text_config, "max_position_embeddings", None))
    known = [int(length) for length in lengths if length is not None and length < _ENDLESS]
    if not known:
        raise ConfigError(f"{key}: {folder}: expected model_max_length in tokenizer_config.json, found none")
    return PretrainedTokenizer(source, min(known), clean)


def _load(folder: Path) -> tuple[Any, str]:
    name = _class_name(folder)
    if clean := _SENTENCEPIECE_CLEANING.get(name):
        if not (folder / "tokenizer.json").exists():
            raise ValueError(f"{name} needs a tokenizer.json beside its sentencepiece model")
        return PreTrainedTokenizerFast.from_pretrained(folder, **NO_CODE, local_files_only=True), clean
    source: Any = AutoTokenizer.from_pretrained(folder, **NO_CODE, local_files_only=True)
    # SigLIP 2 was trained on lower case; its tokenizer, GemmaTokenizer, keeps this setting and ignores it
    ignores_lowering = source.init_kwargs.get("do_lower_case") and source("A").input_ids != source("a").input_ids
    return source, "lowercase" if ignores_lowering else "none"


def _class_name(folder: Path) -> str:
    path = folder / "tokenizer_config.json"
    return str(parse_json(path.read_text(encoding="utf-8")).get("tokenizer_class")) if path.exists() else ""
