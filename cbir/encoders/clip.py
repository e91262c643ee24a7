"""open_clip's models: an image tower and a text tower into one space.

The folder is open_clip's own "local-dir" layout, so open_clip reads architecture, weights and tokenizer from it by the
calls that read a hub's models.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch

from cbir.encoders.base import Embeddings, EncoderCard, Normalise, autocast, check_weights, unit_rows
from cbir.encoders.preprocessing import Pixels

WEIGHTS = "open_clip_model.safetensors"
CONFIG = "open_clip_config.json"


class Clip:
    """See `cbir.encoders.base.TextEncoder`."""

    def __init__(self, card: EncoderCard, model: Any, tokenizer: Any, device: torch.device, precision: str) -> None:
        self.card = card
        self._normalise = Normalise(card.preprocessing).to(device)
        self._model, self._tokenizer = model.eval().to(device), tokenizer
        self._device, self._precision = device, precision
        self.dim = int(self.embed_texts(["a"]).shape[1])

    @torch.inference_mode()
    def embed_images(self, pixels: Pixels) -> Embeddings:
        """uint8 (n, 3, crop_px, crop_px) -> float32 (n, dim), unit rows."""
        inputs = self._normalise(torch.from_numpy(pixels).to(self._device))
        with autocast(self._device, self._precision):
            vectors = self._model.encode_image(inputs)
        return unit_rows(vectors, self.card.architecture)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """n texts, cut at the model's context length -> float32 (n, dim), unit rows."""
        tokens = self._tokenizer(list(texts)).to(self._device)
        with autocast(self._device, self._precision):
            vectors = self._model.encode_text(tokens)
        return unit_rows(vectors, self.card.architecture)


def load_clip(folder: Path, device: torch.device, precision: str) -> Clip:
    """Load the encoder in `folder` (see `cbir.encoders.base`).  Raises WeightsError when the files do not agree."""
    card = EncoderCard.read(folder)
    check_weights(folder / WEIGHTS, card)
    name = f"local-dir:{folder.resolve()}"
    model = open_clip.create_model(name, require_pretrained=True, pretrained_image=False)
    return Clip(card, model, open_clip.get_tokenizer(name), device, precision)
