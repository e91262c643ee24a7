"""The tables that evaluate writes to `reports/`: runs, metrics per query and per class, duplicates and confusions."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from cbir.artifacts.ranges import check_column
from cbir.artifacts.tables import read_table, write_open_table, write_table
from cbir.core.errors import REPAIR, DataError

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
        pa.field("label", pa.string(), nullable=False),  # of the queries
        pa.field("found", pa.string(), nullable=False),  # of the results retrieved instead
        pa.field("found_name", pa.string(), nullable=False),  # its human-readable name
        pa.field("share", pa.float64(), nullable=False),  # of the first 10 results
    ]
)


def write_run(path: Path, table: pa.Table) -> None:
    """Write a run: the ranked results of each query, in the order of the query list."""
    write_table(path, table, RUN_SCHEMA)


def read_run(path: Path) -> pa.Table:
    """Read a run.  Raises DataError if it is absent or damaged, a score is not finite, or ranks do not count from 1."""
    table = read_table(path, RUN_SCHEMA)
    check_column(path, table, "score")
    queries, ranks = table["query_id"].combine_chunks().dictionary_encode().indices.to_numpy(), table["rank"].to_numpy()
    starts = np.flatnonzero(np.diff(queries, prepend=-1))
    expected = 1 + np.arange(len(ranks)) - np.repeat(starts, np.diff(starts, append=len(ranks)))
    if len(starts) != len(np.unique(queries)) or (ranks != expected).any():
        raise DataError(f"{path}: expected the ranks 1, 2, 3 ... of each query, found others: {REPAIR}")
    return table


def write_duplicates(path: Path, table: pa.Table) -> None:
    """Write pairs of a query and a gallery image that show the same picture."""
    write_table(path, table, DUPLICATE_SCHEMA)


def read_duplicates(path: Path) -> pa.Table:
    """Read the duplicates."""
    return read_table(path, DUPLICATE_SCHEMA)


def write_confusions(path: Path, table: pa.Table) -> None:
    """Write, for each task and encoder, the classes that are confused, the greatest share first."""
    write_table(path, table, CONFUSION_SCHEMA)


def read_confusions(path: Path) -> pa.Table:
    """Read the confusions."""
    return read_table(path, CONFUSION_SCHEMA)


def write_class_table(path: Path, table: pa.Table) -> None:
    """Write task, encoder, label, name, queries and a float64 column per metric: the class's mean (null: undefined)."""
    write_open_table(path, table)


def write_per_query(path: Path, table: pa.Table) -> None:
    """Write query_id, task, encoder, search, subset, label and a float64 column per metric (null: undefined)."""
    write_open_table(path, table)
