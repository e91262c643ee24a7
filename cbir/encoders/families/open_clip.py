"""open_clip's models: an image tower and a text tower that embed into one space.

The folder has open_clip's "local-dir" layout, so open_clip reads the architecture, the weights and the tokenizer from it as
it reads a model of the Hugging Face hub.
"""

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from cbir.core.errors import ConfigError, FetchError
from cbir.core.files import write_json
from cbir.core.params import first_line, nearest
from cbir.encoders.base import EncoderCard, Tokens, check_weights, file_sha256, hash_settings
from cbir.encoders.layers import ChannelsFirst, Modules, Normalise, UnitRows
from cbir.encoders.params import EncoderParams
from cbir.encoders.preprocessing import Preprocessing
from cbir.encoders.weight_files import (
    fetched_file,
    is_random,
    one_line_weights_errors,
    refuse_options,
    save_state,
    seeded,
    tag_of_file,
)

WEIGHTS = "open_clip_model.safetensors"
CONFIG = "open_clip_config.json"


# ---- fetching


def fetch_weights(group: str, params: EncoderParams, out: Path) -> EncoderCard:
    """Write open_clip's configuration, weights and tokenizer (see `cbir.encoders.families.FamilyModule`)."""
    with _quiet_loggers():
        return _fetch_weights(group, params, out)


def _fetch_weights(group: str, params: EncoderParams, out: Path) -> EncoderCard:
    refuse_options(group, params, "pooling")
    if params.image_px is not None:
        raise ConfigError(
            f"{group}.image_px: the input of {params.architecture} is part of its architecture; leave it null"
        )
    model_cfg = _read_architecture(group, params.architecture)
    if params.tokenizer is not None:
        model_cfg["text_cfg"] = {**model_cfg["text_cfg"], "hf_tokenizer_name": params.tokenizer}
    tags = {tag: tag for tag in open_clip.list_pretrained_tags_by_model(params.architecture)}
    tag = params.weights if params.weights in tags else tag_of_file(group, params, tags)
    implied = open_clip.get_pretrained_cfg(params.architecture, tag) if tag is not None else {}
    quick_gelu = bool(model_cfg.get("quick_gelu", False) or implied.get("quick_gelu", False))
    preprocess_cfg = open_clip.transform.merge_preprocess_dict(asdict(open_clip.transform.PreprocessCfg()), implied)
    write_json(
        out / CONFIG,
        {"model_cfg": {**model_cfg, "quick_gelu": quick_gelu}, "preprocess_cfg": _kept_settings(preprocess_cfg)},
    )
    with seeded(group, params):
        model = _build_untrained(group, params.architecture, out)
    if params.weights in tags:
        _load_weights(group, model, params, _fetch_tag(group, params, implied))
    elif not is_random(params):
        with fetched_file(group, params, params.weights) as path:
            _load_weights(group, model, params, path)
    _save_tokenizer(group, model_cfg, out)
    return EncoderCard(
        family=params.family.value,
        architecture=params.architecture,
        origin=params.weights,
        tag=tag,
        weights_sha256=save_state(model, out / WEIGHTS),
        settings_sha256=hash_settings(out, WEIGHTS),
        preprocessing=_preprocessing(model.visual.preprocess_cfg),
        settings={"quick_gelu": quick_gelu},
    )


