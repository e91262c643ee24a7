"""Kept shards: nothing is computed twice, nothing wrong is taken, and kill -9 costs a shard."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cbir.artifacts import images as image_artifacts
from cbir.artifacts.images import PackedImage, write_shards
from cbir.compose import composed
from cbir.core.errors import DataError
from cbir.encoders import embedding
from cbir.encoders.base import Encoder
from cbir.encoders.embedding import EmbeddedRows, embed_queries, embed_shards, vector_settings
from cbir.encoders.params import Backend
from cbir.encoders.preprocessing import Preprocessing
from cbir.encoders.vector_cache import VectorCache
from cbir.encoders.weights import fetch_encoder
from tests.support.encoders import bytes_of, mobilenet_params, packed_images, stacked
from tests.support.imports import ROOT


@pytest.fixture
def seen(tiny: Encoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A one for each image that was prepared for the encoder."""
    ones: list[int] = []
    prepare = Preprocessing.prepare_packed
    monkeypatch.setattr(Preprocessing, "prepare_packed", lambda self, image: (ones.append(1), prepare(self, image))[1])
    return ones


def embedded(shards: Path, out: Path, encoder: Any, cache: Path, **changes: Any) -> EmbeddedRows:
    kept = VectorCache(cache, {**vector_settings(encoder), **changes})
    return embed_shards(shards, out, encoder, 8, kept, "clip gallery")


