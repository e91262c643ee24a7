"""latency.json through its typed form."""

import json
from pathlib import Path
from typing import Any

import pytest

from cbir.artifacts.latency import Latency, SearchTimes, read_latency
from cbir.core.errors import DataError

TIMES = {"single_ms": {"p50": 0.5, "p95": 0.75, "p99": 1.5}, "batch_queries_per_s": 1000.0, "queries": 20}
LATENCY = {"encoders": {"clip": {"text": {"index": TIMES}}}, "k": 10, "threads": 2}


def written(folder: Path, value: Any) -> Path:
    path = folder / "latency.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_each_time_is_read_under_its_name(tmp_path: Path) -> None:
    times = SearchTimes(p50_ms=0.5, p95_ms=0.75, p99_ms=1.5, batch_queries_per_s=1000.0, queries=20)
    assert read_latency(written(tmp_path, LATENCY)) == Latency({"clip": {"text": {"index": times}}}, 10, 2)


@pytest.mark.parametrize("key", ["encoders", "k", "threads"])
def test_an_absent_key_is_named(tmp_path: Path, key: str) -> None:
    value = {name: entry for name, entry in LATENCY.items() if name != key}
    with pytest.raises(DataError, match=rf"latency\.json: .*{key}.*: run `dvc repro --force latency`"):
        read_latency(written(tmp_path, value))


@pytest.mark.parametrize("encoders", [[], {"clip": []}, {"clip": {"text": {"index": {**TIMES, "single_ms": None}}}}])
def test_other_values_are_refused(tmp_path: Path, encoders: Any) -> None:
    with pytest.raises(DataError, match=r"latency\.json: .*: run `dvc repro --force latency`"):
        read_latency(written(tmp_path, {**LATENCY, "encoders": encoders}))
