"""torchvision's MobileNetV3: the embedding is flatten(avgpool(features(x))), 960 values (small: 576)."""

from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import load_file

from cbir.encoders.base import Embeddings, EncoderCard, Normalise, autocast, check_weights, unit_rows
from cbir.encoders.preprocessing import Pixels

WEIGHTS = "model.safetensors"


class MobileNet:
    """See `cbir.encoders.base.Encoder`."""

    def __init__(self, card: EncoderCard, model: Any, device: torch.device, precision: str) -> None:
        self.card = card
        self._normalise = Normalise(card.preprocessing).to(device)
        trunk = torch.nn.Sequential(model.features, model.avgpool, torch.nn.Flatten()).eval()
        self._trunk = trunk.to(device).to(memory_format=torch.channels_last)  # 1.5 times as fast on a CPU (measured)
        self._device, self._precision = device, precision
        self.dim = int(model.classifier[0].in_features)

    @torch.inference_mode()
    def embed_images(self, pixels: Pixels) -> Embeddings:
        """uint8 (n, 3, crop_px, crop_px) -> float32 (n, dim), unit rows."""
        inputs = self._normalise(torch.from_numpy(pixels).to(self._device))
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with autocast(self._device, self._precision):
            vectors = self._trunk(inputs)
        return unit_rows(vectors, self.card.architecture)


def load_mobilenet(folder: Path, device: torch.device, precision: str) -> MobileNet:
    """Load the encoder in `folder` (see `cbir.encoders.base`).  Raises WeightsError when the files do not agree."""
    card = EncoderCard.read(folder)
    check_weights(folder / WEIGHTS, card)
    model = torchvision.models.get_model(card.architecture, weights=None)
    model.load_state_dict(load_file(folder / WEIGHTS))
    return MobileNet(card, model, device, precision)
