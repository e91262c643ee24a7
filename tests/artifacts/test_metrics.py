"""metrics.json, intervals.json and the headline through their typed form."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cbir.artifacts.metrics import (
    Counts,
    Intervals,
    Metrics,
    evaluated,
    write_headline,
    write_intervals,
    write_metrics,
)
from cbir.artifacts.paths import EvaluationPaths, ReportPaths
from cbir.core.errors import DataError
from cbir.core.files import read_json
from tests.support.imports import ROOT
from tests.support.world import make_world

PATH = Path("reports/evaluation/clip/metrics.json")  # for messages
DEFAULT_RUN = {"mobilenet_demo": ["cbir"], "clip_demo": ["cbir", "tbir"]}  # encoder -> tasks


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> EvaluationPaths:
    """The evaluation of an encoder that reads text."""
    root = tmp_path_factory.mktemp("world")
    make_world(root, seed=0).write().evaluate(root / "reports", encoders=["clip"])
    return ReportPaths(root / "reports").evaluation("clip")


@pytest.fixture
def values(evaluation: EvaluationPaths) -> dict[str, Any]:
    """What is in metrics.json, to be spoiled."""
    return read_json(evaluation.metrics)


def test_reading_and_writing_gives_the_same_bytes(evaluation: EvaluationPaths, tmp_path: Path) -> None:
    metrics = Metrics.from_json(read_json(evaluation.metrics), evaluation.metrics)
    assert metrics.ann["clip"].keys() == {"image", "gallery image", "text"}
    write_metrics(tmp_path / "metrics.json", metrics)
    assert (tmp_path / "metrics.json").read_bytes() == evaluation.metrics.read_bytes()


def test_intervals_survive_a_round_trip(tmp_path: Path) -> None:
    intervals = Intervals(cbir={"clip": {"map": [0.25, 0.5]}}, about={"level": 0.95})
    path = tmp_path / "intervals.json"
    write_intervals(path, intervals)
    assert Intervals.from_json(read_json(path), path) == intervals


def test_a_headline_has_tasks_encoders_and_means(tmp_path: Path) -> None:
    headline = {"tbir": {"clip": {"success@1": 0.5}}, "cbir": {"clip": {"map_at_r": 0.25, "success@1": 1.0}}}
    write_headline(tmp_path / "metrics" / "clip.json", headline)
    text = (tmp_path / "metrics" / "clip.json").read_text(encoding="utf-8")
    assert json.loads(text) == headline
    assert text.index("tbir") < text.index("cbir")  # in the order given


@pytest.mark.parametrize("encoder", DEFAULT_RUN)
def test_every_task_and_encoder_of_the_default_run_is_listed(encoder: str) -> None:
    headline = read_json(ReportPaths(ROOT / "reports").headline(encoder), sealed=False)
    assert {task: list(encoders) for task, encoders in headline.items()} == {
        task: [encoder] for task in DEFAULT_RUN[encoder]
    }
    for encoders in headline.values():
        assert list(encoders[encoder]) == ["precision@10", "success@1", "map_at_r", "ann_recall@10"]
        assert all(0 < mean <= 1 for mean in encoders[encoder].values())


@pytest.mark.parametrize(
    ("cbir", "tbir", "expected"),
    [
        ([], [], []),
        (["a"], [], [("cbir", "a")]),
        (["b", "a"], ["a"], [("cbir", "b"), ("cbir", "a"), ("tbir", "a")]),
        (["a", "b", "c"], ["c", "b"], [("cbir", "a"), ("cbir", "b"), ("cbir", "c"), ("tbir", "c"), ("tbir", "b")]),
    ],
)
def test_every_task_with_each_encoder_is_listed(
    cbir: Sequence[str], tbir: Sequence[str], expected: list[tuple[str, str]]
) -> None:
    counts = Counts(gallery_images=1, queries=1, queries_without_relevant={}, duplicates={}, index_bytes={})
    metrics = Metrics(cbir={name: {} for name in cbir}, tbir={name: {} for name in tbir}, data=counts)
    assert evaluated(metrics) == expected


@pytest.mark.parametrize("group", ["cbir", "subsets", "ann", "chance", "data"])
def test_an_absent_group_is_named(values: dict[str, Any], group: str) -> None:
    del values[group]
    with pytest.raises(
        DataError, match=rf"metrics\.json: expected the group '{group}' .*: run `cbir repair`, then `dvc repro`"
    ):
        Metrics.from_json(values, PATH)


def test_unknown_counts_are_refused(values: dict[str, Any]) -> None:
    values["data"]["surprise"] = 1
    with pytest.raises(DataError, match=r"metrics\.json: data: not what this version writes \(.*surprise.*\)"):
        Metrics.from_json(values, PATH)
