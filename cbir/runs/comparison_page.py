"""A page of two runs side by side: what was set otherwise, the differences with intervals, who won and who lost."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from cbir.artifacts.images import read_columns
from cbir.artifacts.names import TASKS
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.artifacts.queries import read_qrels, read_query_list
from cbir.core.errors import DataError
from cbir.core.files import read_json
from cbir.core.text import printable
from cbir.evaluation.collection import GALLERY_COLUMNS, QUERY_COLUMNS, collection_identity
from cbir.report.charts import Series, bar_chart, line_chart
from cbir.report.class_names import full_name, read_class_names
from cbir.report.examples import images_of
from cbir.report.figures import flatten
from cbir.report.judged import ExampleHit, ExampleQuery, JudgedCollection
from cbir.report.page import drawings, read_pictures, write_page
from cbir.report.provenance import matches_lock, read_lock, read_provenance
from cbir.runs.compare import IDENTICAL, METRICS, Change, Comparison, compare
from cbir.runs.opening import RUN_FILES, open_reports, read_run, revision_of

_PATHS = ReportPaths()
_FILES = (
    *RUN_FILES,
    _PATHS.metrics,
    _PATHS.intervals,
    _PATHS.definitions,
    _PATHS.classes,
    _PATHS.confusions,
    _PATHS.runs,
)
_RANKING = "map_at_r"
_BARS = 8  # classes that lost most, and that won most
_NAME_CHARACTERS = 40  # of a run, in a chart
_THUMBNAIL_PX = 96
Json = dict[str, Any]


class Side(NamedTuple):
    """A run: what it is called, where it is from, its metrics with intervals, and the parameters of its stages, if known."""

    name: str
    origin: str
    reports: Path
    metrics: Json
    intervals: Json
    params: Mapping[str, str]


class ChangedQuery(NamedTuple):
    """A query whose results changed: what the first run found, and what the other."""

    task: str
    encoder: str
    search: str
    query: ExampleQuery
    change: float
    before: tuple[ExampleHit, ...]
    after: tuple[ExampleHit, ...]

    @property
    def hits(self) -> tuple[ExampleHit, ...]:
        """By both."""
        return (*self.before, *self.after)


def write_comparison(out: Path, names: tuple[str, str], folders: Sequence[Path], resamples: int, seed: int) -> None:
    """Write the page of the second run against the first.

    names : of runs (see `cbir.runs.opening`).  folders : of repositories; the first whose data/ holds what the runs
    were asked lends pictures and judgements.
    Raises DataError where the runs cannot be compared (see `cbir.runs.compare.compare`), or their files are damaged.
    """
    with open_reports(names[0], _FILES) as base, open_reports(names[1], _FILES) as other:
        first, second = base.root, other.root
        sides = [_read_side(name, reports) for name, reports in zip(names, (first, second), strict=True)]
        runs = [read_run(side.name, ReportPaths(side.reports)) for side in sides]
        found = compare(runs, METRICS, resamples, seed)
        ranked = sorted((_ranking_of(list(group)) for _, group in groupby(found, key=_group)), key=_place)
        data = _data_of(folders, runs[0].collection)
        pairs = list(_pairs(ranked, sides, JudgedCollection(DataPaths(data)))) if data is not None else []
        labels = read_class_names(ReportPaths(first))
        write_page(
            out,
            "comparison.html.j2",
            labels,
            read_json(first / "definitions.json"),
            sides=sides,
            settings=_differing(sides),
            alone=_alone(sides),
            found=found,
            ranked=ranked,
            identical=IDENTICAL,
            charts={
                "over k": drawings(list(_over_k(sides))),
                "classes": drawings(list(_by_class(ranked, labels))),
            },
            pairs=pairs,
            has_data=data is not None,
            pictures=read_pictures(DataPaths(data), images_of(pairs), _THUMBNAIL_PX) if data is not None else {},
        )


def title_of(name: str) -> str:
    """What a run is called on a page: a folder by its own name, one of reports by its repository's too."""
    if not Path(name).is_dir():
        return name
    folder = Path(name).resolve()
    return f"{folder.parent.name}/{folder.name}" if folder.name == "reports" else folder.name


