"""open_clip's tokenizers, and their form in the library `tokenizers`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import open_clip
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from cbir.encoders.base import Tokens
from cbir.encoders.own_code import NO_CODE
from cbir.encoders.tokens import backend_of

CONFIG: Final = "open_clip_config.json"


class OpenClipTokenizer:
    """One of open_clip's tokenizers, as a `cbir.encoders.tokens.LibraryTokenizer`."""

    def __init__(self, tokenizer: Any) -> None:
        """tokenizer : open_clip's SimpleTokenizer or HFTokenizer."""
        self.name = type(tokenizer).__name__
        self._tokenizer = tokenizer

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """n texts -> int64 (n, context length)."""
        tokens: Tokens = self._tokenizer(list(texts)).numpy()
        return tokens

    def convert(self) -> tuple[Tokenizer, dict[str, Any]]:
        """The same tokenizer in the library `tokenizers`, and the settings of a TextTokenizer."""
        source = self._tokenizer
        clean = source.clean_fn.__name__.removeprefix("_clean_")
        if hasattr(source, "bpe_ranks"):
            if source.reduction_fn is not None:
                raise ValueError("a reduction of long texts")
            return _byte_pair_tokenizer(source), {"clean": clean, "words": source.pat.pattern, "replaced": None}
        if source.tokenizer_mode:
            raise ValueError(f"the mode {source.tokenizer_mode}")
        hub = source.tokenizer
        replaced = [hub.sep_token_id, 0] if source.strip_sep_token else None
        return backend_of(hub, source.context_length), {"clean": clean, "words": None, "replaced": replaced}


def open_tokenizer(name: str) -> Any:
    """Open the tokenizer of an architecture, or of `local-dir:<folder>`, without running code that comes with it.

    The folder's own settings (`tokenizer_kwargs`) may ask for it; arguments precede them.
    """
    folder = name.removeprefix("local-dir:")
    model_cfg: Any = open_clip.get_model_config(name)
    if folder != name:
        model_cfg = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))["model_cfg"]
    is_of_transformers = bool(((model_cfg or {}).get("text_cfg") or {}).get("hf_tokenizer_name"))
    return open_clip.get_tokenizer(name, **(NO_CODE if is_of_transformers else {}))


def _byte_pair_tokenizer(source: Any) -> Tokenizer:
    """CLIP's byte pair encoding (open_clip.SimpleTokenizer)."""
    merges = list(source.bpe_ranks)
    tokenizer = Tokenizer(models.BPE(vocab=source.encoder, merges=merges, end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    start, end = (source.decoder[token_id] for token_id in (source.sot_token_id, source.eot_token_id))
    tokenizer.add_special_tokens([start, end])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, source.sot_token_id), (end, source.eot_token_id)]
    )
    tokenizer.enable_truncation(source.context_length)
    tokenizer.enable_padding(length=source.context_length, pad_id=0, pad_token="!")  # noqa: S106  (the token of id 0)
    return tokenizer
