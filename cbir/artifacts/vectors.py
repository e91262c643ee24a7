"""Embeddings with their ids and passport (`data/embeddings/<encoder>/<kind>/`), and the passports of indexes.

A set of vectors is a folder of `part-*.npy`, float32 (n, dim) with unit rows, and `part-*.parquet` of the same names, whose
column `id` has one row per vector.  A passport describes how the vectors were computed; code that joins two artifacts
compares their passports first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.tables import read_table, shard_paths, write_table
from cbir.core.errors import DataError, PassportError
from cbir.core.files import hash_ids, read_json, replacing, write_json

IDS_SCHEMA = pa.schema([pa.field("id", pa.string(), nullable=False)])

MISSING = -1  # position of an image that is not in the gallery

Vectors = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]


def write_part(folder: Path, name: str, ids: list[str], vectors: Vectors) -> None:
    """Write one part: `<name>.npy`, then its ids, so that a part with ids is complete.

    vectors : (len(ids), dim) float32.  Raises DataError for any other shape or dtype.
    """
    if vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) != len(ids):
        raise DataError(f"{folder / name}: expected float32 ({len(ids)}, dim), found {vectors.dtype} {vectors.shape}")
    with replacing(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
        np.save(file, vectors, allow_pickle=False)
    write_table(folder / f"{name}.parquet", pa.table({"id": ids}, IDS_SCHEMA), IDS_SCHEMA)


def read_parts(folder: Path) -> tuple[list[str], list[Vectors]]:
    """Return the ids of all rows, and the vectors of each part, memory-mapped, in the order of the ids.

    Raises DataError when a part is damaged, or has another number of vectors than of ids.
    """
    ids: list[str] = []
    parts: list[Vectors] = []
    for path in shard_paths(folder, "part-*.parquet"):
        names = read_table(path, IDS_SCHEMA)["id"].to_pylist()
        try:
            part = np.lib.format.open_memmap(path.with_suffix(".npy"), mode="r")  # accepts neither a pickle nor an .npz
        except (OSError, ValueError) as error:
            raise DataError(f"{path.with_suffix('.npy')} is not readable: {error}; run `dvc repro --force`") from error
        if part.dtype != np.float32 or part.ndim != 2 or len(part) != len(names):
            raise DataError(
                f"{path}: expected float32 ({len(names)}, dim) vectors, one per id, found {part.dtype} {part.shape}"
            )
        ids += names
        parts.append(part)
    return ids, parts


def write_passport(folder: Path, passport: Mapping[str, Any]) -> None:
    """Write `passport.json`."""
    write_json(folder / "passport.json", passport)


def read_passport(folder: Path) -> dict[str, Any]:
    """Read `passport.json`."""
    return read_json(folder / "passport.json")


def check_passport(passport: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
    """Check that `passport` has each field of `expected`, with the same value.

    Raises PassportError naming the first field that differs.
    """
    for name, value in expected.items():
        actual = passport.get(name)
        if isinstance(value, Mapping) and isinstance(actual, Mapping):
            check_passport(actual, value, f"{where}: {name}")
        elif actual != value:
            raise PassportError(
                f"{where}: passport field '{name}': expected {value!r}, found {actual!r}; "
                "run `dvc repro` to rebuild both"
            )


@dataclass(frozen=True)
class VectorSet:
    """Vectors of one encoder: ids, and parts of shape (n_i, dim), float32, whose rows are in the order of the ids."""

    ids: pa.Array
    parts: list[Vectors]
    passport: dict[str, Any]

    def rows(self, ids: Sequence[str], what: str) -> Vectors:
        """Return the vectors of the given ids, float32 (len(ids), dim).

        what : for messages.  Raises DataError for an id without a vector.
        """
        positions = positions_of(ids, self.ids)
        if (positions == MISSING).any():
            absent = ids[int((positions == MISSING).argmax())]
            raise DataError(f"{what}: no vector for {absent!r}; run `dvc repro --force embed`")
        return rows_at(self.parts, positions, self.passport["dim"])


def rows_at(parts: Sequence[Vectors], positions: Positions, dim: int) -> Vectors:
    """Return the rows at the given positions, counted over all parts, (n, dim) float32."""
    order = np.argsort(positions, kind="stable")
    ascending = positions[order]
    edges = np.cumsum([0, *map(len, parts)])
    cuts = np.searchsorted(ascending, edges)
    out = np.empty((len(positions), dim), np.float32)
    for part, edge, first, last in zip(parts, edges, cuts, cuts[1:], strict=False):
        out[order[first:last]] = part[ascending[first:last] - edge]
    return out


def open_vectors(folder: Path, encoder: str, kind: str) -> VectorSet:
    """Open the vectors in `folder`/`kind` (gallery, queries, texts or prompts).

    Raises PassportError if they are of another encoder, or if the ids, their number or the dimension differ from the
    passport.
    """
    passport = read_passport(folder / kind)
    check_passport(passport, {"encoder": encoder}, str(folder / kind))
    ids, parts = read_parts(folder / kind)
    for part in parts:
        check_passport({"dim": part.shape[1]}, {"dim": passport.get("dim")}, f"{folder / kind}")
    rows = {"count": len(ids), "ids_sha256": hash_ids(ids)}
    claimed = passport.get("rows", {})
    check_passport(rows, {name: claimed.get(name) for name in rows}, f"{folder / kind}")
    return VectorSet(pa.array(ids, pa.string()), parts, passport)


def positions_of(ids: Sequence[str | None] | pa.Array, gallery_ids: pa.Array) -> Positions:
    """Return the position of each id in the gallery, MISSING where the gallery does not have it."""
    indices = pc.index_in(pa.array(ids, pa.string()), value_set=gallery_ids)
    positions: Positions = pc.fill_null(indices, MISSING).to_numpy(zero_copy_only=False).astype(np.int64)
    return positions
