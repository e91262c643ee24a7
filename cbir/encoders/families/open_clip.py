"""open_clip's models: an image tower and a text tower that embed into one space.

The folder has open_clip's "local-dir" layout, so open_clip reads the architecture, the weights and the tokenizer from it as
it reads a model of the Hugging Face hub.
"""

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from safetensors.torch import load_file
from transformers import AutoConfig

from cbir.core.errors import ConfigError, FetchError, WeightsError
from cbir.core.files import file_sha256, write_json
from cbir.core.params import first_line
from cbir.core.parsing import parse_json
from cbir.core.text import nearest
from cbir.encoders import pretrained_tokenizers
from cbir.encoders.base import EncoderCard, check_weights, hash_settings
from cbir.encoders.checkpoints import State
from cbir.encoders.hub import PRETRAINED, model_folder
from cbir.encoders.layers import ChannelsFirst, Modules, Normalise, UnitRows
from cbir.encoders.open_clip_tokenizers import CONFIG, OpenClipTokenizer, open_tokenizer
from cbir.encoders.options import is_random, refuse_options
from cbir.encoders.own_code import NO_CODE, no_questions, own_code_error
from cbir.encoders.params import EncoderParams
from cbir.encoders.preprocessing import Preprocessing
from cbir.encoders.weight_files import (
    fetch_from_hub,
    fetched_file,
    load_file_weights,
    one_line_weights_errors,
    save_state,
    seeded,
    tag_of_file,
)

WEIGHTS = "open_clip_model.safetensors"
_TEXT_CONFIG = "config.json"  # of a text tower that transformers builds
_HUB = "hf-hub:"  # open_clip's word for a name on the hub
_FOLDER_WEIGHTS = (WEIGHTS, "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")


# ---- fetching


class _Architecture(NamedTuple):
    """model_cfg, preprocess_cfg : open_clip's.  folder : the model's own, with its weights; null for a name or a JSON file.

    pinned : `name@commit` on the hub, or null.
    """

    model_cfg: dict[str, Any]
    preprocess_cfg: Mapping[str, Any]
    folder: Path | None = None
    pinned: str | None = None


def fetch_weights(group: str, params: EncoderParams, out: Path) -> EncoderCard:
    """Write open_clip's configuration, weights and tokenizer (see `cbir.encoders.families.FamilyModule`)."""
    with quiet_loggers():
        return _fetch_weights(group, params, out)


def _fetch_weights(group: str, params: EncoderParams, out: Path) -> EncoderCard:
    refuse_options(group, params, "pooling")
    if params.image_px is not None:
        raise ConfigError(
            f"{group}.image_px: the input of {params.architecture} is part of its architecture; leave it null"
        )
    architecture = _read_architecture(group, params)
    model_cfg = architecture.model_cfg
    if params.tokenizer is not None:
        model_cfg["text_cfg"] = {**model_cfg["text_cfg"], "hf_tokenizer_name": params.tokenizer}
    is_pretrained = architecture.folder is not None and params.weights == PRETRAINED
    tags = {tag: tag for tag in open_clip.list_pretrained_tags_by_model(params.architecture)}
    if params.weights in tags:
        tag: str | None = params.weights
    else:
        tag = None if is_pretrained else tag_of_file(group, params, tags)
    implied = open_clip.get_pretrained_cfg(params.architecture, tag) if tag is not None else architecture.preprocess_cfg
    quick_gelu = bool(model_cfg.get("quick_gelu", False) or implied.get("quick_gelu", False))
    preprocess_cfg = open_clip.transform.merge_preprocess_dict(asdict(open_clip.transform.PreprocessCfg()), implied)
    write_json(
        out / CONFIG,
        {"model_cfg": {**model_cfg, "quick_gelu": quick_gelu}, "preprocess_cfg": _kept_settings(preprocess_cfg)},
        sealed=False,  # open_clip reads it as well
    )
    _save_text_config(group, params, model_cfg, out)
    with seeded(group, params):
        model = _build_untrained(group, params.architecture, out)
    if params.weights in tags:
        source = str(implied.get("hf_hub") or implied.get("url"))
        fetched = fetch_from_hub(group, params, params.weights, source, partial(open_clip.download_pretrained, implied))
        _load_published(group, model, params, fetched)
    elif is_pretrained:
        _load_published(group, model, params, _folder_weights(group, params, architecture))
    elif not is_random(params):
        with fetched_file(group, params, params.weights) as path:
            load_file_weights(group, params, model, path, convert=lambda state: _converted(state, model))
    _save_tokenizer(group, model_cfg, architecture.folder, out)
    return EncoderCard(
        family=params.family.value,
        architecture=params.architecture,
        origin=architecture.pinned if architecture.pinned and is_pretrained else params.weights,
        tag=tag,
        weights_sha256=save_state(model, out / WEIGHTS),
        settings_sha256=hash_settings(out, WEIGHTS),
        preprocessing=_preprocessing(model.visual.preprocess_cfg),
        settings={"quick_gelu": quick_gelu},
    )


