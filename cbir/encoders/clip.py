"""open_clip's models: an image tower and a text tower into one space.

The folder is open_clip's own "local-dir" layout, so open_clip reads architecture, weights and tokenizer from it by the
calls that read a hub's models.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch

from cbir.encoders.base import Embeddings, EncoderCard, Normalise, UnitRows, check_weights, checked_rows
from cbir.encoders.preprocessing import Pixels
from cbir.encoders.runtime import Runtime, autocast

WEIGHTS = "open_clip_model.safetensors"
CONFIG = "open_clip_config.json"


class Clip:
    """See `cbir.encoders.base.TextEncoder`."""

    def __init__(self, card: EncoderCard, model: Any, tokenizer: Any, runtime: Runtime) -> None:
        self.card, self.runtime = card, runtime
        self._tokenizer = tokenizer
        visual = UnitRows(Normalise(card.preprocessing), _ImageTower(model.visual))
        self._tower = runtime.tower(visual, card.preprocessing.blank(2))
        model.visual = None  # only the text tower is left here; the compiled image tower has weights of its own
        self._texts = UnitRows(_TextTower(model)).eval().to(runtime.device)
        self.dim = int(self.embed_texts(["a"]).shape[1])

    def embed_images(self, pixels: Pixels) -> Embeddings:
        """uint8 (n, 3, crop_px, crop_px) -> float32 (n, dim), unit rows."""
        return checked_rows(self._tower(pixels), self.card.architecture)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """n texts, cut at the model's context length -> float32 (n, dim), unit rows; by torch, whatever the backend."""
        tokens = self._tokenizer(list(texts)).to(self.runtime.device)
        with autocast(self.runtime.device, self.runtime.precision):
            rows = self._texts(tokens)
        return checked_rows(rows.cpu().numpy(), self.card.architecture)


class _ImageTower(torch.nn.Module):
    """What `encode_image` calls, without the text tower beside it."""

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.visual(images)
        vectors: torch.Tensor = found[0] if isinstance(found, tuple) else found  # CoCa's gives its tokens too
        return vectors


class _TextTower(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.model.encode_text(tokens)
        return vectors


def load_clip(folder: Path, runtime: Runtime) -> Clip:
    """Load the encoder in `folder` (see `cbir.encoders.base`).  Raises WeightsError when the files do not agree."""
    card = EncoderCard.read(folder)
    check_weights(folder / WEIGHTS, card)
    name = f"local-dir:{folder.resolve()}"
    model = open_clip.create_model(name, require_pretrained=True, pretrained_image=False)
    return Clip(card, model.eval(), open_clip.get_tokenizer(name), runtime)
