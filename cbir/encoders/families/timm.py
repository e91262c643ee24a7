"""timm's models: the embedding is what a model returns with `num_classes=0`, which timm calls its pre-logits.

A transformer pools its tokens as its own card says, or as `<encoder>.pooling` does.  The preprocessing is timm's data config of
the tag: with `image_px`, its `crop_pct` stays.
"""

import sys
from collections.abc import Mapping
from math import floor
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file
from timm.data.config import resolve_model_data_config
from timm.models import get_arch_pretrained_cfgs

from cbir.core.errors import ConfigError
from cbir.core.params import first_line
from cbir.core.text import nearest
from cbir.encoders.base import EncoderCard, check_weights
from cbir.encoders.checkpoints import State
from cbir.encoders.layers import ChannelsFirst, Modules, Normalise, UnitRows, check_image_tower
from cbir.encoders.options import is_random, refuse_options
from cbir.encoders.params import EncoderParams, Pooling
from cbir.encoders.preprocessing import Preprocessing
from cbir.encoders.weight_files import (
    fetch_from_hub,
    fetched_file,
    known_tag,
    load_file_weights,
    save_state,
    seeded,
    tag_of_file,
)

WEIGHTS = "model.safetensors"
_TAG_PREFIX = "timm:"  # of a tag in `<encoder>.weights`
_RESIZE_MODES = {"center": "shortest", "squash": "squash"}  # by timm's crop mode; its third pads the image


def fetch_weights(group: str, params: EncoderParams, out: Path) -> EncoderCard:
    """Write `model.safetensors` (see `cbir.encoders.families.FamilyModule`)."""
    refuse_options(group, params, "tokenizer")
    _check_architecture(group, params)
    tags = {str(cfg.tag): cfg for cfg in get_arch_pretrained_cfgs(params.architecture).values() if cfg.has_weights}
    if params.weights.startswith(_TAG_PREFIX):
        tag: str | None = known_tag(group, "weights", params.weights.removeprefix(_TAG_PREFIX), tags)
    else:
        tag = tag_of_file(group, params, tags, prefix=_TAG_PREFIX)
    with seeded(group, params):
        model = _build_at(group, params, tag)
    preprocessing = preprocessing_of(group, params, model)
    if params.weights.startswith(_TAG_PREFIX):
        _load_tag(group, params, model, tags[str(tag)])
    elif not is_random(params):
        with fetched_file(group, params, params.weights) as path:
            _load_weights(group, params, model, path)
    _set_pooling(group, params, model)
    card = EncoderCard(
        family=params.family.value,
        architecture=params.architecture,
        origin=params.weights,
        tag=tag,
        weights_sha256=save_state(model, out / WEIGHTS),
        settings_sha256=None,
        preprocessing=preprocessing,
        settings={"pooling": params.pooling.value},
    )
    check_image_tower(group, params, _image_tower(model, preprocessing), preprocessing.crop_px)
    return card


def build_modules(folder: Path) -> Modules:
    """Build the image tower (see `cbir.encoders.families.FamilyModule`)."""
    card = EncoderCard.read(folder)
    check_weights(folder / WEIGHTS, card)
    model = _build(card.architecture, card.tag, card.preprocessing.crop_px)
    if card.settings["pooling"] != Pooling.default.value:
        model.reset_classifier(0, card.settings["pooling"])
    model.load_state_dict(load_file(folder / WEIGHTS))
    return Modules(_image_tower(model, card.preprocessing), None, None)


# ---- the model


def _check_architecture(group: str, params: EncoderParams) -> None:
    names, (name, dot, tag) = timm.list_models(), params.architecture.partition(".")
    if name not in names:
        raise ConfigError(f"{group}.architecture: timm has no {params.architecture!r}; {nearest(name, names)}")
    if dot:
        raise ConfigError(
            f"{group}.architecture: expected a name without a tag, found {params.architecture!r}; the tag is that of the "
            f"weights: {group}.architecture={name} {group}.weights={_TAG_PREFIX}{tag}"
        )


