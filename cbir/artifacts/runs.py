"""What evaluate leaves in `reports/`: run tables, the values of every metric by query and by class, what is confused."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cbir.artifacts.tables import read_table, write_table
from cbir.core.errors import DataError
from cbir.core.files import replacing

RUN_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),  # 1-based
        pa.field("score", pa.float32(), nullable=False),  # higher is better
    ]
)

DUPLICATE_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),  # of the gallery
        pa.field("found_by", pa.string(), nullable=False),  # bytes, pixels, or an encoder
        pa.field("likeness", pa.float64(), nullable=False),  # 1, difference in greys, or cosine
    ]
)
CONFUSION_SCHEMA = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("encoder", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),  # asked for
        pa.field("found", pa.string(), nullable=False),  # found instead
        pa.field("found_name", pa.string(), nullable=False),  # what people call that
        pa.field("share", pa.float64(), nullable=False),  # of the first 10 results
    ]
)


def write_run(path: Path, table: pa.Table) -> None:
    """Write a run: the ranked results of each query, in the order of the query list."""
    write_table(path, table, RUN_SCHEMA)


def read_run(path: Path) -> pa.Table:
    """Read a run."""
    return read_table(path, RUN_SCHEMA)


def write_duplicates(path: Path, table: pa.Table) -> None:
    """Write pairs of a query and a gallery image that are the same picture."""
    write_table(path, table, DUPLICATE_SCHEMA)


def read_duplicates(path: Path) -> pa.Table:
    """Read the pairs."""
    return read_table(path, DUPLICATE_SCHEMA)


def write_confusions(path: Path, table: pa.Table) -> None:
    """Write what was found instead of each class, by task and encoder, the greatest share first."""
    write_table(path, table, CONFUSION_SCHEMA)


def read_confusions(path: Path) -> pa.Table:
    """Read the confusions."""
    return read_table(path, CONFUSION_SCHEMA)


def write_class_table(path: Path, table: pa.Table) -> None:
    """Write task, encoder, label, name, queries and one float64 column for each metric, the class's mean (null: undefined)."""
    _write_open_table(path, table)


def write_per_query(path: Path, table: pa.Table) -> None:
    """Write query_id, task, encoder, search, subset, label and one float64 column for each metric (null: undefined)."""
    _write_open_table(path, table)


def read_open_table(path: Path) -> pa.Table:
    """Read the values by query or by class.  Raises DataError when the file is absent or damaged."""
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise DataError(f"{path} is not here: run `dvc repro`") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not readable as Parquet ({error}): run `dvc repro --force evaluate`") from error


def _write_open_table(path: Path, table: pa.Table) -> None:
    """A table whose columns depend on the parameters."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
