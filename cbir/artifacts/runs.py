"""What evaluate leaves in `reports/`: the run tables and the values of every metric for every query."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cbir.artifacts.files import replacing
from cbir.artifacts.tables import read_table, write_table

RUN_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),  # 1-based
        pa.field("score", pa.float32(), nullable=False),  # higher is better
    ]
)


def write_run(path: Path, table: pa.Table) -> None:
    """Write a run: the ranked results of each query, in the order of the query list."""
    write_table(path, table, RUN_SCHEMA)


def read_run(path: Path) -> pa.Table:
    """Read a run."""
    return read_table(path, RUN_SCHEMA)


def write_per_query(path: Path, table: pa.Table) -> None:
    """Write query_id, task, encoder, search, subset, label and one float64 column for each metric (null: undefined)."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
