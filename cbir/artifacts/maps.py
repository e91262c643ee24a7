"""The map of a gallery (`data/map/<encoder>.parquet`): a sample of its images, placed in two dimensions."""

from pathlib import Path

import pyarrow as pa

from cbir.artifacts.tables import read_table, write_table

MAP_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("label_name", pa.string()),
        pa.field("x", pa.float32(), nullable=False),  # in [-1, 1]
        pa.field("y", pa.float32(), nullable=False),  # in [-1, 1]
    ]
)


def write_map(path: Path, table: pa.Table, of: str | None = None) -> None:
    """Write the map, in order of position in the gallery; it has no rows if `map.images` is 0.

    of : the hash of the gallery's vectors, from their passport.
    """
    write_table(path, table, MAP_SCHEMA, of=of)


def read_map(path: Path) -> pa.Table:
    """Read the map."""
    return read_table(path, MAP_SCHEMA)