def _read_side(name: str, reports: Path) -> Side:
    """Raises DataError for metrics or intervals that are not those of evaluate."""
    metrics, intervals = (read_json(reports / file) for file in ("metrics.json", "intervals.json"))
    for file, found in (("metrics.json", metrics), ("intervals.json", intervals)):
        if not all(isinstance(found.get(task), dict) for task in TASKS):
            raise DataError(f"{reports / file}: expected the figures of {' and '.join(TASKS)}: run `dvc repro` there")
    root = reports.parent
    params, outputs = read_lock(root / "dvc.lock")
    # of another run, where the folder is a copy in a repository that has gone on since
    told = [one for one in outputs if one.path == "reports/metrics.json"]
    is_own = reports.name == "reports" and any(matches_lock(root, one) for one in told)
    origin = f"reports of the folder {title_of(name)}" if Path(name).is_dir() else f"git revision {revision_of(name)}"
    if Path(name).is_dir() and is_own:
        origin += f"; git revision: {read_provenance(root).git_description}"
    return Side(title_of(name), origin, reports, metrics, intervals, flatten(params) if is_own else {})


def _alone(sides: Sequence[Side]) -> list[str]:
    """What one run answered and the other did not, in words."""
    answered = [{f"{task} {encoder}" for task in TASKS for encoder in side.metrics[task]} for side in sides]
    return [
        f"only {side.name} answered {what}"
        for side, own, other in zip(sides, answered, answered[::-1], strict=True)
        for what in sorted(own - other)
    ]


def _differing(sides: Sequence[Side]) -> dict[str, list[str]]:
    """The parameters that are not the same in both, where both are known: name -> one value for each."""
    if not all(side.params for side in sides):
        return {}
    names = sorted({name for side in sides for name in side.params})
    values = {name: [side.params.get(name, "-") for side in sides] for name in names}
    return {name: both for name, both in values.items() if both[0] != both[1]}


def _group(one: Comparison) -> tuple[str, str, str]:
    return one.task, one.encoder, one.search


def _place(one: Comparison) -> tuple[str, str]:
    """Exact search first: it tells of the encoder alone."""
    return one.task, one.search


def _ranking_of(group: Sequence[Comparison]) -> Comparison:
    """The comparison that classes and queries are told of: in MAP@R, where both have it."""
    return next((one for one in group if one.metric == _RANKING), group[0])


def _data_of(folders: Sequence[Path], collection: Json) -> Path | None:
    """The first data/ in which lies what the runs were asked: images, queries and judgements, by their hashes."""
    for folder in folders:
        data = folder / "data"
        try:
            gallery, queries = (
                read_columns(data / "images" / kind, columns)
                for kind, columns in (("gallery", GALLERY_COLUMNS), ("queries", QUERY_COLUMNS))
            )
            query_list, qrels = (
                read(data / "queries" / f"{name}.parquet")
                for read, name in ((read_query_list, "query_list"), (read_qrels, "qrels"))
            )
        except DataError:  # not there, or damaged: the page does without pictures
            continue
        if collection_identity(gallery, query_list, queries, qrels) == collection:
            return data
    return None


def _over_k(sides: Sequence[Side]) -> Iterator[str]:
    for task in TASKS:
        for encoder in sides[0].metrics[task]:
            for family in ("precision", "recall"):
                lines = [
                    Series.over_k(
                        printable(side.name, _NAME_CHARACTERS),
                        family,
                        side.metrics[task].get(encoder, {}),
                        side.intervals[task].get(encoder, {}),
                        side.metrics["ceilings"].get(task, {}),
                    )
                    for side in sides
                ]
                if all(line.xs for line in lines):
                    yield line_chart(lines, f"{task} {encoder}: {family}@k by exact search", "k", family)


def _by_class(ranked: Sequence[Comparison], names: Mapping[str, str]) -> Iterator[str]:
    """Bars of the classes that lost most and of those that won most, the greatest loss on top."""
    for series, one in enumerate(ranked):
        lost = [change for change in one.classes[:_BARS] if change.change < 0]
        won = [change for change in one.classes[-_BARS:] if change.change > 0]
        if lost or won:
            bars = [(printable(full_name(change.name, names)), change.change) for change in (*lost, *won)]
            title = f"{one.task} {one.encoder}, {one.search} search: classes that changed most"
            yield bar_chart(bars, title, f"change of {one.metric}", series, is_change=True)


def _pairs(ranked: Sequence[Comparison], sides: Sequence[Side], collection: JudgedCollection) -> Iterator[ChangedQuery]:
    """The queries that lost most, then those that won most; none of a search whose run tables are not at hand."""
    for one in ranked:
        changes: tuple[Change, ...] = (*one.lost, *one.won)
        tables = [ReportPaths(side.reports).run(*_group(one)) for side in sides]
        if not changes or not all(table.is_file() for table in tables):
            continue
        before, after = (collection.hits(table, [change.name for change in changes]) for table in tables)
        for change in changes:
            yield ChangedQuery(
                *_group(one), collection.query(change.name), change.change, before[change.name], after[change.name]
            )