def test_a_second_run_takes_every_shard_from_the_cache(
    tiny: Encoder,
    shards: Path,
    seen: list[int],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    first = embedded(shards, tmp_path / "one", tiny, tmp_path / "cache")
    assert sum(seen) == 43
    seen.clear()
    assert embedded(shards, tmp_path / "two", tiny, tmp_path / "cache") == first
    assert seen == []
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert "43/43 [" in capfd.readouterr().err.splitlines()[-1]


def of_numbers(images: list[PackedImage], numbers: Iterable[int]) -> list[PackedImage]:
    return [images[number] for number in numbers]


@pytest.mark.parametrize(
    ("before", "after", "computed"),
    [
        ([*range(9), *range(10, 43)], range(43), 1),
        (range(1, 43), range(43), 1),
        (range(42), range(43), 1),
        (range(43), [*range(9), *range(10, 43)], 0),
        (range(43), range(16, 43), 0),
        (range(20), range(20, 43), 23),
        (range(43), [*range(20, 43), *range(20)], 0),
        (range(43), [*range(43), 7, 7], 0),
    ],
    ids=["inserted", "first", "last", "removed", "shard removed", "all are new", "moved", "copies"],
)
def test_only_new_images_are_computed_as_in_a_fresh_run(
    before: Iterable[int],
    after: Iterable[int],
    computed: int,
    tiny: Encoder,
    images: list[PackedImage],
    seen: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_artifacts, "_ends_shard", lambda image: image.sha256[0] in "01")
    monkeypatch.setattr("cbir.encoders.vector_cache._REFERRED", 4)
    for name, numbers in (("before", before), ("after", after)):
        write_shards(tmp_path / name, of_numbers(images, numbers))
    embedded(tmp_path / "before", tmp_path / "one", tiny, tmp_path / "cache")
    embedded(tmp_path / "after", tmp_path / "fresh", tiny, tmp_path / "another cache")
    seen.clear()
    embedded(tmp_path / "after", tmp_path / "two", tiny, tmp_path / "cache")
    assert sum(seen) == computed
    assert bytes_of(tmp_path / "two") == bytes_of(tmp_path / "fresh")


def test_progress_says_what_came_from_the_cache(
    tiny: Encoder, images: list[PackedImage], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_shards(tmp_path / "before", [*images[:9], *images[10:]])
    write_shards(tmp_path / "after", images)
    embedded(tmp_path / "before", tmp_path / "one", tiny, tmp_path / "cache")
    assert "from cache" not in capfd.readouterr().err
    embedded(tmp_path / "after", tmp_path / "two", tiny, tmp_path / "cache")
    last = capfd.readouterr().err.splitlines()[-1]
    assert "43/43 [" in last
    assert "images/s, 42 from cache, decode" in last


def test_a_device_takes_whole_shards_alone(tiny: Encoder, tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, vector_settings(tiny))
    kept = np.arange(96, dtype=np.float32).reshape(3, 32)
    cache.put([name * 64 for name in "abc"], kept)
    for names, whole, expected in (("abc", True, 3), ("abd", True, 0), ("abd", False, 2), ("bd", False, 0)):
        vectors, known = cache.get([name * 64 for name in names], whole=whole)
        assert known.sum() == expected
        assert np.array_equal(vectors[known], kept[:expected])
        assert not vectors[~known].any()


@pytest.mark.parametrize(
    "change",
    [
        {"weights_sha256": "0" * 64},
        {"precision": "bf16"},
        {"backend": "openvino"},
        {"device": "cuda"},
        {"versions": {"torch": "0"}},
        {"preprocessing": {"resize_px": 65}},
        {"settings_sha256": "0" * 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_take_nothing_from_the_cache(
    change: dict[str, Any],
    tiny: Encoder,
    shards: Path,
    seen: list[int],
    tmp_path: Path,
) -> None:
    embedded(shards, tmp_path / "one", tiny, tmp_path / "cache")
    seen.clear()
    embedded(shards, tmp_path / "two", tiny, tmp_path / "cache", **change)
    assert sum(seen) == 43
    seen.clear()
    embedded(shards, tmp_path / "three", tiny, tmp_path / "cache")  # switched back
    embedded(
        shards, tmp_path / "four", tiny, tmp_path / "cache", origin="elsewhere"
    )  # the same file, fetched elsewhere
    assert seen == []


def test_only_new_texts_are_computed(
    tiny: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(embedding, "TEXTS_PER_PART", 10)
    texts = [f"a photo of {number} stars" for number in range(35)]
    read: list[str] = []
    embed = tiny.embed_texts
    monkeypatch.setattr(tiny, "embed_texts", lambda batch: (read.extend(batch), embed(batch))[1])

    def embedded_texts(out: str, texts: list[str], **changes: Any) -> list[str]:
        read.clear()  # batches are full: the last text is repeated
        kept = VectorCache(tmp_path / "cache", {**vector_settings(tiny), **changes})
        rows = embed_queries(texts, texts, tmp_path / out, tiny, 4, kept, "clip texts")
        assert (rows.count, stacked(tmp_path / out)[0]) == (len(texts), texts)
        return sorted(set(read))

    assert embedded_texts("one", texts[:30]) == sorted(texts[:30])
    assert embedded_texts("two", texts[:30]) == []
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert embedded_texts("three", texts) == texts[30:]
    assert "35/35 [" in capfd.readouterr().err.splitlines()[-1]
    assert embedded_texts("four", [*texts[:12], "another", *texts[13:30]]) == ["another"]
    assert embedded_texts("five", texts[:10], weights_sha256="0" * 64) == texts[:10]
    np.testing.assert_allclose(stacked(tmp_path / "three")[1], embed(texts), rtol=0, atol=1e-5)


def flipped(data: bytes, place: int) -> bytes:
    """The data with one bit flipped, such as the sign of a float."""
    return data[:place] + bytes([data[place] ^ 0x80]) + data[place + 1 :]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-10]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no array"),
        lambda path: np.save(path, np.load(path)[:-1]),
        lambda path: np.save(path, np.load(path).astype(np.float64)),
        lambda path: np.save(path, np.load(path) * 0),
        lambda path: np.save(path, np.full_like(np.load(path), np.nan)),
        lambda path: np.save(path, np.array([{"a": 1}], object), allow_pickle=True),
        lambda path: path.write_bytes(b"PK\x03\x04" + path.read_bytes()[4:]),
        lambda path: path.write_bytes(path.read_bytes()[:8] + b"\x01" + path.read_bytes()[9:]),
        lambda path: path.write_bytes(flipped(path.read_bytes(), 1000)),
        lambda path: path.unlink(),
    ],
)
def test_a_damaged_file_is_computed_anew(
    spoil: Callable[[Path], None],
    tiny: Encoder,
    shards: Path,
    seen: list[int],
    tmp_path: Path,
) -> None:
    embedded(shards, tmp_path / "one", tiny, tmp_path / "cache")
    seen.clear()
    victim = max((tmp_path / "cache").rglob("*.npy"), key=lambda path: path.stat().st_size)
    spoil(victim)
    embedded(shards, tmp_path / "two", tiny, tmp_path / "cache")
    assert sum(seen) == 16
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert np.load(victim).shape == (16, 32)


def test_a_damaged_image_reaches_neither_cache_nor_vectors(
    tiny: Encoder, images: list[PackedImage], shards: Path, tmp_path: Path
) -> None:
    damaged = [*images[:4], replace(images[4], image=images[5].image), *images[5:]]
    write_shards(tmp_path / "damaged", damaged)
    with pytest.raises(
        DataError, match=f"image {images[4].image_id!r}: expected bytes whose sha256 is {images[4].sha256}"
    ):
        embedded(tmp_path / "damaged", tmp_path / "one", tiny, tmp_path / "cache")
    embedded(shards, tmp_path / "two", tiny, tmp_path / "cache")
    embedded(shards, tmp_path / "three", tiny, tmp_path / "another cache")
    assert bytes_of(tmp_path / "two") == bytes_of(tmp_path / "three")
    with pytest.raises(DataError, match="expected bytes whose sha256"):  # from the cache as well
        embedded(tmp_path / "damaged", tmp_path / "one", tiny, tmp_path / "cache")


def test_an_unwritable_cache_is_noted_once_and_stops_nothing(
    tiny: Encoder, shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    embedded(shards, tmp_path / "one", tiny, tmp_path / "cache")
    (tmp_path / "file").write_text("where a folder should be")
    embedded(shards, tmp_path / "two", tiny, tmp_path / "file")
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    stderr = capfd.readouterr().err
    assert stderr.count("note: cannot write to the cache") == 1
    assert "`cbir cache --prune` frees space" in stderr


def test_a_full_disk_leaves_no_partial_file(
    tiny: Encoder, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cbir.encoders.vector_cache.os.replace", full)
    cache = VectorCache(tmp_path / "cache", vector_settings(tiny))
    cache.put(["a" * 64], np.zeros((1, 32), np.float32))
    assert "No space left on device" in capfd.readouterr().err
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_a_read_only_cache_is_read(
    tiny: Encoder, shards: Path, seen: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    embedded(shards, tmp_path / "one", tiny, tmp_path / "cache")
    seen.clear()
    monkeypatch.setattr("cbir.encoders.vector_cache.os.utime", refuse)
    embedded(shards, tmp_path / "two", tiny, tmp_path / "cache")
    assert seen == []


def test_the_umask_decides_who_reads_the_cache(tiny: Encoder, shards: Path, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        embedded(shards, tmp_path / "one", tiny, tmp_path / "cache")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "cache").rglob("*.npy")} == {0o644}


# ---- kill -9

STAGE = """
from cbir.encoders.base import Encoder
from stages import embed
embed_images = Encoder.embed_images
def counted(self, pixels):
    with open("computed", "ab", buffering=0) as file:
        file.write(bytes(len(pixels)))  # a byte an image: appending is atomic
    return embed_images(self, pixels)
Encoder.embed_images = counted
embed.main("mobilenet_demo")
"""
SHARD, BATCH, WORKERS = 20, 8, 2
IN_BATCHES = 520  # 430 images in 20 shards of 20, and two of 20 and 10, in full batches


def stage(root: Path, cache: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CBIR_CACHE": str(cache)}
    return subprocess.Popen([sys.executable, "-c", STAGE], cwd=root, env=environment)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that embed mobilenet_demo reads, in twenty shards."""
    root = tmp_path_factory.mktemp("ready")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_artifacts, "MAX_SHARD_ROWS", SHARD)
        patch.setattr(image_artifacts, "_ends_shard", lambda image: False)
        images = packed_images(430)
        write_shards(root / "data/images/gallery", images[:400])
        write_shards(root / "data/images/queries", images[400:])
    params = mobilenet_params(image_px=96, backend=Backend.torch)
    fetch_encoder("mobilenet_demo", params, root / "data/weights/mobilenet_demo")
    overrides = ["encoders.mobilenet_demo.weights=random:0", "encoders.mobilenet_demo.backend=torch", "device=cpu"]
    overrides += [f"device.workers={WORKERS}", f"device.batch_images={BATCH}"]
    (root / "params.yaml").write_text(composed(overrides, ROOT / "conf"))
    return root


def killed_and_finished(ready: Path, tmp_path: Path, kills: int) -> None:
    assert stage(ready, tmp_path / "own cache").wait() == 0
    whole = {path.relative_to(ready): path.read_bytes() for path in (ready / "data/embeddings").rglob("*.*")}
    assert (ready / "computed").stat().st_size == IN_BATCHES
    (ready / "computed").unlink()

    cache, moments = tmp_path / "cache", random.Random(kills)
    killed = 0
    for _ in range(kills):
        process = stage(ready, cache)
        before = sum(1 for _ in cache.rglob("*.npy"))
        # after the model is loaded and some shards more are done, at any moment
        wanted = min(before + moments.randint(0, 3), 21)
        while process.poll() is None and sum(1 for _ in cache.rglob("*.npy")) < wanted:
            time.sleep(0.005)
        time.sleep(moments.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= kills // 2
    assert stage(ready, cache).wait() == 0
    assert {path.relative_to(ready): path.read_bytes() for path in (ready / "data/embeddings").rglob("*.*")} == whole
    again = (ready / "computed").stat().st_size - IN_BATCHES
    (ready / "computed").unlink()
    assert 0 < again <= killed * (SHARD + BATCH + 2 * WORKERS * BATCH)  # a shard, and the batches on their way


def test_killed_runs_end_with_the_bytes_of_a_whole_run(ready: Path, tmp_path: Path) -> None:
    killed_and_finished(ready, tmp_path, kills=5)


@pytest.mark.slow
def test_25_kills_end_with_the_bytes_of_a_whole_run(ready: Path, tmp_path: Path) -> None:
    killed_and_finished(ready, tmp_path, kills=25)
