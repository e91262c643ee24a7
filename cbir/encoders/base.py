"""The encoder protocol, and the folder that holds an encoder: `encoder.json` and its weights.

    data/weights/mobilenet/   encoder.json  model.safetensors
    data/weights/clip/        encoder.json  open_clip_config.json  open_clip_model.safetensors  tokenizer files

encoder.json says all that a weights file alone would lose: architecture, origin, hash, preprocessing.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from cbir.artifacts.files import hash_ids, read_json, write_json
from cbir.encoders.preprocessing import Pixels, Preprocessing
from cbir.encoders.runtime import Runtime
from cbir.errors import DataError, WeightsError

Embeddings = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EncoderCard:
    """What `encoder.json` holds.

    origin : where the weights came from, as the user wrote it.  weights_sha256 : of the stored safetensors file.
    settings_sha256 : of the folder's other files (open_clip's configuration, the tokenizer), null where there are none.
    tag : whose settings the weights carry ("openai", "IMAGENET1K_V2"), or null.  quick_gelu : open_clip only.
    """

    family: str
    architecture: str
    origin: str
    tag: str | None
    weights_sha256: str
    settings_sha256: str | None
    preprocessing: Preprocessing
    quick_gelu: bool | None

    def write(self, folder: Path) -> None:
        """Write encoder.json."""
        write_json(folder / "encoder.json", self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Plain values, as they stand in a passport."""
        return {**self.__dict__, "preprocessing": self.preprocessing.to_json()}

    @classmethod
    def read(cls, folder: Path) -> "EncoderCard":
        """Read encoder.json.  Raises DataError when absent or damaged."""
        value = read_json(folder / "encoder.json")
        try:
            return cls(**{**value, "preprocessing": Preprocessing.from_json(value["preprocessing"])})
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{folder / 'encoder.json'} is not what this version writes ({error}): run `dvc repro --force weights`"
            ) from error


class Encoder(Protocol):
    """Makes unit vectors; one and the same for gallery and queries."""

    card: EncoderCard
    runtime: Runtime
    dim: int

    def embed_images(self, pixels: Pixels) -> Embeddings:
        """uint8 (n, crop_px, crop_px, 3) -> float32 (n, dim), unit rows.  Several threads may call it at a time."""
        ...


class TextEncoder(Encoder, Protocol):
    """An encoder that reads text into the same space."""

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """n texts -> float32 (n, dim), unit rows."""
        ...


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


class NotFiniteError(DataError):
    """Vectors that can be neither found nor searched with.  rows : theirs in the batch."""

    def __init__(self, rows: Sequence[int], items: Sequence[str], precision: str) -> None:
        named = (
            ", ".join(items[row] for row in rows[:3]) if items else f"rows {', '.join(map(str, rows[:3]))} of a batch"
        )
        cause = (
            "numbers grow too large for fp16: take precision fp32 or bf16"
            if precision == "fp16"
            else "are the weights whole? `dvc repro --force weights` fetches them again"
        )
        super().__init__(f"expected finite vectors that are not zero, found others for {named}; {cause}")
        self.rows = rows


def checked_rows(rows: Embeddings, precision: str) -> Embeddings:
    """The rows as they are.  Raises NotFiniteError."""
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1)).tolist()
    if bad:
        raise NotFiniteError(bad, (), precision)
    return rows


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_settings(folder: Path, weights: str) -> str | None:
    """sha256 of the names and contents of all files in `folder` but encoder.json and the weights; None without any."""
    others = (path for path in folder.iterdir() if path.is_file())
    files = sorted(path for path in others if path.name not in ("encoder.json", weights))
    return hash_ids(f"{path.name} {file_sha256(path)}" for path in files) if files else None


def check_weights(path: Path, card: EncoderCard) -> None:
    """Raise WeightsError when the stored weights are not those that encoder.json describes."""
    found = file_sha256(path)
    if found != card.weights_sha256:
        raise WeightsError(
            f"{path}: expected sha256 {card.weights_sha256}, found {found}; run `dvc repro --force weights`"
        )
