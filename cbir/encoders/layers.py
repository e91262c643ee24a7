"""Layers of torch around a tower: what makes pixels its input, and its output unit rows."""

from typing import Any, NamedTuple

import torch

from cbir.encoders.preprocessing import Preprocessing


class ChannelsFirst(torch.nn.Module):
    """(n, height, width, 3) -> (n, 3, height, width), the same memory: what torch calls channels_last."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.permute(0, 3, 1, 2)


class Normalise(torch.nn.Module):
    """uint8 pixels (n, 3, height, width) -> float32 (x / 255 - mean) / std, channel by channel."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels.to(torch.float32) / 255 - self.mean) / self.std


class UnitRows(torch.nn.Module):
    """A tower and what follows it: (n, dim) float32 rows of length 1 (not finite where the tower gave a zero row)."""

    def __init__(self, *steps: torch.nn.Module) -> None:
        super().__init__()
        self.steps = torch.nn.Sequential(*steps)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        vectors = self.steps(inputs).float()
        unit: torch.Tensor = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        return unit


class Modules(NamedTuple):
    """What torch builds of an encoder's weights.

    image : uint8 pixels (n, side, side, 3) -> float32 (n, dim), unit rows.  text : int64 tokens (n, context length) -> the
    same; None where the encoder reads no text.  tokenizer : open_clip's.
    """

    image: torch.nn.Module
    text: torch.nn.Module | None
    tokenizer: Any | None
