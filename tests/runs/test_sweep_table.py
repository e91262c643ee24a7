"""The table of a sweep: its values, the best of each column, the front, and its three forms."""

import csv
import io

import pytest
from rich.console import Console

from cbir.artifacts.latency import Latency, SearchTimes
from cbir.artifacts.metrics import Counts, Intervals, Metrics
from cbir.core.errors import ConfigError
from cbir.runs.experiments import Results
from cbir.runs.sweep import Job, Outcome
from cbir.runs.sweep_table import (
    TABLE_METRICS,
    SweepRow,
    SweepTable,
    as_csv,
    as_markdown,
    check_metrics,
    print_table,
    tabulate,
)


def results(precision: float, recall: float, p50: float, index_bytes: int) -> Results:
    """Results of one encoder in one task."""
    counts = Counts(
        gallery_images=100,
        queries=10,
        queries_without_relevant={},
        duplicates={},
        index_bytes={"mobilenet": index_bytes},
    )
    metrics = Metrics(
        cbir={"mobilenet": {"precision@10": precision, "map_at_r": 0.5, "mrr": 0.9}},
        ann={"mobilenet": {"image": {"precision@10": precision, "ann_recall@10": recall, "ann_recall@50": 0.0}}},
        data=counts,
    )
    intervals = Intervals(
        cbir={"mobilenet": {"precision@10": [precision - 0.1, precision + 0.1]}},
        ann={"mobilenet": {"image": {"ann_recall@10": [recall, 1.0]}}},
    )
    times = SearchTimes(p50_ms=p50, p95_ms=p50, p99_ms=p50, batch_queries_per_s=1.0, queries=10)
    return Results(metrics, intervals, Latency({"mobilenet": {"image": {"index": times}}}, k=10, threads=1))


def table_of(by_index: dict[str, Results], overrides: dict[str, str] | None = None) -> SweepTable:
    """overrides : further overrides, by index."""
    outcomes = [
        Outcome(
            Job(
                (f"index={name}", "clip=demo", *(overrides or {}).get(name, "").split()),
                f"index-{name}-1",
                "shapes",
                "mobilenet",
            ),
            by_index[name],
        )
        for name in by_index
    ]
    return tabulate(outcomes, TABLE_METRICS)


@pytest.fixture
def three() -> SweepTable:
    return table_of(
        {
            "flat": results(0.8, 1.0, 0.3, 800),
            "hnsw": results(0.7, 0.9, 0.1, 900),
            "sq8": results(0.8004, 0.9, 0.2, 200),
        }
    )


def test_a_metric_that_no_job_has_is_named() -> None:
    outcomes = [
        Outcome(Job(("index=flat",), "a", "shapes", "mobilenet"), results(0.5, 1.0, 0.1, 100)),
        Outcome(Job(("index=hnsw",), "b", "shapes", "mobilenet")),
    ]
    check_metrics(outcomes, ["mrr", "precision@10"])
    with pytest.raises(
        ConfigError, match=r"^--metrics: no job has precison@10; nearest: precision@10; the results are kept"
    ):
        check_metrics(outcomes, ["mrr", "precison@10"])


def test_a_row_holds_what_the_experiment_measured(three: SweepTable) -> None:
    assert three.shared == {"clip": "demo"}
    assert three.keys == ["index"]
    assert three.columns == ["precision@10", "map_at_r", "ann_recall@10", "p50 ms", "bytes per vector"]
    row = three.rows[1]
    assert (row.number, row.place, row.settings) == (2, ("cbir", "mobilenet"), {"index": "hnsw"})
    assert row.values["precision@10"] == (0.7, [0.6, pytest.approx(0.8)])
    assert row.values["ann_recall@10"] == (0.9, [0.9, 1.0])
    assert [row.values[name].value for name in ("p50 ms", "bytes per vector")] == [0.1, 9.0]


def test_the_best_value_is_chosen_after_rounding(three: SweepTable) -> None:
    best = {name: [row.settings["index"] for row in three.rows if name in row.best] for name in three.columns}
    assert best == {
        "precision@10": ["flat", "sq8"],  # equal in the decimals that are shown
        "map_at_r": [],  # all are equal
        "ann_recall@10": ["flat"],
        "p50 ms": ["hnsw"],
        "bytes per vector": ["sq8"],
    }


