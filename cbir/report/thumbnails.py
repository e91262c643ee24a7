"""Small pictures of images that are packed in shards: single ones, and a sheet of many."""

from base64 import b64encode
from collections.abc import Collection, Iterator, Sequence
from io import BytesIO
from math import ceil, sqrt
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from cbir.artifacts.images import read_images

_FORMATS = ("JPEG", "PNG")  # as images are packed
_QUALITY = 80


class Thumbnail(NamedTuple):
    """A picture as the address that holds it, and its size in pixels."""

    address: str
    width: int
    height: int


class Sheet(NamedTuple):
    """Many pictures in one: `address` holds it, a tile is tile_px a side, `columns` of them stand in a row."""

    address: str
    tile_px: int
    columns: int


def small_images(folder: Path, image_ids: Collection[str], px: int) -> Iterator[tuple[str, Image.Image]]:
    """image_id and picture, RGB, its longer side at most px, of those of the images that the shards in `folder` hold."""
    for image_id, encoded in read_images(folder, image_ids):
        packed = Image.open(BytesIO(encoded), formats=_FORMATS)
        packed.draft("RGB", (2 * px, 2 * px))  # a JPEG is decoded no larger than needed
        image = packed.convert("RGB")
        image.thumbnail((px, px))
        image.info = {}  # or Pillow writes the old comment, which may be longer than a JPEG allows
        yield image_id, image


def read_thumbnails(folder: Path, image_ids: Collection[str], px: int) -> dict[str, Thumbnail]:
    """image_id -> its picture."""
    return {
        image_id: Thumbnail(_address(image), *image.size) for image_id, image in small_images(folder, image_ids, px)
    }


def read_sheet(folder: Path, image_ids: Sequence[str], tile_px: int) -> Sheet:
    """The pictures in the order of the ids, row by row, each in the middle of its tile."""
    columns = max(1, ceil(sqrt(len(image_ids))))
    rows = max(1, ceil(len(image_ids) / columns))
    sheet = Image.new("RGB", (columns * tile_px, rows * tile_px), "white")
    places = {image_id: place for place, image_id in enumerate(image_ids)}
    for image_id, image in small_images(folder, image_ids, tile_px):
        row, column = divmod(places[image_id], columns)
        left, top = ((tile_px - side) // 2 for side in image.size)
        sheet.paste(image, (column * tile_px + left, row * tile_px + top))
    return Sheet(_address(sheet), tile_px, columns)


def _address(image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
