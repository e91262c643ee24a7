"""Shards of images to parts of vectors: every row under its own id, whatever the batch and the number of threads."""

import hashlib
import json
import pickle
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cbir.artifacts.images import PackedImage, write_shards
from cbir.artifacts.tables import read_table, write_table
from cbir.artifacts.vectors import (
    IDS_SCHEMA,
    open_vectors,
    positions_of,
    read_passport,
    write_part,
    write_vectors_passport,
)
from cbir.core.errors import DataError, PassportError
from cbir.encoders.base import Encoder
from cbir.encoders.embedding import EmbeddedRows, embed_queries, embed_shards, vector_settings, vectors_passport
from cbir.encoders.opening import load_encoder
from cbir.encoders.params import Family
from cbir.encoders.preprocessing import Pixels
from cbir.encoders.runtime import Runtime
from cbir.encoders.vector_cache import VectorCache
from cbir.encoders.weights import fetch_encoder
from tests.encoders.conftest import ROWS
from tests.support.encoders import bytes_of, mobilenet_params, stacked


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("mobilenet")
    fetch_encoder("mobilenet", mobilenet_params(image_px=64), folder)
    return load_encoder(folder, Family.torchvision, Runtime())


def embedded(shards: Path, out: Path, encoder: Any, batch: int = 8, allow_empty: bool = False) -> EmbeddedRows:
    """embed_shards with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        return embed_shards(
            shards, out, encoder, batch, VectorCache(Path(folder), vector_settings(encoder)), "gallery", allow_empty
        )


def embedded_texts(ids: list[str], texts: list[str], out: Path, encoder: Encoder, batch: int = 8) -> EmbeddedRows:
    """embed_queries with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        return embed_queries(
            ids, texts, out, encoder, batch, VectorCache(Path(folder), vector_settings(encoder)), "texts"
        )


def prepared(encoder: Encoder, image: PackedImage) -> Pixels:
    return np.stack([encoder.card.preprocessing.prepare_packed(image.image)])


# ---- images to vectors


def test_each_row_is_the_vector_of_its_image(
    tiny: Encoder, images: list[PackedImage], shards: Path, tmp_path: Path
) -> None:
    embedded(shards, tmp_path / "out", tiny, 7)
    ids, vectors = stacked(tmp_path / "out")
    assert ids == [image.image_id for image in images]
    assert len(set(ids)) == ROWS
    alone = [tiny.embed_images(prepared(tiny, image))[0] for image in images]
    np.testing.assert_allclose(vectors, alone, rtol=0, atol=1e-5)
    likeness = vectors @ vectors.T - np.eye(ROWS)
    assert likeness.max() < 0.9999, "the vectors must differ, or their order would prove nothing"


def test_mobilenet_embeds_shards_too(
    mobilenet: Encoder, images: list[PackedImage], shards: Path, tmp_path: Path
) -> None:
    embedded(shards, tmp_path / "out", mobilenet, 16)
    ids, vectors = stacked(tmp_path / "out")
    assert ids == [image.image_id for image in images]
    last = mobilenet.embed_images(prepared(mobilenet, images[-1]))[0]
    np.testing.assert_allclose(vectors[-1], last, rtol=0, atol=1e-5)


def test_parts_are_named_and_filled_as_the_shards(tiny: Encoder, shards: Path, tmp_path: Path) -> None:
    embedded(shards, tmp_path / "out", tiny, 10)
    names = [f"part-0000{place}" for place in range(3)]
    assert sorted(bytes_of(tmp_path / "out")) == sorted(
        f"{name}.{kind}" for name in names for kind in ("npy", "parquet")
    )
    for name, rows in zip(names, (16, 16, 11), strict=True):
        part = np.load(tmp_path / "out" / f"{name}.npy")
        assert (part.shape, part.dtype) == ((rows, 32), np.float32)
        np.testing.assert_allclose(np.linalg.norm(part.astype(np.float64), axis=1), 1.0, atol=1e-6)
        assert pq.read_table(tmp_path / "out" / f"{name}.parquet").column_names == ["id"]


