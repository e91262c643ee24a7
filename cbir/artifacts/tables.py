"""Parquet tables with a checked schema, written atomically, with a checksum of each page that every reader verifies."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cbir.core.errors import REPAIR, DataError
from cbir.core.files import replacing


def write_table(
    path: Path, table: pa.Table, schema: pa.Schema, stored: tuple[str, ...] = (), group_rows: int | None = None
) -> None:
    """Write a Parquet file, zstd-compressed except for the columns in `stored`, whose values are compressed already.

    group_rows : rows per row group, the least that a reader of one row must read; None for a single group.
    """
    compression = {name: "none" if name in stored else "zstd" for name in schema.names}
    with replacing(path) as temporary:
        pq.write_table(
            table.cast(schema),
            temporary,
            compression=compression,
            row_group_size=group_rows or max(1, table.num_rows),
            use_dictionary=[name for name in schema.names if name not in stored],
            write_page_checksum=True,
        )


def read_table(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file and check its schema.  Raises DataError naming the column that differs."""
    try:
        _check_schema(path, pq.read_schema(path), schema)
        return pq.read_table(path, columns=columns, schema=schema, page_checksum_verification=True)
    except FileNotFoundError:
        raise DataError(f"{path} is not here: run `dvc repro`") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is not readable as Parquet ({error}): {REPAIR}") from error


def shard_paths(folder: Path, pattern: str) -> list[Path]:
    """List the files of `folder` that match, sorted by name."""
    return sorted(folder.glob(pattern))


def _check_schema(path: Path, actual: pa.Schema, expected: pa.Schema) -> None:
    for field in expected:
        if field.name not in actual.names:
            raise DataError(f"{path}: expected a column '{field.name}', found {', '.join(actual.names)}")
        kind = actual.field(field.name).type
        if kind != field.type:
            raise DataError(f"{path}: column '{field.name}': expected {field.type}, found {kind}")
