"""The file that says to what size larger images are reduced (`data/packing.json`)."""

from pathlib import Path

from cbir.core.errors import DataError
from cbir.core.files import read_json, write_json


def write_packing(path: Path, max_side_px: int) -> None:
    """Write the limit of the shorter side of packed images, in pixels."""
    write_json(path, {"max_side_px": max_side_px})


def read_packing(path: Path) -> int:
    """Read the limit of the shorter side of packed images, in pixels.  Raises DataError when there is none."""
    max_side_px = read_json(path).get("max_side_px")
    if not isinstance(max_side_px, int) or max_side_px < 1:
        raise DataError(
            f"{path}: expected max_side_px, a number >= 1, found {max_side_px!r}: run `dvc repro --force packing`"
        )
    return max_side_px
