"""The points of the plots against the files that they come from, and dvc.yaml, which names their columns."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from cbir.artifacts.runs import read_open_table
from cbir.core.files import read_json
from cbir.report.facts import Facts
from cbir.report.plots import write_plots
from tests.support.finished import finish
from tests.support.imports import ROOT
from tests.support.world import World, make_world

EVERY_PLOT = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
PLOTS = [
    next(iter(plot.values())) for plot in EVERY_PLOT if isinstance(plot, dict)
]  # the others are folders of pictures
ANSWERED = (("cbir", "mobilenet"), ("cbir", "clip"), ("tbir", "clip"))


def plotted(world: World, facts: Facts) -> dict[str, list[dict[str, Any]]]:
    reports = world.root / "reports"
    write_plots(reports / "plots", facts, read_open_table(reports / "classes.parquet"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (reports / "plots").iterdir()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("plots")).write("flat", "hnsw")


@pytest.fixture(scope="module")
def facts(world: World) -> Facts:
    return finish(world, kind="hnsw")


@pytest.fixture(scope="module")
def points(world: World, facts: Facts) -> dict[str, list[dict[str, Any]]]:
    return plotted(world, facts)


@pytest.mark.parametrize("family", ["precision", "recall"])
def test_a_curve_holds_the_mean_at_every_k(points: dict[str, Any], world: World, family: str) -> None:
    metrics = read_json(world.root / "reports" / "metrics.json")
    assert [point["k"] for point in points[family]] == [1, 5, 10, 60]
    for point in points[family]:
        for task, encoder in ANSWERED:
            assert point[f"{task} {encoder}"] == metrics[task][encoder][f"{family}@{point['k']}"]


def test_each_index_and_exact_search_stand_where_they_were_measured(points: dict[str, Any], facts: Facts) -> None:
    assert len(points["recall_latency"]) == 6
    for point in points["recall_latency"]:
        ((name, recall),) = [
            (name, point[name]) for name in (f"{t} {e}" for t, e in ANSWERED) if point[name] is not None
        ]
        task, encoder = name.split()
        measured = facts.latency.encoders[encoder]["image" if task == "cbir" else "text"][point["search"]]
        assert point["p50_ms"] == measured.p50_ms
        assert recall == (1.0 if point["search"] == "exact" else facts.indexed(task, encoder)["ann_recall@10"])


def test_a_bar_is_the_mean_of_its_classs_queries(points: dict[str, Any], world: World) -> None:
    rows = pq.read_table(world.root / "reports" / "per_query.parquet").to_pylist()
    labels = sorted({label for label in world.gallery.values() if label is not None})
    assert [point["class"] for point in points["by_class"]] == labels
    for point in points["by_class"]:
        for task, encoder in ANSWERED:
            values = [
                row["precision@10"]
                for row in rows
                if (row["task"], row["encoder"], row["search"], row["label"])
                == (task, encoder, "exact", point["class"])
            ]
            known = [value for value in values if value is not None]
            expected = pytest.approx(np.mean(known)) if known else None
            assert point[f"{task} {encoder}"] == expected


@pytest.mark.parametrize("what", ["everything", "no text queries", "no labels", "no queries"])
def test_dvc_yaml_names_files_and_columns_that_every_run_has(what: str, tmp_path: Path) -> None:
    world = make_world(tmp_path)
    if what == "no labels":
        world.gallery = dict.fromkeys(world.gallery)
    if what.endswith("queries"):
        world.queries = world.queries_of("cbir") if what == "no text queries" else []
        world.vectors["clip"]["texts"] = {}
    if what == "no queries":
        for found in world.vectors.values():
            found["queries"] = {}
    points = plotted(world.write(), finish(world))
    for plot in PLOTS:
        for axis in ("x", "y"):
            if isinstance(plot[axis], str):
                continue
            ((file, columns),) = plot[axis].items()
            for point in points[Path(file).stem]:
                assert point.keys() >= {columns} if isinstance(columns, str) else {*columns}, (plot["title"], point)
    assert {
        Path(file).stem for plot in PLOTS for axis in ("x", "y") if isinstance(plot[axis], dict) for file in plot[axis]
    } == (points.keys())


def test_every_template_is_dvcs_or_ours() -> None:
    ours = {path.stem for path in (ROOT / ".dvc" / "plots").glob("*.json")}
    assert {plot["template"] for plot in PLOTS} == {"simple", "scatter", *ours}
