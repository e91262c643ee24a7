"""The evaluations and search times of all encoders of a run, read together."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from cbir.artifacts.evaluation_passport import checked, is_listed
from cbir.artifacts.latency import Latency
from cbir.artifacts.metrics import Intervals, Metrics
from cbir.artifacts.names import read_encoder_names
from cbir.artifacts.paths import EvaluationPaths, ReportPaths
from cbir.artifacts.prompt_metrics import PromptSetMetrics, read_prompt_metrics
from cbir.artifacts.ranges import check_column
from cbir.artifacts.runs import read_confusions, read_duplicates
from cbir.artifacts.tables import read_open_table
from cbir.core.errors import REPAIR, DataError
from cbir.core.files import read_json

_PER_QUERY_COLUMNS = ("query_id", "task", "encoder", "search", "subset", "label")  # the others are metrics
_CLASS_COLUMNS = ("task", "encoder", "label", "name", "queries")
T = TypeVar("T", Metrics, Intervals, Latency)


def read_metrics(reports: ReportPaths) -> Metrics:
    """Read the metrics of all encoders.  Raises DataError if a file is absent, damaged or of another version."""
    return _merged_typed(
        Metrics, [checked(paths, paths.metrics) for paths in _evaluations(reports)], reports.all_evaluations
    )


def read_intervals(reports: ReportPaths) -> Intervals:
    """Read the intervals of all encoders.  Raises DataError as `read_metrics` does."""
    return _merged_typed(
        Intervals, [checked(paths, paths.intervals) for paths in _evaluations(reports)], reports.all_evaluations
    )


def read_latency(reports: ReportPaths) -> Latency:
    """Read the search times of all encoders.  Raises DataError as `read_metrics` does."""
    paths = [reports.latency(encoder) for encoder in read_encoder_names(reports.encoders)]
    return _merged_typed(Latency, paths, reports.all_latencies)


def read_prompts(reports: ReportPaths) -> dict[str, dict[str, PromptSetMetrics]]:
    """Read encoder -> prompt set -> metrics, of the encoders that read text.  Raises DataError as `read_metrics` does."""
    evaluations = {encoder: reports.evaluation(encoder) for encoder in read_encoder_names(reports.encoders)}
    return {
        encoder: read_prompt_metrics(checked(paths, paths.prompts))
        for encoder, paths in evaluations.items()
        if is_listed(paths, paths.prompts)
    }


def read_per_query(reports: ReportPaths) -> pa.Table:
    """Read every metric of each query, for all encoders; a metric that an encoder does not have is null.

    Raises DataError if a file is absent, damaged or of another version, or a metric is not in [0, 1].
    """
    paths = [checked(evaluation, evaluation.per_query) for evaluation in _evaluations(reports)]
    tables = [read_open_table(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        missing = [column for column in _PER_QUERY_COLUMNS if column not in table.column_names]
        if missing:
            raise DataError(
                f"{path}: expected a column '{missing[0]}', found {', '.join(table.column_names)}: {REPAIR}"
            )
        _check_metrics(path, table, _PER_QUERY_COLUMNS)
    return _stacked(tables)


def read_classes(reports: ReportPaths) -> pa.Table:
    """Read the metrics of each class, for all encoders.  Raises DataError as `read_per_query` does."""
    paths = [checked(evaluation, evaluation.classes) for evaluation in _evaluations(reports)]
    tables = [read_open_table(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        _check_metrics(path, table, _CLASS_COLUMNS)
    return _stacked(tables)


def read_all_confusions(reports: ReportPaths) -> pa.Table:
    """Read the classes that are confused, for all encoders."""
    return _stacked(read_confusions(checked(paths, paths.confusions)) for paths in _evaluations(reports))


def read_all_duplicates(reports: ReportPaths) -> pa.Table:
    """Read the pairs of all encoders, by query.  Those of equal bytes or pixels, the same for each encoder, are listed once."""
    table = _stacked(read_duplicates(checked(paths, paths.duplicates)) for paths in _evaluations(reports))
    order = [(name, "ascending") for name in ("query_id", "image_id", "found_by")]
    return table.group_by(table.column_names, use_threads=False).aggregate([]).sort_by(order)


def read_definitions(reports: ReportPaths) -> dict[str, Any]:
    """Read the definition of each metric that an encoder has.  Raises DataError as `read_metrics` does."""
    return _merged(read_json(checked(paths, paths.definitions)) for paths in _evaluations(reports))


def read_collection(reports: ReportPaths) -> dict[str, Any]:
    """Read rows and hash of each part of the test collection.

    Raises DataError if a file is absent, damaged or of another version, or the encoders were evaluated on different data, as
    after an interrupted run.
    """
    collections = {
        evaluation.test_collection: read_json(checked(evaluation, evaluation.test_collection))
        for evaluation in _evaluations(reports)
    }
    (first, collection), *others = collections.items()
    for path, value in collections.items():
        if not is_identity(value.get("gallery")):
            raise DataError(f"{path}: expected the gallery's rows and hash, found {value.get('gallery')!r}: {REPAIR}")
    for path, value in others:
        if value != collection:
            raise DataError(f"{path}: expected the data that {first} names, found other data: run `dvc repro`")
    return collection


def is_identity(value: Any) -> bool:
    """Whether a value identifies a part of a test collection, by rows and hash."""
    return isinstance(value, dict) and isinstance(value.get("rows"), int)


def _evaluations(reports: ReportPaths) -> list[EvaluationPaths]:
    return [reports.evaluation(encoder) for encoder in read_encoder_names(reports.encoders)]


def _check_metrics(path: Path, table: pa.Table, others: Sequence[str]) -> None:
    """Raise DataError unless each column is a metric in [0, 1] or one of the others."""
    for name in table.column_names:
        if name not in others and pa.types.is_floating(table.schema.field(name).type):
            check_column(path, table, name, 0, 1)


def _merged_typed(kind: type[T], files: Iterable[Path], folder: Path) -> T:
    """Merge files of one kind; each of them is checked, so that no other fills in for what it lacks."""
    values = {path: read_json(path) for path in files}
    for path, value in values.items():
        kind.from_json(value, path)
    return kind.from_json(_merged(values.values()), folder)


def _merged(values: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge nested mappings; a value that is no mapping is that of the last."""
    merged: dict[str, Any] = {}
    for value in values:
        for name, part in value.items():
            into = merged.get(name)
            merged[name] = _merged([into, part]) if isinstance(into, Mapping) and isinstance(part, Mapping) else part
    return merged


def _stacked(tables: Iterable[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables, promote_options="default")
