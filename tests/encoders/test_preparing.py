"""Embedding on a device: processes prepare a few batches, whatever their number; the vectors are those of the CPU path."""

import hashlib
import os
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cbir.artifacts.images import PackedImage, write_shards
from cbir.artifacts.vectors import Vectors
from cbir.core.errors import DataError
from cbir.encoders import preparing
from cbir.encoders.base import Encoder, NotFiniteError
from cbir.encoders.embedding import EmbeddedRows, embed_queries, embed_shards, vector_settings
from cbir.encoders.preparing import BATCHES, Preparation
from cbir.encoders.preprocessing import Pixels
from cbir.encoders.vector_cache import VectorCache
from tests.encoders.conftest import ROWS
from tests.support.encoders import bytes_of, packed_images, stacked

BATCH = 4


class Device:
    """A tower that counts the batches it holds; the vectors are those of `encoder`."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.lock, self.held, self.most, self.rows = encoder, threading.Lock(), 0, 0, 0

    def __call__(self, inputs: Any) -> Vectors:
        with self.lock:
            self.held += 1
            self.most, self.rows = max(self.most, self.held), self.rows + len(inputs)
        time.sleep(0.01)
        full = inputs[np.minimum(np.arange(BATCH), len(inputs) - 1)]  # as the CPU's batches are
        vectors = self.encoder.embed_images(full)[: len(inputs)]
        with self.lock:
            self.held -= 1
        return vectors


def on_device(encoder: Encoder, tower: Any, workers: int = 2, at_device: int = 2) -> Encoder:
    """An encoder whose towers are a device's, so that `embed_shards` does as it does for a GPU."""
    runtime = replace(encoder.runtime, workers=workers, at_device=at_device)
    return Encoder(encoder.card, runtime, lambda: tower, lambda: tower, encoder.tokenize)


def embedded(shards: Path, out: Path, encoder: Encoder, cache: Path | None = None) -> EmbeddedRows:
    with tempfile.TemporaryDirectory() as empty:
        kept = VectorCache(cache or Path(empty), vector_settings(encoder))
        return embed_shards(shards, out, encoder, BATCH, kept, "gallery", allow_empty=True)


def test_the_device_path_gives_the_bytes_of_the_cpu_path(tiny: Encoder, shards: Path, tmp_path: Path) -> None:
    device = Device(tiny)
    expected = embedded(shards, tmp_path / "cpu", tiny)
    assert embedded(shards, tmp_path / "device", on_device(tiny, device)) == expected
    assert bytes_of(tmp_path / "device") == bytes_of(tmp_path / "cpu")
    assert device.rows == ROWS + 1  # one for the dimension


@pytest.mark.parametrize("workers", [2, 64])
def test_the_number_of_workers_adds_no_batch(
    workers: int,
    tiny: Encoder,
    images: list[PackedImage],
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, released, most = 0, 0, 0
    start, release = Preparation.start, Preparation.release

    def counted_start(self: Preparation, batch: Sequence[bytes]) -> preparing.Started:
        nonlocal begun, most
        begun += 1
        most = max(most, begun - released)
        return start(self, batch)

    def counted_release(self: Preparation, batch: preparing.Started) -> None:
        nonlocal released
        release(self, batch)
        released += 1

    monkeypatch.setattr(Preparation, "start", counted_start)
    monkeypatch.setattr(Preparation, "release", counted_release)
    device = Device(tiny)
    embedded(shards, tmp_path / "out", on_device(tiny, device, workers, at_device=2))
    assert device.most == 2
    assert begun == released == 11  # 4, 4 and 3 batches of at most 4 images
    assert most <= BATCHES
    assert stacked(tmp_path / "out")[0] == [image.image_id for image in images]


def test_cached_shards_need_no_batch(tiny: Encoder, shards: Path, tmp_path: Path) -> None:
    device = Device(tiny)
    rows = [embedded(shards, tmp_path / str(run), on_device(tiny, device), tmp_path / "cache") for run in range(2)]
    assert rows[0] == rows[1]
    assert device.rows == ROWS + 2
    assert bytes_of(tmp_path / "0") == bytes_of(tmp_path / "1")


def test_no_images_are_no_error_where_they_may_be_absent(tiny: Encoder, tmp_path: Path) -> None:
    (tmp_path / "queries").mkdir()
    assert embedded(tmp_path / "queries", tmp_path / "out", on_device(tiny, Device(tiny))).count == 0


def test_a_few_batches_of_texts_are_at_the_device(tiny: Encoder, tmp_path: Path) -> None:
    held, most, lock = 0, 0, threading.Lock()

    def tower(tokens: Any) -> Vectors:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        time.sleep(0.01)
        with lock:
            held -= 1
        return np.eye(len(tokens), 32, dtype=np.float32)

    encoder, texts = on_device(tiny, tower, workers=64, at_device=2), [f"text {place}" for place in range(40)]
    cache = VectorCache(tmp_path / "cache", {"dim": 32})
    assert embed_queries(texts, texts, tmp_path / "out", encoder, 2, cache, "texts").count == 40
    assert most == 2


def test_the_pixels_are_those_of_the_images_in_order(tiny: Encoder) -> None:
    preprocessing, images = tiny.card.preprocessing, [image.image for image in packed_images(2 * BATCHES * 20)]
    batches = [images[first : first + 20] for first in range(0, len(images), 20)]
    batches[-1].pop()
    with Preparation(preprocessing, 2, 20) as preparation:
        for half in (batches[:BATCHES], batches[BATCHES:]):  # the second has the memory of the first
            for batch, started in [(batch, preparation.start(batch)) for batch in half]:
                pixels, seconds = preparation.wait(started)
                assert seconds > 0
                assert np.array_equal(pixels, [preprocessing.prepare_packed(image) for image in batch])
                preparation.release(started)


# ---- errors


def test_an_image_that_cannot_be_decoded_stops_the_work(
    tiny: Encoder, images: list[PackedImage], tmp_path: Path
) -> None:
    broken = PackedImage(
        "broken", None, None, None, "it", hashlib.sha256(b"no image").hexdigest(), 1, 1, bytes(256), b"no image"
    )
    write_shards(tmp_path / "images", [*images[:30], broken, *images[30:]])
    with pytest.raises(OSError, match="cannot identify image file"):
        embedded(tmp_path / "images", tmp_path / "out", on_device(tiny, Device(tiny)))


def test_an_error_of_the_device_names_the_images(
    tiny: Encoder, images: list[PackedImage], shards: Path, tmp_path: Path
) -> None:
    def tower(pixels: Pixels) -> Vectors:
        vectors = tiny.embed_images(pixels)
        vectors[2:3] = np.nan
        return vectors

    with pytest.raises(NotFiniteError, match=f"for {images[2].image_id}; the weights may be damaged"):
        embedded(shards, tmp_path / "out", on_device(tiny, tower))


def test_a_killed_process_is_a_one_line_error(tiny: Encoder, images: list[PackedImage]) -> None:
    with Preparation(tiny.card.preprocessing, 1, BATCH) as preparation:
        started = preparation.start([images[0].image])
        preparation.wait(started)
        preparation.release(started)
        (process,) = preparation._processes._processes.values()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with pytest.raises(DataError, match=r"found one killed, perhaps for want of memory; set a smaller"):
            preparation.wait(preparation.start([images[0].image]))
