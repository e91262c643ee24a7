"""Parquet tables with a checked schema, written atomically and sealed.

A table that cbir writes has a checksum of each page, and in its metadata a seal: the hash of each column.  Readers verify both,
so that they refuse damaged bytes as well as values that another program wrote.
"""

import json
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cbir.core.errors import REPAIR, DataError
from cbir.core.files import SEAL, check_regular, replacing

_OF = ""  # key in the seal beside the names of the columns


def write_table(
    path: Path,
    table: pa.Table,
    schema: pa.Schema,
    stored: tuple[str, ...] = (),
    group_rows: int | None = None,
    of: str | None = None,
) -> None:
    """Write a Parquet file, zstd-compressed except for the columns in `stored`, whose values are compressed already.

    stored : these columns have no hash in the seal, because they are large, and each value has a hash of its own.
    group_rows : rows per row group, the least that a reader of one row must read; None for a single group.
    of : the hash of what the table is of, for `table_of`.
    """
    compression = {name: "none" if name in stored else "zstd" for name in schema.names}
    with replacing(path) as temporary:
        pq.write_table(
            _sealed(table.cast(schema), stored, of),
            temporary,
            compression=compression,
            row_group_size=group_rows or max(1, table.num_rows),
            use_dictionary=[name for name in schema.names if name not in stored],
            write_page_checksum=True,
        )


def write_open_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file whose columns depend on the parameters."""
    write_table(path, table, table.schema)


def read_table(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file and check its schema and its seal.  Raises DataError naming the column that differs."""
    return _read(path, schema, columns)


def read_open_table(path: Path) -> pa.Table:
    """Read a Parquet file whose columns depend on the parameters.  Raises DataError if it is absent or damaged."""
    return _read(path, None, None)


def table_of(path: Path) -> str | None:
    """The hash of what a table is of, if its writer gave one."""
    try:
        return str(json.loads(pq.read_schema(path).metadata[SEAL.encode()])[_OF])
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def shard_paths(folder: Path, pattern: str) -> list[Path]:
    """List the files of `folder` that match, sorted by name."""
    return sorted(folder.glob(pattern))


def not_readable(path: Path, error: Exception) -> DataError:
    """The error for a file that Arrow cannot read; its messages may have several lines."""
    return DataError(f"{path} is not readable as Parquet ({' '.join(str(error).split())}): {REPAIR}")


def _read(path: Path, schema: pa.Schema | None, columns: list[str] | None) -> pa.Table:
    check_regular(path)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            actual = file.schema_arrow
            if schema is not None:
                _check_schema(path, actual, schema)
            # without Arrow's threads: it waits forever for those that cannot start for want of memory
            table = file.read(columns or actual.names, use_threads=False).select(columns or actual.names)
    except FileNotFoundError:
        raise DataError(f"{path} is not here: run `dvc repro`") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise not_readable(path, error) from error
    _check_seal(path, table, (actual.metadata or {}).get(SEAL.encode()))
    return table.replace_schema_metadata(None)


def _check_schema(path: Path, actual: pa.Schema, expected: pa.Schema) -> None:
    for field in expected:
        if field.name not in actual.names:
            raise DataError(f"{path}: expected a column '{field.name}', found {', '.join(actual.names)}")
        kind = actual.field(field.name).type
        if kind != field.type:
            raise DataError(f"{path}: column '{field.name}': expected {field.type}, found {kind}")


# ---- the seal


def _sealed(table: pa.Table, stored: Iterable[str], of: str | None) -> pa.Table:
    seal = {name: column_sha256(table[name]) for name in table.column_names if name not in stored}
    return table.replace_schema_metadata({SEAL: json.dumps(seal | dict.fromkeys(stored) | ({_OF: of} if of else {}))})


def _check_seal(path: Path, table: pa.Table, stored_seal: bytes | None) -> None:
    """Raise DataError unless the columns that were read are those that were written."""
    if stored_seal is None:
        raise DataError(f"{path}: expected the seal of a table that this version of cbir wrote, found none: {REPAIR}")
    try:
        seal = dict(json.loads(stored_seal))
    except (TypeError, ValueError, RecursionError):
        seal = {}
    for name in table.column_names:
        if seal.get(name, "") not in (None, column_sha256(table[name])):
            raise DataError(f"{path}: column '{name}': expected the values that cbir wrote, found others: {REPAIR}")


def column_sha256(column: pa.ChunkedArray) -> str:
    """The hash of the values and nulls of a column, the same for any chunks."""
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    digest = sha256(f"{column.type} {len(array)}".encode())
    if array.null_count:
        digest.update(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).data)
        array = array.drop_null()
    if pa.types.is_primitive(array.type):
        digest.update(np.ascontiguousarray(array.to_numpy(zero_copy_only=False)).data)
        return digest.hexdigest()
    values = array.cast(pa.large_binary())
    digest.update(pc.binary_length(values).to_numpy().tobytes())
    _, offsets, data = values.buffers()
    first, last = (np.frombuffer(offsets, np.int64)[values.offset + at] for at in (0, len(values)))
    digest.update(memoryview(data or b"")[first:last])
    return digest.hexdigest()
