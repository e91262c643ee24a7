"""The preprocessing of an encoder, the same for gallery and queries: Pillow's resize and a centre crop.

The steps are torchvision's on Pillow images (`torchvision.transforms.functional.resize` and `center_crop`), which
torchvision's weights, timm and open_clip use; transformers crops differently by a pixel, see `crop_offset`.  Normalisation is
the first layer of the encoder (`cbir.encoders.layers`).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import BytesIO
from math import floor
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cbir.artifacts.images import PACKED_FORMATS
from cbir.core.errors import WeightsError

Image.MAX_IMAGE_PIXELS = None  # cbir.datasets.decoding limits the size before it packs an image
Pixels = npt.NDArray[np.uint8]
_INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_MAX_ASPECT = 64  # longer side over shorter side
_RESIZE_MODES = ("shortest", "squash")
_CROP_OFFSETS: dict[str, Callable[[float], int]] = {"round": round, "floor": floor}


@dataclass(frozen=True)
class Preprocessing:
    """The resize, crop and normalisation that turn an image into an encoder's input.

    resize_px : the shorter side after resizing ("shortest"), or both sides ("squash"); crop_px : side of the centre crop.
    mean, std : of each channel, for values in [0, 1].  crop_offset : what becomes of half a pixel left of and above the crop:
    "round" to an even number (torchvision), or "floor" (transformers).
    """

    resize_px: int
    crop_px: int
    resize_mode: str
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_offset: str = "round"

    def __post_init__(self) -> None:
        if self.crop_offset not in _CROP_OFFSETS:
            raise WeightsError(
                f"preprocessing: expected a crop offset among {', '.join(_CROP_OFFSETS)}, found {self.crop_offset}"
            )
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
        """Plain values, for encoder.json and passports."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    def blank(self, n: int) -> Pixels:
        """n black images: uint8 (n, crop_px, crop_px, 3)."""
        return np.zeros((n, self.crop_px, self.crop_px, 3), np.uint8)

    def prepare_packed(self, data: bytes) -> Pixels:
        """Decode a packed image and prepare it; see `prepare`."""
        return self.prepare(decode_packed(data))

    def prepare(self, image: Image.Image) -> Pixels:
        """Resize and crop an RGB image to uint8 (crop_px, crop_px, 3).

        When one side is more than 64 times the other, only the middle part is resized: a line of 20,000 pixels would become
        10 GB, and the crop keeps nothing but its middle.
        """
        image = self._middle(image)
        resized = image.resize(self._resized_size(*image.size), _INTERPOLATIONS[self.interpolation])
        whole_px = _CROP_OFFSETS[self.crop_offset]
        left, top = (whole_px((side - self.crop_px) / 2) for side in resized.size)
        return np.asarray(resized)[top : top + self.crop_px, left : left + self.crop_px]

    def _middle(self, image: Image.Image) -> Image.Image:
        longest = _MAX_ASPECT * min(image.size)
        if self.resize_mode == "squash" or max(image.size) <= longest:
            return image
        left, top = (max(0, side - longest) // 2 for side in image.size)
        return image.crop((left, top, min(image.width, left + longest), min(image.height, top + longest)))

    def _resized_size(self, width: int, height: int) -> tuple[int, int]:
        if self.resize_mode == "squash":
            return self.resize_px, self.resize_px
        long_px = int(self.resize_px * max(width, height) / min(width, height))
        return (self.resize_px, long_px) if width <= height else (long_px, self.resize_px)


def decode_packed(data: bytes) -> Image.Image:
    """Decode a packed image as RGB."""
    return Image.open(BytesIO(data), formats=PACKED_FORMATS).convert("RGB")
