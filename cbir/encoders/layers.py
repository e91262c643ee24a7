"""torch layers around a tower: they turn pixels into its input, and its output into unit rows."""

from typing import NamedTuple

import torch

from cbir.core.errors import ConfigError
from cbir.core.params import first_line
from cbir.encoders.params import EncoderParams
from cbir.encoders.preprocessing import Preprocessing
from cbir.encoders.tokens import LibraryTokenizer


class ChannelsFirst(torch.nn.Module):
    """(n, height, width, 3) -> (n, 3, height, width) without a copy: the format that torch calls channels_last."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.permute(0, 3, 1, 2)


class Normalise(torch.nn.Module):
    """uint8 pixels (n, 3, height, width) -> float32 (x / 255 - mean) / std, for each channel."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels.to(torch.float32) / 255 - self.mean) / self.std


class UnitRows(torch.nn.Module):
    """Run the layers of a tower, then scale its rows to length 1: float32 (n, dim); a zero row becomes NaN."""

    def __init__(self, *steps: torch.nn.Module) -> None:
        super().__init__()
        self.steps = torch.nn.Sequential(*steps)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        vectors = self.steps(inputs).float()
        unit: torch.Tensor = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        return unit


def check_image_tower(group: str, params: EncoderParams, tower: torch.nn.Module, image_px: int) -> None:
    """Embed one black image.  Raises ConfigError when the tower does not make one row of it.

    group : the encoder's name in params.yaml.  image_px : side of the tower's input.
    """
    key, remedy = ("architecture", "") if params.image_px is None else ("image_px", f"; try {group}.image_px=null")
    try:
        with torch.inference_mode():
            shape = tuple(tower(torch.zeros(1, image_px, image_px, 3, dtype=torch.uint8)).shape)
    except Exception as error:  # a size that does not fit raises errors of any kind, deep in the model
        raise ConfigError(
            f"{group}.{key}: {params.architecture} does not take {image_px} px: {first_line(error)}{remedy}"
        ) from error
    if len(shape) != 2:
        raise ConfigError(
            f"{group}.{key}: expected one row for an image, found {shape} of {params.architecture}{remedy}"
        )


class Modules(NamedTuple):
    """The torch modules of an encoder.

    image : uint8 pixels (n, side, side, 3) -> float32 (n, dim), unit rows.  text : int64 tokens (n, context length) -> the
    same.  text and tokenizer are None when the encoder reads no text.
    """

    image: torch.nn.Module
    text: torch.nn.Module | None
    tokenizer: LibraryTokenizer | None