def _build_at(group: str, params: EncoderParams, tag: str | None) -> Any:
    """Build the model for `image_px`.  Raises ConfigError when it cannot be built."""
    key, remedy = ("architecture", "") if params.image_px is None else ("image_px", f"; try {group}.image_px=null")
    try:
        model = _build(params.architecture, tag, params.image_px)
    except Exception as error:  # errors of any kind, deep in a model
        raise ConfigError(
            f"{group}.{key}: {params.architecture} cannot be built for {params.image_px} px: {first_line(error)}{remedy}"
        ) from error
    patch_px = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if params.image_px and isinstance(patch_px, tuple) and params.image_px % patch_px[0]:
        smaller = params.image_px // patch_px[0] * patch_px[0]
        raise ConfigError(
            f"{group}.image_px: {params.architecture} has patches of {patch_px[0]} px; expected a multiple, such as "
            f"{smaller} or {smaller + patch_px[0]}, found {params.image_px}"
        )
    return model


def _build(architecture: str, tag: str | None, image_px: int | None) -> Any:
    """The model without a classifier.  image_px : side of its input; None for the tag's."""
    name = architecture if tag is None else f"{architecture}.{tag}"
    # for timm's mark of models whose layers depend on the size, of which position embeddings are an example
    fixed = timm.get_pretrained_cfg_value(name, "fixed_input_size")
    size: dict[str, Any] = {"img_size": image_px} if fixed and image_px else {}
    return timm.create_model(name, num_classes=0, **size)


def _set_pooling(group: str, params: EncoderParams, model: Any) -> None:
    """Pool the tokens as `pooling` says.  Raises ConfigError when the model has no such tokens."""
    if params.pooling is Pooling.default:
        return
    # convolutional networks pool in a layer of that name
    tokens = isinstance(getattr(model, "global_pool", None), str)
    if not tokens or (params.pooling is Pooling.token and getattr(model, "cls_token", None) is None):
        missing = "class token" if params.pooling is Pooling.token else "tokens"
        raise ConfigError(f"{group}.pooling: {params.architecture} has no {missing}; set {group}.pooling=default")
    model.reset_classifier(0, params.pooling.value)


def _image_tower(model: torch.nn.Module, preprocessing: Preprocessing) -> torch.nn.Module:
    return UnitRows(ChannelsFirst(), Normalise(preprocessing), model).eval()


def preprocessing_of(group: str, params: EncoderParams, model: Any) -> Preprocessing:
    """timm's data config (`timm.data.create_transform`).  Raises ConfigError when it pads images, or makes them oblong.

    model : a model of timm, of which only the `pretrained_cfg` is read.
    """
    resolve: Any = resolve_model_data_config
    config = resolve(model, args={"img_size": params.image_px})
    _, height, width = config["input_size"]
    if height != width or config["crop_mode"] not in _RESIZE_MODES or config["crop_pct"] > 1:
        raise ConfigError(
            f"{group}.architecture: expected a square input without padding, found {width} x {height} px of "
            f"{params.architecture}, crop mode {config['crop_mode']}, crop_pct {config['crop_pct']}; use another"
        )
    return Preprocessing(
        resize_px=floor(height / config["crop_pct"]),
        crop_px=height,
        resize_mode=_RESIZE_MODES[config["crop_mode"]],
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


# ---- weights


def _load_tag(group: str, params: EncoderParams, model: Any, cfg: Any) -> None:
    if cfg.hf_hub_id:
        path = fetch_from_hub(group, params, cfg.tag, cfg.hf_hub_id, lambda: _download(cfg))
        _load_weights(group, params, model, path)
        return
    digits = Path(cfg.url).stem.rpartition("-")[2]  # by convention the first ones of the file's sha256
    with fetched_file(group, params, cfg.url, digits if len(digits) == 8 else None) as path:
        _load_weights(group, params, model, path)


def _download(cfg: Any) -> str:
    if cfg.hf_hub_filename:
        return str(hf_hub_download(cfg.hf_hub_id, cfg.hf_hub_filename))
    try:
        return str(hf_hub_download(cfg.hf_hub_id, "model.safetensors"))
    except EntryNotFoundError:
        return str(hf_hub_download(cfg.hf_hub_id, "pytorch_model.bin"))


def _load_weights(group: str, params: EncoderParams, model: Any, path: Path) -> None:
    classifiers = model.pretrained_cfg.get("classifier") or ()
    unread = [classifiers] if isinstance(classifiers, str) else classifiers
    load_file_weights(group, params, model, path, unread, lambda state: _convert(state, model))


def _convert(state: Mapping[str, torch.Tensor], model: Any) -> State:
    """Convert the names of the original publication and resize position embeddings, as timm does where it loads a tag.

    Each of timm's modules of models that needs it has a function of this name.
    """
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    return dict(convert(dict(state), model)) if convert else state
