"""The points of the plots against the files that they come from, and dvc.yaml, which names their columns."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cbir.artifacts.evaluations import read_classes
from cbir.artifacts.paths import ReportPaths
from cbir.report.facts import Facts
from cbir.report.plots import write_plots
from tests.support.evaluated import rows_of_all
from tests.support.finished import finish
from tests.support.imports import ROOT
from tests.support.world import World, make_world

EVERY_PLOT = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
PLOTS = [
    next(iter(plot.values())) for plot in EVERY_PLOT if isinstance(plot, dict)
]  # the others are folders of pictures
OURS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / ".dvc" / "plots").glob("*.json")}
ANSWERED = (("cbir", "mobilenet"), ("cbir", "clip"), ("tbir", "clip"))
SERIES = [f"{task} {encoder}" for task, encoder in ANSWERED]


def plotted(world: World, facts: Facts) -> dict[str, list[dict[str, Any]]]:
    reports = world.root / "reports"
    write_plots(reports / "plots", facts, read_classes(ReportPaths(reports)))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (reports / "plots").iterdir()}


def fields_of(template: Any) -> set[str]:
    """The columns that a template of Vega-Lite names itself; "rev" is DVC's."""
    if isinstance(template, list):
        return set().union(*map(fields_of, template))
    if not isinstance(template, dict):
        return set()
    named = template.get("field")
    own = {named} if isinstance(named, str) and not named.startswith("<DVC_METRIC_") and named != "rev" else set()
    return own.union(*map(fields_of, template.values()))


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
    expected = []
    for task, encoder in ANSWERED:
        path = world.root / "reports" / "evaluation" / encoder / "metrics.json"
        means = json.loads(path.read_text(encoding="utf-8"))[task][encoder]
        expected += [{"series": f"{task} {encoder}", "k": k, family: means[f"{family}@{k}"]} for k in (1, 5, 10, 60)]
    assert points[family] == expected


def test_each_index_and_exact_search_stand_where_they_were_measured(points: dict[str, Any], facts: Facts) -> None:
    assert len(points["recall_latency"]) == 6
    assert {(point["series"], point["search"]) for point in points["recall_latency"]} == {
        (series, search) for series in SERIES for search in ("index", "exact")
    }
    for point in points["recall_latency"]:
        task, encoder = point["series"].split()
        measured = facts.latency.encoders[encoder]["image" if task == "cbir" else "text"][point["search"]]
        assert point["p50_ms"] == measured.p50_ms
        expected = 1.0 if point["search"] == "exact" else facts.indexed(task, encoder)["ann_recall@10"]
        assert point["ann_recall"] == expected


def test_a_bar_is_the_mean_of_its_classs_queries(points: dict[str, Any], world: World) -> None:
    rows = rows_of_all(world.root / "reports", "per_query")
    labels = sorted({label for label in world.gallery.values() if label is not None})
    bars = {(point["series"], point["class"]): point["precision"] for point in points["by_class"]}
    assert len(bars) == len(points["by_class"])
    for task, encoder in ANSWERED:
        assert [label for series, label in bars if series == f"{task} {encoder}"] == labels
        for label in labels:
            values = [
                row["precision@10"]
                for row in rows
                if (row["task"], row["encoder"], row["search"], row["label"]) == (task, encoder, "exact", label)
            ]
            known = [value for value in values if value is not None]
            expected = pytest.approx(np.mean(known)) if known else None
            assert bars[f"{task} {encoder}", label] == expected


@pytest.mark.parametrize("what", ["everything", "no text queries", "no labels", "no queries", "one encoder"])
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
    if what == "one encoder":
        del world.vectors["clip"]
    points = plotted(world.write(), finish(world))
    for plot in PLOTS:
        for axis in ("x", "y"):
            if isinstance(plot[axis], str):
                continue
            ((file, columns),) = plot[axis].items()
            named = ({columns} if isinstance(columns, str) else {*columns}) | fields_of(OURS[plot["template"]])
            if isinstance(plot["x"], str):
                named.add(plot["x"])
            for point in points[Path(file).stem]:
                assert point.keys() >= named, (plot["title"], point)
    assert {
        Path(file).stem for plot in PLOTS for axis in ("x", "y") if isinstance(plot[axis], dict) for file in plot[axis]
    } == (points.keys())
    if what == "everything":
        assert all(points.values())
        assert {point["series"] for rows in points.values() for point in rows} == set(SERIES)
    if what == "one encoder":
        assert all(points.values())
        assert {point["series"] for rows in points.values() for point in rows} == {"cbir mobilenet"}


def test_every_template_is_ours() -> None:
    assert {plot["template"] for plot in PLOTS} == set(OURS)
    assert {template: fields_of(values) for template, values in OURS.items()} == {
        template: {"series"} for template in OURS
    }
