"""Measure how an encoder's vectors change with the batch size, backend, precision and device.

When a query is embedded on another machine than the gallery, its vectors differ slightly.  A seeded sample of the query
images is embedded in each way that this machine offers, and searched in the stored gallery.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cbir.artifacts.images import read_columns, read_shards
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.vectors import Positions, Vectors, VectorSet, open_vectors, positions_of
from cbir.core.errors import DataError
from cbir.encoders.base import Encoder, EncoderCard, NotFiniteError
from cbir.encoders.neighbours import TOP, neighbours_in, overlap, precision_at_top, sample_ids
from cbir.encoders.opening import load_encoder, not_exported
from cbir.encoders.params import Family
from cbir.encoders.runtime import Runtime, devices, offers

_BATCH_IMAGES = 32
_OTHER_BATCHES = (1, 7)  # for the runtime of the stored vectors


@dataclass(frozen=True)
class ImageSample:
    """The images to embed: packed bytes, labels, stored vectors, and positions in the gallery (MISSING for queries)."""

    images: list[bytes]
    labels: list[str | None]
    stored: Vectors
    positions: Positions


@dataclass(frozen=True)
class Drift:
    """The difference between vectors embedded in one way and the stored vectors, over the sample.

    way : device, backend, precision and batch size, as in "cpu openvino fp32 x32".
    cosine_least, cosine_mean : between an image's vector and its stored vector.  largest_difference : of any component.
    top10_overlap : share of the ten exact neighbours that both have.  precision_at_10, precision_change : None without labels.
    """

    way: str
    cosine_least: float
    cosine_mean: float
    largest_difference: float
    top10_overlap: float
    precision_at_10: float | None
    precision_change: float | None


@dataclass(frozen=True)
class FailedWay:
    """A way that gives no usable vectors, and the reason."""

    way: str
    failed: str


def measure_drift(data: Path, name: str, images: int, seed: int) -> Iterator[Drift | FailedWay]:
    """Yield the drift of each way that this machine offers, beginning with the way of the stored vectors.

    data : the folder `data/`.  name : the encoder's.  images : in the sample, at most.
    Raises DataError when nothing has been embedded, or the gallery has ten images or fewer.
    """
    paths = DataPaths(data)
    weights, embeddings = paths.weights(name), paths.embeddings(name)
    gallery = open_vectors(embeddings, name, "gallery")
    if len(gallery.ids) <= TOP:
        raise DataError(f"{embeddings}: expected more than {TOP} gallery images, found {len(gallery.ids)}")
    sample = _sample_images(paths, name, gallery, images, seed)
    labels = np.array(read_columns(paths.images("gallery"), ["label"])["label"].to_pylist(), object)
    stored_neighbours = neighbours_in(gallery, sample.stored, sample.positions)
    stored_precision = precision_at_top(stored_neighbours, labels, sample.labels)
    passport, family = gallery.passport, Family(EncoderCard.read(weights).family)
    for runtime, batch in _ways(passport["device"], passport["backend"], passport["precision"]):
        if runtime.backend == "openvino" and not_exported(weights):
            continue
        way = f"{runtime.device} {runtime.backend} {runtime.precision} x{batch}"
        try:
            vectors = _embed(load_encoder(weights, family, runtime), sample.images, batch)
        except NotFiniteError as error:
            yield FailedWay(way, str(error))
            continue
        cosines = (vectors.astype(np.float64) * sample.stored).sum(1)
        neighbours = neighbours_in(gallery, vectors, sample.positions)
        precision = precision_at_top(neighbours, labels, sample.labels)
        yield Drift(
            way,
            float(cosines.min()),
            float(cosines.mean()),
            float(np.abs(vectors - sample.stored).max()),
            overlap(stored_neighbours, neighbours),
            precision,
            None if precision is None or stored_precision is None else precision - stored_precision,
        )


def _sample_images(paths: DataPaths, name: str, gallery: VectorSet, images: int, seed: int) -> ImageSample:
    """Sample query images, or gallery images when there are none."""
    kind = "queries" if read_columns(paths.images("queries"), ["image_id"]).num_rows else "gallery"
    all_ids = read_columns(paths.images(kind), ["image_id"])["image_id"].to_pylist()
    sampled = set(sample_ids(all_ids, images, seed))
    ids: list[str] = []
    packed: list[bytes] = []
    labels: list[str | None] = []
    for _, table in read_shards(paths.images(kind), ["image_id", "label", "image"]):
        for row, image_id in enumerate(table["image_id"].to_pylist()):
            if image_id in sampled:
                ids.append(image_id)
                labels.append(table["label"][row].as_py())
                packed.append(table["image"][row].as_py())
    vectors = gallery if kind == "gallery" else open_vectors(paths.embeddings(name), name, kind)
    return ImageSample(packed, labels, vectors.rows(ids, f"{name} {kind}"), positions_of(ids, gallery.ids))


def _ways(device: str, backend: str, precision: str) -> Iterator[tuple[Runtime, int]]:
    """The runtime of the stored vectors with several batch sizes, if this machine has it, then all other runtimes."""
    stored = Runtime(device, backend, precision)
    runtimes = [
        Runtime(device, backend, precision)
        for device in devices()
        for backend, precisions in offers(device).items()
        for precision in precisions
    ]
    if stored in runtimes:
        yield from ((stored, batch) for batch in (_BATCH_IMAGES, *_OTHER_BATCHES))
    yield from ((runtime, _BATCH_IMAGES) for runtime in runtimes if runtime != stored)


def _embed(encoder: Encoder, images: list[bytes], batch: int) -> Vectors:
    pixels = np.stack([encoder.card.preprocessing.prepare_packed(image) for image in images])
    return np.concatenate(
        [encoder.embed_images(pixels[start : start + batch]) for start in range(0, len(pixels), batch)]
    )
