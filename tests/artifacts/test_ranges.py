"""Values that cannot be are refused by the readers that all commands share."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cbir.artifacts import evaluations
from cbir.artifacts.latency import Latency
from cbir.artifacts.metrics import Counts, Intervals, Metrics
from cbir.artifacts.names import write_encoder_names
from cbir.artifacts.paths import ReportPaths
from cbir.artifacts.queries import QRELS_SCHEMA, QUERY_SCHEMA, read_qrels, read_query_list
from cbir.artifacts.ranges import check_values
from cbir.artifacts.runs import RUN_SCHEMA, read_run
from cbir.artifacts.tables import write_open_table, write_table
from cbir.core.errors import DataError
from tests.support.evaluated import list_in_passport

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize("value", [7.0, -0.5, NAN, INFINITY, 1.001])
@pytest.mark.parametrize("name", ["per_query", "classes"])
def test_a_metric_outside_its_range_is_refused(tmp_path: Path, name: str, value: float) -> None:
    reports = ReportPaths(tmp_path)
    write_encoder_names(reports.encoders, ["clip"])
    texts = ("query_id", "task", "encoder", "search", "subset", "label")
    table = pa.table({**{column: ["x", "y"] for column in texts}, "queries": [7, 7], "precision@10": [None, value]})
    path = reports.evaluation("clip").root / f"{name}.parquet"
    write_open_table(path, table)
    list_in_passport(path.parent)
    expected = (
        rf"{name}\.parquet: column 'precision@10': expected numbers in \[0, 1\], found {re.escape(str(value))}: run"
    )
    with pytest.raises(DataError, match=expected):
        getattr(evaluations, f"read_{name}")(reports)


@pytest.mark.parametrize("value", [1.5, -0.1, "0.5", None, True, NAN])
@pytest.mark.parametrize("group", ["cbir", "ann", "chance", "ann_cost"])
def test_a_mean_outside_its_range_is_refused(group: str, value: Any) -> None:
    metrics = Metrics(
        data=Counts(gallery_images=1, queries=1, queries_without_relevant={}, duplicates={}, index_bytes={})
    ).to_json()
    metrics[group] = {"clip": {"mrr": 0.5, "map": -1.5 if (group, value) == ("ann_cost", -0.1) else value}}
    with pytest.raises(DataError, match=rf"x\.json: {group}\.clip\.map: expected numbers in \[-?\d, 1\], found"):
        Metrics.from_json(metrics, Path("x.json"))


def test_a_cost_may_be_negative_and_an_interval_is_checked() -> None:
    values = Intervals(ann_cost={"clip": {"image": {"map": [-0.5, 0.5]}}}, cbir={"clip": {"map": [0.0, 1.0]}}).to_json()
    Intervals.from_json(values, Path("x.json"))
    with pytest.raises(DataError, match=r"cbir\.clip\.map\.1: expected numbers in \[0, 1\], found 1.5"):
        Intervals.from_json({**values, "cbir": {"clip": {"map": [0.0, 1.5]}}}, Path("x.json"))


def test_negative_times_are_refused() -> None:
    times = {"single_ms": {"p50": 1.0, "p95": -2.0, "p99": 3.0}, "batch_queries_per_s": None, "queries": 5}
    latency = {"encoders": {"clip": {"image": {"index": times}}}, "k": 10, "threads": 2}
    with pytest.raises(DataError, match=r"x\.json: clip\.0\.p95_ms: expected numbers in \[0, inf\], found -2\.0"):
        Latency.from_json(latency, Path("x.json"))


def test_numbers_next_to_the_border_are_rounding() -> None:
    check_values(Path("x"), "values", {"a": [1 + 1e-12, -1e-12]}, 0, 1)


@pytest.mark.parametrize(
    ("queries", "ranks", "scores", "expected"),
    [
        ("aabb", [1, 2, 1, 2], [0.5, NAN, 0.5, 0.4], "column 'score': expected finite numbers, found nan"),
        ("aabb", [1, 2, 1, 2], [0.5, INFINITY, 0.5, 0.4], "column 'score': expected finite numbers, found inf"),
        ("aabb", [1, 2, 1, 3], [0.5, 0.4, 0.5, 0.4], "expected the ranks 1, 2, 3"),
        ("aabb", [0, 1, 1, 2], [0.5, 0.4, 0.5, 0.4], "expected the ranks 1, 2, 3"),
        ("abab", [1, 1, 2, 2], [0.5, 0.4, 0.5, 0.4], "expected the ranks 1, 2, 3"),
        ("abaa", [1, 1, 1, 2], [0.5, 0.4, 0.5, 0.4], "expected the ranks 1, 2, 3"),
    ],
)
def test_a_run_that_ranks_nothing_is_refused(
    tmp_path: Path, queries: str, ranks: list[int], scores: list[float], expected: str
) -> None:
    columns = {"query_id": list(queries), "image_id": list("wxyz"), "rank": ranks, "score": scores}
    write_table(tmp_path / "x.parquet", pa.table(columns, RUN_SCHEMA), RUN_SCHEMA)
    with pytest.raises(DataError, match=rf"x\.parquet: {expected}"):
        read_run(tmp_path / "x.parquet")
    columns |= {"query_id": list("aabb"), "rank": [1, 2, 1, 2], "score": [0.5, 0.4, 0.5, 0.4]}
    write_table(tmp_path / "x.parquet", pa.table(columns, RUN_SCHEMA), RUN_SCHEMA)
    assert read_run(tmp_path / "x.parquet").num_rows == 4


@pytest.mark.parametrize(
    ("ids", "tasks", "expected"),
    [
        (["a", "b", "a"], ["cbir"] * 3, "expected each query once, found 2 queries in 3 rows"),
        (["a", "b", "c"], ["cbir", "tbir", "other"], "column 'task': expected cbir or tbir, found 'other'"),
    ],
)
def test_doubled_queries_and_other_tasks_are_refused(
    tmp_path: Path, ids: list[str], tasks: list[str], expected: str
) -> None:
    rows = [{"query_id": name, "task": task} for name, task in zip(ids, tasks, strict=True)]
    write_table(tmp_path / "x.parquet", pa.Table.from_pylist(rows, QUERY_SCHEMA), QUERY_SCHEMA)
    with pytest.raises(DataError, match=rf"x\.parquet: {expected}: run `cbir repair`"):
        read_query_list(tmp_path / "x.parquet")


@pytest.mark.parametrize("pairs", [["ab", "ab"], ["ac", "ab"], ["ba", "ab"]])
def test_doubled_or_unsorted_judgements_are_refused(tmp_path: Path, pairs: list[str]) -> None:
    table = pa.Table.from_pylist([{"query_id": q, "image_id": i, "relevance": 1} for q, i in pairs], QRELS_SCHEMA)
    write_table(tmp_path / "x.parquet", table, QRELS_SCHEMA)
    with pytest.raises(
        DataError, match=r"x\.parquet: expected each pair of query and image once, sorted, found others"
    ):
        read_qrels(tmp_path / "x.parquet")
