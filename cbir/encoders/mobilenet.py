"""torchvision's MobileNetV3: the embedding is flatten(avgpool(features(x))), 960 values (small: 576)."""

from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import load_file

from cbir.encoders.base import ChannelsFirst, Embeddings, EncoderCard, Normalise, UnitRows, check_weights, checked_rows
from cbir.encoders.preprocessing import Pixels
from cbir.encoders.runtime import Runtime

WEIGHTS = "model.safetensors"


class MobileNet:
    """See `cbir.encoders.base.Encoder`."""

    def __init__(self, card: EncoderCard, model: Any, runtime: Runtime) -> None:
        self.card, self.runtime = card, runtime
        self.dim = int(model.classifier[0].in_features)
        module = UnitRows(
            ChannelsFirst(), Normalise(card.preprocessing), model.features, model.avgpool, torch.nn.Flatten()
        )
        self._tower = runtime.tower(module, card.preprocessing.blank(2))

    def embed_images(self, pixels: Pixels) -> Embeddings:
        """uint8 (n, crop_px, crop_px, 3) -> float32 (n, dim), unit rows."""
        return checked_rows(self._tower(pixels), self.runtime.precision)


def load_mobilenet(folder: Path, runtime: Runtime) -> MobileNet:
    """Load the encoder in `folder` (see `cbir.encoders.base`).  Raises WeightsError when the files do not agree."""
    card = EncoderCard.read(folder)
    check_weights(folder / WEIGHTS, card)
    model = torchvision.models.get_model(card.architecture, weights=None)
    model.load_state_dict(load_file(folder / WEIGHTS))
    return MobileNet(card, model, runtime)
