"""The encoder, and the folder of its files: `encoder.json`, the weights, and the towers for OpenVINO.

    data/weights/mobilenet/   encoder.json  model.safetensors  towers/
    data/weights/clip/        encoder.json  open_clip_config.json  open_clip_model.safetensors  tokenizer files  towers/
    data/weights/elsewhere/   encoder.json  images/  texts/  prompts/     vectors that another tool made

encoder.json records what a weights file does not: architecture, origin, hash, preprocessing.  Neither this module nor any
other that a search imports needs torch, whose import takes seconds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from cbir.artifacts.vectors import Vectors
from cbir.core.errors import REPAIR, ConfigError, DataError, WeightsError
from cbir.core.files import file_sha256, hash_ids, read_json, write_json
from cbir.encoders.preprocessing import Pixels, Preprocessing
from cbir.encoders.runtime import Runtime

CARD_FILE = "encoder.json"
Tokens = npt.NDArray[np.int64]
Tower = Callable[[npt.NDArray[Any]], Vectors]  # n inputs -> (n, dim) unit rows, from any thread


class EmbedsNothingError(ConfigError):
    """An encoder whose vectors were made elsewhere is to embed an image or a text."""

    def __init__(self, name: str, what: str = "images or texts", advice: str = "") -> None:
        super().__init__(f"the encoder {name} holds vectors that were made elsewhere: it embeds no new {what}{advice}")


@dataclass(frozen=True)
class Card:
    """The contents of `encoder.json`, for any encoder; `preprocessing` is null where the vectors were made elsewhere.

    origin : `<encoder>.weights` as the user wrote it.  weights_sha256 : of the stored weights or vectors.
    settings_sha256 : of the folder's other files (open_clip's configuration, the tokenizer), null when there are none.
    tag : the tag whose settings the weights need ("openai", "IMAGENET1K_V2"), or null.
    settings : the family's own, which determine the vectors and which a file of weights does not record: {"quick_gelu": true}.
    """

    family: str
    architecture: str
    origin: str
    tag: str | None
    weights_sha256: str
    settings_sha256: str | None
    settings: Mapping[str, str | int | bool]

    def write(self, folder: Path) -> None:
        """Write encoder.json."""
        write_json(folder / CARD_FILE, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Plain values, for encoder.json and passports."""
        return {**self.__dict__, "preprocessing": None}


@dataclass(frozen=True)
class EncoderCard(Card):
    """The card of an encoder that embeds images."""

    preprocessing: Preprocessing

    def to_json(self) -> dict[str, Any]:
        """Plain values, for encoder.json and passports."""
        return {**super().to_json(), "preprocessing": self.preprocessing.to_json()}

    @classmethod
    def read(cls, folder: Path) -> "EncoderCard":
        """Read encoder.json.

        Raises DataError when it is missing or damaged, EmbedsNothingError when the vectors were made elsewhere.
        """
        if not embeds_images(folder):
            raise EmbedsNothingError(folder.name)
        value = read_json(folder / CARD_FILE)
        try:
            return cls(**{**value, "preprocessing": Preprocessing.from_json(value["preprocessing"])})
        except (KeyError, TypeError) as error:
            raise DataError(f"{folder / CARD_FILE} is not what this version writes ({error}): {REPAIR}") from error


def embeds_images(folder: Path) -> bool:
    """Whether the encoder in `folder` embeds images; False where its vectors were made elsewhere."""
    return read_json(folder / CARD_FILE).get("preprocessing", {}) is not None


class Encoder:
    """Embed images and texts as unit vectors; gallery and queries use the same encoder.

    A tower is opened at its first use, because a text query needs no image tower.
    """

    def __init__(
        self,
        card: EncoderCard,
        runtime: Runtime,
        image_tower: Callable[[], Tower],
        text_tower: Callable[[], Tower] | None = None,
        tokenize: Callable[[Sequence[str]], Tokens] | None = None,
    ) -> None:
        """tokenize : n texts -> int64 (n, context length), the input of the text tower."""
        self.card, self.runtime = card, runtime
        self._opening = Lock()
        self._openers = {"image": image_tower, "text": text_tower}
        self._towers: dict[str, Tower] = {}
        self._tokenize = tokenize

    @cached_property
    def dim(self) -> int:
        """The number of components of a vector."""
        return int(self._tower("image")(self.card.preprocessing.blank(1)).shape[1])

    @property
    def reads_text(self) -> bool:
        """Whether the encoder embeds texts into the space of its images."""
        return self._tokenize is not None

    def open_tower(self, kind: str) -> None:
        """Open the "image" or "text" tower now, before the first batch."""
        self._tower(kind)

    def embed_images(self, pixels: Pixels) -> Vectors:
        """uint8 (n, crop_px, crop_px, 3) -> float32 (n, dim), unit rows.  Safe to call from several threads at once."""
        return checked_rows(self._tower("image")(pixels), self.runtime.precision)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """n texts, truncated to the encoder's context length -> float32 (n, dim), unit rows.

        Raises ConfigError when the encoder reads no text.
        """
        return checked_rows(self._tower("text")(self.tokenize(texts)), self.runtime.precision)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """n texts -> int64 (n, context length).  Raises ConfigError when the encoder reads no text."""
        if self._tokenize is None:
            raise ConfigError(f"{self.card.architecture} reads no text: use an encoder that does")
        return self._tokenize(texts)

    def _tower(self, kind: str) -> Tower:
        with self._opening:
            opener = self._openers[kind]
            if kind not in self._towers and opener is not None:
                self._towers[kind] = opener()
            return self._towers[kind]


class NotFiniteError(DataError):
    """Vectors with NaN or infinity, for which no search works.  rows : the batch's rows that have them."""

    def __init__(self, rows: Sequence[int], items: Sequence[str], precision: str) -> None:
        """items : what the rows of the batch are, for the message; empty for "rows 0, 2 of a batch"."""
        names = (
            ", ".join(items[row] for row in rows[:3]) if items else f"rows {', '.join(map(str, rows[:3]))} of a batch"
        )
        cause = (
            "values are too large for fp16: use precision fp32 or bf16"
            if precision == "fp16"
            else "the weights may be damaged: `dvc repro --force weights` fetches them again"
        )
        super().__init__(f"expected finite vectors, found NaN, infinity or zero for {names}; {cause}")
        self.rows = rows


def checked_rows(rows: Vectors, precision: str) -> Vectors:
    """Return the rows.  Raises NotFiniteError when one has NaN or infinity (a zero vector scaled to length 1 is NaN)."""
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1)).tolist()
    if bad:
        raise NotFiniteError(bad, (), precision)
    return rows


def hash_settings(folder: Path, weights: str) -> str | None:
    """sha256 of the names and contents of all files in `folder` except encoder.json and the weights; None if none is left."""
    excluded = (CARD_FILE, weights)
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in excluded)
    return hash_ids(f"{path.name} {file_sha256(path)}" for path in files) if files else None


def check_weights(path: Path, card: EncoderCard) -> None:
    """Raise WeightsError when the hash of the stored weights is not the one in encoder.json."""
    sha256 = file_sha256(path)
    if sha256 != card.weights_sha256:
        raise WeightsError(f"{path}: expected sha256 {card.weights_sha256}, found {sha256}; {REPAIR}")
