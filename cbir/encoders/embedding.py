"""Shards of images, and texts -> parts of vectors, with their ids and a passport."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa

from cbir.artifacts.images import read_shards
from cbir.artifacts.vectors import Vectors, write_part, write_passport
from cbir.core.errors import DataError
from cbir.core.files import add_ids, fresh_folder, hash_ids
from cbir.core.parallel import ordered_map
from cbir.core.progress import progress
from cbir.encoders.base import Embeddings, Encoder, NotFiniteError
from cbir.encoders.runtime import return_freed_memory
from cbir.encoders.vector_cache import VectorCache

TEXTS_PER_PART = 1024
_LIBRARIES = ("torch", "torchvision", "open_clip_torch", "timm", "openvino", "pillow", "numpy")


@dataclass(frozen=True)
class Rows:
    """What was embedded: the number of rows, the hash of their ids, and of the images or texts behind them."""

    count: int
    ids_sha256: str
    content_sha256: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, as they stand in a passport."""
        return dict(self.__dict__)


@dataclass
class Spent:
    """Seconds of all workers together, by what they did."""

    decode: float = 0.0
    infer: float = 0.0
    write: float = 0.0

    def __str__(self) -> str:
        total = sum(self.__dict__.values()) or 1.0
        return ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in self.__dict__.items())


@dataclass
class _Shard:
    """A shard on its way.

    place : where the cache keeps its vectors.  kept : those found there.  batches : those computed so far.
    """

    name: str
    ids: list[str]
    digests: list[str]
    place: Path
    kept: Vectors | None
    batches: list[Embeddings] = field(default_factory=list)


@dataclass
class _Batch:
    """images : packed, from row `start` of the shard; None where it was kept.  vectors : what became of them."""

    shard: _Shard
    start: int
    images: pa.ChunkedArray | None
    is_last: bool
    vectors: Embeddings | None = None


def embed_shards(shards: Path, out: Path, encoder: Encoder, batch_images: int, cache: VectorCache, title: str) -> Rows:
    """Embed every image of the shards in `shards` into parts of the same names in `out`.

    Each of the encoder's workers carries a batch all the way, from packed bytes to vectors; batches never span shards, so a
    shard's vectors depend on nothing but the shard.  A finished shard is kept in the cache, and taken from there by a later
    run.  Raises DataError when there are no images and the title is of a gallery.
    """
    fresh_folder(out)
    total = sum(table.num_rows for _, table in read_shards(shards, ["image_id"]))
    if total == 0 and title.endswith("gallery"):
        raise DataError(f"{shards}: expected shards with images, found none; run `dvc repro preprocess`")
    ids, content, count = sha256(), sha256(), 0
    spent, workers = Spent(), encoder.runtime.workers

    def embed(batch: _Batch) -> tuple[_Batch, float, float]:
        if batch.images is None:
            return batch, 0.0, 0.0
        begun = perf_counter()
        pixels = np.stack([encoder.card.preprocessing.prepare_packed(image.as_py()) for image in batch.images])
        decoded = perf_counter()
        try:
            batch.vectors = encoder.embed_images(pixels)
        except NotFiniteError as error:
            raise NotFiniteError(error.rows, batch.shard.ids[batch.start :], encoder.runtime.precision) from None
        return batch, decoded - begun, perf_counter() - decoded

    with ThreadPoolExecutor(workers) as pool, progress(total, title, "images") as bar:
        bar.detail = spent
        for batch, decode_s, infer_s in ordered_map(
            pool, embed, _batches(shards, batch_images, cache), ahead=2 * workers
        ):
            shard = batch.shard
            spent.decode, spent.infer = spent.decode + decode_s, spent.infer + infer_s
            if batch.vectors is not None:
                shard.batches.append(batch.vectors)
                bar.advance(len(batch.vectors))
            if not batch.is_last:
                continue
            begun = perf_counter()
            if shard.kept is None:
                vectors = np.concatenate(shard.batches)
                cache.put(shard.place, vectors)
            else:
                vectors = shard.kept
                bar.skip(len(vectors))
            write_part(out, shard.name, shard.ids, vectors)
            return_freed_memory()
            spent.write += perf_counter() - begun
            add_ids(ids, shard.ids)
            content.update("".join(shard.digests).encode())
            count += len(shard.ids)
    return Rows(count, ids.hexdigest(), content.hexdigest())


def _batches(shards: Path, batch_images: int, cache: VectorCache) -> Iterator[_Batch]:
    for name, table in read_shards(shards, ["image_id", "sha256", "image"]):
        digests = table["sha256"].to_pylist()
        place = cache.path(digests)
        shard = _Shard(name, table["image_id"].to_pylist(), digests, place, cache.get(place, len(digests)))
        if shard.kept is not None:
            yield _Batch(shard, 0, None, is_last=True)
            continue
        for start in range(0, len(digests), batch_images):
            images = table["image"].slice(start, batch_images)
            yield _Batch(shard, start, images, is_last=start + batch_images >= len(digests))


def embed_queries(
    ids: Sequence[str],
    texts: Sequence[str],
    out: Path,
    encoder: Encoder,
    batch_texts: int,
    cache: VectorCache,
    title: str,
) -> Rows:
    """Embed texts, row by row with their query ids, into parts of `TEXTS_PER_PART` in `out`.

    A finished part is kept in the cache, and taken from there by a later run.
    """
    fresh_folder(out)
    with ThreadPoolExecutor(encoder.runtime.workers) as pool, progress(len(texts), title, "texts") as bar:
        for number, start in enumerate(range(0, len(texts), TEXTS_PER_PART)):
            rows = slice(start, start + TEXTS_PER_PART)
            part = texts[rows]
            place = cache.path([sha256(f"text\0{text}".encode()).hexdigest() for text in part])
            vectors = cache.get(place, len(part))
            if vectors is not None:
                bar.skip(len(part))
            else:
                batches = []
                for batch in ordered_map(
                    pool, encoder.embed_texts, _sliced(part, batch_texts), ahead=2 * encoder.runtime.workers
                ):
                    batches.append(batch)
                    bar.advance(len(batch))
                vectors = np.concatenate(batches)
                cache.put(place, vectors)
            write_part(out, f"part-{number:05d}", list(ids[rows]), vectors)
    return Rows(len(ids), hash_ids(ids), hash_ids(texts))


def _sliced(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))


def maker(encoder: Encoder) -> dict[str, Any]:
    """All that makes an image's vector, but the image: what a passport says, and what kept vectors are found by."""
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


def write_vectors_passport(out: Path, name: str, encoder: Encoder, rows: Rows) -> None:
    """Write who made the set of vectors in `out`, from what and with what (see `cbir.artifacts.vectors`)."""
    write_passport(out, {"encoder": name, **maker(encoder), "rows": rows.to_json()})
