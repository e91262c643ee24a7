"""Compare runs query by query: differences with intervals, a paired test, and the classes and queries that changed most."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.evaluations import is_identity
from cbir.artifacts.vectors import positions_of
from cbir.core.errors import ConfigError, DataError
from cbir.core.text import nearest
from cbir.evaluation.classes import class_means
from cbir.evaluation.statistics import (
    LEVEL,
    Interval,
    classes_of,
    holm,
    interval_of_means,
    least_p,
    p_values_of_differences,
)
from cbir.runs.opening import Run

COMPARED_METRICS = ("precision@10", "success@1", "ndcg@10", "map_at_r", "mrr")
IDENTICAL = "identical"
_MAX_QUERIES = 5  # in `lost` and in `won`
_RESAMPLES_PER_TEST = 40

Floats = npt.NDArray[np.float64]
Group = tuple[str, str, str]  # task, encoder, search


@dataclass(frozen=True)
class Change:
    """The change of a class or query in one metric.  name : a label or query_id."""

    name: str
    change: float


@dataclass(frozen=True)
class Comparison:
    """`run` compared with `base` in one metric of one task, encoder and search.

    base_mean, run_mean : over the queries that have a value in both.  difference : run_mean minus base_mean.
    interval : of the difference; None when there are few classes.  p : two-sided, corrected by Holm's method over all
    comparisons.  is_repeated : whether this is the comparison of exact search again, because the index returns what it does.
    classes : the mean change of each class, in ascending order.  lost, won : queries with the largest changes.
    n_classes : classes with a value.  can_differ : whether p could fall below the level at all, with this number of classes and
    comparisons.
    """

    base: str
    run: str
    task: str
    encoder: str
    search: str
    metric: str
    queries: int
    base_mean: float
    run_mean: float
    difference: float
    interval: Interval | None
    p: float
    classes: tuple[Change, ...]
    lost: tuple[Change, ...]
    won: tuple[Change, ...]
    n_classes: int
    can_differ: bool = True
    is_repeated: bool = False

    @property
    def group(self) -> Group:
        """Task, encoder and search."""
        return self.task, self.encoder, self.search

    @property
    def verdict(self) -> str:
        """The result in words."""
        if not self.won and not self.lost:
            return IDENTICAL
        if not self.can_differ:
            return "cannot tell: too few classes for so many comparisons"
        if not self.p < 1 - LEVEL:
            return "no detectable difference"
        return f"{self.run if self.difference > 0 else self.base} is better"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "verdict": self.verdict}


def compare(runs: Sequence[Run], metrics: Sequence[str], resamples: int, seed: int) -> list[Comparison]:
    """Compare each run with the first, in each metric of each task, encoder and search that both have.

    Raises ConfigError for fewer than two runs or an unknown metric; DataError when galleries, queries or judgements differ,
    naming which, or when the runs have nothing in common.
    """
    if len(runs) < 2:
        raise ConfigError(f"expected two runs or more, found {len(runs)}: `cbir compare HEAD main`")
    _check_metrics(runs, metrics)
    base, *others = runs
    for run in others:
        _check_collection(base, run)
    pairs = [(run, group) for run in others for group in _common_groups(base, run)]
    # With fewer resamples no p could be small enough after the correction.
    resamples = max(resamples, _RESAMPLES_PER_TEST * len(pairs) * len(metrics))
    comparisons = []
    for run, group in pairs:
        comparisons += _compare_group(base, run, group, metrics, resamples, seed)
    if not comparisons:
        raise DataError(f"{base.name} and the others share no task, encoder and metric among {', '.join(metrics)}")
    return _corrected(comparisons, resamples)


def _corrected(comparisons: Sequence[Comparison], resamples: int) -> list[Comparison]:
    """Apply Holm's correction over all tests.

    A comparison in which no query changed is no test.  Where the index returns what exact search does, both comparisons are
    the same test, which counts once.
    """
    exact = {_test_key(comparison): comparison for comparison in comparisons if comparison.search == "exact"}
    repeated = [
        comparison.search == "index" and _is_same_test(comparison, exact.get(_test_key(comparison)))
        for comparison in comparisons
    ]
    tested = [
        comparison.verdict != IDENTICAL and not is_repeated
        for comparison, is_repeated in zip(comparisons, repeated, strict=True)
    ]
    p_values = holm(
        np.array(
            [comparison.p if is_tested else np.nan for comparison, is_tested in zip(comparisons, tested, strict=True)]
        )
    )
    p_of_test = {
        _test_key(comparison): p
        for comparison, p, is_tested in zip(comparisons, p_values, tested, strict=True)
        if is_tested
    }
    corrected = []
    for comparison, p, is_repeated in zip(comparisons, p_values, repeated, strict=True):
        p = p_of_test.get(_test_key(comparison), np.nan) if is_repeated else p
        can_differ = least_p(comparison.n_classes, resamples) * sum(tested) < 1 - LEVEL
        p = 1.0 if np.isnan(p) else float(p)
        corrected.append(replace(comparison, p=p, can_differ=can_differ, is_repeated=is_repeated))
    return corrected


def _test_key(comparison: Comparison) -> tuple[str, str, str, str]:
    return comparison.run, comparison.task, comparison.encoder, comparison.metric


def _is_same_test(index: Comparison, exact: Comparison | None) -> bool:
    return exact is not None and replace(index, search=exact.search) == exact


def _check_metrics(runs: Sequence[Run], metrics: Sequence[str]) -> None:
    known = [
        field.name
        for field in pa.unify_schemas([run.per_query.schema for run in runs])
        if pa.types.is_floating(field.type)
    ]
    for name in metrics:
        if name not in known and metrics is not COMPARED_METRICS:
            raise ConfigError(f"--metrics: no run has {name!r}; {nearest(name, known)}")


def _compare_group(
    base: Run, run: Run, group: Group, metrics: Sequence[str], resamples: int, seed: int
) -> list[Comparison]:
    base_rows, run_rows = _rows(base, group), _rows(run, group)
    names = [name for name in metrics if name in base_rows.column_names and name in run_rows.column_names]
    if not names:
        return []
    if not base_rows["query_id"].equals(run_rows["query_id"]):
        raise DataError(
            f"{base.name} and {run.name} have different queries for {' '.join(group)}: run `dvc repro` in both"
        )
    before, after = (np.column_stack([rows[name].to_numpy() for name in names]) for rows in (base_rows, run_rows))
    differences = after - before
    labels, query_ids = base_rows["label"].to_pylist(), base_rows["query_id"].to_pylist()
    classes = classes_of(labels)
    intervals = interval_of_means(differences, classes, resamples, seed)
    p_values = p_values_of_differences(differences, classes, resamples, seed)
    comparisons = []
    for column, metric in enumerate(names):
        rows = np.flatnonzero(~np.isnan(differences[:, column]))
        if not len(rows):
            continue
        change = differences[rows, column]
        lost, won = _largest_changes([query_ids[row] for row in rows], change)
        comparisons.append(
            Comparison(
                base.name,
                run.name,
                *group,
                metric,
                len(rows),
                float(before[rows, column].mean()),
                float(after[rows, column].mean()),
                float(change.mean()),
                intervals[column],
                float(p_values[column]),
                _by_class([labels[row] for row in rows], change),
                lost,
                won,
                len(np.unique(classes[rows])),
            )
        )
    return comparisons


def _largest_changes(names: Sequence[str], change: Floats) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """The queries that lost most and those that gained most, the largest change first."""
    order = np.argsort(change, kind="stable")
    lost = tuple(Change(names[row], float(change[row])) for row in order[:_MAX_QUERIES] if change[row] < 0)
    won = tuple(Change(names[row], float(change[row])) for row in order[::-1][:_MAX_QUERIES] if change[row] > 0)
    return lost, won


def _by_class(labels: Sequence[str | None], change: Floats) -> tuple[Change, ...]:
    """The mean change of each class, the greatest loss first."""
    names = sorted({label for label in labels if label is not None})
    _, means = class_means({"change": change}, positions_of(labels, pa.array(names, pa.string())), len(names))
    order = np.argsort(means["change"], kind="stable")
    return tuple(Change(names[position], float(means["change"][position])) for position in order)


def _rows(run: Run, group: Group) -> pa.Table:
    table = run.per_query
    for name, value in zip(("task", "encoder", "search"), group, strict=True):
        table = table.filter(pc.equal(table[name], value))
    return table


def _common_groups(base: Run, run: Run) -> list[Group]:
    """The groups that both runs have, in the order of the first."""
    base_groups, run_groups = (
        dict.fromkeys(zip(*(table[name].to_pylist() for name in ("task", "encoder", "search")), strict=True))
        for table in (base.per_query, run.per_query)
    )
    return [group for group in base_groups if group in run_groups]


def _check_collection(base: Run, run: Run) -> None:
    for part in {**base.collection, **run.collection}:
        expected, actual = base.collection.get(part), run.collection.get(part)
        if actual == expected:
            continue
        if expected is None or actual is None or not (is_identity(expected) and is_identity(actual)):
            raise DataError(
                f"{base.name} and {run.name} cannot be compared: only one of them records its {part}; "
                "run `dvc repro` in both"
            )
        counts = f"{expected['rows']:,} rows against {actual['rows']:,}"
        same_count = ", with other contents" if actual["rows"] == expected["rows"] else ""
        raise DataError(
            f"{base.name} and {run.name} cannot be compared: their {part} differ ({counts}{same_count}); run both over the "
            "same data"
        )