def test_no_job_on_the_front_is_dominated(three: SweepTable) -> None:
    assert {row.settings["index"]: row.front for row in three.rows} == {"flat": True, "hnsw": True, "sq8": False}


def test_there_is_no_front_across_encoders() -> None:
    found = {"flat": results(0.8, 1.0, 0.3, 800), "hnsw": results(0.7, 0.9, 0.1, 900)}
    table = table_of(found, {"hnsw": "mobilenet=small"})
    assert table.keys == ["index", "mobilenet"]
    assert [row.settings["mobilenet"] for row in table.rows] == ["", "small"]
    assert {row.front for row in table.rows} == {None}
    assert "front" not in as_markdown(table) + as_csv(table)


def test_failed_jobs_and_tasks_without_results_have_no_row() -> None:
    texts = results(0.5, 1.0, 0.1, 100)
    texts.metrics.tbir = {"mobilenet": {"precision@10": 0.5}}
    texts.metrics.ann["mobilenet"]["text"] = {"ann_recall@10": 1.0}
    texts.intervals.tbir = {"mobilenet": {}}
    texts.intervals.ann["mobilenet"]["text"] = {}
    outcomes = [
        Outcome(Job(("index=flat",), "a", "shapes", "mobilenet"), results(0.5, 1.0, 0.1, 100)),
        Outcome(Job(("index=hnsw",), "b", "shapes", "mobilenet"), error="error: no"),
        Outcome(Job(("index=sq8",), "c", "shapes", "mobilenet"), texts),
    ]
    table = tabulate(outcomes, TABLE_METRICS)
    assert [(row.number, row.place.task) for row in table.rows] == [(1, "cbir"), (3, "cbir"), (3, "tbir")]
    assert table.rows[2].values["p50 ms"].value is None
    assert "| tbir mobilenet | 3 | sq8 | 0.500 | - | 1.000 | - | 1 |" in as_markdown(table)


def test_the_terminal_shows_intervals_below_and_stars_the_best(three: SweepTable) -> None:
    console = Console(width=140, record=True, force_terminal=False, file=io.StringIO())
    print_table(three, console)
    text = console.export_text()
    assert "sweep over shapes, with mobilenet: clip=demo" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["cbir", "mobilenet", "1", "flat", "0.800*", "0.500", "1.000*", "0.300", "8", "front"] in lines
    assert ["[0.700,", "0.900]", "[1.000,", "1.000]"] in lines
    assert "`cbir compare` with the names" in text


def test_markdown_has_the_best_in_bold_and_escapes_settings(three: SweepTable) -> None:
    assert "| cbir mobilenet | 1 | flat | **0.800** [0.700, 0.900] | 0.500 |" in as_markdown(three)
    hostile = SweepRow(1, "x", three.rows[0].place, {"index": "<b>|x"}, three.rows[0].values)
    page = as_markdown(SweepTable("shapes", {}, ["index"], three.columns, [hostile]))
    assert "\\<b\\>\\|x" in page
    assert "<b>" not in page


def test_csv_holds_unrounded_values_and_bounds(three: SweepTable) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(three))))
    assert [row["experiment"] for row in rows] == ["index-flat-1", "index-hnsw-1", "index-sq8-1"]
    assert (rows[2]["index"], float(rows[2]["precision@10"]), rows[2]["front"]) == ("sq8", 0.8004, "0")
    assert float(rows[1]["precision@10 low"]) == pytest.approx(0.6)


def test_csv_keeps_the_setting_experiment_apart_from_the_name(three: SweepTable) -> None:
    line = SweepRow(1, "its-name", three.rows[0].place, {"experiment": "ann_pareto"}, {})
    (found,) = csv.DictReader(io.StringIO(as_csv(SweepTable("shapes", {}, ["experiment"], [], [line]))))
    assert (found["experiment"], found["set experiment"]) == ("its-name", "ann_pareto")
