"""Shards of images to parts of vectors: every row under its own id, whatever the batch and the number of threads."""

import hashlib
import io
import json
import pickle
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cbir.artifacts import images as image_artifacts
from cbir.artifacts.images import PackedImage, write_shards
from cbir.artifacts.vectors import Vectors, open_vectors, positions_of, read_parts, read_passport, write_part
from cbir.core.errors import DataError, PassportError
from cbir.core.parallel import cores, ordered_map
from cbir.drawing.draw import sample
from cbir.encoders.base import Encoder
from cbir.encoders.embedding import Rows, embed_queries, embed_shards, maker, write_vectors_passport
from cbir.encoders.opening import load_encoder
from cbir.encoders.params import Backend, EncoderParams, Family, Precision
from cbir.encoders.preprocessing import Pixels
from cbir.encoders.runtime import Runtime
from cbir.encoders.vector_cache import VectorCache
from cbir.encoders.weights import fetch_encoder
from tests.encoders.test_encoders import TINY, one_thread  # noqa: F401  (the second is a fixture)

ROWS, SHARD_ROWS = 43, 16  # three shards: 16, 16 and 11


def encoder_params(family: Family, architecture: str, weights: str, image_px: int | None = None) -> EncoderParams:
    return EncoderParams(family, architecture, weights, None, None, None, image_px, Precision.fp32, Backend.auto)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """A small CLIP whose vectors depend on the image: with small random weights, they hardly do."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny.json").write_text(json.dumps(TINY))
    torch.manual_seed(2)
    state = open_clip.CLIP(**TINY).state_dict()
    torch.save({name: value * 3 if value.ndim > 1 else value for name, value in state.items()}, folder / "tiny.pth")
    params = encoder_params(Family.open_clip, str(folder / "tiny.json"), str(folder / "tiny.pth"))
    fetch_encoder("clip", params, folder / "out")
    return load_encoder(folder / "out", Family.open_clip, Runtime())


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("mobilenet")
    fetch_encoder("mobilenet", encoder_params(Family.torchvision, "mobilenet_v3_small", "random:0", 64), folder)
    return load_encoder(folder, Family.torchvision, Runtime())


def packed(number: int) -> list[PackedImage]:
    """Drawings in JPEG and PNG, in colour and grey, upright and wide, under ids that are in no order of their own."""
    found = []
    for drawing in sample(1, "gallery", number, side_range_px=(48, 80)):
        image = Image.open(io.BytesIO(drawing.jpeg)).convert("RGB")
        image = image.crop((0, 0, image.width, image.height - 15 * (drawing.number % 3)))
        if drawing.number % 5 == 0:
            image = image.convert("L")
        buffer = io.BytesIO()
        image.save(buffer, "PNG" if drawing.number % 2 else "JPEG")
        body = buffer.getvalue()
        image_id = f"{drawing.number * 17 % number:03d}/ü.jpg"
        digest = hashlib.sha256(body).hexdigest()
        found.append(PackedImage(image_id, None, None, None, "it", digest, *image.size, bytes(256), body))
    return found


@pytest.fixture(scope="module")
def images() -> list[PackedImage]:
    return packed(ROWS)


@pytest.fixture(scope="module")
def shards(images: list[PackedImage], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "gallery"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_artifacts, "MAX_SHARD_ROWS", SHARD_ROWS)
        patch.setattr(image_artifacts, "_ends_shard", lambda image: False)
        assert write_shards(folder, images) == ROWS
    assert [path.name for path in sorted(folder.iterdir())] == [f"part-0000{place}.parquet" for place in range(3)]
    return folder


def embedded(shards: Path, out: Path, encoder: Any, batch: int = 8, title: str = "clip gallery") -> Rows:
    """embed_shards without anything kept from before."""
    with tempfile.TemporaryDirectory() as folder:
        return embed_shards(shards, out, encoder, batch, VectorCache(Path(folder), maker(encoder)), title)


def embedded_texts(ids: list[str], texts: list[str], out: Path, encoder: Encoder, batch: int = 8) -> Rows:
    """embed_queries without anything kept from before."""
    with tempfile.TemporaryDirectory() as folder:
        return embed_queries(ids, texts, out, encoder, batch, VectorCache(Path(folder), maker(encoder)), "texts")


def prepared(encoder: Encoder, image: PackedImage) -> Pixels:
    return np.stack([encoder.card.preprocessing.prepare_packed(image.image)])


def stacked(folder: Path) -> tuple[list[str], Vectors]:
    ids, parts = read_parts(folder)
    return ids, np.concatenate(parts)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# ---- images to vectors


def test_every_row_is_the_vector_of_the_image_of_its_id(
    clip: Encoder, images: list[PackedImage], shards: Path, tmp_path: Path
) -> None:
    embedded(shards, tmp_path / "out", clip, 7)
    ids, vectors = stacked(tmp_path / "out")
    assert ids == [image.image_id for image in images]
    assert len(set(ids)) == ROWS
    alone = [clip.embed_images(prepared(clip, image))[0] for image in images]
    np.testing.assert_allclose(vectors, alone, rtol=0, atol=1e-5)
    likeness = vectors @ vectors.T - np.eye(ROWS)
    assert likeness.max() < 0.9999, "the images must be told apart, or the order would prove nothing"


def test_mobilenet_embeds_shards_too(
    mobilenet: Encoder, images: list[PackedImage], shards: Path, tmp_path: Path
) -> None:
    embedded(shards, tmp_path / "out", mobilenet, 16)
    ids, vectors = stacked(tmp_path / "out")
    assert ids == [image.image_id for image in images]
    last = mobilenet.embed_images(prepared(mobilenet, images[-1]))[0]
    np.testing.assert_allclose(vectors[-1], last, rtol=0, atol=1e-5)


def test_parts_are_named_and_filled_as_the_shards(clip: Encoder, shards: Path, tmp_path: Path) -> None:
    embedded(shards, tmp_path / "out", clip, 10)
    names = [f"part-0000{place}" for place in range(3)]
    assert sorted(bytes_of(tmp_path / "out")) == sorted(
        f"{name}.{kind}" for name in names for kind in ("npy", "parquet")
    )
    for name, rows in zip(names, (16, 16, 11), strict=True):
        part = np.load(tmp_path / "out" / f"{name}.npy")
        assert (part.shape, part.dtype) == ((rows, 32), np.float32)
        np.testing.assert_allclose(np.linalg.norm(part.astype(np.float64), axis=1), 1.0, atol=1e-6)
        assert pq.read_table(tmp_path / "out" / f"{name}.parquet").column_names == ["id"]


def test_the_batch_size_changes_no_vector(clip: Encoder, shards: Path, tmp_path: Path) -> None:
    rows, ids, vectors = [], [], []
    for batch in (1, 7, 32):
        rows.append(embedded(shards, tmp_path / str(batch), clip, batch))
        found = stacked(tmp_path / str(batch))
        ids.append(found[0])
        vectors.append(found[1])
    assert rows[0] == rows[1] == rows[2]
    assert ids[0] == ids[1] == ids[2]
    for other in vectors[1:]:
        np.testing.assert_allclose(other, vectors[0], rtol=0, atol=1e-5)


def test_no_batch_is_larger_than_asked_and_only_a_shards_last_is_smaller(
    clip: Encoder, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    embed = clip.embed_images
    monkeypatch.setattr(clip, "embed_images", lambda pixels: (seen.append(len(pixels)), embed(pixels))[1])
    embedded(shards, tmp_path / "out", clip, 7)
    assert sorted(seen) == sorted([7, 7, 2, 7, 7, 2, 7, 4])


def test_the_number_of_workers_changes_no_byte(
    clip: Encoder, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    for workers in (1, 4):
        monkeypatch.setattr(clip, "runtime", Runtime(workers=workers))
        rows.append(embedded(shards, tmp_path / str(workers), clip))
    assert rows[0] == rows[1]
    assert bytes_of(tmp_path / "1") == bytes_of(tmp_path / "4")


def test_rows_are_counted_and_hashed_in_their_order(
    clip: Encoder, images: list[PackedImage], shards: Path, tmp_path: Path
) -> None:
    rows = embedded(shards, tmp_path / "out", clip, 32)
    ids = hashlib.sha256(b"".join(image.image_id.encode() + b"\0" for image in images)).hexdigest()
    content = hashlib.sha256("".join(hashlib.sha256(image.image).hexdigest() for image in images).encode()).hexdigest()
    assert rows == Rows(ROWS, ids, content)


def test_a_gallery_without_images_is_refused(clip: Encoder, tmp_path: Path) -> None:
    for folder in (tmp_path / "absent", tmp_path / "empty"):
        with pytest.raises(DataError, match=f"^{folder}: expected shards with images, found none; run `dvc repro pre"):
            embedded(folder, tmp_path / "out", clip)
        folder.mkdir(exist_ok=True)


def test_query_images_may_be_none(clip: Encoder, tmp_path: Path) -> None:
    (tmp_path / "queries").mkdir()
    rows = embedded(tmp_path / "queries", tmp_path / "out", clip, title="clip queries")
    assert (rows.count, list((tmp_path / "out").iterdir())) == (0, [])


def test_an_image_that_cannot_be_decoded_stops_the_work(
    clip: Encoder, images: list[PackedImage], tmp_path: Path
) -> None:
    broken = PackedImage("broken", None, None, None, "it", "0" * 64, 1, 1, bytes(256), b"no image")
    write_shards(tmp_path / "images", [*images[:3], broken, *images[3:6]])
    with pytest.raises(OSError, match="cannot identify image file"):
        embedded(tmp_path / "images", tmp_path / "out", clip, 2)
    assert not list((tmp_path / "out").glob("*.parquet")), "a part with ids is whole"


# ---- texts to vectors


def test_texts_are_embedded_under_their_query_ids(clip: Encoder, tmp_path: Path) -> None:
    ids, texts = [f"q{place}" for place in range(7)], [f"a photo of {place} stars" for place in range(6)] + [""]
    rows = [embedded_texts(ids, texts, tmp_path / str(batch), clip, batch) for batch in (1, 3, 7, 100)]
    expected = clip.embed_texts(texts)
    for batch in (1, 3, 7, 100):
        found_ids, vectors = stacked(tmp_path / str(batch))
        assert found_ids == ids
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)
        assert sorted(bytes_of(tmp_path / str(batch))) == ["part-00000.npy", "part-00000.parquet"]
    hashed = [hashlib.sha256(b"".join(word.encode() + b"\0" for word in words)).hexdigest() for words in (ids, texts)]
    assert rows == [Rows(7, *hashed)] * 4


def test_no_texts_leave_no_part(clip: Encoder, tmp_path: Path) -> None:
    assert embedded_texts([], [], tmp_path / "texts", clip).count == 0
    assert list((tmp_path / "texts").iterdir()) == []


def test_texts_and_ids_must_be_as_many(clip: Encoder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected float32 \(2, dim\), found float32 \(1, 32\)"):
        embedded_texts(["a", "b"], ["one text"], tmp_path, clip)


# ---- the passport, and who is let in with it


@pytest.fixture(scope="module")
def finished(clip: Encoder, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stage embed leaves for an encoder."""
    folder = tmp_path_factory.mktemp("embeddings") / "clip"
    rows = {
        "gallery": embedded(shards, folder / "gallery", clip),
        "texts": embedded_texts(["t1", "t2"], ["a red star", "a blue ring"], folder / "texts", clip),
    }
    for kind, found in rows.items():
        write_vectors_passport(folder / kind, "clip", clip, found)
    return folder


