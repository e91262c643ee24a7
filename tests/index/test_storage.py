"""Index files: what is written is read back, and anything else is refused."""

import os
from hashlib import sha256
from pathlib import Path
from unittest import mock

import faiss
import numpy as np
import pyarrow as pa
import pytest

from cbir.artifacts.vectors import VectorSet, read_passport
from cbir.core.errors import DataError, PassportError
from cbir.core.files import read_json, write_json
from cbir.index.kinds import kind_of
from cbir.index.params import BuildParams, IndexKind, IndexParams, SearchParams
from cbir.index.search import search
from cbir.index.storage import index_vectors, open_index, read_index, write_index
from tests.index.gallery import DIM, GALLERY, QUERIES, each_kind, split


@each_kind
def test_an_index_survives_its_file(built: dict[str, faiss.Index], kind: str, tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    write_index(path, built[kind])
    again = read_index(path)
    assert kind_of(again).name == kind
    for before, after in zip(
        search(built[kind], QUERIES, 10, SearchParams(), threads=1),
        search(again, QUERIES, 10, SearchParams(), threads=1),
        strict=True,
    ):
        np.testing.assert_array_equal(before, after)
    assert [entry.name for entry in tmp_path.iterdir()] == ["index.faiss"]


def test_a_write_that_fails_leaves_the_old_file(built: dict[str, faiss.Index], tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    path.write_bytes(b"old")

    def fail(_index: faiss.Index, name: str) -> None:
        Path(name).write_bytes(b"half")
        raise RuntimeError("disk full")

    with mock.patch.object(faiss, "write_index", fail), pytest.raises(RuntimeError, match="disk full"):
        write_index(path, built["flat"])
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("index.faiss", b"old")]


@each_kind
def test_a_damaged_file_is_refused(built: dict[str, faiss.Index], kind: str, tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    write_index(path, built[kind])
    whole = path.read_bytes()
    for content in (b"", b"not an index", whole[:50], whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"index\.faiss: expected a whole index .* run `cbir repair`"):
            read_index(path)


def test_a_missing_file_or_a_foreign_index_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    with pytest.raises(DataError, match=r"index\.faiss: expected a FAISS index, found no such file; run `cbir repair`"):
        read_index(path)
    for foreign in (faiss.IndexFlatL2(DIM), faiss.IndexLSH(DIM, 8)):
        faiss.write_index(foreign, str(path))
        with pytest.raises(DataError, match=r"expected an inner-product index of kind flat, .* or sq8, found Index"):
            read_index(path)


def test_an_index_is_stored_with_its_vectors_passport_and_size(tmp_path: Path) -> None:
    passport = {"encoder": "clip", "dim": DIM, "rows": {"count": 500}}
    vectors = VectorSet(pa.array([f"i{n}" for n in range(500)]), split(GALLERY[:500], 200), passport)
    params = IndexParams(IndexKind.ivf_flat, BuildParams(nlist=5), SearchParams(nprobe=2))
    index_vectors(vectors, params, tmp_path / "index", threads=2)
    assert read_passport(tmp_path / "index") == {
        "kind": "ivf_flat",
        "factory": "IVF5,Flat",
        "build": {
            "kind": "ivf_flat",
            "nlist": 5,
            "pq_m": None,
            "hnsw_m": None,
            "ef_construction": None,
            "train_rows": 500,
            "seed": 0,
        },
        "faiss": faiss.__version__,
        "sha256": sha256((tmp_path / "index" / "index.faiss").read_bytes()).hexdigest(),
        "vectors": passport,
    }
    size = (tmp_path / "index" / "index.faiss").stat().st_size
    build = read_json(tmp_path / "index" / "build.json")
    assert list(build) == ["build_s", "threads", "index_bytes", "bytes_per_vector", "of"]
    assert build["build_s"] >= 0
    assert (build["threads"], build["index_bytes"], build["bytes_per_vector"]) == (2, size, size / 500)

    index = open_index(tmp_path / "index", vectors)
    assert search(index, GALLERY[7:8], 1, SearchParams(), threads=1)[1].tolist() == [[7]]
    other = VectorSet(vectors.ids, vectors.parts, passport | {"encoder": "mobilenet"})
    with pytest.raises(
        PassportError, match=r"index: vectors: passport field 'encoder': expected 'mobilenet', found 'clip'"
    ):
        open_index(tmp_path / "index", other)


def stored(folder: Path, kind: IndexKind) -> VectorSet:
    """Write an index of the first 500 gallery vectors; return them."""
    passport = {"encoder": "clip", "dim": DIM, "rows": {"count": 500}}
    vectors = VectorSet(pa.array([f"i{n}" for n in range(500)]), split(GALLERY[:500], 200), passport)
    index_vectors(vectors, IndexParams(kind, BuildParams(), SearchParams()), folder, threads=2)
    return vectors


OTHERS = {
    "fewer rows": GALLERY[:100],
    "more rows": GALLERY[:600],
    "rows in reverse": GALLERY[499::-1],
    "other rows": GALLERY[500:1000],
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("has_its_hash", [False, True])
def test_an_index_of_other_rows_is_refused(tmp_path: Path, name: str, has_its_hash: bool) -> None:
    """Where rows or dimension differ, even beside a passport with the hash of the file."""
    vectors, path = stored(tmp_path, IndexKind.flat), tmp_path / "index.faiss"
    other = faiss.IndexFlatIP(DIM)
    other.add(np.ascontiguousarray(OTHERS[name]))
    write_index(path, other)
    if has_its_hash:
        digest = sha256(path.read_bytes()).hexdigest()
        write_json(tmp_path / "passport.json", read_passport(tmp_path) | {"sha256": digest})
    if has_its_hash and len(OTHERS[name]) == 500:
        assert open_index(tmp_path, vectors).ntotal == 500  # somebody who forges both files is believed
        return
    message = rf"expected flat of 500 x {DIM}, found flat of [16]00 x" if has_its_hash else "expected sha256 .*, found "
    with pytest.raises(PassportError, match=rf"index\.faiss: {message}.*run `cbir repair`, then `dvc repro`"):
        open_index(tmp_path, vectors)


def test_an_index_of_another_kind_is_refused(tmp_path: Path) -> None:
    vectors = stored(tmp_path / "hnsw", IndexKind.hnsw)
    stored(tmp_path / "flat", IndexKind.flat)
    (tmp_path / "hnsw" / "index.faiss").replace(tmp_path / "flat" / "index.faiss")
    with pytest.raises(PassportError, match=r"index\.faiss: expected sha256 "):
        open_index(tmp_path / "flat", vectors)
    digest = sha256((tmp_path / "flat" / "index.faiss").read_bytes()).hexdigest()
    write_json(tmp_path / "flat" / "passport.json", read_passport(tmp_path / "flat") | {"sha256": digest})
    with pytest.raises(PassportError, match=r"expected flat of 500 x \d+, found hnsw of 500 x"):
        open_index(tmp_path / "flat", vectors)


def test_a_changed_byte_is_noticed_in_the_same_process(tmp_path: Path) -> None:
    vectors, path = stored(tmp_path, IndexKind.flat), tmp_path / "index.faiss"
    open_index(tmp_path, vectors)
    body = bytearray(path.read_bytes())
    body[-5] ^= 1
    path.write_bytes(body)
    os.utime(path, ns=(1, 1))  # a clock may be too coarse to tell the two apart
    with pytest.raises(PassportError, match=r"index\.faiss: expected sha256 "):
        open_index(tmp_path, vectors)
