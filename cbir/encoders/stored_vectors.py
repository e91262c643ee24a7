"""Vectors that were made elsewhere: the rows of this run's images, texts and prompts, looked up by id."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cbir.artifacts.images import read_columns, read_shards
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.queries import read_texts
from cbir.artifacts.vectors import (
    MISSING,
    Positions,
    Vectors,
    positions_of,
    read_parts,
    rows_at,
    write_part,
    write_vectors_passport,
)
from cbir.core.errors import DataError
from cbir.core.files import add_ids, fresh_folder, hash_ids, read_json
from cbir.encoders.base import CARD_FILE
from cbir.encoders.embedding import TEXTS_PER_PART, EmbeddedRows

_NAMED_IDS = 3  # in a message


@dataclass(frozen=True)
class StoredVectors:
    """The vectors of one kind that the stage weights stored (see `cbir.encoders.families.vectors`).

    ids : in the order of the rows of `parts`.  origin : where they came from, for messages.
    """

    ids: pa.Array
    parts: list[Vectors]
    origin: str

    @classmethod
    def open(cls, folder: Path, origin: str) -> "StoredVectors":
        """Open the parts in `folder`.  Raises DataError when one is damaged."""
        ids, parts = read_parts(folder)
        return cls(pa.array(ids, pa.string()), parts, origin)

    def positions(self, ids: Sequence[str] | pa.Array, what: str) -> Positions:
        """The row of each id.  what : the ids, for messages.  Raises DataError when an id has no vector."""
        positions = positions_of(ids, self.ids)
        absent = np.flatnonzero(positions == MISSING)
        if len(absent):
            first = _quoted(ids[int(row)] for row in absent[:_NAMED_IDS])
            known = _quoted(self.ids[:_NAMED_IDS])
            raise DataError(
                f"{self.origin}: expected a vector for each of the {len(positions):,} {what}, found none for "
                f"{len(absent):,}, such as {first}; its ids are such as {known}: add the vectors, then run `dvc repro`"
            )
        return positions


def look_up_vectors(name: str, data: DataPaths) -> None:
    """Write data/embeddings/<name> from the vectors stored in data/weights/<name>, in the order of images and texts.

    Texts and prompts are left out where the encoder has none.
    Raises DataError when an image, a text query or a prompt has no vector, naming how many and the first ids.
    """
    folder, rows = data.weights(name), dict[str, EmbeddedRows]()
    card = read_json(folder / CARD_FILE)
    images = StoredVectors.open(folder / "images", card["origin"])
    dim = images.parts[0].shape[1]
    for kind, what in (("gallery", "gallery images"), ("queries", "query images")):
        rows[kind] = _look_up_images(data.images(kind), data.vectors(name, kind), images, what, dim)
    for kind, (ids, texts) in read_texts(data.query_list, data.prompts).items():
        if card["settings"][kind]:
            vectors = StoredVectors.open(folder / kind, card["origin"])
            rows[kind] = _look_up_texts(ids, texts, data.vectors(name, kind), vectors, kind, dim)
    for kind, looked_up in rows.items():
        write_vectors_passport(data.vectors(name, kind), _passport(name, card, dim, looked_up))
    counts = ", ".join(f"{looked_up.count:,} {kind}" for kind, looked_up in rows.items())
    print(f"{name}: looked up the vectors of {counts} in {card['origin']}", flush=True)


def _look_up_images(shards: Path, out: Path, stored: StoredVectors, what: str, dim: int) -> EmbeddedRows:
    positions = stored.positions(read_columns(shards, ["image_id"])["image_id"].combine_chunks(), what)
    fresh_folder(out)
    ids_hash, content_hash, count = sha256(), sha256(), 0
    for part, table in read_shards(shards, ["image_id", "sha256"]):
        ids = table["image_id"].to_pylist()
        write_part(out, part, ids, rows_at(stored.parts, positions[count : count + len(ids)], dim))
        add_ids(ids_hash, ids)
        content_hash.update("".join(table["sha256"].to_pylist()).encode())
        count += len(ids)
    return EmbeddedRows(count, ids_hash.hexdigest(), content_hash.hexdigest())


def _look_up_texts(
    ids: Sequence[str], texts: Sequence[str], out: Path, stored: StoredVectors, kind: str, dim: int
) -> EmbeddedRows:
    positions = stored.positions(ids, kind)
    fresh_folder(out)
    for part, start in enumerate(range(0, len(ids), TEXTS_PER_PART)):
        rows = slice(start, start + TEXTS_PER_PART)
        write_part(out, f"part-{part:05d}", list(ids[rows]), rows_at(stored.parts, positions[rows], dim))
    return EmbeddedRows(len(ids), hash_ids(ids), hash_ids(texts))


def _passport(name: str, card: dict[str, Any], dim: int, rows: EmbeddedRows) -> dict[str, Any]:
    """A passport as of embedded vectors (see `cbir.encoders.embedding.vector_settings`), without what embeds."""
    return {
        "encoder": name,
        **card,
        "precision": None,
        "backend": "stored",
        "device": None,
        "normalised": True,
        "metric": "inner_product",
        "dim": dim,
        "versions": {},
        "rows": rows.to_json(),
    }


def _quoted(ids: Iterable[Any]) -> str:
    return ", ".join(repr(str(name)) for name in ids)
