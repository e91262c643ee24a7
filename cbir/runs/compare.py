"""Runs against each other, query by query: differences with intervals, a paired test, who won and who lost.

A run is a folder of reports, a git revision or the name of a DVC experiment.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.runs import read_open_table
from cbir.artifacts.vectors import positions_of
from cbir.core.errors import ConfigError, DataError
from cbir.core.files import read_json
from cbir.core.params import nearest
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

METRICS = ("precision@10", "success@1", "ndcg@10", "map_at_r", "mrr")
FILES = ("test_collection.json", "per_query.parquet")
_COLUMNS = ("query_id", "task", "encoder", "search", "subset", "label")
_SHOWN = 5
_DRAWS_A_TEST = 40
IDENTICAL = "identical"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Run:
    """name : as the user gave it.  collection : see `Collection`.  per_query : every metric of every query."""

    name: str
    collection: dict[str, dict[str, Any]]
    per_query: pa.Table


@dataclass(frozen=True)
class Change:
    """By how much a class or a query changed, in the first of the metrics."""

    name: str
    change: float


@dataclass(frozen=True)
class Comparison:
    """A metric of one task, encoder and way of searching, of `run` against `base`.

    difference : run's mean less base's, over the queries that have a value in both.  p : Holm-corrected over all
    comparisons.  interval : of the difference, None with few classes.  n_classes : those with a value.  can_tell : whether p
    could be small enough at all, with so few classes and so many comparisons.
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
    can_tell: bool = True

    @property
    def verdict(self) -> str:
        """In words."""
        if not self.won and not self.lost:
            return IDENTICAL
        if not self.can_tell:
            return "cannot tell: too few classes for so many comparisons"
        if not self.p < 1 - LEVEL:
            return "no detectable difference"
        return f"{self.run if self.difference > 0 else self.base} is better"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "verdict": self.verdict}


@contextmanager
def reports_of(name: str, files: Sequence[str]) -> Iterator[Path]:
    """A run's folder of reports, as long as the block runs; dvc.lock stands beside it, where the run has one.

    name : a folder, taken as it is, or a git revision or DVC experiment of the repository around us, of which `files`, paths
    below reports/, are copied.
    Raises DataError when there is none of that name, or its files are not at hand.
    """
    if Path(name).is_dir():
        yield Path(name) / "reports" if (Path(name) / "reports").is_dir() else Path(name)
        return
    with tempfile.TemporaryDirectory() as copies:
        copy_files(name, [f"reports/{file}" for file in files], Path(copies), ["dvc.lock"])
        yield Path(copies) / "reports"


def open_run(name: str) -> Run:
    """Read a run by its name (see `reports_of`).  Raises DataError as it does, and where the files are of another version."""
    with reports_of(name, FILES) as folder:
        return read_run(name, folder)


def compare(runs: Sequence[Run], metrics: Sequence[str], resamples: int, seed: int) -> list[Comparison]:
    """Every run against the first, in every metric of every task, encoder and way of searching that both have.

    Raises DataError when the runs were not asked the same queries over the same gallery, naming what differs.
    """
    if len(runs) < 2:
        raise ConfigError(f"expected two runs or more, found {len(runs)}: `cbir compare HEAD main`")
    _check_metrics(runs, metrics)
    base, found = runs[0], []
    for run in runs[1:]:
        _check_collection(base, run)
    pairs = [(run, group) for run in runs[1:] for group in _groups(base, run)]
    draws = max(resamples, _DRAWS_A_TEST * len(pairs) * len(metrics))  # or no p would be small enough after correction
    for run, group in pairs:
        found += _compare_group(base, run, group, metrics, draws, seed)
    if not found:
        raise DataError(f"{base.name} and the others share no task, encoder and metric among {', '.join(metrics)}")
    return _corrected(found, draws)


def _corrected(found: Sequence[Comparison], draws: int) -> list[Comparison]:
    """With Holm's correction over all tests.

    Where every query has the same value there is nothing to test; where an index answers as exact search does, the test is
    the same one, and counts once.
    """
    exact = {_question(one): one for one in found if one.search == "exact"}
    twins = [one.search == "index" and _same(one, exact.get(_question(one))) for one in found]
    tested = [one.verdict != IDENTICAL and not twin for one, twin in zip(found, twins, strict=True)]
    p_values = holm(np.array([one.p if test else np.nan for one, test in zip(found, tested, strict=True)]))
    of_question = {_question(one): p for one, p, test in zip(found, p_values, tested, strict=True) if test}
    corrected = []
    for one, p, twin in zip(found, p_values, twins, strict=True):
        p = of_question.get(_question(one), np.nan) if twin else p
        can_tell = least_p(one.n_classes, draws) * sum(tested) < 1 - LEVEL
        corrected.append(replace(one, p=1.0 if np.isnan(p) else float(p), can_tell=can_tell))
    return corrected


def _question(one: Comparison) -> tuple[str, str, str, str]:
    return one.run, one.task, one.encoder, one.metric


def _same(one: Comparison, other: Comparison | None) -> bool:
    return other is not None and replace(one, search=other.search) == other


def _check_metrics(runs: Sequence[Run], metrics: Sequence[str]) -> None:
    known = [
        field.name
        for field in pa.unify_schemas([run.per_query.schema for run in runs])
        if pa.types.is_floating(field.type)
    ]
    for name in metrics:
        if name not in known and metrics is not METRICS:
            raise ConfigError(f"--metrics: no run has {name!r}; {nearest(name, known)}")