def _read_architecture(group: str, name: str) -> dict[str, Any]:
    """Read open_clip's configuration of a built-in architecture, or a JSON file of the same form."""
    if name.endswith(".json"):
        try:
            config = json.loads(Path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{group}.architecture: {name} is not readable as JSON: {error}") from error
        parts = {"embed_dim": int, "vision_cfg": dict, "text_cfg": dict}
        if not isinstance(config, dict) or not all(isinstance(config.get(part), kind) for part, kind in parts.items()):
            raise ConfigError(
                f"{group}.architecture: {name}: expected an object with {', '.join(parts)}, as in cbir/demo/clip_demo.json"
            )
        return config
    config = open_clip.get_model_config(name)
    if config is None:
        raise ConfigError(f"{group}.architecture: open_clip has no {name!r}; {nearest(name, open_clip.list_models())}")
    return dict(config)


def _build_untrained(group: str, name: str, folder: Path) -> Any:
    """Build the model of the configuration in `folder`, ignoring weights there, which an earlier run left."""
    try:
        return open_clip.create_model(f"local-dir:{folder.resolve()}", load_weights=False, pretrained_text=False)
    except Exception as error:  # wrong numbers raise errors of any kind, as does a configuration fetched from a hub
        raise ConfigError(
            f"{group}.architecture: {name} cannot be built: {type(error).__name__}: {first_line(error)}"
        ) from error


def _kept_settings(preprocess_cfg: Mapping[str, Any]) -> dict[str, Any]:
    return {name: preprocess_cfg[name] for name in ("mean", "std", "interpolation", "resize_mode")}


def _preprocessing(preprocess_cfg: Mapping[str, Any]) -> Preprocessing:
    size = preprocess_cfg["size"]
    side_px = size if isinstance(size, int) else size[0]
    return Preprocessing(
        resize_px=side_px,
        crop_px=side_px,
        resize_mode=preprocess_cfg["resize_mode"],
        interpolation=preprocess_cfg["interpolation"],
        mean=tuple(preprocess_cfg["mean"]),
        std=tuple(preprocess_cfg["std"]),
    )


def _fetch_tag(group: str, params: EncoderParams, implied: Mapping[str, Any]) -> Path:
    tag, source = params.weights, implied.get("hf_hub") or implied.get("url")
    try:
        path = Path(open_clip.download_pretrained(dict(implied)))
    except Exception as error:  # the hub's client raises errors of its own kinds, and plain OSError
        raise FetchError(
            f"{group}.weights: {tag!r} cannot be fetched from {source}: {first_line(error)}; check the network, then run "
            f"`dvc repro` again, or give the file: {group}.weights=/path {group}.weights_tag={tag}"
        ) from error
    if params.weights_sha256 is not None and (sha256 := file_sha256(path)) != params.weights_sha256.lower():
        raise FetchError(
            f"{group}.weights: {tag!r} from {source}: expected sha256 {params.weights_sha256}, found {sha256}; "
            f"check {group}.weights_sha256, or delete {path} and run `dvc repro` again"
        )
    return path


def _load_weights(group: str, model: Any, params: EncoderParams, path: Path) -> None:
    # by open_clip's loader, because it converts the older forms of a checkpoint
    with one_line_weights_errors(group, params):
        open_clip.load_checkpoint(model, str(path), strict=True, weights_only=True, device="cpu")


def _save_tokenizer(group: str, model_cfg: Mapping[str, Any], out: Path) -> None:
    """Save the files of a hub's tokenizer; the vocabulary of open_clip's own tokenizer is in its package."""
    name = model_cfg["text_cfg"].get("hf_tokenizer_name")
    if name is None:
        return
    try:
        open_clip.tokenizer.HFTokenizer(name).tokenizer.save_pretrained(out)
    except Exception as error:  # see _fetch_tag
        raise FetchError(
            f"{group}.tokenizer: {name!r} cannot be fetched: {first_line(error)}; check the network, then run `dvc repro` "
            f"again, or name a folder with its files: {group}.tokenizer=/path"
        ) from error


@contextlib.contextmanager
def _quiet_loggers() -> Iterator[None]:
    """Silence two loggers: open_clip warns that a model without weights is random, the hub's client logs each retry."""
    loggers = [logging.getLogger(), logging.getLogger("huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# ---- building


def build_modules(folder: Path) -> Modules:
    """Build both towers and the tokenizer (see `cbir.encoders.families.FamilyModule`)."""
    card = EncoderCard.read(folder)
    check_weights(folder / WEIGHTS, card)
    name = f"local-dir:{folder.resolve()}"
    with _quiet_loggers():
        model = open_clip.create_model(name, load_weights=False, pretrained_text=False)
    # `assign`: the file's memory pages become the parameters, where a copy would double the memory
    model.load_state_dict(load_file(folder / WEIGHTS), assign=True)
    image = UnitRows(ChannelsFirst(), Normalise(card.preprocessing), _ImageTower(model.visual))
    model.visual = None  # leaves only the text tower
    text = UnitRows(_TextTower(model))
    return Modules(image.eval(), text.eval(), OpenClipTokenizer(open_clip.get_tokenizer(name)))


class _ImageTower(torch.nn.Module):
    """What `encode_image` calls, without the text tower."""

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        output = self.visual(images)
        vectors: torch.Tensor = output[0] if isinstance(output, tuple) else output  # CoCa returns its tokens as well
        return vectors


class _TextTower(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.model.encode_text(tokens)
        return vectors


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
        tokenizer = Tokenizer.from_str(hub.backend_tokenizer.to_str())
        tokenizer.enable_truncation(source.context_length)
        tokenizer.enable_padding(
            direction=hub.padding_side, length=source.context_length, pad_id=hub.pad_token_id, pad_token=hub.pad_token
        )
        replaced = [hub.sep_token_id, 0] if source.strip_sep_token else None
        return tokenizer, {"clean": clean, "words": None, "replaced": replaced}


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
