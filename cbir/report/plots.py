"""The points that `dvc plots show` draws as dvc.yaml says: small JSON lists with a point for each task, encoder and x."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from cbir.core.files import fresh_folder, replacing
from cbir.report.facts import Facts

Point = dict[str, str | float | None]


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
    """Return a point for each task, encoder and k: the means with exact search."""
    return [
        {"series": f"{task} {encoder}", "k": k, family: means[f"{family}@{k}"]}
        for task, encoder in facts.evaluated
        for means in [facts.metrics.of_task(task)[encoder]]
        for k in facts.families(task).get(family, ())
        if f"{family}@{k}" in means
    ]


def _recall_latency(facts: Facts) -> list[Point]:
    """Return a point for each index, and for exact search: ann_recall and the time of one search."""
    return [
        {
            "series": f"{timed.task} {timed.encoder}",
            "search": timed.search,
            "p50_ms": timed.p50_ms,
            "ann_recall": timed.recall,
        }
        for timed in facts.recall_over_time
    ]


def _by_class(classes: pa.Table, name: str) -> list[Point]:
    """Return a point for each task, encoder and class: its mean with exact search."""
    if name not in classes.column_names:
        return []
    return [
        {"series": f"{row['task']} {row['encoder']}", "class": row["label"], "precision": row[name]}
        for row in classes.to_pylist()
    ]


def _write(path: Path, points: Sequence[Mapping[str, Any]]) -> None:
    with replacing(path) as temporary:
        text = json.dumps(points, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
