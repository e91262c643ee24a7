"""Vectors with their ids and passports."""

import os
import re

import numpy as np
import pyarrow as pa
import pytest

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
    write_vectors_passport,
)
from cbir.core.errors import DataError, PassportError
from cbir.core.files import hash_ids


def vectors(rows, dim=3, seed=0):
    rows = np.random.default_rng(seed).standard_normal((rows, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def written_set(path, ids=("a", "b", "c", "d"), **changes):
    """Four vectors in two parts, and their passport."""
    write_part(path / "gallery", "part-00000", list(ids[:3]), vectors(3))
    write_part(path / "gallery", "part-00001", list(ids[3:]), vectors(len(ids) - 3, seed=1))
    rows = {"count": len(ids), "ids_sha256": hash_ids(ids), "content_sha256": ""}
    write_vectors_passport(path / "gallery", {"encoder": "clip", "dim": 3, "rows": rows, **changes})
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
    with pytest.raises(PassportError, match="passport field 'count': expected 4, found 3; run `cbir repair`"):
        open_vectors(tmp_path, "clip", "gallery")


@pytest.mark.parametrize("body", [b"", b"\x93NUMPY", b"no array", None])
def test_damaged_vectors_name_the_command(tmp_path, body):
    path = written_set(tmp_path) / "gallery" / "part-00000.npy"
    path.write_bytes(path.read_bytes()[:-1] if body is None else body)
    with pytest.raises(DataError, match=r"part-00000.npy is not readable: .*; run `cbir repair`, then `dvc repro`"):
        read_parts(tmp_path / "gallery")


def test_pickled_vectors_are_not_unpickled(tmp_path):
    path = written_set(tmp_path) / "gallery" / "part-00000.npy"
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"part-00000.npy is not readable: .*Python objects"):
        read_parts(tmp_path / "gallery")


def test_absent_vectors_beside_their_ids_name_the_command(tmp_path):
    (written_set(tmp_path) / "gallery" / "part-00000.npy").unlink()
    with pytest.raises(DataError, match=r"part-00000.npy is not readable: .*No such file.*; run `cbir repair`"):
        read_parts(tmp_path / "gallery")


@pytest.mark.parametrize(
    ("array", "found"), [(vectors(2), "float32 (2, 3)"), (vectors(3).astype(float), "float64 (3, 3)")]
)
def test_ids_that_do_not_fit_their_vectors_are_refused(tmp_path, array, found):
    np.save(written_set(tmp_path) / "gallery" / "part-00000.npy", array)
    expected = r"part-00000.parquet: expected float32 \(3, dim\) vectors, one per id, found "
    with pytest.raises(DataError, match=expected + re.escape(found)):
        read_parts(tmp_path / "gallery")


@pytest.mark.parametrize("number", [0, 1])
def test_other_vectors_of_the_same_shape_are_refused(tmp_path, number):
    """Also in a process that has opened the vectors before."""
    folder = written_set(tmp_path) / "gallery"
    assert len(open_vectors(tmp_path, "clip", "gallery").ids) == 4
    path = folder / f"part-0000{number}.npy"
    rows = np.load(path)
    np.save(path, vectors(len(rows), seed=9))
    os.utime(path, ns=(1, 1 + number))  # a clock may be too coarse to tell the two apart
    with pytest.raises(
        PassportError, match=r"field 'vectors_sha256': expected '.{64}', found '.{64}'; run `cbir repair`"
    ):
        open_vectors(tmp_path, "clip", "gallery")


@pytest.mark.parametrize(
    ("change", "norm"), [(0.0, "0"), (10.0, "10"), (np.nan, "nan"), (np.inf, "inf"), (1.01, "1.01")]
)
def test_vectors_of_another_norm_are_refused_by_row(tmp_path, change, norm):
    """Even beside a passport that has their hash."""
    rows = vectors(5000)
    rows[4321] *= change
    write_part(tmp_path / "gallery", "part-00000", [str(number) for number in range(5000)], rows)
    with pytest.raises(
        DataError, match=rf"part-00000.npy: expected vectors of norm 1 .*, found {norm} in row 4321: run"
    ):
        write_vectors_passport(tmp_path / "gallery", {"encoder": "clip", "dim": 3, "rows": {}})
    write_passport(tmp_path / "gallery", {"encoder": "clip", "dim": 3, "rows": {}})
    with pytest.raises(
        DataError, match=rf"part-00000.npy: expected vectors of norm 1 .*, found {norm} in row 4321: run"
    ):
        open_vectors(tmp_path, "clip", "gallery")


def test_vectors_are_opened_by_id_in_any_order(tmp_path):
    opened = open_vectors(written_set(tmp_path), "clip", "gallery")
    every = np.concatenate([vectors(3), vectors(1, seed=1)])
    assert np.array_equal(opened.rows(["d", "a", "d", "c"], "queries"), every[[3, 0, 3, 2]])
    assert opened.rows([], "queries").shape == (0, 3)
    with pytest.raises(DataError, match="queries: no vector for 'x'; run `cbir repair`, then `dvc repro`"):
        opened.rows(["a", "x"], "queries")


def test_vectors_of_another_encoder_or_with_other_ids_are_refused(tmp_path):
    written_set(tmp_path)
    with pytest.raises(
        PassportError, match="passport field 'encoder': expected 'mobilenet', found 'clip'; run `cbir repair`"
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