@pytest.fixture
def vectors_folder(finished: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(finished, tmp_path / "clip"))


def test_the_passport_says_who_made_the_vectors_from_what(finished: Path, clip: Encoder) -> None:
    passport = read_passport(finished / "gallery")
    said = {name: passport.pop(name) for name in ("rows", "versions")}
    assert passport == {
        "encoder": "clip",
        **json.loads(json.dumps(clip.card.to_json())),
        "precision": "fp32",
        "backend": "torch",
        "device": "cpu",
        "normalised": True,
        "metric": "inner_product",
        "dim": 32,
    }
    for rows, count in ((said["rows"], ROWS), (read_passport(finished / "texts")["rows"], 2)):
        assert (rows["count"], set(rows)) == (count, {"count", "ids_sha256", "content_sha256"})
    libraries = ("torch", "torchvision", "open_clip_torch", "timm", "openvino", "pillow", "numpy")
    assert said["versions"] == {library: version(library) for library in libraries}


def test_the_same_inputs_give_the_same_bytes(finished: Path, clip: Encoder, shards: Path, tmp_path: Path) -> None:
    rows = {
        "gallery": embedded(shards, tmp_path / "gallery", clip, title="again gallery"),
        "texts": embedded_texts(["t1", "t2"], ["a red star", "a blue ring"], tmp_path / "texts", clip),
    }
    for kind, found in rows.items():
        write_vectors_passport(tmp_path / kind, "clip", clip, found)
    files = [path.relative_to(finished) for path in finished.rglob("*") if path.is_file()]
    assert len(files) == 10
    assert all((finished / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)


def test_vectors_are_found_by_id_across_the_parts(finished: Path, images: list[PackedImage]) -> None:
    opened = open_vectors(finished, "clip", "gallery")
    _, everything = stacked(finished / "gallery")
    assert opened.ids.to_pylist() == [image.image_id for image in images]
    for places in ([0], [15, 16], [42, 0, 31, 32, 0], list(range(ROWS))[::-1], []):
        found = opened.rows([images[place].image_id for place in places], "it")
        assert (found.shape, found.dtype) == ((len(places), 32), np.float32)
        assert np.array_equal(found, everything[places])


def test_an_id_without_a_vector_is_refused_by_name(finished: Path, images: list[PackedImage]) -> None:
    opened = open_vectors(finished, "clip", "gallery")
    with pytest.raises(DataError, match=r"^the queries: no vector for 'nobody'; run `dvc repro --force embed`$"):
        opened.rows([images[3].image_id, "nobody", "no one"], "the queries")


def test_positions_are_those_of_the_gallery_or_missing() -> None:
    gallery = pa.array(["b", "a", "c"])
    assert positions_of(["c", None, "a", "x", "b", "c"], gallery).tolist() == [2, -1, 1, -1, 0, 2]
    assert positions_of([], gallery).dtype == np.int64


def test_vectors_of_another_encoder_are_refused(finished: Path) -> None:
    with pytest.raises(PassportError, match="passport field 'encoder': expected 'mobilenet', found 'clip'; run `dvc "):
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
    ids = change(pq.read_table(path)["id"].to_pylist())
    pq.write_table(pa.table({"id": ids}, pa.schema([pa.field("id", pa.string(), nullable=False)])), path)


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
    with pytest.raises(PassportError, match="clip/gallery: passport field 'count': expected 43, found 27; run `dvc"):
        open_vectors(vectors_folder, "clip", "gallery")


def test_ids_and_vectors_must_be_as_many(vectors_folder: Path) -> None:
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
    with pytest.raises(DataError, match=r"part-00001\.npy is not readable: .*; run `dvc repro --force`$") as caught:
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


# ---- ordered_map


def test_results_come_in_the_order_of_the_items_whatever_ends_first() -> None:
    def work(item: int) -> int:
        time.sleep(0.02 if item % 4 == 0 else 0.0)
        return item * item

    with ThreadPoolExecutor(4) as pool:
        for ahead in (1, 3, 8, 100):
            assert list(ordered_map(pool, work, range(20), ahead)) == [item * item for item in range(20)]
        assert list(ordered_map(pool, work, [], 4)) == []


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_no_more_than_ahead_items_are_begun_and_not_yet_yielded(ahead: int) -> None:
    lock, taken, yielded, most = threading.Lock(), 0, 0, 0

    def items() -> Iterator[int]:
        nonlocal taken, most
        for item in range(30):
            with lock:
                taken += 1
                most = max(most, taken - yielded)
            yield item

    with ThreadPoolExecutor(8) as pool:
        for result in ordered_map(pool, lambda item: item, items(), ahead):
            with lock:
                yielded += 1
                assert result == yielded - 1
            time.sleep(0.001)  # time in which a map without bounds would run on
    assert (taken, yielded, most) == (30, 30, ahead)


def test_an_endless_source_is_read_only_as_far_as_needed() -> None:
    def endless() -> Iterator[int]:
        while True:
            taken.append(len(taken))
            yield taken[-1]

    taken: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        results = ordered_map(pool, lambda item: item, endless(), 4)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(taken) <= 3 + 4


def test_work_runs_at_the_same_time() -> None:
    barrier = threading.Barrier(3, timeout=10)
    with ThreadPoolExecutor(3) as pool:
        assert len(list(ordered_map(pool, lambda _: barrier.wait(), range(6), 3))) == 6


def test_an_exception_comes_at_its_items_turn() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise KeyError("the fourth")
        return item

    with ThreadPoolExecutor(2) as pool:
        results = ordered_map(pool, work, range(10), 6)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(KeyError, match="the fourth"):
            next(results)


def test_an_exception_of_the_source_comes_through() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise OSError("the disk is gone")

    with ThreadPoolExecutor(2) as pool, pytest.raises(OSError, match="the disk is gone"):
        list(ordered_map(pool, lambda item: item, items(), 2))


def test_cores_are_those_this_process_may_use() -> None:
    assert cores() >= 1
