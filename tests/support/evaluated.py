"""The files of a run's evaluations, read without the readers of `cbir.artifacts`, and changed with their passport."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cbir.artifacts.evaluation_passport import hashes_of_files
from cbir.artifacts.paths import EvaluationPaths
from cbir.artifacts.vectors import write_passport


def rows_of_all(reports: Path, name: str) -> list[dict[str, Any]]:
    """The rows of this table of each encoder, in the run's order.  name : without suffix, as "per_query"."""
    encoders = json.loads((reports / "encoders.json").read_text(encoding="utf-8"))["encoders"]
    paths = [reports / "evaluation" / encoder / f"{name}.parquet" for encoder in encoders]
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def list_in_passport(folder: Path) -> None:
    """Make the passport of an evaluation that of the files that are there, so that readers look into them."""
    write_passport(folder, {"evaluated": {}, "files": hashes_of_files(EvaluationPaths(folder))})
