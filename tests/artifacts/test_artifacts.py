"""Artifacts survive a round trip with the same bytes; absent, damaged or mismatched ones are refused with a message."""

import hashlib
import random
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cbir.artifacts import images as images_module
from cbir.artifacts.images import (
    IMAGE_SCHEMA,
    PackedImage,
    Quarantined,
    read_columns,
    read_quarantine,
    read_shards,
    write_quarantine,
    write_shards,
)
from cbir.artifacts.queries import (
    QRELS_SCHEMA,
    QUERY_SCHEMA,
    read_qrels,
    read_query_list,
    write_qrels,
    write_query_list,
)
from cbir.artifacts.runs import RUN_SCHEMA, read_run, write_per_query, write_run
from cbir.artifacts.vectors import (
    MISSING,
    VectorSet,
    check_passport,
    open_vectors,
    positions_of,
    read_parts,
    read_passport,
    write_part,
    write_passport,
)
from cbir.core.errors import DataError, PassportError
from cbir.core.files import hash_ids
from tests.support.packed import packed_images

QUERIES = pa.Table.from_pylist(
    [
        {"query_id": "q2", "task": "cbir", "image_id": "cats/é.jpg", "text": None, "label": "cats", "subset": None},
        {"query_id": "q1", "task": "tbir", "image_id": None, "text": "a cat", "label": None, "subset": "captions"},
    ],
    QUERY_SCHEMA,
)
QRELS = pa.table({"query_id": ["q2", "q1", "q1"], "image_id": ["a", "b", "a"], "relevance": [1, 0, 127]}, QRELS_SCHEMA)
RUN = pa.table({"query_id": ["q2", "q1"], "image_id": ["b", "a"], "rank": [1, 1], "score": [0.5, -0.25]}, RUN_SCHEMA)
TABLES = [(write_query_list, read_query_list, QUERIES), (write_qrels, read_qrels, QRELS), (write_run, read_run, RUN)]
EACH_TABLE = pytest.mark.parametrize(("write", "read", "table"), TABLES)


# --- tables ---------------------------------------------------------------------------------------------------------


@EACH_TABLE
def test_a_table_is_read_as_it_was_written(tmp_path, write, read, table):
    write(tmp_path / "x.parquet", table)
    expected = table.sort_by([("query_id", "ascending"), ("image_id", "ascending")]) if table is QRELS else table
    assert read(tmp_path / "x.parquet").equals(expected)
    assert read(tmp_path / "x.parquet").schema.equals(table.schema)


@EACH_TABLE
def test_a_table_is_written_to_the_same_bytes_twice(tmp_path, write, read, table):
    bodies = []
    for name in ("x", "y"):
        write(tmp_path / name, table)
        bodies.append((tmp_path / name).read_bytes())
    assert bodies[0] == bodies[1]


@EACH_TABLE
def test_an_empty_table_is_read_as_an_empty_table(tmp_path, write, read, table):
    write(tmp_path / "x.parquet", table[:0])
    assert read(tmp_path / "x.parquet").num_rows == 0


def test_qrels_are_sorted_by_query_and_image(tmp_path):
    write_qrels(tmp_path / "x.parquet", QRELS)
    assert read_qrels(tmp_path / "x.parquet").to_pydict() == {
        "query_id": ["q1", "q1", "q2"], "image_id": ["a", "b", "a"], "relevance": [127, 0, 1],
    }  # fmt: skip


@EACH_TABLE
def test_an_absent_table_names_the_command(tmp_path, write, read, table):
    with pytest.raises(DataError, match=r"x\.parquet is not here: run `dvc repro`"):
        read(tmp_path / "x.parquet")


