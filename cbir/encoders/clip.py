"""open_clip's models: an image tower and a text tower into one space.

The folder is open_clip's own "local-dir" layout, so open_clip reads architecture, weights and tokenizer from it by the
calls that read a hub's models.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file

from cbir.encoders.base import ChannelsFirst, Embeddings, EncoderCard, Normalise, UnitRows, check_weights, checked_rows
from cbir.encoders.preprocessing import Pixels
from cbir.encoders.runtime import Runtime, autocast, return_freed_memory

WEIGHTS = "open_clip_model.safetensors"
CONFIG = "open_clip_config.json"


class Clip:
    """See `cbir.encoders.base.TextEncoder`."""

    def __init__(self, card: EncoderCard, model: Any, tokenizer: Any, runtime: Runtime) -> None:
        self.card, self.runtime = card, runtime
        self._tokenizer = tokenizer
        visual = UnitRows(ChannelsFirst(), Normalise(card.preprocessing), _ImageTower(model.visual))
        self._tower = runtime.tower(visual, card.preprocessing.blank(2))
        model.visual = None  # only the text tower is left here; the compiled image tower has weights of its own
        self._texts = UnitRows(_TextTower(model)).eval().to(runtime.device)
        self.dim = int(self.embed_texts(["a"]).shape[1])

    def embed_images(self, pixels: Pixels) -> Embeddings:
        """uint8 (n, crop_px, crop_px, 3) -> float32 (n, dim), unit rows."""
        return checked_rows(self._tower(pixels), self.runtime.precision)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """n texts, cut at the model's context length -> float32 (n, dim), unit rows; by torch, whatever the backend."""
        tokens = self._tokenizer(list(texts)).to(self.runtime.device)
        with autocast(self.runtime.device, self.runtime.precision):
            rows = self._texts(tokens)
        return checked_rows(rows.cpu().numpy(), self.runtime.precision)


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


@contextlib.contextmanager
def quiet_loggers() -> Iterator[None]:
    """open_clip warns on the root logger that an architecture without weights is random, the hub tells every retry."""
    loggers = [logging.getLogger(), logging.getLogger("huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def load_clip(folder: Path, runtime: Runtime) -> Clip:
    """Load the encoder in `folder` (see `cbir.encoders.base`).  Raises WeightsError when the files do not agree."""
    card = EncoderCard.read(folder)
    check_weights(folder / WEIGHTS, card)
    name = f"local-dir:{folder.resolve()}"
    with quiet_loggers():
        model = open_clip.create_model(name, load_weights=False, pretrained_text=False)
    # the file's own pages become the parameters: a copy would double the memory
    model.load_state_dict(load_file(folder / WEIGHTS), assign=True)
    return_freed_memory()  # what the random parameters took
    return Clip(card, model.eval(), open_clip.get_tokenizer(name), runtime)
