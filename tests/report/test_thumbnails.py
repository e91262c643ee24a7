"""Small pictures of packed images: which are read, how large they are, and that each shows what it should."""

from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from math import ceil, sqrt
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from cbir.artifacts import images as artifacts
from cbir.artifacts.images import PackedImage, read_images, write_shards
from cbir.core.errors import DataError
from cbir.datasets.decoding import encode_for_packing
from cbir.report.thumbnails import Sheet, Thumbnail, read_sheet, read_thumbnails, small_images

SHARD_ROWS, GROUP_ROWS, N_IMAGES = 150, 64, 400
NAMES = [f"image {number:03d}" for number in range(N_IMAGES)]
WHITE = (255, 255, 255)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def packed(image_id: str, data: bytes) -> PackedImage:
    """As preprocess leaves it."""
    done = encode_for_packing(data, 10**7, 2048)
    return PackedImage(
        image_id, None, None, None, image_id, done.sha256, done.width, done.height, done.fingerprint, done.data
    )


def put(folder: Path, images: dict[str, bytes], shard_rows: int = SHARD_ROWS) -> Path:
    with (
        mock.patch.object(artifacts, "MAX_SHARD_ROWS", shard_rows),
        mock.patch.object(artifacts, "_ends_shard", return_value=False),
    ):
        write_shards(folder, (packed(*image) for image in images.items()))
    return folder


def colour_of(number: int) -> tuple[int, int, int]:
    """No two of 400 are near each other."""
    return 60 + 25 * (number % 8), 60 + 25 * (number // 8 % 8), 40 + 30 * (number // 64)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Single-coloured images in three shards of three row groups, the last of which are shorter."""
    images = {name: saved(Image.new("RGB", (12, 8), colour_of(number)), "PNG") for number, name in enumerate(NAMES)}
    folder = put(tmp_path_factory.mktemp("thumbnails"), images)
    groups = [pq.ParquetFile(path).metadata.num_row_groups for path in sorted(folder.iterdir())]
    assert groups == [3, 3, 2]
    return folder


def decoded(address: str) -> Image.Image:
    head, _, body = address.partition(",")
    assert head == "data:image/jpeg;base64"
    image = Image.open(BytesIO(b64decode(body, validate=True)), formats=["JPEG"])
    assert image.mode == "RGB"
    return image


def mean_colour(image: Image.Image) -> Any:
    return np.asarray(image, np.float64).mean((0, 1))


# ---- reading


def picked() -> list[str]:
    """Both sides of every border of a shard and of a row group, and of the whole."""
    places = [0, 1, 63, 64, 127, 128, 149, 150, 151, 213, 214, 277, 278, 299, 300, 363, 364, 399]
    return [NAMES[place] for place in places]


@pytest.mark.parametrize("kind", [list, set, tuple, dict.fromkeys, lambda ids: [*ids, *ids], lambda ids: ids[::-1]])
def test_images_come_in_the_order_of_the_shards_each_once(shards: Path, kind: Callable[[list[str]], Any]) -> None:
    found = list(read_images(shards, kind(picked())))
    assert [image_id for image_id, _ in found] == picked()
    for image_id, encoded in found:
        colour = Image.open(BytesIO(encoded)).convert("RGB").getpixel((0, 0))
        assert colour == colour_of(NAMES.index(image_id))


@settings(deadline=None, max_examples=30)
@given(places=st.sets(st.integers(0, N_IMAGES - 1), max_size=12), strangers=st.sets(st.text(max_size=3), max_size=3))
def test_any_choice_is_found_and_nothing_else(shards: Path, places: set[int], strangers: set[str]) -> None:
    wanted = {NAMES[place] for place in places} | strangers
    assert [image_id for image_id, _ in read_images(shards, wanted)] == [NAMES[place] for place in sorted(places)]


@pytest.mark.parametrize("ids", [[], ["image"], ["image 400", "Image 000", "", "image 000 "]])
def test_ids_that_no_shard_holds_give_nothing(shards: Path, ids: list[str]) -> None:
    assert list(read_images(shards, ids)) == []
    assert read_thumbnails(shards, ids, 32) == {}
    assert next(read_images(shards, [*ids, NAMES[7]]))[0] == NAMES[7]


@pytest.mark.parametrize("ids", [[], ["a"]])
def test_no_shards_hold_nothing(tmp_path: Path, ids: list[str]) -> None:
    assert list(read_images(tmp_path, ids)) == []
    assert list(read_images(tmp_path / "absent", ids)) == []


def test_only_needed_row_groups_are_read_once_and_lazily(shards: Path) -> None:
    wanted = [0, 5, 63, 149, 300, 399]  # of the shards 0, 0, 0, 0, 2, 2
    read: list[int] = []
    read_row_group = pq.ParquetFile.read_row_group

    def noted(file: pq.ParquetFile, group: int, **options: Any) -> Any:
        read.append(int(group))
        assert options["columns"] == ["image_id", "sha256", "image"]
        return read_row_group(file, group, **options)

    with mock.patch.object(pq.ParquetFile, "read_row_group", noted):
        found = read_images(shards, [NAMES[place] for place in wanted])
        next(found)
        assert read == [0]
        assert len(list(found)) == len(wanted) - 1
    assert read == [0, 2, 0, 1]


def test_a_shard_that_is_no_parquet_is_named(tmp_path: Path, shards: Path) -> None:
    path = put(tmp_path / "images", {"a": saved(Image.new("RGB", (8, 8)), "PNG")}) / "part-00000.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"part-00000\.parquet is not readable as Parquet"):
        list(read_images(tmp_path / "images", ["a"]))


def test_a_shard_whose_images_are_damaged_is_named(tmp_path: Path) -> None:
    """Its ids can be read."""
    path = put(tmp_path / "images", {"a": saved(Image.new("RGB", (8, 8)), "PNG")}) / "part-00000.parquet"
    columns = pq.ParquetFile(path).metadata.row_group(0)
    places = {columns.column(place).path_in_schema: columns.column(place).data_page_offset for place in range(10)}
    data = bytearray(path.read_bytes())
    data[places["image"] : places["image"] + 20] = b"\xff" * 20
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"part-00000\.parquet is not readable as Parquet"):
        list(read_images(tmp_path / "images", ["a"]))


