"""The classes and queries with the worst results of each task and encoder."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.evaluations import read_all_confusions, read_classes, read_per_query
from cbir.artifacts.paths import ReportPaths

_ROWS = 5  # of each table
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Failures:
    """The worst results of a task and encoder, worst first.

    classes, confusions, queries : rows of classes.parquet, confusions.parquet and per_query.parquet.
    """

    classes: Rows
    confusions: Rows
    queries: Rows


def read_failures(reports: ReportPaths) -> dict[tuple[str, str], Failures]:
    """Return (task, encoder) -> failures with exact search."""
    classes, per_query, confusions = read_classes(reports), read_per_query(reports), read_all_confusions(reports)
    places = dict.fromkeys(zip(per_query["task"].to_pylist(), per_query["encoder"].to_pylist(), strict=True))
    return {
        (task, encoder): Failures(
            _lowest(_select(classes, task=task, encoder=encoder)),
            _first(_select(confusions, task=task, encoder=encoder)),
            _lowest(_select(per_query, task=task, encoder=encoder, search="exact")),
        )
        for task, encoder in places
    }


def _lowest(table: pa.Table) -> Rows:
    """Return the rows with the lowest map_at_r, ties by mrr, without rows that are perfect or undefined."""
    if "map_at_r" not in table.column_names:
        return []
    imperfect = table.filter(pc.fill_null(pc.less(table["map_at_r"], 1.0), False))
    return _first(imperfect.sort_by([("map_at_r", "ascending"), ("mrr", "ascending")]))


def _first(table: pa.Table) -> Rows:
    rows: Rows = table.slice(0, _ROWS).to_pylist()
    return rows


def _select(table: pa.Table, **values: str) -> pa.Table:
    """Return the rows that have these values in these columns."""
    for name, value in values.items():
        table = table.filter(pc.equal(table[name], value))
    return table