def _read_architecture(group: str, params: EncoderParams) -> _Architecture:
    """Read open_clip's configuration: built in, of a folder or a name on the hub, or a JSON file with the model's part."""
    key, name = f"{group}.architecture", params.architecture
    if name.startswith(_HUB) or Path(name).is_dir():
        files = [CONFIG, *pretrained_tokenizers.FILES, *(_FOLDER_WEIGHTS if params.weights == PRETRAINED else ())]
        source = model_folder(key, name.removeprefix(_HUB), files)
        config = _read_json(key, source.path / CONFIG)
        model_cfg = _checked(key, source.path / CONFIG, config.get("model_cfg"))
        return _Architecture(model_cfg, config.get("preprocess_cfg", {}), source.path, source.pinned)
    if name.endswith(".json"):
        return _Architecture(_checked(key, Path(name), _read_json(key, Path(name))), {})
    model_cfg = open_clip.get_model_config(name)
    if model_cfg is None:
        raise ConfigError(f"{key}: open_clip has no {name!r}; {nearest(name, open_clip.list_models())}")
    return _Architecture(dict(model_cfg), {})


def _read_json(key: str, path: Path) -> Any:
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: {path} is not readable as JSON: {error}") from error


def _checked(key: str, path: Path, model_cfg: Any) -> dict[str, Any]:
    parts = {"embed_dim": int, "vision_cfg": dict, "text_cfg": dict}
    if not isinstance(model_cfg, dict) or not all(
        isinstance(model_cfg.get(part), kind) for part, kind in parts.items()
    ):
        raise ConfigError(f"{key}: {path}: expected an object with {', '.join(parts)}, as in cbir/demo/clip_demo.json")
    return model_cfg


def _save_text_config(group: str, params: EncoderParams, model_cfg: Mapping[str, Any], out: Path) -> None:
    """Save the configuration of a text tower that transformers builds, so that no later stage asks the hub for it."""
    name = model_cfg["text_cfg"].get("hf_model_name")
    if name is None:
        return
    given = Path(params.tokenizer or "") / _TEXT_CONFIG
    source = given.parent if params.tokenizer and given.is_file() else name
    try:
        AutoConfig.from_pretrained(source, **NO_CODE).save_pretrained(out)
    except Exception as error:  # see fetch_from_hub
        raise own_code_error(f"{group}.architecture", str(source), error) or FetchError(
            f"{group}.architecture: the configuration of the text tower {name!r} cannot be fetched: {first_line(error)}; "
            f"check the network, then run `dvc repro` again, or name a folder with its {_TEXT_CONFIG} and its tokenizer: "
            f"{group}.tokenizer=/path"
        ) from error


def _build(folder: Path) -> Any:
    """Build the model of the configuration in `folder`, without weights."""
    text_cfg = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]
    if "hf_model_name" in text_cfg:  # of which open_clip reads the configuration
        text_cfg |= {"hf_model_name": str(folder.resolve()), "hf_model_pretrained": False}
    name = f"local-dir:{folder.resolve()}"
    return open_clip.create_model(name, load_weights=False, pretrained_text=False, text_cfg=text_cfg)


