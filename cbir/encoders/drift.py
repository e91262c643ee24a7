"""How far an encoder's vectors move under another batch size, backend, precision or device.

Whoever queries from another machine than that of the gallery searches with vectors that are not quite the same.  A seeded
sample of the query images is embedded anew in every way that this machine has, and searched in the gallery as it lies there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cbir.artifacts.images import read_columns, read_shards
from cbir.artifacts.vectors import Positions, Vectors, VectorSet, open_vectors, positions_of
from cbir.core.errors import DataError
from cbir.encoders.base import Encoder, EncoderCard, NotFiniteError
from cbir.encoders.opening import load_encoder, not_exported
from cbir.encoders.params import Family
from cbir.encoders.preprocessing import Pixels
from cbir.encoders.runtime import Runtime, devices, offers
from cbir.index.exact import exact_search, without_self

TOP = 10


@dataclass(frozen=True)
class Sampled:
    """The images that are embedded anew: packed bytes, labels, the stored vectors, and their own places in the gallery."""

    images: list[bytes]
    labels: list[str | None]
    stored: Vectors
    own: Positions


@dataclass(frozen=True)
class Drift:
    """What one way of embedding changes against the stored vectors, over the sample.

    way : device, backend, precision and images a batch, as in "cpu openvino fp32 x32".
    cosine_least, cosine_mean : between a stored vector and its like.  largest_difference : of any component.
    top10_overlap : share of the ten exact neighbours that stay.  precision_at_10, precision_change : None without labels.
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
    """A way that makes no vectors, and why."""

    way: str
    failed: str


def measure_drift(data: Path, name: str, images: int, seed: int) -> Iterator[Drift | FailedWay]:
    """Yield the drift of every way that this machine has, that of the stored vectors' own way first.

    Raises DataError when nothing was embedded yet, or the gallery is smaller than ten images.
    """
    gallery = open_vectors(data / "embeddings" / name, name, "gallery")
    if len(gallery.ids) <= TOP:
        raise DataError(
            f"{data / 'embeddings' / name}: expected more than {TOP} gallery images, found {len(gallery.ids)}"
        )
    sampled = _sample(data, name, gallery, images, seed)
    labels = np.array(read_columns(data / "images" / "gallery", ["label"])["label"].to_pylist(), object)
    before = _neighbours(sampled.stored, gallery, sampled.own)
    precision = _precision(before, labels, sampled.labels)
    passport, family = gallery.passport, Family(EncoderCard.read(data / "weights" / name).family)
    for runtime, batch in _ways(passport["device"], passport["backend"], passport["precision"]):
        if runtime.backend == "openvino" and not_exported(data / "weights" / name):
            continue
        way = f"{runtime.device} {runtime.backend} {runtime.precision} x{batch}"
        try:
            vectors = _embed(load_encoder(data / "weights" / name, family, runtime), sampled.images, batch)
        except NotFiniteError as error:
            yield FailedWay(way, str(error))
            continue
        cosines = (vectors.astype(np.float64) * sampled.stored).sum(1)
        after = _neighbours(vectors, gallery, sampled.own)
        found = _precision(after, labels, sampled.labels)
        yield Drift(
            way,
            float(cosines.min()),
            float(cosines.mean()),
            float(np.abs(vectors - sampled.stored).max()),
            float(np.mean([len(set(one) & set(other)) / TOP for one, other in zip(before, after, strict=True)])),
            found,
            None if found is None or precision is None else found - precision,
        )


def _sample(data: Path, name: str, gallery: VectorSet, images: int, seed: int) -> Sampled:
    """Of the query images, or of the gallery where there are none: those whose hash with the seed is least."""
    kind = "queries" if read_columns(data / "images" / "queries", ["image_id"]).num_rows else "gallery"
    every = read_columns(data / "images" / kind, ["image_id"])["image_id"].to_pylist()
    chosen = set(sorted(every, key=lambda image_id: sha256(f"{seed}/{image_id}".encode()).digest())[:images])
    ids: list[str] = []
    packed: list[bytes] = []
    labels: list[str | None] = []
    for _, table in read_shards(data / "images" / kind, ["image_id", "label", "image"]):
        for row, image_id in enumerate(table["image_id"].to_pylist()):
            if image_id in chosen:
                ids.append(image_id)
                labels.append(table["label"][row].as_py())
                packed.append(table["image"][row].as_py())
    vectors = gallery if kind == "gallery" else open_vectors(data / "embeddings" / name, name, kind)
    return Sampled(packed, labels, vectors.rows(ids, f"{name} {kind}"), positions_of(ids, gallery.ids))


def _ways(device: str, backend: str, precision: str) -> Iterator[tuple[Runtime, int]]:
    """The stored vectors' own way with several batch sizes, then all others; own first, where this machine has it."""
    own = Runtime(device, backend, precision)
    others = [Runtime(d, b, p) for d in devices() for b, precisions in offers(d).items() for p in precisions]
    if own in others:
        yield from ((own, batch) for batch in (32, 1, 7))
    yield from ((other, 32) for other in others if other != own)


def _embed(encoder: Encoder, images: list[bytes], batch: int) -> Vectors:
    prepared: list[Pixels] = [encoder.card.preprocessing.prepare_packed(image) for image in images]
    parts = [
        encoder.embed_images(np.stack(prepared[start : start + batch])) for start in range(0, len(prepared), batch)
    ]
    return np.concatenate(parts)


def _neighbours(vectors: Vectors, gallery: VectorSet, own: Positions) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = without_self(*exact_search(vectors, gallery.parts, TOP + 1), own, TOP)[1]
    return found


def _precision(neighbours: Positions, gallery: npt.NDArray[np.object_], queries: list[str | None]) -> float | None:
    labelled = [row for row, label in enumerate(queries) if label is not None]
    if not labelled:
        return None
    return float(np.mean([[gallery[position] == queries[row] for position in neighbours[row]] for row in labelled]))
