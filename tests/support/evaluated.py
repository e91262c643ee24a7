"""The files of a run's evaluations, read without the readers of `cbir.artifacts`."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def rows_of_all(reports: Path, name: str) -> list[dict[str, Any]]:
    """The rows of this table of each encoder, in the run's order.  name : without suffix, as "per_query"."""
    encoders = json.loads((reports / "encoders.json").read_text(encoding="utf-8"))["encoders"]
    paths = [reports / "evaluation" / encoder / f"{name}.parquet" for encoder in encoders]
    return [row for path in paths for row in pq.read_table(path).to_pylist()]
