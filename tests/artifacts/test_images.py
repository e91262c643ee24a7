"""Shards of packed images, and the quarantine."""

import hashlib
import random
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cbir.artifacts import images as images_module
from cbir.artifacts.images import (
    IMAGE_SCHEMA,
    PackedImage,
    Quarantined,
    read_columns,
    read_image,
    read_images,
    read_quarantine,
    read_shards,
    shard_path,
    write_quarantine,
    write_shards,
)
from cbir.core.errors import DataError
from tests.support.packed import packed_images


def test_shards_are_read_as_they_were_written(tmp_path):
    assert write_shards(tmp_path / "gallery", packed_images(5)) == 5
    [(name, table)] = read_shards(tmp_path / "gallery")
    assert (name, table.schema) == ("part-00000", IMAGE_SCHEMA)
    assert [PackedImage(**row) for row in table.to_pylist()] == list(packed_images(5))
    assert read_columns(tmp_path / "gallery", ["width", "image_id"]).column_names == ["width", "image_id"]


def test_writing_shards_deletes_those_of_an_earlier_run(tmp_path):
    write_shards(tmp_path, packed_images(9, size=10))
    write_shards(tmp_path, packed_images(2, size=10))
    assert read_columns(tmp_path, ["image_id"]).num_rows == 2


def test_a_shard_ends_at_its_rows_or_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(images_module, "MAX_SHARD_ROWS", 4)
    monkeypatch.setattr(images_module, "_ends_shard", lambda image: False)
    monkeypatch.setattr(images_module, "MAX_SHARD_BYTES", 300)

    def rows(folder):
        return [(name, table.num_rows) for name, table in read_shards(folder, ["image_id"])]

    write_shards(tmp_path / "rows", packed_images(9, size=10))
    assert rows(tmp_path / "rows") == [("part-00000", 4), ("part-00001", 4), ("part-00002", 1)]
    write_shards(tmp_path / "bytes", packed_images(5, size=150))
    assert rows(tmp_path / "bytes") == [("part-00000", 2), ("part-00001", 2), ("part-00002", 1)]
    write_shards(tmp_path / "exact", packed_images(8, size=10))
    assert rows(tmp_path / "exact") == [("part-00000", 4), ("part-00001", 4)]
    assert read_columns(tmp_path / "rows", ["image_id"])["image_id"].to_pylist() == [f"{n:05d}" for n in range(9)]


@pytest.mark.parametrize(("rows", "size"), [(20, 10_000), (1000, 600)], ids=["cut by rows", "cut by bytes"])
def test_an_image_more_or_less_changes_its_own_shard_alone(tmp_path, monkeypatch, rows, size):
    monkeypatch.setattr(images_module, "SHARD_ROWS", rows)
    monkeypatch.setattr(images_module, "MAX_SHARD_ROWS", 4 * rows)
    monkeypatch.setattr(images_module, "SHARD_BYTES", size)
    monkeypatch.setattr(images_module, "MAX_SHARD_BYTES", 4 * size)

    def hashed(numbers):
        for n in numbers:
            body = random.Random(n).randbytes(random.Random(-n).randint(10, 50))
            yield PackedImage(
                f"{n:05d}", None, None, None, "", hashlib.sha256(body).hexdigest(), 1, 1, bytes(256), body
            )

    def shards(name, numbers):
        write_shards(tmp_path / name, hashed(numbers))
        return [tuple(table["image_id"].to_pylist()) for _, table in read_shards(tmp_path / name, ["image_id"])]

    whole = shards("whole", range(2000))
    assert 60 < len(whole) < 160  # 20 images each, more or less, but no more than 80
    assert max(map(len, whole)) <= 80
    for place in (0, 700, 1999):
        less = shards(str(place), [n for n in range(2000) if n != place])
        # after a shard that was cut for its length, the following ones may differ, up to the first that ends by its content
        assert len(set(whole) - set(less)) <= 3


def test_a_shard_is_one_row_group_with_images_uncompressed(tmp_path):
    write_shards(tmp_path, packed_images(5))
    group = pq.ParquetFile(tmp_path / "part-00000.parquet").metadata
    assert group.num_row_groups == 1
    columns = [group.row_group(0).column(number) for number in range(group.num_columns)]
    assert {column.path_in_schema: column.compression for column in columns}["image"] == "UNCOMPRESSED"
    assert {column.compression for column in columns} == {"UNCOMPRESSED", "ZSTD"}


def test_shards_have_the_same_bytes_twice(tmp_path):
    for name in "ab":
        write_shards(tmp_path / name, packed_images(50))
    assert (tmp_path / "a/part-00000.parquet").read_bytes() == (tmp_path / "b/part-00000.parquet").read_bytes()


def test_an_interrupted_shard_leaves_only_whole_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(images_module, "MAX_SHARD_ROWS", 2)
    monkeypatch.setattr(images_module, "_ends_shard", lambda image: False)

    def failing():
        yield from packed_images(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path, failing())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part-00000.parquet", "part-00001.parquet"]


def test_the_quarantine_is_in_order_of_source(tmp_path):
    rows = [Quarantined("b", None, "dangling link", "", 0), Quarantined("a", "0" * 64, "not an image", "x", 10**10)]
    write_quarantine(tmp_path / "x.parquet", rows)
    assert [Quarantined(**row) for row in read_quarantine(tmp_path / "x.parquet").to_pylist()] == rows[::-1]
    write_quarantine(tmp_path / "y.parquet", rows[::-1])
    assert (tmp_path / "x.parquet").read_bytes() == (tmp_path / "y.parquet").read_bytes()


def readers_of_images(folder):
    return {
        "read_shards": lambda: list(read_shards(folder, ["image_id", "image"])),
        "read_image": lambda: read_image(shard_path(folder, 0), 2),
        "read_images": lambda: list(read_images(folder, ["00002"])),
    }


@pytest.mark.parametrize("reader", readers_of_images(Path()))
def test_an_image_of_other_bytes_than_its_hash_is_refused(tmp_path, reader):
    images = list(packed_images(5))
    images[2] = replace(images[2], image=images[3].image)
    write_shards(tmp_path, images)
    expected = (
        rf"part-00000.parquet: image '00002': expected bytes whose sha256 is {images[2].sha256}, found \w{{64}}: run"
    )
    with pytest.raises(DataError, match=expected):
        readers_of_images(tmp_path)[reader]()
    assert read_image(shard_path(tmp_path, 0), 1) == ("00001", images[1].image)


@pytest.mark.parametrize("reader", readers_of_images(Path()))
def test_a_flipped_bit_in_a_shard_is_noticed(tmp_path, reader):
    write_shards(tmp_path, packed_images(5, size=100))
    path = shard_path(tmp_path, 0)
    whole = path.read_bytes()
    median = sorted(image.image for image in packed_images(5, size=100))[2]  # the others may be in the statistics
    place = whole.index(median) + 50
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(DataError, match=r"part-00000.parquet is not readable as Parquet .*CRC.*run `cbir repair`"):
        readers_of_images(tmp_path)[reader]()


def test_a_folder_without_images_is_not_empty(tmp_path: Path) -> None:
    """DVC warns of an empty folder, in each stage that reads it."""
    assert write_shards(tmp_path / "queries", []) == 0
    assert [path.name for path in (tmp_path / "queries").iterdir()] == [".no-images"]
    assert list(read_shards(tmp_path / "queries")) == []
    assert read_columns(tmp_path / "queries", ["image_id"]).num_rows == 0
