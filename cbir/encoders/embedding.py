"""Embed shards of images, and texts, into parts of vectors with their ids and a passport."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa

from cbir.artifacts.images import read_shards
from cbir.artifacts.vectors import Vectors, write_part
from cbir.core.errors import DataError
from cbir.core.files import add_ids, fresh_folder, hash_ids
from cbir.core.parallel import ordered_map
from cbir.core.progress import Progress, progress
from cbir.encoders.base import Encoder, NotFiniteError
from cbir.encoders.preparing import BATCHES, Preparation, Started
from cbir.encoders.preprocessing import Pixels
from cbir.encoders.runtime import return_freed_memory
from cbir.encoders.vector_cache import VectorCache

TEXTS_PER_PART = 1024
_LIBRARIES = ("torch", "torchvision", "open_clip_torch", "timm", "transformers", "openvino", "pillow", "numpy")


@dataclass(frozen=True)
class EmbeddedRows:
    """The rows of a set of vectors: their count, the hash of their ids, and the hash of their images or texts."""

    count: int
    ids_sha256: str
    content_sha256: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a passport."""
        return dict(self.__dict__)


@dataclass
class StepSeconds:
    """Seconds of all workers together, by step."""

    decode: float = 0.0
    infer: float = 0.0

    def __str__(self) -> str:
        total = sum(self.__dict__.values()) or 1.0
        return ", ".join(f"{step} {seconds / total:.0%}" for step, seconds in self.__dict__.items())


@dataclass
class _Shard:
    """A shard of images and its vectors.

    cache_path : where the cache keeps its vectors.  cached : the vectors read from there, or None.  embedded : the vectors
    of its first batches, as they are computed.
    """

    name: str
    ids: list[str]
    digests: list[str]
    cache_path: Path
    cached: Vectors | None
    embedded: list[Vectors] = field(default_factory=list)


@dataclass
class _Batch:
    """Packed images from row `start` of the shard; None for a whole cached shard."""

    shard: _Shard
    start: int
    images: pa.ChunkedArray | None
    ends_shard: bool


@dataclass
class _EmbeddedBatch:
    """vectors : None for a cached shard.  decode_s, infer_s : seconds of the worker."""

    batch: _Batch
    vectors: Vectors | None = None
    decode_s: float = 0.0
    infer_s: float = 0.0


def embed_shards(
    shards: Path,
    out: Path,
    encoder: Encoder,
    batch_images: int,
    cache: VectorCache,
    title: str,
    allow_empty: bool = False,
) -> EmbeddedRows:
    """Embed the images of the shards in `shards` into parts of the same names in `out`.

    On a CPU each of the encoder's workers takes a batch from packed bytes to vectors; on a GPU they prepare the next few
    batches together.  A batch never spans two shards, so a shard's vectors depend on nothing but the shard.  Finished shards
    are written to the cache; later runs read them from there.
    title : for the progress display.  Raises DataError when there are no images, unless `allow_empty`.
    """
    fresh_folder(out)
    total = sum(table.num_rows for _, table in read_shards(shards, ["image_id"]))
    if total == 0 and not allow_empty:
        raise DataError(f"{shards}: expected shards with images, found none; run `dvc repro preprocess`")
    ids_hash, content_hash, count = sha256(), sha256(), 0
    embed = _embed_by_workers if encoder.runtime.at_device is None else _embed_on_device
    batches = embed(encoder, _read_batches(shards, batch_images, cache), min(batch_images, max(1, total)))
    with closing(batches), ThreadPoolExecutor(1) as writer, progress(total, title, "images") as bar:
        finished = _finished_shards(batches, bar)
        for shard in ordered_map(writer, partial(_write_shard, out, cache), finished, ahead=2):
            add_ids(ids_hash, shard.ids)
            content_hash.update("".join(shard.digests).encode())
            count += len(shard.ids)
    return EmbeddedRows(count, ids_hash.hexdigest(), content_hash.hexdigest())


def _finished_shards(batches: Iterable[_EmbeddedBatch], bar: Progress) -> Iterator[_Shard]:
    """Collect the vectors of the batches; yield a shard when it has all of them."""
    bar.detail = seconds = StepSeconds()
    for embedded in batches:
        shard = embedded.batch.shard
        seconds.decode += embedded.decode_s
        seconds.infer += embedded.infer_s
        if embedded.vectors is not None:
            shard.embedded.append(embedded.vectors)
            bar.advance(len(embedded.vectors))
        elif shard.cached is not None:
            bar.skip(len(shard.cached))
        if embedded.batch.ends_shard:
            yield shard


def _write_shard(out: Path, cache: VectorCache, shard: _Shard) -> _Shard:
    """Write the vectors of a finished shard, while others are embedded."""
    if shard.cached is None:
        vectors = np.concatenate(shard.embedded)
        cache.put(shard.cache_path, vectors)
    else:
        vectors = shard.cached
    write_part(out, shard.name, shard.ids, vectors)
    return_freed_memory()
    return shard


