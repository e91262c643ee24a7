"""The points that `dvc plots show` draws as dvc.yaml says: small JSON lists with a column for each task and encoder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from cbir.artifacts.names import ENCODERS_OF_TASK
from cbir.core.files import fresh_folder, replacing
from cbir.report.facts import Facts

Point = dict[str, str | float | None]

# each point has all columns: DVC stops at one that is absent
_COLUMNS = [f"{task} {encoder}" for task, encoders in ENCODERS_OF_TASK.items() for encoder in encoders]


def write_plots(out: Path, facts: Facts, classes: pa.Table) -> None:
    """Write precision and recall over k, recall against time, and precision by class, at the k nearest to 10.

    classes : the metrics of each class, as evaluate writes them.
    """
    fresh_folder(out)
    for family in ("precision", "recall"):
        _write(out / f"{family}.json", _over_k(facts, family))
    _write(out / "recall_latency.json", _recall_latency(facts))
    _write(out / "by_class.json", _by_class(classes, f"precision@{facts.cost_k}"))


def _over_k(facts: Facts, family: str) -> list[Point]:
    """Return a point for each k: the means with exact search."""
    ks = sorted({k for task, _ in facts.evaluated for k in facts.families(task).get(family, ())})
    return [
        {
            "k": k,
            **_columns(
                {
                    (task, encoder): facts.metrics.of_task(task)[encoder].get(f"{family}@{k}")
                    for task, encoder in facts.evaluated
                }
            ),
        }
        for k in ks
    ]


def _recall_latency(facts: Facts) -> list[Point]:
    """Return a point for each index, and for exact search: ann_recall and the time of one search."""
    return [
        {"p50_ms": timed.p50_ms, "search": timed.search, **_columns({(timed.task, timed.encoder): timed.recall})}
        for timed in facts.recall_over_time
    ]


def _by_class(classes: pa.Table, name: str) -> list[Point]:
    """Return a point for each class: its mean with exact search."""
    if name not in classes.column_names:
        return []
    values: dict[str, dict[tuple[str, str], float | None]] = {}
    for row in classes.to_pylist():
        values.setdefault(row["label"], {})[row["task"], row["encoder"]] = row[name]
    return [{"class": label, **_columns(values[label])} for label in sorted(values)]


def _columns(values: Mapping[tuple[str, str], float | None]) -> Point:
    """Return the value of each column, null where there is none."""
    named = {f"{task} {encoder}": value for (task, encoder), value in values.items()}
    return {name: named.get(name) for name in _COLUMNS}


def _write(path: Path, points: Sequence[Mapping[str, Any]]) -> None:
    with replacing(path) as temporary:
        text = json.dumps(points, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