def _compare_group(
    base: Run, run: Run, group: tuple[str, str, str], metrics: Sequence[str], resamples: int, seed: int
) -> list[Comparison]:
    one, other = (_rows(each, group) for each in (base, run))
    names = [name for name in metrics if name in one.column_names and name in other.column_names]
    if not names:
        return []
    if not one["query_id"].equals(other["query_id"]):
        raise DataError(f"{base.name} and {run.name} hold other queries for {' '.join(group)}: run `dvc repro` in both")
    before, after = (np.column_stack([each[name].to_numpy() for name in names]) for each in (one, other))
    differences = after - before
    kept = ~np.isnan(differences).all(axis=0)
    labels, ids = one["label"].to_pylist(), one["query_id"].to_pylist()
    classes = classes_of(labels)
    intervals = interval_of_means(differences, classes, resamples, seed)
    p_values = p_values_of_differences(differences, classes, resamples, seed)
    found = []
    for column in np.flatnonzero(kept):
        both = ~np.isnan(differences[:, column])
        change = differences[both, column]
        names_both = [ids[row] for row in np.flatnonzero(both)]
        lost, won = _extremes(names_both, change)
        found.append(
            Comparison(
                base.name,
                run.name,
                *group,
                names[column],
                int(both.sum()),
                float(before[both, column].mean()),
                float(after[both, column].mean()),
                float(change.mean()),
                intervals[column],
                float(p_values[column]),
                _by_class([labels[row] for row in np.flatnonzero(both)], change),
                lost,
                won,
                len(np.unique(classes[both])),
            )
        )
    return found


def _extremes(names: Sequence[str], change: Floats) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """The queries that lost most and those that won most, the largest change first."""
    order = np.argsort(change, kind="stable")
    lost = tuple(Change(names[row], float(change[row])) for row in order[:_SHOWN] if change[row] < 0)
    won = tuple(Change(names[row], float(change[row])) for row in order[::-1][:_SHOWN] if change[row] > 0)
    return lost, won


def _by_class(labels: Sequence[str | None], change: Floats) -> tuple[Change, ...]:
    """The mean change of each class, the greatest loss first."""
    names = sorted({label for label in labels if label is not None})
    _, means = class_means({"change": change}, positions_of(labels, pa.array(names, pa.string())), len(names))
    order = np.argsort(means["change"], kind="stable")
    return tuple(Change(names[place], float(means["change"][place])) for place in order)


def _rows(run: Run, group: tuple[str, str, str]) -> pa.Table:
    table = run.per_query
    for name, value in zip(("task", "encoder", "search"), group, strict=True):
        table = table.filter(pc.equal(table[name], value))
    return table


def _groups(base: Run, run: Run) -> list[tuple[str, str, str]]:
    """(task, encoder, search) that both runs answered, in the order of the first."""
    found = []
    for each in (base, run):
        columns = [each.per_query[name].to_pylist() for name in ("task", "encoder", "search")]
        found.append(dict.fromkeys(zip(*columns, strict=True)))
    return [group for group in found[0] if group in found[1]]


def _check_collection(base: Run, run: Run) -> None:
    for what in {**base.collection, **run.collection}:
        one, other = base.collection.get(what), run.collection.get(what)
        if other != one:
            if not (_is_identity(one) and _is_identity(other)):
                raise DataError(
                    f"{base.name} and {run.name} cannot be compared: only one of them says what its {what} are; "
                    "run `dvc repro` in both"
                )
            counts = f"{one['rows']:,} rows against {other['rows']:,}"
            raise DataError(
                f"{base.name} and {run.name} cannot be compared: their {what} differ ({counts}"
                f"{', with other contents' if other['rows'] == one['rows'] else ''}); run both over the same data"
            )


def _is_identity(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict) and isinstance(value.get("rows"), int)


def read_run(name: str, folder: Path) -> Run:
    """Read a run from its folder of reports.  Raises DataError where a file is absent, damaged or of another version."""
    path = folder / "per_query.parquet"
    collection = read_json(folder / "test_collection.json")
    table = read_open_table(path)
    if not _is_identity(collection.get("gallery")):
        raise DataError(
            f"{folder / 'test_collection.json'}: expected the gallery's rows and hash, found {collection.get('gallery')!r}: "
            "run `dvc repro --force evaluate`"
        )
    missing = [column for column in _COLUMNS if column not in table.column_names]
    if missing:
        raise DataError(f"{path}: expected a column '{missing[0]}', found {', '.join(table.column_names)}")
    return Run(name, collection, table)


def revision_of(name: str) -> str:
    """The commit that a git revision or DVC experiment stands for."""
    from dvc.api import DVCFileSystem  # seconds, and only for revisions

    return str(DVCFileSystem(rev=name).repo.get_rev())


def copy_files(name: str, paths: Sequence[str], out: Path, optional: Sequence[str] = ()) -> None:
    """Copy files, or folders, of a git revision or DVC experiment into a folder, under the same paths.

    optional : further ones, of those that are there.

    Raises DataError when there is none of that name, or its files are not at hand.
    """
    from dvc.api import DVCFileSystem  # seconds, and only for revisions
    from dvc.exceptions import DvcException
    from dvc.scm import RevError

    try:
        revision = DVCFileSystem(rev=name)
        for path in (*paths, *(one for one in optional if revision.exists(one))):
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            revision.get(path, str(out / path), recursive=True)
    except RevError as error:
        raise DataError(
            f"{name}: neither a folder nor a git revision nor an experiment; `dvc exp show` and `git log` list them"
        ) from error
    except (DvcException, OSError) as error:
        raise DataError(
            f"{name}: its reports are not in the cache ({error}); fetch them with `dvc pull`, or run it again"
        ) from error