def _build_untrained(group: str, name: str, folder: Path) -> Any:
    try:
        return _build(folder)
    except Exception as error:  # wrong numbers raise errors of any kind
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


def _folder_weights(group: str, params: EncoderParams, architecture: _Architecture) -> Path:
    """The file of weights in the architecture's own folder.  Raises WeightsError, or FetchError when it has another hash."""
    folder = architecture.folder or Path()
    path = next((folder / name for name in _FOLDER_WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise WeightsError(
            f"{group}.weights: {params.architecture}: expected {WEIGHTS}, found none; name a file: {group}.weights=/path"
        )
    if params.weights_sha256 is not None and (sha256 := file_sha256(path)) != params.weights_sha256.lower():
        raise FetchError(
            f"{group}.weights: {params.architecture}: expected sha256 {params.weights_sha256}, found {sha256}"
        )
    return path


def _load_published(group: str, model: Any, params: EncoderParams, path: Path) -> None:
    # by open_clip's loader, because it converts the older forms of a checkpoint
    with one_line_weights_errors(group, params):
        open_clip.load_checkpoint(model, str(path), strict=True, weights_only=True, device="cpu")


def _converted(source: State, model: Any) -> State:
    """What `open_clip.load_checkpoint` does to older forms of a checkpoint and to other numbers of positions."""
    state: dict[str, torch.Tensor] = dict(open_clip.factory.convert_state_dict(model, dict(source)))
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = open_clip.model.convert_to_custom_text_state_dict(state)
    expected = model.state_dict()
    scalars = {name: state.get(name, expected[name]) for name in ("logit_scale", "logit_bias") if name in expected}
    state |= {name: value.reshape(expected[name].shape) for name, value in scalars.items()}
    state.pop("text.transformer.embeddings.position_ids", None)  # of older versions of transformers
    open_clip.model.resize_pos_embed(state, model)
    open_clip.model.resize_text_pos_embed(state, model)
    return state


def _save_tokenizer(group: str, model_cfg: Mapping[str, Any], folder: Path | None, out: Path) -> None:
    """Save the files of a hub's tokenizer; the vocabulary of open_clip's own tokenizer is in its package."""
    name = model_cfg["text_cfg"].get("hf_tokenizer_name")
    if name is None:
        return
    if folder is not None and not Path(name).is_dir() and (folder / "tokenizer_config.json").is_file():
        name = str(folder)
    try:
        open_clip.tokenizer.HFTokenizer(name, **NO_CODE).tokenizer.save_pretrained(out)
    except Exception as error:  # see fetch_from_hub
        raise own_code_error(f"{group}.tokenizer", name, error) or FetchError(
            f"{group}.tokenizer: {name!r} cannot be fetched: {first_line(error)}; check the network, then run `dvc repro` "
            f"again, or name a folder with its files: {group}.tokenizer=/path"
        ) from error


@contextlib.contextmanager
def quiet_loggers() -> Iterator[None]:
    """Silence two loggers, and close stdin.

    open_clip warns that a model without weights is random, the hub's client logs each retry.
    """
    loggers = [logging.getLogger(), logging.getLogger("huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with no_questions():
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# ---- building


def build_modules(folder: Path) -> Modules:
    """Build both towers and the tokenizer (see `cbir.encoders.families.FamilyModule`)."""
    card = EncoderCard.read(folder)
    check_weights(folder / WEIGHTS, card)
    with quiet_loggers():
        model, tokenizer = _build(folder), OpenClipTokenizer(open_tokenizer(f"local-dir:{folder.resolve()}"))
    # `assign`: the file's memory pages become the parameters, where a copy would double the memory
    model.load_state_dict(load_file(folder / WEIGHTS), assign=True)
    image = UnitRows(ChannelsFirst(), Normalise(card.preprocessing), _ImageTower(model.visual))
    model.visual = None  # leaves only the text tower
    text = UnitRows(_TextTower(model))
    return Modules(image.eval(), text.eval(), tokenizer)


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