# ---- thumbnails


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 700), height=st.integers(1, 700), px=st.integers(1, 200), kind=st.sampled_from(["JPEG", "PNG"])
)
def test_the_longer_side_is_at_most_px_with_ratio_kept(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, px: int, kind: str
) -> None:
    folder = put(tmp_path_factory.mktemp("sizes"), {"a": saved(Image.new("RGB", (width, height), "teal"), kind)})
    thumbnail = read_thumbnails(folder, ["a"], px)["a"]
    assert decoded(thumbnail.uri).size == (thumbnail.width, thumbnail.height)
    scale = min(1.0, px / max(width, height))
    assert max(thumbnail.width, thumbnail.height) == min(px, max(width, height))
    assert thumbnail.width == pytest.approx(max(1, width * scale), abs=1)
    assert thumbnail.height == pytest.approx(max(1, height * scale), abs=1)


def test_each_thumbnail_shows_its_own_image(shards: Path) -> None:
    found = read_thumbnails(shards, picked(), 6)
    assert list(found) == picked()
    for image_id, thumbnail in found.items():
        assert isinstance(thumbnail, Thumbnail)
        assert (thumbnail.width, thumbnail.height) == (6, 4)
        expected = colour_of(NAMES.index(image_id))
        assert mean_colour(decoded(thumbnail.uri)) == pytest.approx(expected, abs=4)


