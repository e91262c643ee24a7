"""open_clip's models: an image tower and a text tower into one space.

The folder is open_clip's own "local-dir" layout, so open_clip reads architecture, weights and tokenizer from it by the
calls that read a hub's models.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file

from cbir.encoders.base import EncoderCard, check_weights
from cbir.encoders.layers import ChannelsFirst, Modules, Normalise, UnitRows

WEIGHTS = "open_clip_model.safetensors"
CONFIG = "open_clip_config.json"


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


def build_clip(folder: Path) -> Modules:
    """The encoder in `folder` (see `cbir.encoders.base`).  Raises WeightsError when the files do not agree."""
    card = EncoderCard.read(folder)
    check_weights(folder / WEIGHTS, card)
    name = f"local-dir:{folder.resolve()}"
    with quiet_loggers():
        model = open_clip.create_model(name, load_weights=False, pretrained_text=False)
    # the file's own pages become the parameters: a copy would double the memory
    model.load_state_dict(load_file(folder / WEIGHTS), assign=True)
    image = UnitRows(ChannelsFirst(), Normalise(card.preprocessing), _ImageTower(model.visual))
    model.visual = None  # only the text tower is left there
    return Modules(image.eval(), UnitRows(_TextTower(model)).eval(), open_clip.get_tokenizer(name))
