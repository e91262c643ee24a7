"""The points behind `dvc plots show`, as small JSON lists, a column for each task and encoder; dvc.yaml draws them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from cbir.artifacts.names import ENCODERS
from cbir.core.files import fresh_folder, replacing
from cbir.report.facts import Facts

Point = dict[str, str | float | None]

_SERIES = (*(f"cbir {encoder}" for encoder in ENCODERS), "tbir clip")  # DVC stops at a column that is not there


def write_plots(out: Path, facts: Facts, classes: pa.Table) -> None:
    """Write precision and recall over k, recall against time, and precision by class, at the k nearest to 10.

    classes : every metric of every class, as evaluate leaves it.
    """
    fresh_folder(out)
    for family in ("precision", "recall"):
        _write(out / f"{family}.json", _over_k(facts, family))
    _write(out / "recall_latency.json", _recall_latency(facts))
    _write(out / "by_class.json", _by_class(classes, f"precision@{facts.cost_k}"))


def _over_k(facts: Facts, family: str) -> list[Point]:
    """A point for each k: the means of exact search."""
    ks = sorted({k for task, _ in facts.answered for k in facts.families(task).get(family, ())})
    return [
        {"k": k, **_series({where: facts.metrics[where[0]][where[1]].get(f"{family}@{k}") for where in facts.answered})}
        for k in ks
    ]


def _recall_latency(facts: Facts) -> list[Point]:
    """A point for each index, and for exact search: ann_recall at the k nearest to 10, and the time of one search."""
    return [
        {"p50_ms": one.p50_ms, "search": one.search, **_series({(one.task, one.encoder): one.recall})}
        for one in facts.recall_over_time
    ]


def _by_class(classes: pa.Table, name: str) -> list[Point]:
    """A point for each class: its mean, by exact search."""
    if name not in classes.column_names:
        return []
    found: dict[str, dict[tuple[str, str], float | None]] = {}
    for one in classes.to_pylist():
        found.setdefault(one["label"], {})[one["task"], one["encoder"]] = one[name]
    return [{"class": label, **_series(found[label])} for label in sorted(found)]


def _series(values: Mapping[tuple[str, str], float | None]) -> Point:
    """The value of every task and encoder; null where there is none."""
    named = {f"{task} {encoder}": value for (task, encoder), value in values.items()}
    return {name: named.get(name) for name in _SERIES}


def _write(path: Path, points: Sequence[Mapping[str, Any]]) -> None:
    with replacing(path) as temporary:
        text = json.dumps(points, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