@EACH_TABLE
def test_a_missing_column_is_named(tmp_path, write, read, table):
    pq.write_table(table.drop_columns("image_id"), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet: expected a column 'image_id', found query_id, "):
        read(tmp_path / "x.parquet")


@EACH_TABLE
def test_a_column_of_another_type_is_named_with_both_types(tmp_path, write, read, table):
    changed = table.set_column(0, "query_id", pa.array(range(table.num_rows), pa.int64()))
    pq.write_table(changed, tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet: column 'query_id': expected string, found int64"):
        read(tmp_path / "x.parquet")


def test_a_relevance_that_does_not_fit_is_refused_not_wrapped(tmp_path):
    table = pa.table({"query_id": ["q"], "image_id": ["a"], "relevance": [300]})
    with pytest.raises(pa.ArrowInvalid, match="300 not in range"):
        write_qrels(tmp_path / "x.parquet", table)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_a_truncated_table_names_the_command(tmp_path, keep):
    write_query_list(tmp_path / "x.parquet", QUERIES)
    (tmp_path / "x.parquet").write_bytes((tmp_path / "x.parquet").read_bytes()[:keep])
    with pytest.raises(DataError, match=r"x\.parquet is not readable as Parquet \((.|\n)*\): run `dvc repro --force`"):
        read_query_list(tmp_path / "x.parquet")


def test_a_damaged_table_is_read_or_refused_without_a_crash(tmp_path):
    """Names that are no UTF-8 any more raise UnicodeDecodeError within pyarrow; a user must not see it."""
    path, rng, refused = tmp_path / "x.parquet", random.Random(0), 0
    write_query_list(path, QUERIES)
    whole = path.read_bytes()
    for _ in range(600):
        body = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        path.write_bytes(body)
        try:
            read_query_list(path)
        except DataError:
            refused += 1
    assert refused > 300


def test_per_query_values_are_read_back_with_their_nulls(tmp_path):
    table = pa.table({"query_id": ["a", "b"], "precision@10": pa.array([0.5, None], pa.float64())})
    write_per_query(tmp_path / "x.parquet", table)
    assert pq.read_table(tmp_path / "x.parquet").equals(table)


# --- shards and quarantine ------------------------------------------------------------------------------------------


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


def test_no_images_make_an_empty_folder(tmp_path):
    assert write_shards(tmp_path / "gallery", []) == 0
    assert list((tmp_path / "gallery").iterdir()) == []
    assert read_columns(tmp_path / "gallery", ["image_id", "label"]).to_pydict() == {"image_id": [], "label": []}


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


# --- vectors --------------------------------------------------------------------------------------------------------


def vectors(rows, dim=3, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)


def written_set(path, ids=("a", "b", "c", "d"), **changes):
    """Four vectors in two parts, and their passport."""
    write_part(path / "gallery", "part-00000", list(ids[:3]), vectors(3))
    write_part(path / "gallery", "part-00001", list(ids[3:]), vectors(len(ids) - 3, seed=1))
    rows = {"count": len(ids), "ids_sha256": hash_ids(ids), "content_sha256": ""}
    write_passport(path / "gallery", {"encoder": "clip", "dim": 3, "rows": rows, **changes})
    return path


def test_parts_are_memory_mapped_and_unchanged(tmp_path):
    ids, parts = read_parts(written_set(tmp_path) / "gallery")
    assert ids == ["a", "b", "c", "d"]
    assert np.array_equal(np.concatenate(parts), np.concatenate([vectors(3), vectors(1, seed=1)]))
    assert all(isinstance(part, np.memmap) for part in parts)


def test_parts_have_the_same_bytes_twice(tmp_path):
    for name in "xy":
        write_part(tmp_path / name, "part-00000", ["a", "b"], vectors(2))
    for file in ("part-00000.npy", "part-00000.parquet"):
        assert (tmp_path / "x" / file).read_bytes() == (tmp_path / "y" / file).read_bytes()


@pytest.mark.parametrize("wrong", [vectors(3), vectors(2).astype(np.float64), vectors(2)[0], vectors(2)[None]])
def test_vectors_of_another_shape_or_type_are_not_written(tmp_path, wrong):
    with pytest.raises(DataError, match=r"part-00000: expected float32 \(2, dim\), found float"):
        write_part(tmp_path, "part-00000", ["a", "b"], wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_part_without_ids_is_not_read(tmp_path):
    """The ids are written last: without them the part is not whole."""
    written_set(tmp_path)
    (tmp_path / "gallery" / "part-00001.parquet").unlink()
    assert read_parts(tmp_path / "gallery")[0] == ["a", "b", "c"]
    with pytest.raises(PassportError, match="passport field 'count': expected 4, found 3; run `dvc repro`"):
        open_vectors(tmp_path, "clip", "gallery")


@pytest.mark.parametrize("body", [b"", b"\x93NUMPY", b"no array", None])
def test_damaged_vectors_name_the_command(tmp_path, body):
    path = written_set(tmp_path) / "gallery" / "part-00000.npy"
    path.write_bytes(path.read_bytes()[:-1] if body is None else body)
    with pytest.raises(DataError, match=r"part-00000.npy is not readable: .*; run `dvc repro --force`"):
        read_parts(tmp_path / "gallery")


def test_pickled_vectors_are_not_unpickled(tmp_path):
    path = written_set(tmp_path) / "gallery" / "part-00000.npy"
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"part-00000.npy is not readable: .*Python objects"):
        read_parts(tmp_path / "gallery")


def test_absent_vectors_beside_their_ids_name_the_command(tmp_path):
    (written_set(tmp_path) / "gallery" / "part-00000.npy").unlink()
    with pytest.raises(DataError, match=r"part-00000.npy is not readable: .*No such file.*; run `dvc repro --force`"):
        read_parts(tmp_path / "gallery")


@pytest.mark.parametrize(
    ("array", "found"), [(vectors(2), "float32 (2, 3)"), (vectors(3).astype(float), "float64 (3, 3)")]
)
def test_ids_that_do_not_fit_their_vectors_are_refused(tmp_path, array, found):
    np.save(written_set(tmp_path) / "gallery" / "part-00000.npy", array)
    expected = r"part-00000.parquet: expected float32 \(3, dim\) vectors, one per id, found "
    with pytest.raises(DataError, match=expected + re.escape(found)):
        read_parts(tmp_path / "gallery")


def test_vectors_are_opened_by_id_in_any_order(tmp_path):
    opened = open_vectors(written_set(tmp_path), "clip", "gallery")
    every = np.concatenate([vectors(3), vectors(1, seed=1)])
    assert np.array_equal(opened.rows(["d", "a", "d", "c"], "queries"), every[[3, 0, 3, 2]])
    assert opened.rows([], "queries").shape == (0, 3)
    with pytest.raises(DataError, match="queries: no vector for 'x'; run `dvc repro --force embed`"):
        opened.rows(["a", "x"], "queries")


def test_vectors_of_another_encoder_or_with_other_ids_are_refused(tmp_path):
    written_set(tmp_path)
    with pytest.raises(
        PassportError, match="passport field 'encoder': expected 'mobilenet', found 'clip'; run `dvc repro`"
    ):
        open_vectors(tmp_path, "mobilenet", "gallery")
    write_part(tmp_path / "gallery", "part-00001", ["e"], vectors(1, seed=1))
    with pytest.raises(PassportError, match=r"gallery: passport field 'ids_sha256': expected '.{64}', found '.{64}'"):
        open_vectors(tmp_path, "clip", "gallery")


def test_passports_are_compared_field_by_field_down_to_the_last(tmp_path):
    passport = {"encoder": "clip", "preprocessing": {"mean": [0.5], "resize_px": 224}}
    write_passport(tmp_path, passport)
    found = read_passport(tmp_path)
    assert found == passport
    check_passport(found, {"preprocessing": {"mean": [0.5]}}, "here")  # other fields are ignored
    with pytest.raises(
        PassportError, match=r"^here: preprocessing: passport field 'resize_px': expected 232, found 224;"
    ):
        check_passport(found, {"encoder": "clip", "preprocessing": {"resize_px": 232}}, "here")
    for expected in ({"dim": 3}, {"preprocessing": None}, {"encoder": {"name": "clip"}}):
        with pytest.raises(PassportError, match=f"passport field '{next(iter(expected))}'"):
            check_passport(found, expected, "here")


def test_positions_follow_the_gallery_or_are_missing():
    gallery = pa.array(["b", "a", "é"])
    positions = positions_of(["é", "x", None, "b"], gallery)
    assert (positions.dtype, positions.tolist()) == (np.int64, [2, MISSING, MISSING, 0])
    assert positions_of(gallery, gallery).tolist() == [0, 1, 2]
    assert positions_of([], gallery).tolist() == []


def test_vectors_without_parts_have_no_rows():
    empty = VectorSet(pa.array([], pa.string()), [], {"dim": 3})
    assert empty.rows([], "queries").shape == (0, 3)
