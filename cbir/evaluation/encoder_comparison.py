"""Compare the encoders of a run on each task: paired tests of each pair, and the groups that cannot be told apart.

All encoders answer the same queries, so that each pair is compared query by query.  Two encoders may differ although the
intervals of their means overlap: nothing here compares intervals.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.comparison import EncoderComparison, EncoderCost, MetricComparison, PairedTest, RankedEncoder
from cbir.artifacts.names import TASKS
from cbir.artifacts.vectors import MISSING, positions_of
from cbir.core.errors import REPAIR, DataError
from cbir.evaluation.letters import letters_of
from cbir.evaluation.metrics import headline_k
from cbir.evaluation.statistics import (
    LEVEL,
    MIN_CLASSES,
    Interval,
    classes_of,
    holm,
    interval_of_means,
    least_p,
    p_values_of_differences,
)

_FLIPS: Final = 20_000
_FLIPS_PER_PAIR: Final = 40  # with fewer, no p could be small enough after the correction

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def flips_for(n_encoders: int) -> int:
    """The number of random sign assignments of the tests of so many encoders."""
    return max(_FLIPS, _FLIPS_PER_PAIR * n_encoders * (n_encoders - 1) // 2)


def classes_needed(n_encoders: int) -> int:
    """The number of classes from which a difference between so many encoders can be significant.

    >>> classes_needed(2), classes_needed(6)
    (6, 10)
    """
    n_pairs, flips = n_encoders * (n_encoders - 1) // 2, flips_for(n_encoders)
    n_classes = MIN_CLASSES
    while least_p(n_classes, flips) * n_pairs >= 1 - LEVEL:
        n_classes += 1
    return n_classes


def compare_run(per_query: pa.Table, costs: Mapping[str, EncoderCost], resamples: int, seed: int) -> EncoderComparison:
    """Compare the encoders of a run, which are those of `costs`: see `compare_encoders`."""
    about = {
        "level": LEVEL,
        "resamples": resamples,
        "seed": seed,
        "drawn": "classes",
        "test": "paired randomisation test, two-sided",
        "correction": "Holm, over all pairs of a task and metric",
    }
    return EncoderComparison(compare_encoders(per_query, list(costs), resamples, seed), dict(costs), about)


def compare_encoders(
    per_query: pa.Table, encoders: Sequence[str], resamples: int, seed: int
) -> dict[str, list[MetricComparison]]:
    """Compare the encoders on each task, by exact search, in precision@k and in map_at_r; the first decides.

    k : the one nearest to 10 among the columns.
    per_query : columns query_id, task, encoder, search and label, and metrics of float64 (see
    `cbir.artifacts.runs.write_per_query`).  encoders : in the order in which equal means are ranked; one without rows for a
    task is left out of it.
    Returns task -> comparisons, without tasks and metrics that no query defines.
    Raises DataError when two encoders have different queries.
    """
    tasks = {}
    for task in TASKS:
        tables = {encoder: _rows(per_query, task, encoder) for encoder in encoders}
        tables = {encoder: table for encoder, table in tables.items() if table.num_rows}
        metrics = [
            comparison
            for metric in _metrics(per_query.column_names)
            if (comparison := _compare_in(metric, tables, task, resamples, seed)) is not None
        ]
        if metrics:
            tasks[task] = metrics
    return tasks


def compare_metric(
    metric: str, encoders: Sequence[str], values: Floats, classes: Ints, resamples: int, flips: int, seed: int
) -> MetricComparison | None:
    """Rank encoders by their means, test each pair, and group those that cannot be told apart.

    values : (n_queries, n_encoders) float64, NaN where undefined; a query that one encoder lacks is left out of all.
    classes : (n_queries,) from classes_of.  resamples : of the bootstrap.  flips : sign assignments of the tests.
    Returns None when no query is left.
    """
    defined: npt.NDArray[np.bool_] = np.logical_not(np.isnan(values).any(axis=1))
    if not defined.any():
        return None
    values = np.where(defined[:, None], values, np.nan)
    means = values[defined].mean(axis=0)
    order = sorted(range(len(encoders)), key=lambda column: -round(float(means[column]), 9))
    names, values, means = [encoders[column] for column in order], values[:, order], means[order]
    n_classes = len(np.unique(classes[defined]))
    tests = _tests(names, values, classes, resamples, flips, seed)
    places = {name: place for place, name in enumerate(names)}
    letters = letters_of(len(names), [(places[test.first], places[test.second]) for test in tests if test.differs])
    intervals = interval_of_means(values, classes, resamples, seed)
    return MetricComparison(
        metric,
        int(defined.sum()),
        n_classes,
        classes_needed(len(names)),
        flips,
        [
            RankedEncoder(name, float(mean), _bounds(interval), letter)
            for name, mean, interval, letter in zip(names, means, intervals, letters, strict=True)
        ],
        tests,
    )


def _tests(
    names: Sequence[str], values: Floats, classes: Ints, resamples: int, flips: int, seed: int
) -> list[PairedTest]:
    """Compare each pair, and test it if there are classes enough; names and columns are in the order of the ranking."""
    pairs = list(combinations(range(len(names)), 2))
    if not pairs:
        return []
    differences = np.column_stack([values[:, first] - values[:, second] for first, second in pairs])
    intervals = interval_of_means(differences, classes, resamples, seed)
    if intervals[0] is None:  # too few classes
        p_values = corrected = np.full(len(pairs), np.nan)
    else:
        p_values = p_values_of_differences(differences, classes, flips, seed)
        corrected = holm(p_values)
    return [
        PairedTest(
            names[first],
            names[second],
            float(difference),
            _bounds(interval),
            _or_none(p),
            _or_none(p_holm),
            bool(p_holm < 1 - LEVEL),
        )
        for (first, second), difference, interval, p, p_holm in zip(
            pairs, np.nanmean(differences, axis=0), intervals, p_values, corrected, strict=True
        )
    ]


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _bounds(interval: Interval | None) -> list[float] | None:
    return None if interval is None else interval.bounds


def _metrics(columns: Sequence[str]) -> Iterator[str]:
    """The compared metrics among the columns; the first decides."""
    ks = [int(name.partition("@")[2]) for name in columns if name.startswith("precision@")]
    if ks:
        yield f"precision@{headline_k(ks)}"
    if "map_at_r" in columns:
        yield "map_at_r"


def _rows(per_query: pa.Table, task: str, encoder: str) -> pa.Table:
    for name, value in (("task", task), ("encoder", encoder), ("search", "exact")):
        per_query = per_query.filter(pc.equal(per_query[name], value))
    return per_query


def _compare_in(
    metric: str, tables: dict[str, pa.Table], task: str, resamples: int, seed: int
) -> MetricComparison | None:
    """Compare in one metric; tables : encoder -> its rows."""
    if not tables:
        return None
    reference, *_ = tables
    query_ids = tables[reference]["query_id"].combine_chunks()
    columns = []
    for encoder, table in tables.items():
        rows = positions_of(query_ids, table["query_id"].combine_chunks())
        if table.num_rows != len(query_ids) or (rows == MISSING).any():
            raise DataError(
                f"{task}: expected the same queries for each encoder, found {len(query_ids)} of {reference} and others, "
                f"{table.num_rows}, of {encoder}: {REPAIR}"
            )
        columns.append(table[metric].to_numpy()[rows])
    classes = classes_of(tables[reference]["label"].to_pylist())
    values = np.column_stack(columns)
    return compare_metric(metric, list(tables), values, classes, resamples, flips_for(len(tables)), seed)
