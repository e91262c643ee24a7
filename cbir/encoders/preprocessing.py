"""The one preprocessing of an encoder, for gallery and query alike: Pillow's resize and a centre crop.

The steps are torchvision's on Pillow images (`torchvision.transforms.functional.resize` and `center_crop`), which both
torchvision's weights and open_clip use; normalisation is the encoder's own first step.
"""

from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cbir.core.errors import WeightsError

Image.MAX_IMAGE_PIXELS = None  # cbir.datasets.decoding bounded them before they were packed
PACKED_FORMATS = ("JPEG", "PNG")  # as cbir.datasets.decoding packs them
Pixels = npt.NDArray[np.uint8]
_INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_LONGEST = 64  # times the shorter side
_RESIZE_MODES = ("shortest", "squash")


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes an encoder's input.

    resize_px : the shorter side after resizing ("shortest"), or both sides ("squash"); crop_px : side of the centre crop.
    mean, std : of each channel, for values in [0, 1].
    """

    resize_px: int
    crop_px: int
    resize_mode: str
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.interpolation not in _INTERPOLATIONS or self.resize_mode not in _RESIZE_MODES:
            raise WeightsError(
                f"preprocessing: expected interpolation among {', '.join(_INTERPOLATIONS)} and resize mode among "
                f"{', '.join(_RESIZE_MODES)}, found {self.interpolation} and {self.resize_mode}"
            )
        if self.crop_px > self.resize_px:
            raise WeightsError(
                f"preprocessing: expected a crop within the resized image, found {self.crop_px} px of {self.resize_px} px"
            )

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Preprocessing":
        """The inverse of to_json."""
        return cls(**{**value, "mean": tuple(value["mean"]), "std": tuple(value["std"])})

    def to_json(self) -> dict[str, Any]:
        """Plain values, as they stand in a passport."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    def blank(self, n: int) -> Pixels:
        """n black images as they would be prepared."""
        return np.zeros((n, self.crop_px, self.crop_px, 3), np.uint8)

    def prepare_packed(self, data: bytes) -> Pixels:
        """Decode the bytes of a packed image, and prepare it."""
        return self.prepare(Image.open(BytesIO(data), formats=PACKED_FORMATS).convert("RGB"))

    def prepare(self, image: Image.Image) -> Pixels:
        """Resize and crop an RGB image; returns uint8 (crop_px, crop_px, 3), as Pillow holds it.

        Of an image more than 64 times as long as it is narrow, the middle part only is resized: a line of 20,000 pixels
        would become 10 GB, and its middle is all that is kept.
        """
        image = self._middle(image)
        resized = image.resize(self._resized(*image.size), _INTERPOLATIONS[self.interpolation])
        left, top = (round((side - self.crop_px) / 2) for side in resized.size)
        return np.asarray(resized)[top : top + self.crop_px, left : left + self.crop_px]

    def _middle(self, image: Image.Image) -> Image.Image:
        most = _LONGEST * min(image.size)
        if self.resize_mode == "squash" or max(image.size) <= most:
            return image
        left, top = (max(0, side - most) // 2 for side in image.size)
        return image.crop((left, top, min(image.width, left + most), min(image.height, top + most)))

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        if self.resize_mode == "squash":
            return self.resize_px, self.resize_px
        short, long = min(width, height), max(width, height)
        stretched = int(self.resize_px * long / short)
        return (self.resize_px, stretched) if width <= height else (stretched, self.resize_px)
