"""Thumbnails of packed images, singly or tiled in one sheet."""

from collections.abc import Collection, Iterator, Sequence
from io import BytesIO
from math import ceil, sqrt
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from cbir.artifacts.images import read_images
from cbir.core.html import data_uri

_FORMATS = ("JPEG", "PNG")  # of packed images
_QUALITY = 80


class Thumbnail(NamedTuple):
    """A picture as a data: URI, and its size in pixels."""

    uri: str
    width: int
    height: int


class Sheet(NamedTuple):
    """Square tiles, `columns` per row, in one picture.  uri : a data: URI.  tile_px : the side of a tile."""

    uri: str
    tile_px: int
    columns: int


def small_images(folder: Path, image_ids: Collection[str], px: int) -> Iterator[tuple[str, Image.Image]]:
    """Yield image_id and picture, RGB, its longer side at most px, of each given image that the shards in `folder` hold."""
    for image_id, encoded in read_images(folder, image_ids):
        packed = Image.open(BytesIO(encoded), formats=_FORMATS)
        packed.draft("RGB", (2 * px, 2 * px))  # decodes a JPEG at a reduced size
        image = packed.convert("RGB")
        image.thumbnail((px, px))
        image.info = {}  # else Pillow writes the old comment, which may be too long for a JPEG
        yield image_id, image


def read_thumbnails(folder: Path, image_ids: Collection[str], px: int) -> dict[str, Thumbnail]:
    """Return image_id -> thumbnail, for each given image that the shards in `folder` hold."""
    return {
        image_id: Thumbnail(_jpeg_uri(image), *image.size) for image_id, image in small_images(folder, image_ids, px)
    }


def read_sheet(folder: Path, image_ids: Sequence[str], tile_px: int) -> Sheet:
    """Return a sheet of the images in the order of the ids, row by row, each centred in its tile."""
    columns = max(1, ceil(sqrt(len(image_ids))))
    rows = max(1, ceil(len(image_ids) / columns))
    sheet = Image.new("RGB", (columns * tile_px, rows * tile_px), "white")
    places = {image_id: place for place, image_id in enumerate(image_ids)}
    for image_id, image in small_images(folder, image_ids, tile_px):
        row, column = divmod(places[image_id], columns)
        left, top = ((tile_px - side) // 2 for side in image.size)
        sheet.paste(image, (column * tile_px + left, row * tile_px + top))
    return Sheet(_jpeg_uri(sheet), tile_px, columns)


def _jpeg_uri(image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    return data_uri(file.getvalue(), "image/jpeg")
