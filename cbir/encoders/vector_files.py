"""Read files of vectors that another tool made: NPY with ids beside it, or Parquet.

    <name>_<kind>.npy        float16, float32 or float64 (n, dim)
    <name>_<kind>_ids.npy    unicode (n,), or <kind>_ids.npy for several names; or a .txt of the same name, one id a line
    <name>_<kind>.parquet    id string | vector list<float>: the same in one file

Files are memory-mapped and read in blocks, so that memory does not grow with them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cbir.core.errors import DataError

BLOCK_ROWS = 4096
Block = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class VectorFile:
    """A file of vectors with their ids.

    ids : (n,) string, each once.  dim : of the vectors; None in a file without rows.
    read_blocks : opens the file and yields its rows in order, at most BLOCK_ROWS at once, as they are stored.
    """

    path: Path
    ids: pa.Array
    dim: int | None
    read_blocks: Callable[[], Iterator[Block]]


def open_vector_file(folder: Path, name: str, kind: str) -> VectorFile | None:
    """Open the file of one kind; None when there is none.

    Raises DataError when the file or its ids are damaged, of another form, do not belong together, or hold an id twice.
    """
    npy, parquet = (folder / f"{name}_{kind}.{suffix}" for suffix in ("npy", "parquet"))
    if npy.exists() and parquet.exists():
        raise DataError(f"{folder}: expected {npy.name} or {parquet.name}, found both: delete one of them")
    if not npy.exists() and not parquet.exists():
        return None
    file = _open_npy(npy, folder, name, kind) if npy.exists() else _open_parquet(parquet)
    counts = pc.value_counts(file.ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        first = repeated[0].as_py()
        raise DataError(
            f"{file.path}: expected each id once, found {first['values']!r} {first['counts']} times: keep one row"
        )
    return file


# ---- NPY


def _open_npy(path: Path, folder: Path, name: str, kind: str) -> VectorFile:
    vectors = _memmap(path)
    if vectors.ndim != 2 or vectors.shape[1] == 0 or vectors.dtype.kind != "f" or vectors.dtype.itemsize > 8:
        raise DataError(
            f"{path}: expected float16, float32 or float64 (n, dim), found {vectors.dtype} {vectors.shape}: "
            "save one row a vector"
        )
    names = (f"{name}_{kind}_ids", f"{kind}_ids")
    candidates = [folder / f"{stem}.{suffix}" for suffix in ("npy", "txt") for stem in names]
    ids_path = next((candidate for candidate in candidates if candidate.exists()), None)
    if ids_path is None:
        raise DataError(
            f"{path}: expected its ids in {' or '.join(file.name for file in candidates)}, found none: save them"
        )
    ids = _text_ids(ids_path) if ids_path.suffix == ".txt" else _npy_ids(ids_path)
    if len(ids) != len(vectors):
        raise DataError(
            f"{ids_path}: expected {len(vectors):,} ids, one for each row of {path.name}, found {len(ids):,}: export both anew"
        )
    starts = range(0, len(vectors), BLOCK_ROWS)
    return VectorFile(
        path,
        ids,
        vectors.shape[1] if len(vectors) else None,
        lambda: (vectors[start : start + BLOCK_ROWS] for start in starts),
    )


def _npy_ids(path: Path) -> pa.Array:
    ids = _memmap(path)
    if ids.ndim != 1 or ids.dtype.kind != "U":
        raise DataError(
            f"{path}: expected unicode ids (n,), found {ids.dtype} {ids.shape}: save `np.array(ids, dtype=str)`"
        )
    blocks = [_strings(path, ids[start : start + BLOCK_ROWS].tolist()) for start in range(0, len(ids), BLOCK_ROWS)]
    return pa.concat_arrays([pa.array([], pa.string()), *blocks])


def _text_ids(path: Path) -> pa.Array:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8, found other bytes ({error}): save it as UTF-8") from error
    return _strings(path, text.removesuffix("\n").split("\n") if text else [])


def _strings(path: Path, ids: list[str]) -> pa.Array:
    try:
        return pa.array(ids, pa.string())
    except UnicodeEncodeError as error:
        raise DataError(f"{path}: expected text, found an id that is no Unicode ({error}): rename it") from error


def _memmap(path: Path) -> npt.NDArray[Any]:
    try:
        return np.lib.format.open_memmap(path, mode="r")  # accepts neither a pickle nor an .npz
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is not readable as NPY ({error}): save it with `numpy.save`, without objects"
        ) from error


# ---- Parquet


def _open_parquet(path: Path) -> VectorFile:
    try:
        schema = pq.read_schema(path)
        _check_schema(path, schema)
        ids = (
            pq.read_table(path, columns=["id"], page_checksum_verification=True)["id"]
            .combine_chunks()
            .cast(pa.string())
        )
        if ids.null_count:
            raise DataError(
                f"{path}: column id: expected a text in each row, found null in {ids.null_count:,}: name each"
            )
        first = next(_parquet_blocks(path, 1), None)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is not readable as Parquet ({error}): export it anew") from error
    return VectorFile(path, ids, None if first is None else first.shape[1], lambda: _parquet_blocks(path, BLOCK_ROWS))


def _check_schema(path: Path, schema: pa.Schema) -> None:
    for name, is_right, form in (("id", _is_text, "string"), ("vector", _is_vector, "a list of floats")):
        if name not in schema.names:
            raise DataError(
                f"{path}: expected the columns id and vector, found {', '.join(schema.names) or 'none'}: rename them"
            )
        kind = schema.field(name).type
        if not is_right(kind):
            raise DataError(f"{path}: column {name}: expected {form}, found {kind}: convert it")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_vector(kind: pa.DataType) -> bool:
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists and pa.types.is_floating(kind.value_type))


def _parquet_blocks(path: Path, rows: int) -> Iterator[Block]:
    dim: int | None = None
    with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
        for batch in file.iter_batches(rows, columns=["vector"]):
            column = batch["vector"]
            lengths = pc.unique(pc.list_value_length(column)).to_pylist()  # of a null: null
            dim = lengths[0] if dim is None else dim
            if lengths != [dim] or not dim:
                actual = ", ".join(
                    "null" if length is None else str(length) for length in dict.fromkeys([dim, *lengths])
                )
                raise DataError(
                    f"{path}: column vector: expected vectors of one length, found {actual}: export it anew"
                )
            yield column.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