def test_the_batch_size_changes_no_vector(tiny: Encoder, shards: Path, tmp_path: Path) -> None:
    rows, ids, vectors = [], [], []
    for batch in (1, 7, 32):
        rows.append(embedded(shards, tmp_path / str(batch), tiny, batch))
        part = stacked(tmp_path / str(batch))
        ids.append(part[0])
        vectors.append(part[1])
    assert rows[0] == rows[1] == rows[2]
    assert ids[0] == ids[1] == ids[2]
    for batched in vectors[1:]:
        np.testing.assert_allclose(batched, vectors[0], rtol=0, atol=1e-5)


def test_batches_on_a_cpu_are_full(
    tiny: Encoder, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    embed = tiny.embed_images
    monkeypatch.setattr(tiny, "embed_images", lambda pixels: (seen.append(len(pixels)), embed(pixels))[1])
    embedded(shards, tmp_path / "out", tiny, 7)
    assert seen == [7] * 8  # of 16, 16 and 11 images


def test_the_number_of_workers_changes_no_byte(
    tiny: Encoder, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    for workers in (1, 4):
        monkeypatch.setattr(tiny, "runtime", Runtime(workers=workers))
        rows.append(embedded(shards, tmp_path / str(workers), tiny))
    assert rows[0] == rows[1]
    assert bytes_of(tmp_path / "1") == bytes_of(tmp_path / "4")


def test_rows_are_counted_and_hashed_in_their_order(
    tiny: Encoder, images: list[PackedImage], shards: Path, tmp_path: Path
) -> None:
    rows = embedded(shards, tmp_path / "out", tiny, 32)
    ids = hashlib.sha256(b"".join(image.image_id.encode() + b"\0" for image in images)).hexdigest()
    content = hashlib.sha256("".join(hashlib.sha256(image.image).hexdigest() for image in images).encode()).hexdigest()
    assert rows == EmbeddedRows(ROWS, ids, content)


def test_a_gallery_without_images_is_refused(tiny: Encoder, tmp_path: Path) -> None:
    for folder in (tmp_path / "absent", tmp_path / "empty"):
        with pytest.raises(DataError, match=f"^{folder}: expected shards with images, found none; run `dvc repro pre"):
            embedded(folder, tmp_path / "out", tiny)
        folder.mkdir(exist_ok=True)


def test_query_images_may_be_none(tiny: Encoder, tmp_path: Path) -> None:
    (tmp_path / "queries").mkdir()
    rows = embedded(tmp_path / "queries", tmp_path / "out", tiny, allow_empty=True)
    assert (rows.count, list((tmp_path / "out").iterdir())) == (0, [])


def test_an_image_that_cannot_be_decoded_stops_the_work(
    tiny: Encoder, images: list[PackedImage], tmp_path: Path
) -> None:
    broken = PackedImage(
        "broken", None, None, None, "it", hashlib.sha256(b"no image").hexdigest(), 1, 1, bytes(256), b"no image"
    )
    write_shards(tmp_path / "images", [*images[:3], broken, *images[3:6]])
    with pytest.raises(OSError, match="cannot identify image file"):
        embedded(tmp_path / "images", tmp_path / "out", tiny, 2)
    assert not list((tmp_path / "out").glob("*.parquet")), "a part with ids is whole"


# ---- texts to vectors


def test_texts_are_embedded_under_their_query_ids(tiny: Encoder, tmp_path: Path) -> None:
    ids, texts = [f"q{place}" for place in range(7)], [f"a photo of {place} stars" for place in range(6)] + [""]
    rows = [embedded_texts(ids, texts, tmp_path / str(batch), tiny, batch) for batch in (1, 3, 7, 100)]
    expected = tiny.embed_texts(texts)
    for batch in (1, 3, 7, 100):
        found_ids, vectors = stacked(tmp_path / str(batch))
        assert found_ids == ids
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)
        assert sorted(bytes_of(tmp_path / str(batch))) == ["part-00000.npy", "part-00000.parquet"]
    hashed = [hashlib.sha256(b"".join(word.encode() + b"\0" for word in words)).hexdigest() for words in (ids, texts)]
    assert rows == [EmbeddedRows(7, *hashed)] * 4


def test_no_texts_leave_no_part(tiny: Encoder, tmp_path: Path) -> None:
    assert embedded_texts([], [], tmp_path / "texts", tiny).count == 0
    assert list((tmp_path / "texts").iterdir()) == []


def test_ids_without_texts_are_refused(tiny: Encoder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected float32 \(2, dim\), found float32 \(1, 32\)"):
        embedded_texts(["a", "b"], ["one text"], tmp_path, tiny)


# ---- the passport, and who is let in with it


@pytest.fixture(scope="module")
def finished(tiny: Encoder, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stage embed leaves for an encoder."""
    folder = tmp_path_factory.mktemp("embeddings") / "clip"
    rows = {
        "gallery": embedded(shards, folder / "gallery", tiny),
        "texts": embedded_texts(["t1", "t2"], ["a red star", "a blue ring"], folder / "texts", tiny),
    }
    for kind, embedded_rows in rows.items():
        write_vectors_passport(folder / kind, vectors_passport("clip", tiny, embedded_rows))
    return folder


@pytest.fixture
def vectors_folder(finished: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(finished, tmp_path / "clip"))


def test_the_passport_names_encoder_settings_and_rows(finished: Path, tiny: Encoder) -> None:
    passport = read_passport(finished / "gallery")
    said = {name: passport.pop(name) for name in ("rows", "versions")}
    assert passport == {
        "encoder": "clip",
        **json.loads(json.dumps(tiny.card.to_json())),
        "precision": "fp32",
        "backend": "torch",
        "device": "cpu",
        "normalised": True,
        "metric": "inner_product",
        "dim": 32,
    }
    for rows, count in ((said["rows"], ROWS), (read_passport(finished / "texts")["rows"], 2)):
        assert (rows["count"], set(rows)) == (count, {"count", "ids_sha256", "content_sha256", "vectors_sha256"})
    libraries = ("torch", "torchvision", "open_clip_torch", "timm", "transformers", "openvino", "pillow", "numpy")
    assert said["versions"] == {library: version(library) for library in libraries}


def test_the_same_inputs_give_the_same_bytes(finished: Path, tiny: Encoder, shards: Path, tmp_path: Path) -> None:
    rows = {
        "gallery": embedded(shards, tmp_path / "gallery", tiny),
        "texts": embedded_texts(["t1", "t2"], ["a red star", "a blue ring"], tmp_path / "texts", tiny),
    }
    for kind, embedded_rows in rows.items():
        write_vectors_passport(tmp_path / kind, vectors_passport("clip", tiny, embedded_rows))
    files = [path.relative_to(finished) for path in finished.rglob("*") if path.is_file()]
    assert len(files) == 10
    assert all((finished / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)


def test_vectors_are_read_by_id_across_the_parts(finished: Path, images: list[PackedImage]) -> None:
    opened = open_vectors(finished, "clip", "gallery")
    _, all_vectors = stacked(finished / "gallery")
    assert opened.ids.to_pylist() == [image.image_id for image in images]
    for places in ([0], [15, 16], [42, 0, 31, 32, 0], list(range(ROWS))[::-1], []):
        rows = opened.rows([images[place].image_id for place in places], "it")
        assert (rows.shape, rows.dtype) == ((len(places), 32), np.float32)
        assert np.array_equal(rows, all_vectors[places])


def test_an_id_without_a_vector_is_refused_by_name(finished: Path, images: list[PackedImage]) -> None:
    opened = open_vectors(finished, "clip", "gallery")
    with pytest.raises(DataError, match=r"^the queries: no vector for 'nobody'; run `cbir repair`, then `dvc repro`$"):
        opened.rows([images[3].image_id, "nobody", "no one"], "the queries")


def test_positions_are_those_of_the_gallery_or_missing() -> None:
    gallery = pa.array(["b", "a", "c"])
    assert positions_of(["c", None, "a", "x", "b", "c"], gallery).tolist() == [2, -1, 1, -1, 0, 2]
    assert positions_of([], gallery).dtype == np.int64


def test_vectors_of_another_encoder_are_refused(finished: Path) -> None:
    with pytest.raises(PassportError, match="passport field 'encoder': expected 'mobilenet', found 'clip'; run `cbir "):
        open_vectors(finished, "mobilenet", "gallery")


def test_a_kind_of_rows_that_was_not_embedded_is_refused(vectors_folder: Path) -> None:
    with pytest.raises(DataError, match=r"queries/passport\.json is not here: run `dvc repro`"):
        open_vectors(vectors_folder, "clip", "queries")


def test_a_folder_without_a_passport_is_refused(vectors_folder: Path) -> None:
    (vectors_folder / "gallery" / "passport.json").unlink()
    with pytest.raises(DataError, match=r"passport\.json is not here: run `dvc repro`"):
        open_vectors(vectors_folder, "clip", "gallery")


def rewrite_ids(folder: Path, change: Callable[[list[str]], list[str]]) -> None:
    path = folder / "gallery" / "part-00001.parquet"
    ids = change(read_table(path, IDS_SCHEMA)["id"].to_pylist())
    write_table(path, pa.table({"id": ids}, IDS_SCHEMA), IDS_SCHEMA)


@pytest.mark.parametrize(
    "change", [lambda ids: ["x", *ids[1:]], lambda ids: ids[::-1]], ids=["another id", "another order"]
)
def test_ids_that_were_changed_are_refused(vectors_folder: Path, change: Any) -> None:
    rewrite_ids(vectors_folder, change)
    with pytest.raises(PassportError, match=r"clip/gallery: passport field 'ids_sha256': expected '\w{64}', found '"):
        open_vectors(vectors_folder, "clip", "gallery")


def test_a_part_that_is_gone_is_refused(vectors_folder: Path) -> None:
    for kind in ("npy", "parquet"):
        (vectors_folder / "gallery" / f"part-00001.{kind}").unlink()
    with pytest.raises(PassportError, match="clip/gallery: passport field 'count': expected 43, found 27; run `cbir"):
        open_vectors(vectors_folder, "clip", "gallery")


def test_fewer_ids_than_vectors_are_refused(vectors_folder: Path) -> None:
    rewrite_ids(vectors_folder, lambda ids: ids[:-1])
    with pytest.raises(
        DataError,
        match=r"part-00001\.parquet: expected float32 \(15, dim\) vectors, one per id, found float32 \(16, 32\)",
    ):
        open_vectors(vectors_folder, "clip", "gallery")


def test_vectors_of_another_dimension_are_refused(vectors_folder: Path) -> None:
    np.save(vectors_folder / "gallery" / "part-00001.npy", np.ones((16, 31), np.float32))
    with pytest.raises(PassportError, match="clip/gallery: passport field 'dim': expected 32, found 31"):
        open_vectors(vectors_folder, "clip", "gallery")


def test_vectors_of_another_type_are_refused(vectors_folder: Path) -> None:
    np.save(vectors_folder / "gallery" / "part-00001.npy", np.ones((16, 32), np.float64))
    with pytest.raises(DataError, match=r"expected float32 \(16, dim\) vectors, one per id, found float64"):
        open_vectors(vectors_folder, "clip", "gallery")


def pickled_array(path: Path, mark: Path) -> None:
    np.save(path, np.array([Trap(mark)] * 16, object), allow_pickle=True)


def plain_pickle(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps(Trap(mark)))


def zipped_arrays(path: Path, _: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, vectors=np.ones((16, 32), np.float32))


def cut(to: int) -> Callable[[Path, Path], None]:
    return lambda path, _: path.write_bytes(path.read_bytes()[:to]) and None


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self._mark,)


@pytest.mark.parametrize(
    "spoil",
    [cut(0), cut(50), cut(500), pickled_array, plain_pickle, zipped_arrays, lambda path, _: path.unlink()],
    ids=["empty", "cut in its header", "cut in its rows", "an array of objects", "a pickle", "an npz", "gone"],
)
def test_vectors_that_cannot_be_read_are_refused_and_never_unpickled(
    vectors_folder: Path, tmp_path: Path, spoil: Any
) -> None:
    spoil(vectors_folder / "gallery" / "part-00001.npy", tmp_path / "sprung")
    with pytest.raises(
        DataError, match=r"part-00001\.npy is not readable: .*; run `cbir repair`, then `dvc repro`$"
    ) as caught:
        open_vectors(vectors_folder, "clip", "gallery")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "vectors", [np.ones((2, 3)), np.ones(2, np.float32), np.ones((3, 3), np.float32)], ids=["type", "shape", "number"]
)
def test_a_part_that_is_not_as_promised_is_not_written(vectors: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected float32 \(2, dim\), found float"):
        write_part(tmp_path, "part-00000", ["a", "b"], vectors)
    assert list(tmp_path.iterdir()) == []