def halves(mode: str, left: Any, right: Any, side: int = 60) -> Image.Image:
    image = Image.new(mode, (side, side), left)
    image.paste(right, (side // 2, 0, side, side))
    return image


def high(left: int, right: int) -> Image.Image:
    values = np.full((60, 60), left, np.uint16)
    values[:, 30:] = right
    return Image.fromarray(values)


KINDS: dict[str, tuple[bytes, Any, Any]] = {
    "grey JPEG": (saved(halves("L", 40, 200), "JPEG"), (40,) * 3, (200,) * 3),
    "grey PNG": (saved(halves("L", 40, 200), "PNG"), (40,) * 3, (200,) * 3),
    "RGB JPEG": (saved(halves("RGB", (200, 30, 60), (10, 90, 220)), "JPEG"), (200, 30, 60), (10, 90, 220)),
    "RGB PNG": (saved(halves("RGB", (200, 30, 60), (10, 90, 220)), "PNG"), (200, 30, 60), (10, 90, 220)),
    "CMYK JPEG": (saved(halves("CMYK", (0, 255, 255, 0), (255, 255, 0, 0)), "JPEG"), (255, 0, 0), (0, 0, 255)),
    "alpha": (saved(halves("RGBA", (200, 30, 60, 255), (200, 30, 60, 0)), "PNG"), (200, 30, 60), WHITE),
    "grey with alpha": (saved(halves("LA", (40, 255), (40, 0)), "PNG"), (40,) * 3, WHITE),
    "palette": (saved(halves("RGB", (200, 30, 60), (10, 90, 220)).quantize(2), "PNG"), (200, 30, 60), (10, 90, 220)),
    "one bit": (saved(halves("1", 0, 1), "PNG"), (0,) * 3, WHITE),
    "16 bits": (saved(high(40 * 257, 200 * 257), "PNG"), (40,) * 3, (200,) * 3),
    "GIF": (saved(halves("RGB", (200, 30, 60), (10, 90, 220)), "GIF"), (200, 30, 60), (10, 90, 220)),
    "WebP": (saved(halves("RGB", (200, 30, 60), (10, 90, 220)), "WEBP", lossless=True), (200, 30, 60), (10, 90, 220)),
    "TIFF": (saved(halves("RGB", (200, 30, 60), (10, 90, 220)), "TIFF"), (200, 30, 60), (10, 90, 220)),
}


@pytest.mark.parametrize("px", [100, 24])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_is_shown_in_its_colours(tmp_path: Path, kind: str, px: int) -> None:
    data, left, right = KINDS[kind]
    thumbnail = decoded(read_thumbnails(put(tmp_path / "images", {"a": data}), ["a"], px)["a"].uri)
    side = min(px, 60)
    assert thumbnail.size == (side, side)
    assert mean_colour(thumbnail.crop((2, 2, side // 2 - 4, side - 2))) == pytest.approx(left, abs=8)
    assert mean_colour(thumbnail.crop((side // 2 + 4, 2, side - 2, side - 2))) == pytest.approx(right, abs=8)


def test_a_large_jpeg_is_decoded_no_larger_than_needed(tmp_path: Path) -> None:
    sizes = []
    convert = Image.Image.convert

    def noted(image: Image.Image, *arguments: Any) -> Image.Image:
        sizes.append(image.size)
        return convert(image, *arguments)

    folder = put(tmp_path / "images", {"a": saved(Image.new("RGB", (1600, 800), "teal"), "JPEG")})
    with mock.patch.object(Image.Image, "convert", noted):
        read_thumbnails(folder, ["a"], 96)
    assert sizes == [(400, 200)]  # an eighth would be less than twice as high as 96


def with_comment(kind: str, comment: str) -> bytes:
    image = Image.new("RGB", (40, 40), "teal")
    if kind == "JPEG":
        return saved(image, "JPEG", comment=comment)
    info = PngImagePlugin.PngInfo()
    info.add_itxt("comment", comment)
    return saved(image, "PNG", pnginfo=info)


@pytest.mark.parametrize(("kind", "length"), [("JPEG", 60_000), ("PNG", 60_000), ("PNG", 70_000)])
def test_metadata_of_files_is_left_out(tmp_path: Path, kind: str, length: int) -> None:
    """Some PNGs have a comment that is longer than a JPEG allows."""
    folder = put(tmp_path / "images", {"a": with_comment(kind, "x" * length)})
    assert len(read_thumbnails(folder, ["a"], 32)["a"].uri) < 2000


def test_the_same_images_give_the_same_thumbnails(shards: Path) -> None:
    assert read_thumbnails(shards, picked(), 32) == read_thumbnails(shards, set(picked()), 32)


def test_pictures_are_yielded_one_at_a_time(shards: Path) -> None:
    pictures: Iterator[tuple[str, Image.Image]] = small_images(shards, picked(), 6)
    image_id, picture = next(pictures)
    assert (image_id, picture.mode, picture.size) == (NAMES[0], "RGB", (6, 4))
    assert picture.getpixel((2, 2)) == colour_of(0)


# ---- the sheet


def tile_of(sheet: Sheet, place: int) -> Image.Image:
    row, column = divmod(place, sheet.columns)
    left, top = column * sheet.tile_px, row * sheet.tile_px
    return decoded(sheet.uri).crop((left, top, left + sheet.tile_px, top + sheet.tile_px))


def shuffled(ids: Iterable[str]) -> list[str]:
    order = np.random.default_rng(0)
    return order.permutation(list(ids)).tolist()


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9, 10, 100])
def test_the_sheet_is_about_square_with_a_tile_for_each(shards: Path, n: int) -> None:
    sheet = read_sheet(shards, NAMES[:n], 16)
    width, height = decoded(sheet.uri).size
    assert (sheet.tile_px, sheet.columns) == (16, ceil(sqrt(n)))
    assert width == 16 * sheet.columns
    assert (height // 16 - 1) * sheet.columns < n <= height // 16 * sheet.columns
    assert height % 16 == 0


def test_every_tile_shows_its_image_in_the_middle_on_white(shards: Path) -> None:
    ids = shuffled(NAMES)[:50]
    sheet = read_sheet(shards, ids, 16)  # 12 x 8 pixels in a tile of 16
    for place, image_id in enumerate(ids):
        tile = tile_of(sheet, place)
        expected = colour_of(NAMES.index(image_id))
        assert mean_colour(tile.crop((4, 6, 12, 10))) == pytest.approx(expected, abs=10)
        assert mean_colour(tile.crop((0, 0, 16, 2))) == pytest.approx(WHITE, abs=12)
        assert mean_colour(tile.crop((0, 14, 16, 16))) == pytest.approx(WHITE, abs=12)
    assert mean_colour(tile_of(sheet, 50)) == pytest.approx(WHITE, abs=4)


def test_no_image_spills_over_its_tile(tmp_path: Path) -> None:
    shapes = {"wide": (300, 100), "high": (100, 300), "dot": (1, 1), "line": (500, 1), "square": (200, 200)}
    images = {name: saved(Image.new("RGB", size, "black"), "PNG") for name, size in shapes.items()}
    sheet = read_sheet(put(tmp_path / "images", images), list(shapes), 24)
    dark = [(np.asarray(tile_of(sheet, place).convert("L")) < 128) for place in range(len(shapes))]
    assert [int(each.sum()) for each in dark] == pytest.approx([24 * 8, 24 * 8, 1, 24, 24 * 24], abs=1)
    rows, columns = np.nonzero(dark[0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 15, 0, 23)


def test_the_sheet_of_one_image_is_one_tile(shards: Path) -> None:
    sheet = read_sheet(shards, [NAMES[399]], 8)
    assert decoded(sheet.uri).size == (8, 8)
    assert sheet.columns == 1
    assert mean_colour(decoded(sheet.uri).crop((1, 3, 7, 5))) == pytest.approx(colour_of(399), abs=10)


def test_the_sheet_of_no_image_is_one_white_tile(shards: Path) -> None:
    sheet = read_sheet(shards, [], 8)
    assert (sheet.columns, decoded(sheet.uri).size) == (1, (8, 8))
    assert mean_colour(decoded(sheet.uri)) == pytest.approx(WHITE, abs=1)


def test_an_image_that_no_shard_holds_leaves_its_tile_white(shards: Path) -> None:
    sheet = read_sheet(shards, [NAMES[3], "stranger", NAMES[1]], 8)
    centres = [mean_colour(tile_of(sheet, place).crop((2, 3, 6, 5))) for place in range(4)]
    for found, expected in zip(centres, (colour_of(3), WHITE, colour_of(1), WHITE), strict=True):
        assert found == pytest.approx(expected, abs=14)


def test_the_same_images_give_the_same_sheet(shards: Path) -> None:
    ids = shuffled(NAMES)[:20]
    assert read_sheet(shards, ids, 16) == read_sheet(shards, ids, 16)
    assert read_sheet(shards, ids[::-1], 16).uri != read_sheet(shards, ids, 16).uri
