"""Shards of images -> parts of vectors, with their ids and a passport."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cbir.artifacts.files import fresh_folder, hash_ids
from cbir.artifacts.images import read_shards
from cbir.artifacts.vectors import write_part, write_passport
from cbir.encoders.base import Embeddings, Encoder, TextEncoder
from cbir.encoders.preprocessing import Pixels
from cbir.errors import DataError
from cbir.parallel import ordered_map
from cbir.progress import progress

_LIBRARIES = ("torch", "torchvision", "open_clip_torch", "pillow", "numpy")


@dataclass(frozen=True)
class Rows:
    """What was embedded: the number of rows, the hash of their ids, and of the images or texts behind them."""

    count: int
    ids_sha256: str
    content_sha256: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, as they stand in a passport."""
        return dict(self.__dict__)


def embed_shards(shards: Path, out: Path, encoder: Encoder, batch_images: int, workers: int, title: str) -> Rows:
    """Embed every image of the shards in `shards` into parts of the same names in `out`.

    Images are decoded and prepared by `workers` threads while the encoder works on the batch before.
    """
    fresh_folder(out)
    every_id: list[str] = []
    content = sha256()
    total = sum(table.num_rows for _, table in read_shards(shards, ["image_id"]))
    if total == 0 and title.endswith("gallery"):
        raise DataError(f"{shards}: expected shards with images, found none; run `dvc repro preprocess`")
    with ThreadPoolExecutor(workers) as pool, progress(total, title, "images") as bar:
        for name, table in read_shards(shards, ["image_id", "sha256", "image"]):
            ids = table["image_id"].to_pylist()

            def prepare(row: int, images: Any = table["image"]) -> Pixels:
                return encoder.card.preprocessing.prepare_packed(images[row].as_py())

            prepared = ordered_map(pool, prepare, range(len(ids)), ahead=2 * batch_images)
            vectors = []
            for batch in _batches(prepared, batch_images):
                vectors.append(encoder.embed_images(np.stack(batch)))
                bar.advance(len(batch))
            write_part(out, name, ids, np.concatenate(vectors))
            every_id += ids
            content.update("".join(table["sha256"].to_pylist()).encode())
    return Rows(len(every_id), hash_ids(every_id), content.hexdigest())


def embed_queries(ids: Sequence[str], texts: Sequence[str], out: Path, encoder: TextEncoder, batch: int) -> Rows:
    """Embed texts, row by row with their query ids, into one part in `out`."""
    fresh_folder(out)
    vectors: list[Embeddings] = [
        encoder.embed_texts(texts[start : start + batch]) for start in range(0, len(texts), batch)
    ]
    if vectors:
        write_part(out, "part-00000", list(ids), np.concatenate(vectors))
    return Rows(len(ids), hash_ids(ids), hash_ids(texts))


def write_vectors_passport(out: Path, name: str, encoder: Encoder, precision: str, rows: Rows) -> None:
    """Write who made the set of vectors in `out`, from what and with what (see `cbir.artifacts.vectors`)."""
    passport = {
        "encoder": name,
        **encoder.card.to_json(),
        "precision": precision,
        "backend": "torch",
        "normalised": True,
        "metric": "inner_product",
        "dim": encoder.dim,
        "rows": rows.to_json(),
        "versions": {library: version(library) for library in _LIBRARIES},
    }
    write_passport(out, passport)


def _batches(items: Iterator[Pixels], number: int) -> Iterator[list[Pixels]]:
    while batch := list(islice(items, number)):
        yield batch
