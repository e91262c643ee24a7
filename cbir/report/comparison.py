"""A page of two runs side by side: what was set otherwise, the differences with intervals, who won and who lost."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from cbir.artifacts.files import read_json
from cbir.compare import FILES, IDENTICAL, METRICS, Change, Comparison, compare, read_run, reports_of
from cbir.report.charts import Line, bar_chart, line_chart
from cbir.report.examples import Asked, Found, Judge
from cbir.report.facts import class_names, flat, name_of
from cbir.report.page import drawings, pictures_of, write_page
from cbir.report.provenance import read_lock
from cbir.shown import shown

_FILES = (*FILES, "metrics.json", "intervals.json", "definitions.json", "classes.parquet", "confusions.parquet", "runs")
_RANKING = "map_at_r"
_BARS = 8  # classes that lost most, and that won most
_NAME_CHARACTERS = 40  # of a run, in a chart
_THUMBNAIL_PX = 96
Json = dict[str, Any]


class Side(NamedTuple):
    """A run: its name as the user gave it, its metrics with intervals, and the parameters of its stages."""

    name: str
    reports: Path
    metrics: Json
    intervals: Json
    params: Mapping[str, str]


class Pair(NamedTuple):
    """A query whose results changed: what the first run found, and what the other."""

    task: str
    encoder: str
    search: str
    query: Asked
    change: float
    before: tuple[Found, ...]
    after: tuple[Found, ...]


def write_comparison(out: Path, names: tuple[str, str], folders: Sequence[Path], resamples: int, seed: int) -> None:
    """Write the page of the second run against the first.

    folders : of repositories; the first whose last run asked the same of the same images lends pictures and judgements.
    Raises DataError where the runs cannot be compared (see `cbir.compare.compare`).
    """
    with reports_of(names[0], _FILES) as first, reports_of(names[1], _FILES) as second:
        runs = [read_run(name, reports) for name, reports in zip(names, (first, second), strict=True)]
        found = compare(runs, METRICS, resamples, seed)
        sides = [_read_side(name, reports) for name, reports in zip(names, (first, second), strict=True)]
        ranked = sorted((_ranking_of(list(group)) for _, group in groupby(found, key=_group)), key=_place)
        data = _data_of(folders, runs[0].collection)
        pairs = list(_pairs(ranked, sides, Judge(data))) if data is not None else []
        labels = class_names(first)
        write_page(
            out,
            "comparison.html.j2",
            labels,
            read_json(first / "definitions.json"),
            sides=sides,
            settings=_differing(sides),
            found=found,
            ranked=ranked,
            identical=IDENTICAL,
            charts={
                "over k": drawings(list(_over_k(sides))),
                "classes": drawings(list(_by_class(ranked, labels))),
            },
            pairs=pairs,
            has_data=data is not None,
            pictures=pictures_of(data, _images_of(pairs), _THUMBNAIL_PX) if data is not None else {},
        )


def _read_side(name: str, reports: Path) -> Side:
    params, _ = read_lock(reports.parent / "dvc.lock")
    return Side(name, reports, read_json(reports / "metrics.json"), read_json(reports / "intervals.json"), flat(params))


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
    for folder in folders:
        told = folder / "reports" / "test_collection.json"
        if told.is_file() and read_json(told) == collection and (folder / "data" / "images").is_dir():
            return folder / "data"
    return None


def _over_k(sides: Sequence[Side]) -> Iterator[str]:
    for task in ("cbir", "tbir"):
        for encoder in sides[0].metrics[task]:
            for family in ("precision", "recall"):
                lines = [
                    Line.over_k(
                        shown(side.name, _NAME_CHARACTERS),
                        family,
                        side.metrics[task].get(encoder, {}),
                        side.intervals[task].get(encoder, {}),
                        side.metrics["ceilings"][task],
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
            bars = [(shown(name_of(change.name, names)), change.change) for change in (*lost, *won)]
            title = f"{one.task} {one.encoder}, {one.search} search: classes that changed most"
            yield bar_chart(bars, title, f"change of {one.metric}", series, is_change=True)


def _pairs(ranked: Sequence[Comparison], sides: Sequence[Side], judge: Judge) -> Iterator[Pair]:
    """The queries that lost most, then those that won most; none of a search whose run tables are not at hand."""
    for one in ranked:
        changes: tuple[Change, ...] = (*one.lost, *one.won)
        suffix = "" if one.search == "index" else f"_{one.search}"
        tables = [side.reports / "runs" / f"run_{one.task}_{one.encoder}{suffix}.parquet" for side in sides]
        if not changes or not all(table.is_file() for table in tables):
            continue
        before, after = (judge.found(table, [change.name for change in changes]) for table in tables)
        for change in changes:
            yield Pair(*_group(one), judge.asked(change.name), change.change, before[change.name], after[change.name])


def _images_of(pairs: Sequence[Pair]) -> set[str]:
    asked = {one.query.image_id for one in pairs if one.query.image_id is not None}
    return asked | {hit.image_id for one in pairs for hit in (*one.before, *one.after)}
