"""Embeddings with their ids and passport (`data/embeddings/<encoder>/<kind>/`), and the passports of indexes.

A set of vectors is a folder of `part-*.npy`, float32 (n, dim) with unit rows, and `part-*.parquet` of the same names, whose
column `id` has one row per vector.  A passport describes how the vectors were computed; code that joins two artifacts
compares their passports first.  A passport also holds the hash of what it describes, which is checked when that is opened.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.tables import read_table, shard_paths, write_table
from cbir.core.errors import REPAIR, DataError, PassportError
from cbir.core.files import hash_ids, read_json, replacing, write_json
from cbir.core.parallel import cores

IDS_SCHEMA = pa.schema([pa.field("id", pa.string(), nullable=False)])

NORM_TOLERANCE = 1e-3  # of a unit vector
_BLOCK_ROWS = 4096
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
            raise DataError(f"{path.with_suffix('.npy')} is not readable: {error}; {REPAIR}") from error
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


def write_vectors_passport(folder: Path, passport: Mapping[str, Any]) -> None:
    """Write the passport of the set of vectors in `folder`; `rows` also gets `vectors_sha256`, the hash of all parts."""
    rows = {**passport["rows"], "vectors_sha256": _hash_parts(folder)}
    write_passport(folder, {**passport, "rows": rows})


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
            raise PassportError(f"{where}: passport field '{name}': expected {value!r}, found {actual!r}; {REPAIR}")


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
            raise DataError(f"{what}: no vector for {absent!r}; {REPAIR}")
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

    Raises PassportError if they are of another encoder, or if the vectors, the ids, their number or the dimension differ from
    the passport; DataError where a vector is not of norm 1.
    """
    passport = read_passport(folder / kind)
    check_passport(passport, {"encoder": encoder}, str(folder / kind))
    ids, parts = read_parts(folder / kind)
    for part in parts:
        check_passport({"dim": part.shape[1]}, {"dim": passport.get("dim")}, f"{folder / kind}")
    rows = {"count": len(ids), "ids_sha256": hash_ids(ids), "vectors_sha256": _hash_parts(folder / kind)}
    claimed = passport.get("rows", {})
    check_passport(rows, {name: claimed.get(name) for name in rows}, f"{folder / kind}")
    return VectorSet(pa.array(ids, pa.string()), parts, passport)


def _hash_parts(folder: Path) -> str:
    """The sha256 of the hashes of the parts, in order.  A part that has not changed since is read once in a process.

    Raises DataError for a vector that is not of norm 1.
    """
    paths = [path.with_suffix(".npy") for path in shard_paths(folder, "part-*.parquet")]
    stamps = [(path, stat.st_size, stat.st_mtime_ns) for path in paths for stat in [path.stat()]]
    with ThreadPoolExecutor(cores()) as pool:
        hashes = list(pool.map(lambda stamp: _hash_unit_rows(*stamp), stamps))
    return sha256("".join(hashes).encode()).hexdigest()


@lru_cache(maxsize=65_536)  # each a few hundred bytes
def _hash_unit_rows(path: Path, size: int, mtime_ns: int) -> str:
    """The sha256 of a part.  size, mtime_ns : of the file, for the cache."""
    digest, rows = sha256(), np.lib.format.open_memmap(path, mode="r")
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = np.ascontiguousarray(rows[start : start + _BLOCK_ROWS])
        digest.update(block.data)
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.sqrt(np.einsum("ij,ij->i", block, block))
        wrong = ~(np.abs(norms - 1) <= NORM_TOLERANCE)  # True for NaN
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(
                f"{path}: expected vectors of norm 1 (within {NORM_TOLERANCE}), found {norms[row]:.6g} in row {start + row}: "
                f"{REPAIR}"
            )
    return digest.hexdigest()


def positions_of(ids: Sequence[str | None] | pa.Array, gallery_ids: pa.Array) -> Positions:
    """Return the position of each id in the gallery, MISSING where the gallery does not have it."""
    indices = pc.index_in(pa.array(ids, pa.string()), value_set=gallery_ids)
    positions: Positions = pc.fill_null(indices, MISSING).to_numpy(zero_copy_only=False).astype(np.int64)
    return positions
