"""A page that compares two runs: their settings, differences with intervals, and the classes and queries that changed."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from cbir.artifacts.evaluation_passport import checked
from cbir.artifacts.evaluations import read_definitions, read_intervals, read_metrics
from cbir.artifacts.images import read_columns
from cbir.artifacts.metrics import Intervals, Metrics, evaluated
from cbir.artifacts.names import TASKS, read_encoder_names
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.artifacts.queries import read_qrels, read_query_list
from cbir.core.errors import DataError
from cbir.core.text import printable
from cbir.evaluation.collection import GALLERY_COLUMNS, QUERY_COLUMNS, collection_identity
from cbir.report.charts import Series, bar_chart, line_chart
from cbir.report.class_names import full_name, read_class_names
from cbir.report.examples import images_of
from cbir.report.figures import flatten
from cbir.report.judged import ExampleHit, ExampleQuery, JudgedCollection
from cbir.report.page import drawings, read_pictures, write_page
from cbir.report.provenance import matches_lock, read_lock, read_provenance
from cbir.runs.compare import COMPARED_METRICS, IDENTICAL, Comparison, compare
from cbir.runs.opening import LOCK, open_reports, read_run, revision_of

_PATHS = ReportPaths()
_MAIN_METRIC = "map_at_r"  # of classes and queries
_MAX_BARS = 8  # classes that lost most, and classes that gained most
_NAME_CHARACTERS = 40  # of a run, in a chart
_THUMBNAIL_PX = 96


class Side(NamedTuple):
    """One of the two runs.  name : as on the page.  origin : a folder or revision, in words.  params : empty if unknown."""

    name: str
    origin: str
    reports: ReportPaths
    metrics: Metrics
    intervals: Intervals
    params: Mapping[str, str]


class ChangedQuery(NamedTuple):
    """A query with its results in both runs."""

    task: str
    encoder: str
    search: str
    query: ExampleQuery
    change: float
    before: tuple[ExampleHit, ...]
    after: tuple[ExampleHit, ...]

    @property
    def hits(self) -> tuple[ExampleHit, ...]:
        """The results of both runs."""
        return (*self.before, *self.after)


def write_comparison(
    out: Path, names: tuple[str, str], repositories: Sequence[Path], resamples: int, seed: int
) -> None:
    """Write the page that compares the second run with the first.

    names : of the runs (see `cbir.runs.opening`).  repositories : folders; the images and judgements come from the data/ of the
    first whose test collection is that of the runs.
    Raises DataError when the runs cannot be compared (see `cbir.runs.compare.compare`) or a file is damaged.
    """
    with open_reports(names[0], _files) as base, open_reports(names[1], _files) as other:
        sides = [_read_side(name, reports) for name, reports in zip(names, (base, other), strict=True)]
        runs = [read_run(side.name, side.reports) for side in sides]
        comparisons = compare(runs, COMPARED_METRICS, resamples, seed)
        main_comparisons = _main_comparisons(comparisons)
        data = _find_data(repositories, runs[0].collection)
        changed = list(_changed_queries(main_comparisons, sides, JudgedCollection(data))) if data is not None else []
        class_names = read_class_names(base)
        write_page(
            out,
            "comparison.html.j2",
            class_names,
            read_definitions(base),
            package="cbir.runs",
            sides=sides,
            encoders=read_encoder_names(base.encoders),
            settings=_differing_settings(sides),
            notes=_notes(sides),
            comparisons=comparisons,
            main_comparisons=main_comparisons,
            identical=IDENTICAL,
            charts={
                "over k": drawings(list(_charts_over_k(sides))),
                "classes": drawings(list(_charts_of_classes(main_comparisons, class_names))),
            },
            changed_queries=changed,
            has_data=data is not None,
            pictures=read_pictures(data, images_of(changed), _THUMBNAIL_PX) if data is not None else {},
        )


def title_of(name: str) -> str:
    """The name of a run on the page: of a folder its own name, of a folder of reports that of its repository as well."""
    if not Path(name).is_dir():
        return name
    folder = Path(name).resolve()
    return f"{folder.parent.name}/{folder.name}" if folder.name == _PATHS.root.name else folder.name


def _files(encoder: str) -> list[Path]:
    return [_PATHS.evaluation(encoder).root, _PATHS.headline(encoder)]


def _read_side(name: str, reports: ReportPaths) -> Side:
    metrics, intervals = read_metrics(reports), read_intervals(reports)
    root, encoders = reports.root.parent, read_encoder_names(reports.encoders)
    params, outputs = read_lock(root / LOCK, encoders)
    # In a copy of reports/, dvc.lock may belong to a later run.
    headlines = {str(_PATHS.headline(encoder)) for encoder in encoders}
    locked = [output for output in outputs if output.path in headlines]
    is_own_lock = (
        reports.root.name == _PATHS.root.name
        and len(locked) == len(headlines)
        and all(matches_lock(root, output) for output in locked)
    )
    if not Path(name).is_dir():
        origin = f"git revision {revision_of(name)}"
    else:
        origin = f"reports of the folder {title_of(name)}"
        if is_own_lock:
            origin += f"; git revision: {read_provenance(root, encoders).git_description}"
    return Side(title_of(name), origin, reports, metrics, intervals, flatten(params) if is_own_lock else {})


def _notes(sides: Sequence[Side]) -> list[str]:
    """The tasks and encoders that only one run has."""
    present = [{f"{task} {encoder}" for task, encoder in evaluated(side.metrics)} for side in sides]
    return [
        f"only {side.name} has {name}"
        for side, names, other_names in zip(sides, present, present[::-1], strict=True)
        for name in sorted(names - other_names)
    ]


def _differing_settings(sides: Sequence[Side]) -> dict[str, list[str]]:
    """Parameter -> its value in each run, where these differ; empty when the parameters of a run are unknown."""
    if not all(side.params for side in sides):
        return {}
    names = sorted({name for side in sides for name in side.params})
    values = {name: [side.params.get(name, "-") for side in sides] for name in names}
    return {name: both for name, both in values.items() if both[0] != both[1]}


def _main_comparisons(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """One comparison for each task, encoder and search, exact search first, because it depends on the encoder alone."""
    chosen = []
    for _, group in groupby(comparisons, lambda comparison: comparison.group):
        of_group = list(group)
        chosen.append(next((candidate for candidate in of_group if candidate.metric == _MAIN_METRIC), of_group[0]))
    return sorted(chosen, key=lambda comparison: (comparison.task, comparison.search))


def _find_data(repositories: Sequence[Path], collection: Mapping[str, Any]) -> DataPaths | None:
    """The first data/ that holds the images, queries and judgements of the test collection, by their hashes."""
    for repository in repositories:
        data = DataPaths(repository / DataPaths().root)
        try:
            gallery = read_columns(data.images("gallery"), GALLERY_COLUMNS)
            queries = read_columns(data.images("queries"), QUERY_COLUMNS)
            query_list, qrels = read_query_list(data.query_list), read_qrels(data.qrels)
        except DataError:  # absent or damaged: the page does without pictures
            continue
        if collection_identity(gallery, query_list, queries, qrels) == collection:
            return data
    return None


def _charts_over_k(sides: Sequence[Side]) -> Iterator[str]:
    for task in TASKS:
        for encoder in sides[0].metrics.of_task(task):
            for family in ("precision", "recall"):
                lines = [
                    Series.over_k(
                        printable(side.name, _NAME_CHARACTERS),
                        family,
                        side.metrics.of_task(task).get(encoder, {}),
                        side.intervals.of_task(task).get(encoder, {}),
                        side.metrics.ceilings.get(task, {}),
                    )
                    for side in sides
                ]
                if all(line.xs for line in lines):
                    yield line_chart(lines, f"{task} {encoder}: {family}@k by exact search", "k", family)


def _charts_of_classes(comparisons: Sequence[Comparison], names: Mapping[str, str]) -> Iterator[str]:
    """Bars of the classes that changed most, the greatest loss on top."""
    for series, comparison in enumerate(comparisons):
        lost = [change for change in comparison.classes[:_MAX_BARS] if change.change < 0]
        won = [change for change in comparison.classes[-_MAX_BARS:] if change.change > 0]
        if lost or won:
            bars = [(printable(full_name(change.name, names)), change.change) for change in (*lost, *won)]
            title = f"{comparison.task} {comparison.encoder}, {comparison.search} search: classes that changed most"
            yield bar_chart(bars, title, f"change of {comparison.metric}", series, is_change=True)


def _changed_queries(
    comparisons: Sequence[Comparison], sides: Sequence[Side], collection: JudgedCollection
) -> Iterator[ChangedQuery]:
    """The queries that lost most, then those that gained most; none where a run has no run tables."""
    for comparison in comparisons:
        changes = (*comparison.lost, *comparison.won)
        evaluations = [side.reports.evaluation(comparison.encoder) for side in sides]
        tables = [(evaluation, evaluation.run(comparison.task, comparison.search)) for evaluation in evaluations]
        if not changes or not all(path.is_file() for _, path in tables):
            continue
        names = [change.name for change in changes]
        before, after = (collection.hits(checked(*table), names) for table in tables)
        for change in changes:
            query_id = change.name
            yield ChangedQuery(
                *comparison.group,
                collection.query(query_id),
                change.change,
                before[query_id],
                after[query_id],
            )
