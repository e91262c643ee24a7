"""metrics.json and intervals.json through their typed form."""

import json
from pathlib import Path

import pytest

from cbir.artifacts.metrics import (
    Intervals,
    evaluated,
    read_intervals,
    read_metrics,
    write_intervals,
    write_metrics,
)
from cbir.core.errors import DataError
from tests.support.imports import ROOT

METRICS = ROOT / "reports" / "metrics.json"  # of the default run, in git


def test_reading_and_writing_gives_the_same_bytes(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.json", read_metrics(METRICS))
    assert (tmp_path / "metrics.json").read_bytes() == METRICS.read_bytes()


def test_intervals_survive_a_round_trip(tmp_path: Path) -> None:
    intervals = Intervals(cbir={"clip": {"map": [0.25, 0.5]}}, about={"level": 0.95})
    write_intervals(tmp_path / "intervals.json", intervals)
    assert read_intervals(tmp_path / "intervals.json") == intervals


def test_every_task_and_encoder_of_the_default_run_is_listed() -> None:
    assert evaluated(read_metrics(METRICS)) == [("cbir", "mobilenet"), ("cbir", "clip"), ("tbir", "clip")]


@pytest.mark.parametrize("group", ["cbir", "subsets", "ann", "chance", "data"])
def test_an_absent_group_is_named(tmp_path: Path, group: str) -> None:
    values = json.loads(METRICS.read_text(encoding="utf-8"))
    del values[group]
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(
        DataError, match=rf"metrics\.json: expected the group '{group}' .*: run `dvc repro --force evaluate`"
    ):
        read_metrics(path)


def test_unknown_counts_are_refused(tmp_path: Path) -> None:
    values = json.loads(METRICS.read_text(encoding="utf-8"))
    values["data"]["surprise"] = 1
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(DataError, match=r"metrics\.json: data: not what this version writes \(.*surprise.*\)"):
        read_metrics(path)
