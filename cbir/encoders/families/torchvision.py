"""torchvision's MobileNetV3: the embedding is flatten(avgpool(features(x))), 960 values (small: 576)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import load_file

from cbir.core.errors import ConfigError
from cbir.core.params import nearest
from cbir.encoders.base import EncoderCard, check_weights
from cbir.encoders.demo import DEMO_MOBILENET_PX
from cbir.encoders.layers import ChannelsFirst, Modules, Normalise, UnitRows
from cbir.encoders.params import EncoderParams
from cbir.encoders.preprocessing import Preprocessing
from cbir.encoders.weight_files import (
    fetched_file,
    is_random,
    known_tag,
    one_line_weights_errors,
    read_state,
    refuse_options,
    save_state,
    seeded,
    tag_of_file,
)

WEIGHTS = "model.safetensors"
_TAG_PREFIX = "torchvision:"  # of a tag in `<encoder>.weights`


def fetch_weights(group: str, params: EncoderParams, out: Path) -> EncoderCard:
    """Write `model.safetensors` (see `cbir.encoders.families.FamilyModule`)."""
    refuse_options(group, params, "pooling", "tokenizer")
    names = [name for name in torchvision.models.list_models() if name.startswith("mobilenet_v3_")]
    if params.architecture not in names:
        raise ConfigError(f"{group}.architecture: no {params.architecture!r}; {nearest(params.architecture, names)}")
    tags = {tag.name: tag for tag in torchvision.models.get_model_weights(params.architecture)}
    tag = _tag(group, params, tags)
    settings = tags[tag] if tag is not None else torchvision.models.get_model_weights(params.architecture).DEFAULT
    with seeded(group, params):
        model = torchvision.models.get_model(params.architecture, weights=None)
    if params.weights.startswith(_TAG_PREFIX):
        # the file's name ends in the first digits of its sha256, which torch.hub checks too
        digits = Path(settings.url).stem.rpartition("-")[2]
        _load_weights(group, model, params, settings.url, sha256_prefix=digits)
    elif not is_random(params):
        _load_weights(group, model, params, params.weights)
    if params.weights == "demo" and params.image_px != DEMO_MOBILENET_PX:
        raise ConfigError(
            f"{group}.image_px: demo weights take {DEMO_MOBILENET_PX} px, found {params.image_px or 'null'}; "
            f"use {group}=demo, or set {group}.image_px={DEMO_MOBILENET_PX}"
        )
    return EncoderCard(
        family=params.family.value,
        architecture=params.architecture,
        origin=params.weights,
        tag=tag,
        weights_sha256=save_state(model, out / WEIGHTS),
        settings_sha256=None,
        preprocessing=_preprocessing(settings.transforms(), params.image_px),
        settings={},
    )


def build_modules(folder: Path) -> Modules:
    """Build the image tower (see `cbir.encoders.families.FamilyModule`)."""
    card = EncoderCard.read(folder)
    check_weights(folder / WEIGHTS, card)
    model = torchvision.models.get_model(card.architecture, weights=None)
    model.load_state_dict(load_file(folder / WEIGHTS))
    image = UnitRows(ChannelsFirst(), Normalise(card.preprocessing), model.features, model.avgpool, torch.nn.Flatten())
    return Modules(image.eval(), None, None)


def _tag(group: str, params: EncoderParams, tags: Mapping[str, Any]) -> str | None:
    if params.weights.startswith(_TAG_PREFIX):
        return known_tag(group, "weights", params.weights.removeprefix(_TAG_PREFIX), tags)
    return tag_of_file(group, params, tags, prefix=_TAG_PREFIX)


def _load_weights(
    group: str, model: torch.nn.Module, params: EncoderParams, url: str, sha256_prefix: str | None = None
) -> None:
    with fetched_file(group, params, url, sha256_prefix) as path, one_line_weights_errors(group, params):
        model.load_state_dict(read_state(path))


def _preprocessing(transforms: Any, image_px: int | None) -> Preprocessing:
    preprocessing = Preprocessing(
        resize_px=transforms.resize_size[0],
        crop_px=transforms.crop_size[0],
        resize_mode="shortest",
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )
    return preprocessing if image_px is None else replace(preprocessing, resize_px=image_px, crop_px=image_px)
