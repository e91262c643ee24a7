"""The jobs of a sweep in one table, with the best of each column marked: for a terminal, in Markdown and as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cbir.artifacts.names import MODALITIES, TASKS
from cbir.core.errors import ConfigError
from cbir.core.markdown import escaped, row, rule
from cbir.core.params import nearest
from cbir.report.facts import Estimate
from cbir.runs.sweep import Outcome, Results, plain, varying

METRICS = ("precision@10", "success@1", "ndcg@10", "map_at_r")
P50, BYTES = "p50 ms", "bytes a vector"
_LOWER_IS_BETTER = (P50, BYTES)
_FOOTNOTE = (
    "The best of each column is marked; whether two jobs differ by more than chance, `cbir compare` tells, with the names of "
    "their experiments. In brackets: 95 % interval over draws of classes. Metrics are those of exact search, ann_recall is the "
    "index's. p50: one search, as it was timed when its stage ran."
)
_FRONT_FOOTNOTE = " front: no other job both finds as many of the exact neighbours and answers as fast."


class Place(NamedTuple):
    """A task and the encoder that answered it."""

    task: str
    encoder: str


@dataclass(frozen=True)
class SweepRow:
    """A job at one place.

    settings : what not all jobs set alike.  best : the columns in which no job is better.  front : whether no other job has
    both a higher ann_recall and a lower p50; None where encoders differ, so that their recall cannot be compared.
    """

    number: int
    experiment: str
    place: Place
    settings: Mapping[str, str]
    figures: Mapping[str, Estimate]
    best: frozenset[str] = frozenset()
    front: bool | None = None


@dataclass(frozen=True)
class SweepTable:
    """shared : what all jobs set alike.  keys : of the settings.  columns : names of figures.  lines : place by place."""

    shared: Mapping[str, str]
    keys: Sequence[str]
    columns: Sequence[str]
    lines: Sequence[SweepRow]

    @property
    def footnote(self) -> str:
        """What a reader must know."""
        return _FOOTNOTE + (_FRONT_FOOTNOTE if any(line.front is not None for line in self.lines) else "")


def tabulate(outcomes: Sequence[Outcome], metrics: Sequence[str]) -> SweepTable:
    """The finished jobs, at every place that any of them has figures of.

    metrics : names of metrics.json; those that no job has are left out.
    """
    settings = [outcome.job.settings for outcome in outcomes]
    keys = varying(settings)
    finished = [(number, one, one.results) for number, one in enumerate(outcomes, 1) if one.results is not None]
    lines: list[SweepRow] = []
    for place in dict.fromkeys(place for _, _, found in finished for place in _places(found)):
        here = [
            SweepRow(number, one.job.name, place, {key: plain(one.job.settings.get(key, "")) for key in keys}, figures)
            for number, one, found in finished
            if (figures := _figures(found, place, metrics))
        ]
        lines += _marked(here, with_front=bool(keys) and all(key.partition(".")[0] == "index" for key in keys))
    columns = list(dict.fromkeys(name for line in lines for name in line.figures))
    shared = {key: value for key, value in settings[0].items() if key not in keys} if settings else {}
    return SweepTable(shared, keys, columns, lines)


def check_metrics(outcomes: Sequence[Outcome], metrics: Sequence[str]) -> None:
    """Raise ConfigError for a metric that no finished job has."""
    found = [one.results["metrics.json"] for one in outcomes if one.results is not None]
    known = {name for means in found for task in TASKS for exact in means[task].values() for name in exact}
    unknown = [name for name in metrics if name not in known]
    if unknown and known:
        raise ConfigError(
            f"--metrics: no job has {unknown[0]}; {nearest(unknown[0], sorted(known))}; the jobs stand, the same command "
            "with another name runs none of them again"
        )


def print_table(table: SweepTable, console: Console) -> None:
    """For a terminal: intervals below their figures, the best with a star."""
    shown = Table(title=Text(_title(table)), box=box.SIMPLE)
    for head in _heads(table):
        shown.add_column(head, justify="right" if head in table.columns else "left", overflow="fold")
    for line, after in zip(table.lines, [*table.lines[1:], None], strict=True):
        cells = [_cell(line, name, "\n", "{}*") for name in table.columns]
        shown.add_row(
            *(
                Text(cell, style="bold" if "*" in cell else "")
                for cell in [*_words(line), *cells, *_fronts(table, line)]
            ),
            end_section=after is not None and after.place != line.place,
        )
    console.print(shown)
    console.print(table.footnote, markup=False, highlight=False)


def as_markdown(table: SweepTable) -> str:
    """For a web page: the best in bold; text from data is escaped."""
    heads, texts = _heads(table), 2 + len(table.keys)
    lines = [
        f"# {escaped(_title(table))}",
        "",
        row("", "job", *map(escaped, table.keys), *heads[texts:]),
        rule(texts, len(heads) - texts),
    ]
    for line in table.lines:
        cells = [_cell(line, name, " ", "**{}**") for name in table.columns]
        lines.append(row(*map(escaped, _words(line)), *cells, *_fronts(table, line)))
    return "\n".join([*lines, "", table.footnote, ""])


def as_csv(table: SweepTable) -> str:
    """For a program: a line for each job and place, figures unrounded, an interval in two columns of its own."""
    rows = []
    for line in table.lines:
        values: dict[str, Any] = {"job": line.number, "experiment": line.experiment, **line.place._asdict()}
        # experiment=... is a setting, too
        values |= {f"set {key}" if key in values else key: value for key, value in line.settings.items()}
        for name in table.columns:
            figure = line.figures.get(name, Estimate(None))
            values[name] = figure.value
            if figure.interval is not None:
                values |= {f"{name} low": figure.interval[0], f"{name} high": figure.interval[1]}
        rows.append(values if line.front is None else {**values, "front": int(line.front)})
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(name for one in rows for name in one)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _places(found: Results) -> list[Place]:
    return [Place(task, encoder) for task in TASKS for encoder in found["metrics.json"][task]]


def _figures(found: Results, place: Place, metrics: Sequence[str]) -> dict[str, Estimate]:
    """The figures of a job at a place, by column; none where the encoder did not answer the task."""
    means, intervals = found["metrics.json"], found["intervals.json"]
    task, encoder = place
    if encoder not in means[task]:
        return {}
    exact, modality = means[task][encoder], MODALITIES[task]
    figures = {name: Estimate(exact[name], intervals[task][encoder].get(name)) for name in metrics if name in exact}
    indexed = means["ann"][encoder][modality]
    recalls = [name for name in indexed if name.startswith("ann_recall@")]
    for name in sorted(recalls, key=lambda name: abs(int(name.partition("@")[2]) - 10))[:1]:
        figures[name] = Estimate(indexed[name], intervals["ann"][encoder][modality].get(name))
    timed = found["latency.json"]["encoders"].get(encoder, {}).get(modality)
    figures[P50] = Estimate(None if timed is None else timed["index"]["single_ms"]["p50"])
    figures[BYTES] = Estimate(means["data"]["index_bytes"][encoder] / means["data"]["gallery_images"])
    return figures


def _marked(lines: Sequence[SweepRow], with_front: bool) -> list[SweepRow]:
    """The lines of one place, each with the columns in which it is the best, as far as the shown decimals tell."""
    best: dict[str, float] = {}
    for name in dict.fromkeys(name for line in lines for name in line.figures):
        values = [value for line in lines if (value := _rounded(line, name)) is not None]
        if len(set(values)) > 1:
            best[name] = min(values) if name in _LOWER_IS_BETTER else max(values)
    marked = [
        replace(line, best=frozenset(name for name, value in best.items() if _rounded(line, name) == value))
        for line in lines
    ]
    if not with_front:
        return marked
    points = [_point(line) for line in lines]
    return [
        replace(line, front=point is not None and not _beaten(point, points))
        for line, point in zip(marked, points, strict=True)
    ]


def _point(line: SweepRow) -> tuple[float, float] | None:
    """(ann_recall, -p50): both are better when higher."""
    recall = next((figure.value for name, figure in line.figures.items() if name.startswith("ann_recall@")), None)
    p50 = line.figures[P50].value
    return None if recall is None or p50 is None else (recall, -p50)


def _beaten(point: tuple[float, float], points: Sequence[tuple[float, float] | None]) -> bool:
    return any(one is not None and one != point and one[0] >= point[0] and one[1] >= point[1] for one in points)


def _rounded(line: SweepRow, name: str) -> float | None:
    value = line.figures.get(name, Estimate(None)).value
    return None if value is None else round(value, 0 if name == BYTES else 3)


def _title(table: SweepTable) -> str:
    return " ".join(["sweep", *(f"{key}={plain(value)}" for key, value in table.shared.items())])


def _heads(table: SweepTable) -> list[str]:
    front = ["front"] if any(line.front is not None for line in table.lines) else []
    return ["", "job", *table.keys, *table.columns, *front]


def _words(line: SweepRow) -> list[str]:
    return [" ".join(line.place), str(line.number), *line.settings.values()]


def _fronts(table: SweepTable, line: SweepRow) -> list[str]:
    if "front" not in _heads(table):
        return []
    return ["front" if line.front else ""]


def _cell(line: SweepRow, name: str, separator: str, mark: str) -> str:
    value, interval = line.figures.get(name, Estimate(None))
    if value is None:
        return "-"
    text = f"{value:,.0f}" if name == BYTES else f"{value:.3f}"
    bounds = "" if interval is None else f"{separator}[{interval[0]:.3f}, {interval[1]:.3f}]"
    return (mark.format(text) if name in line.best else text) + bounds
