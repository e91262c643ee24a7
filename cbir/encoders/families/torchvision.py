"""torchvision's classification models, without their heads.

The embedding is what the first linear layer of the head reads.  The head is the model's last child (`fc`, `classifier`, `head`
or `heads`), so this is the pooled, and where the model has a norm there, normalised output of the trunk: 2048 values of a
ResNet50, 960 of a MobileNetV3-Large (whose head has a second linear layer), 768 of a ViT-B/16 (its class token).
AlexNet and VGG have three linear layers and flatten the whole map of features before them: 9216 and 25088 values.
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import load_file
from torchvision.models.vision_transformer import interpolate_embeddings

from cbir.core.errors import ConfigError
from cbir.core.text import nearest
from cbir.encoders.base import EncoderCard, check_weights
from cbir.encoders.checkpoints import State
from cbir.encoders.demo import DEMO_MOBILENET_PX, is_demo
from cbir.encoders.layers import ChannelsFirst, Modules, Normalise, UnitRows, check_image_tower
from cbir.encoders.options import is_random, refuse_options
from cbir.encoders.params import EncoderParams
from cbir.encoders.preprocessing import Preprocessing
from cbir.encoders.weight_files import (
    fetched_file,
    known_tag,
    load_file_weights,
    save_state,
    seeded,
    tag_of_file,
)

WEIGHTS = "model.safetensors"
_TAG_PREFIX = "torchvision:"  # of a tag in `<encoder>.weights`
_DENSENET_OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")  # of its published weights


def fetch_weights(group: str, params: EncoderParams, out: Path) -> EncoderCard:
    """Write `model.safetensors` (see `cbir.encoders.families.FamilyModule`)."""
    refuse_options(group, params, "pooling", "tokenizer")
    names = torchvision.models.list_models(module=torchvision.models)
    if params.architecture not in names:
        raise ConfigError(
            f"{group}.architecture: torchvision has no classification model {params.architecture!r}; "
            f"{nearest(params.architecture, names)}"
        )
    tags = {tag.name: tag for tag in torchvision.models.get_model_weights(params.architecture)}
    tag = _tag(group, params, tags)
    settings = tags[tag] if tag is not None else torchvision.models.get_model_weights(params.architecture).DEFAULT
    preprocessing = _preprocessing(settings.transforms(), params.image_px)
    with seeded(group, params):
        model = _build(params.architecture, preprocessing.crop_px)
    removed = remove_heads(model)
    if params.weights.startswith(_TAG_PREFIX):
        # the file's name ends in the first digits of its sha256, which torch.hub checks too
        url, digits = settings.url, Path(settings.url).stem.rpartition("-")[2]
    else:
        url, digits = params.weights, None
    if not is_random(params):
        with fetched_file(group, params, url, digits) as path:
            load_file_weights(group, params, model, path, removed, lambda state: _convert(state, model))
    if is_demo(params.weights) and params.image_px != DEMO_MOBILENET_PX:
        raise ConfigError(
            f"{group}.image_px: demo weights take {DEMO_MOBILENET_PX} px, found {params.image_px or 'null'}; "
            f"set {group}.image_px={DEMO_MOBILENET_PX}"
        )
    card = EncoderCard(
        family=params.family.value,
        architecture=params.architecture,
        origin=params.weights,
        tag=tag,
        weights_sha256=save_state(model, out / WEIGHTS),
        settings_sha256=None,
        preprocessing=preprocessing,
        # GoogLeNet and Inception: their published weights take other means and deviations, and the model converts them
        settings={"transform_input": tag is not None} if hasattr(model, "transform_input") else {},
    )
    check_image_tower(group, params, _image_tower(model, card), preprocessing.crop_px)
    return card


def build_modules(folder: Path) -> Modules:
    """Build the image tower (see `cbir.encoders.families.FamilyModule`)."""
    card = EncoderCard.read(folder)
    check_weights(folder / WEIGHTS, card)
    model = _build(card.architecture, card.preprocessing.crop_px)
    remove_heads(model)
    state = model.state_dict()
    state.update(load_file(folder / WEIGHTS))
    model.load_state_dict(
        state
    )  # with the versions of its modules, which MNASNet demands and safetensors does not keep
    return Modules(_image_tower(model, card), None, None)


def remove_heads(model: Any) -> list[str]:
    """Make the model return what its head's first linear layer reads: (n, dim).  Return the names of the removed modules.

    SqueezeNet's head has a convolution of 1x1 instead: the model returns the mean of what that reads.
    """
    auxiliary = [name for name, _ in model.named_children() if name.lower().startswith("aux")]  # for training only
    for name in auxiliary:
        setattr(model, name, None)
    name, head = list(model.named_children())[-1]
    if isinstance(head, torch.nn.Linear):
        setattr(model, name, torch.nn.Identity())
        return [*auxiliary, name]
    layers = dict(head.named_children())
    kinds = [isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) for layer in layers.values()]
    removed = list(layers)[kinds.index(True) :]
    pool = [torch.nn.AdaptiveAvgPool2d(1)] if isinstance(layers[removed[0]], torch.nn.Conv2d) else []
    setattr(model, name, torch.nn.Sequential(*list(layers.values())[: kinds.index(True)], *pool))
    return [*auxiliary, *(f"{name}.{layer}" for layer in removed)]


def _build(architecture: str, image_px: int) -> Any:
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of how two models will be initialised
        model = torchvision.models.get_model(architecture, weights=None)
        if getattr(model, "image_size", image_px) != image_px:  # a ViT: it has an embedding for each position
            model = torchvision.models.get_model(architecture, weights=None, image_size=image_px)
    return model


def _image_tower(model: Any, card: EncoderCard) -> torch.nn.Module:
    if "transform_input" in card.settings:
        model.transform_input = card.settings["transform_input"]
    return UnitRows(ChannelsFirst(), Normalise(card.preprocessing), model).eval()


def _convert(state: State, model: Any) -> State:
    """Rename the tensors of an old DenseNet; resize the position embeddings of a ViT."""
    state = {_DENSENET_OLD_NAME.sub(r"\1\2", name): tensor for name, tensor in state.items()}
    if hasattr(model, "image_size") and "encoder.pos_embedding" in state:
        return dict(interpolate_embeddings(model.image_size, model.patch_size, state))
    return state


def _tag(group: str, params: EncoderParams, tags: Mapping[str, Any]) -> str | None:
    if params.weights.startswith(_TAG_PREFIX):
        return known_tag(group, "weights", params.weights.removeprefix(_TAG_PREFIX), tags)
    return tag_of_file(group, params, tags, prefix=_TAG_PREFIX)


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
