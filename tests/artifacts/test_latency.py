"""The search times of encoders through their typed form."""

from pathlib import Path
from typing import Any

import pytest

from cbir.artifacts.latency import Latency, SearchTimes
from cbir.core.errors import DataError

TIMES = {"single_ms": {"p50": 0.5, "p95": 0.75, "p99": 1.5}, "batch_queries_per_s": 1000.0, "queries": 20}
LATENCY = {"encoders": {"clip": {"text": {"index": TIMES}}}, "k": 10, "threads": 2}


PATH = Path("reports/latency/clip.json")


def test_each_time_is_read_under_its_name() -> None:
    times = SearchTimes(p50_ms=0.5, p95_ms=0.75, p99_ms=1.5, batch_queries_per_s=1000.0, queries=20)
    assert Latency.from_json(LATENCY, PATH) == Latency({"clip": {"text": {"index": times}}}, 10, 2)
    of_few = SearchTimes.from_json(TIMES | {"batch_queries_per_s": None})
    assert of_few.batch_queries_per_s is None


@pytest.mark.parametrize("key", ["encoders", "k", "threads"])
def test_an_absent_key_is_named(key: str) -> None:
    value = {name: entry for name, entry in LATENCY.items() if name != key}
    with pytest.raises(
        DataError, match=rf"^reports/latency/clip\.json: .*{key}.*: run `cbir repair`, then `dvc repro`"
    ):
        Latency.from_json(value, PATH)


@pytest.mark.parametrize("encoders", [[], {"clip": []}, {"clip": {"text": {"index": {**TIMES, "single_ms": None}}}}])
def test_other_values_are_refused(encoders: Any) -> None:
    with pytest.raises(DataError, match=r"^reports/latency/clip\.json: .*: run `cbir repair`, then `dvc repro`"):
        Latency.from_json({**LATENCY, "encoders": encoders}, PATH)
