"""transformers' image processors as `cbir.encoders.preprocessing.Preprocessing`.

The reference is the processor with the backend "pil", which gives the same pixels.
"""

from collections.abc import Sequence
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from transformers import AutoImageProcessor

from cbir.core.errors import ConfigError
from cbir.core.params import first_line
from cbir.encoders.own_code import NO_CODE, own_code_error
from cbir.encoders.preprocessing import Preprocessing

FILES = ("preprocessor_config.json", "processor_config.json")
_INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_UNCROPPED_PX = 384  # processors with `crop_pct` crop below this size only
_PROBE_SIZES = ((400, 301), (301, 407))  # wide and tall; the offset of their crop is half a pixel
# on noise, a crop that is one pixel off differs by dozens of levels, and a processor that rounds after it resizes by a quarter
_MAX_LEVELS = 1.0


def load_image_processor(group: str, name: str, folder: Path) -> Any:
    """Load the image processor of a folder.  Raises ConfigError when there is none."""
    auto: Any = AutoImageProcessor
    try:
        return auto.from_pretrained(folder, backend="pil", **NO_CODE, local_files_only=True)
    except Exception as error:  # of many types, one for each way in which a file can be wrong
        raise own_code_error(f"{group}.architecture", name, error) or ConfigError(
            f"{group}.architecture: {name}: expected {FILES[0]} of an image processor, found none that can be read: "
            f"{first_line(error)}"
        ) from error


def preprocessing_of(group: str, name: str, processor: Any) -> Preprocessing:
    """The preprocessing that gives the processor's pixels.  Raises ConfigError, naming the key that it cannot express."""
    where = f"{group}.architecture: {name}: {FILES[0]}"
    preprocessing = _translated(where, processor)
    for width, height in _PROBE_SIZES:
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        if not _agree(preprocessing, processor, Image.fromarray(noise)):
            kind = type(processor).__name__.removesuffix("Pil")
            raise ConfigError(
                f"{where}: image_processor_type: {kind} does more than its keys say, which cbir cannot repeat"
            )
    return preprocessing


def _translated(where: str, processor: Any) -> Preprocessing:
    def check(key: str, holds: bool, expected: str) -> None:
        if not holds:
            value = _sides(processor, key) if key.endswith("size") else getattr(processor, key, None)
            raise ConfigError(f"{where}: {key}: expected {expected}, found {value or 'null'}")

    size, crop_size = _sides(processor, "size"), _sides(processor, "crop_size")
    shortest, crop_pct = "shortest_edge" in size, getattr(processor, "crop_pct", None)
    check("do_resize", bool(processor.do_resize), "true")
    check("size", _is_single_length(size), "shortest_edge alone, or a height and a width that are equal")
    check("resample", processor.resample in _INTERPOLATIONS, "2 (bilinear) or 3 (bicubic)")
    check("do_rescale", bool(processor.do_rescale), "true")
    check("rescale_factor", isclose(processor.rescale_factor, 1 / 255, rel_tol=1e-3), "1/255")
    check("do_pad", not getattr(processor, "do_pad", False), "false")
    resize_px = crop_px = next(iter(size.values()))
    if crop_pct is not None and shortest:
        shortest = crop_px < _UNCROPPED_PX
        resize_px = int(crop_px / crop_pct) if shortest else crop_px
    elif processor.do_center_crop:
        check("crop_size", _is_single_length(crop_size), "a height and a width that are equal")
        crop_px = next(iter(crop_size.values()))
        check("crop_size", crop_px <= resize_px, f"a crop within the {resize_px} px of size")
    else:
        check("do_center_crop", not shortest, "true, because images must have one size")
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else (0.0, 1.0)
    return Preprocessing(
        resize_px=resize_px,
        crop_px=crop_px,
        resize_mode="shortest" if shortest else "squash",
        interpolation=_INTERPOLATIONS[processor.resample],
        mean=_by_channel(mean),
        std=_by_channel(std),
        crop_offset="floor",
    )


def _sides(processor: Any, key: str) -> dict[str, int]:
    return {side: px for side, px in dict(getattr(processor, key, None) or {}).items() if px is not None}


def _is_single_length(size: dict[str, int]) -> bool:
    return size.keys() in ({"shortest_edge"}, {"height", "width"}) and len({*size.values()}) == 1


def _by_channel(value: float | Sequence[float]) -> tuple[float, ...]:
    return (float(value),) * 3 if isinstance(value, int | float) else tuple(value)


def _agree(preprocessing: Preprocessing, processor: Any, image: Image.Image) -> bool:
    try:
        expected: npt.NDArray[Any] = processor(image, return_tensors="np")["pixel_values"][0]
    except Exception:  # of a processor that needs more than an image
        return False
    pixels = preprocessing.prepare(image).astype(np.float64)
    if expected.shape != pixels.transpose(2, 0, 1).shape:
        return False
    levels = (expected.transpose(1, 2, 0) * preprocessing.std + preprocessing.mean) * 255
    return float(np.abs(levels - pixels).mean()) < _MAX_LEVELS
