"""torchvision's MobileNetV3: the embedding is flatten(avgpool(features(x))), 960 values (small: 576)."""

from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file

from cbir.encoders.base import EncoderCard, check_weights
from cbir.encoders.layers import ChannelsFirst, Modules, Normalise, UnitRows

WEIGHTS = "model.safetensors"


def build_mobilenet(folder: Path) -> Modules:
    """The encoder in `folder` (see `cbir.encoders.base`).  Raises WeightsError when the files do not agree."""
    card = EncoderCard.read(folder)
    check_weights(folder / WEIGHTS, card)
    model = torchvision.models.get_model(card.architecture, weights=None)
    model.load_state_dict(load_file(folder / WEIGHTS))
    image = UnitRows(ChannelsFirst(), Normalise(card.preprocessing), model.features, model.avgpool, torch.nn.Flatten())
    return Modules(image.eval(), None, None)
