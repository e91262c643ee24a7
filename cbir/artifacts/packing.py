"""The size to which larger images are reduced (`data/packing.json`), and that which an encoder reads (`encoder.json`)."""

from pathlib import Path

from cbir.core.errors import REPAIR, DataError
from cbir.core.files import read_json, write_json


def write_packing(path: Path, max_side_px: int) -> None:
    """Write the limit of the shorter side of packed images, in pixels."""
    write_json(path, {"max_side_px": max_side_px})


def read_packing(path: Path) -> int:
    """Read the limit of the shorter side of packed images, in pixels.  Raises DataError when there is none."""
    max_side_px = read_json(path).get("max_side_px")
    if not isinstance(max_side_px, int) or max_side_px < 1:
        raise DataError(f"{path}: expected max_side_px, a number >= 1, found {max_side_px!r}: {REPAIR}")
    return max_side_px


def read_resize_px(weights: Path) -> int | None:
    """Read to what shorter side an encoder resizes images, in pixels; None if its vectors were made elsewhere.

    weights : the encoder's folder.
    Raises DataError when its `encoder.json` is missing or damaged.
    """
    path = weights / "encoder.json"
    preprocessing = read_json(path).get("preprocessing", "nothing")
    if preprocessing is None:
        return None
    resize_px = preprocessing.get("resize_px") if isinstance(preprocessing, dict) else None
    if not isinstance(resize_px, int):
        raise DataError(f"{path}: expected preprocessing.resize_px, found {resize_px!r}: {REPAIR}")
    return resize_px
