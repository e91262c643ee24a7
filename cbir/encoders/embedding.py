"""Embed shards of images, and texts, into parts of vectors with their ids and a passport."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
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
_LEAST_BATCH = 8  # the default on a CPU: a smaller collection fills it, so that its vectors stay when it grows
Rows = npt.NDArray[np.int64]
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
    """A shard of images and its vectors, float32 (n, dim).

    n_cached : how many of the vectors came from the cache; the others are filled in as they are computed.
    """

    name: str
    ids: list[str]
    digests: list[str]
    vectors: Vectors
    n_cached: int


@dataclass
class _Batch:
    """Packed images of these rows of the shard; none for a shard that is in the cache."""

    shard: _Shard
    rows: Rows
    images: pa.ChunkedArray
    ends_shard: bool


@dataclass
class _EmbeddedBatch:
    """vectors : None without images.  decode_s, infer_s : seconds of the worker."""

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
    batches together.  A batch never spans two shards, and on a CPU each has `batch_images` rows, the last ones repeated where
    images are left: with libraries that compute a row in the same way whatever the others are, an image's vector depends on
    nothing else, bit for bit.  Finished shards are written to the cache; later runs read them from there, on a CPU also single
    images, whereas a GPU embeds a shard anew in a second or so.
    title : for the progress display.  Raises DataError when there are no images, unless `allow_empty`.
    """
    fresh_folder(out)
    total = sum(table.num_rows for _, table in read_shards(shards, ["image_id"]))
    if total == 0 and not allow_empty:
        raise DataError(f"{shards}: expected shards with images, found none; run `dvc repro preprocess`")
    ids_hash, content_hash, count = sha256(), sha256(), 0
    embed = _embed_by_workers if encoder.runtime.at_device is None else _embed_on_device
    read = _read_batches(shards, batch_images, cache, whole=encoder.runtime.at_device is not None)
    batches = embed(encoder, read, min(batch_images, max(total, _LEAST_BATCH)))
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
            shard.vectors[embedded.batch.rows] = embedded.vectors
            bar.advance(len(embedded.vectors))
        if embedded.batch.ends_shard:
            bar.skip(shard.n_cached)
            yield shard


def _write_shard(out: Path, cache: VectorCache, shard: _Shard) -> _Shard:
    """Write the vectors of a finished shard, while others are embedded."""
    if shard.n_cached < len(shard.ids):
        cache.put(shard.digests, shard.vectors)
    write_part(out, shard.name, shard.ids, shard.vectors)
    return_freed_memory()
    return shard


def _read_batches(shards: Path, batch_images: int, cache: VectorCache, whole: bool) -> Iterator[_Batch]:
    """Read the shards; yield batches of at most `batch_images` images that are not in the cache, at least one a shard.

    whole : look for whole shards in the cache, not for single images.
    """
    for name, table in read_shards(shards, ["image_id", "sha256", "image"]):
        digests = table["sha256"].to_pylist()
        vectors, known = cache.get(digests, whole=whole)
        shard = _Shard(name, table["image_id"].to_pylist(), digests, vectors, int(known.sum()))
        unknown = np.flatnonzero(~known)
        for start in range(0, max(1, len(unknown)), batch_images):
            rows = unknown[start : start + batch_images]
            yield _Batch(shard, rows, table["image"].take(rows), ends_shard=start + batch_images >= len(unknown))


def _embed_by_workers(encoder: Encoder, batches: Iterator[_Batch], batch_images: int) -> Generator[_EmbeddedBatch]:
    """Embed batches in order; each worker decodes, prepares and embeds the images of a batch."""

    def embed(batch: _Batch) -> _EmbeddedBatch:
        if not len(batch.rows):
            return _EmbeddedBatch(batch)
        begun = perf_counter()
        pixels = np.stack([encoder.card.preprocessing.prepare_packed(image.as_py()) for image in batch.images])
        full = pixels[np.minimum(np.arange(batch_images), len(pixels) - 1)] if len(pixels) < batch_images else pixels
        return _embed_pixels(encoder, batch, full, perf_counter() - begun)

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
            return batch, preparation.start(batch.images.to_pylist()) if len(batch.rows) else None

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
        bad = [row for row in error.rows if row < len(batch.rows)]
        raise NotFiniteError(bad, [batch.shard.ids[row] for row in batch.rows], encoder.runtime.precision) from None
    return _EmbeddedBatch(batch, vectors[: len(batch.rows)], decode_s, perf_counter() - begun)


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

    Batches and cache are as for images (see `embed_shards`).
    """
    fresh_folder(out)
    callers, whole = encoder.runtime.callers, encoder.runtime.at_device is not None
    with ThreadPoolExecutor(callers) as pool, progress(len(texts), title, "texts") as bar:
        for part, start in enumerate(range(0, len(texts), TEXTS_PER_PART)):
            rows = slice(start, start + TEXTS_PER_PART)
            part_texts = texts[rows]
            digests = [sha256(f"text\0{text}".encode()).hexdigest() for text in part_texts]
            vectors, known = cache.get(digests, whole=whole)
            bar.skip(int(known.sum()))
            unknown = np.flatnonzero(~known)
            batches = _text_batches([part_texts[row] for row in unknown.tolist()], batch_texts, full=not whole)
            for batch, embedded in enumerate(ordered_map(pool, encoder.embed_texts, batches, ahead=2 * callers)):
                filled = unknown[batch * batch_texts :][:batch_texts]
                vectors[filled] = embedded[: len(filled)]
                bar.advance(len(filled))
            if len(unknown):
                cache.put(digests, vectors)
            write_part(out, f"part-{part:05d}", list(ids[rows]), vectors)
    return EmbeddedRows(len(ids), hash_ids(ids), hash_ids(texts))


def _text_batches(texts: Sequence[str], size: int, full: bool) -> Iterator[Sequence[str]]:
    """Yield batches of texts.  full : repeat the last text until each batch has `size`."""
    batches = (texts[start : start + size] for start in range(0, len(texts), size))
    return ([*batch, *[batch[-1]] * (size - len(batch))] if full else batch for batch in batches)


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