def _read_batches(shards: Path, batch_images: int, cache: VectorCache) -> Iterator[_Batch]:
    """Read the shards; yield one batch for a cached shard, batches of at most `batch_images` images for the others."""
    for name, table in read_shards(shards, ["image_id", "sha256", "image"]):
        digests = table["sha256"].to_pylist()
        path = cache.path(digests)
        shard = _Shard(name, table["image_id"].to_pylist(), digests, path, cache.get(path, len(digests)))
        if shard.cached is not None:
            yield _Batch(shard, 0, None, ends_shard=True)
            continue
        for start in range(0, len(digests), batch_images):
            images = table["image"].slice(start, batch_images)
            yield _Batch(shard, start, images, ends_shard=start + batch_images >= len(digests))


def _embed_by_workers(encoder: Encoder, batches: Iterator[_Batch], _: int) -> Generator[_EmbeddedBatch]:
    """Embed batches in order; each worker decodes, prepares and embeds the images of a batch."""

    def embed(batch: _Batch) -> _EmbeddedBatch:
        if batch.images is None:
            return _EmbeddedBatch(batch)
        begun = perf_counter()
        pixels = np.stack([encoder.card.preprocessing.prepare_packed(image.as_py()) for image in batch.images])
        return _embed_pixels(encoder, batch, pixels, perf_counter() - begun)

    workers = encoder.runtime.workers
    with ThreadPoolExecutor(workers) as pool:
        yield from ordered_map(pool, embed, batches, ahead=2 * workers)


def _embed_on_device(encoder: Encoder, batches: Iterator[_Batch], batch_images: int) -> Generator[_EmbeddedBatch]:
    """Embed batches in order; processes prepare them, and a fixed number of threads brings them to the device."""
    runtime = encoder.runtime
    with (
        Preparation(encoder.card.preprocessing, runtime.workers, batch_images) as preparation,
        ThreadPoolExecutor(runtime.callers) as pool,
    ):

        def start(batch: _Batch) -> tuple[_Batch, Started | None]:
            return batch, None if batch.images is None else preparation.start(batch.images.to_pylist())

        def embed(item: tuple[_Batch, Started | None]) -> _EmbeddedBatch:
            batch, started = item
            if started is None:
                return _EmbeddedBatch(batch)
            pixels, decode_s = preparation.wait(started)
            embedded = _embed_pixels(encoder, batch, pixels, decode_s)
            preparation.release(started)
            return embedded

        yield from ordered_map(pool, embed, map(start, batches), ahead=BATCHES)


def _embed_pixels(encoder: Encoder, batch: _Batch, pixels: Pixels, decode_s: float) -> _EmbeddedBatch:
    begun = perf_counter()
    try:
        vectors = encoder.embed_images(pixels)
    except NotFiniteError as error:
        raise NotFiniteError(error.rows, batch.shard.ids[batch.start :], encoder.runtime.precision) from None
    return _EmbeddedBatch(batch, vectors, decode_s, perf_counter() - begun)


def embed_queries(
    ids: Sequence[str],
    texts: Sequence[str],
    out: Path,
    encoder: Encoder,
    batch_texts: int,
    cache: VectorCache,
    title: str,
) -> EmbeddedRows:
    """Embed texts, queries or prompts, into parts of `TEXTS_PER_PART` rows in `out`; ids : one for each text.

    Finished parts are written to the cache; later runs read them from there.
    """
    fresh_folder(out)
    callers = encoder.runtime.callers
    with ThreadPoolExecutor(callers) as pool, progress(len(texts), title, "texts") as bar:
        for part, start in enumerate(range(0, len(texts), TEXTS_PER_PART)):
            rows = slice(start, start + TEXTS_PER_PART)
            part_texts = texts[rows]
            path = cache.path([sha256(f"text\0{text}".encode()).hexdigest() for text in part_texts])
            vectors = cache.get(path, len(part_texts))
            if vectors is not None:
                bar.skip(len(part_texts))
            else:
                embedded = []
                batches = _text_batches(part_texts, batch_texts)
                for batch_vectors in ordered_map(pool, encoder.embed_texts, batches, ahead=2 * callers):
                    embedded.append(batch_vectors)
                    bar.advance(len(batch_vectors))
                vectors = np.concatenate(embedded)
                cache.put(path, vectors)
            write_part(out, f"part-{part:05d}", list(ids[rows]), vectors)
    return EmbeddedRows(len(ids), hash_ids(ids), hash_ids(texts))


def _text_batches(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))


def vector_settings(encoder: Encoder) -> dict[str, Any]:
    """All that determines a vector except the image or text itself: for the passport and the keys of the cache."""
    return {
        **encoder.card.to_json(),
        "precision": encoder.runtime.precision,
        "backend": encoder.runtime.backend,
        "device": encoder.runtime.device,
        "normalised": True,
        "metric": "inner_product",
        "dim": encoder.dim,
        "versions": {library: version(library) for library in _LIBRARIES},
    }


def vectors_passport(name: str, encoder: Encoder, rows: EmbeddedRows) -> dict[str, Any]:
    """The passport of a set of vectors (see `cbir.artifacts.vectors`)."""
    return {"encoder": name, **vector_settings(encoder), "rows": rows.to_json()}
