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

from cbir.artifacts.metrics import evaluated
from cbir.artifacts.names import MODALITIES, TASKS
from cbir.core import markdown
from cbir.core.errors import ConfigError
from cbir.core.text import nearest
from cbir.report.facts import Estimate
from cbir.runs.experiments import Results
from cbir.runs.sweep import Outcome, readable, subject, varying

TABLE_METRICS = ("precision@10", "success@1", "ndcg@10", "map_at_r")
P50, BYTES = "p50 ms", "bytes per vector"
_RECALL = "ann_recall@"
_RECALL_K = 10  # the table shows the ann_recall@k of the nearest k
_LOWER_IS_BETTER = (P50, BYTES)
_FOOTNOTE = (
    "The best value of each column is marked. `cbir compare` with the names of two experiments tests whether they differ by "
    "more than chance. In brackets: 95 % interval over resamples of classes. Metrics are those of exact search, ann_recall is "
    "that of the index. p50: median time of one search, measured when its stage ran."
)
_FRONT_FOOTNOTE = " front: no other job is at least as good in both ann_recall and p50 and better in one of them."


class Place(NamedTuple):
    """A task and an encoder: a part of the table in which jobs can be compared."""

    task: str
    encoder: str


@dataclass(frozen=True)
class SweepRow:
    """A job at one place.

    settings : of the keys that vary.  values : by column.  best : columns in which no job is better.  front : whether the job
    is on the Pareto front of ann_recall and p50; None where encoders vary, so that their recall cannot be compared.
    """

    number: int
    experiment: str
    place: Place
    settings: Mapping[str, str]
    values: Mapping[str, Estimate]
    best: frozenset[str] = frozenset()
    front: bool | None = None


@dataclass(frozen=True)
class SweepTable:
    """The jobs of a sweep as a table.

    subject : data set and encoders.  shared : settings that all jobs have in common.  keys : of the other settings.
    rows : place by place.
    """

    subject: str
    shared: Mapping[str, str]
    keys: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[SweepRow]

    @property
    def has_front(self) -> bool:
        """Whether there is a column for the front."""
        return any(row.front is not None for row in self.rows)

    @property
    def title(self) -> str:
        """Data set, encoders, and the settings that all jobs have in common."""
        settings = " ".join(f"{key}={readable(value)}" for key, value in self.shared.items())
        return f"sweep over {self.subject}" + (f": {settings}" if settings else "")

    @property
    def heads(self) -> list[str]:
        """The heads of all columns."""
        return ["", "job", *self.keys, *self.columns, *(["front"] if self.has_front else [])]

    @property
    def footnote(self) -> str:
        """How to read the table."""
        return _FOOTNOTE + (_FRONT_FOOTNOTE if self.has_front else "")


def tabulate(outcomes: Sequence[Outcome], metrics: Sequence[str]) -> SweepTable:
    """Make a table of the finished jobs.

    metrics : names of metrics in metrics.json; those that no job has are left out.
    """
    settings = [outcome.job.settings for outcome in outcomes]
    keys = varying(settings)
    finished = [
        (number, outcome.job, outcome.results)
        for number, outcome in enumerate(outcomes, 1)
        if outcome.results is not None
    ]
    places = dict.fromkeys(Place(*pair) for _, _, results in finished for pair in evaluated(results.metrics))
    rows: list[SweepRow] = []
    for place in places:
        place_rows = [
            SweepRow(number, job.name, place, {key: readable(job.settings.get(key, "")) for key in keys}, values)
            for number, job, results in finished
            if (values := _values(results, place, metrics))
        ]
        rows += _marked(place_rows, with_front=bool(keys) and all(key.partition(".")[0] == "index" for key in keys))
    columns = list(dict.fromkeys(name for row in rows for name in row.values))
    shared = {key: value for key, value in settings[0].items() if key not in keys} if settings else {}
    return SweepTable(subject([outcome.job for outcome in outcomes]), shared, keys, columns, rows)


def check_metrics(outcomes: Sequence[Outcome], metrics: Sequence[str]) -> None:
    """Raise ConfigError for a metric that no finished job has."""
    finished = [outcome.results.metrics for outcome in outcomes if outcome.results is not None]
    known = {name for groups in finished for task in TASKS for means in groups.of_task(task).values() for name in means}
    unknown = [name for name in metrics if name not in known]
    if unknown and known:
        raise ConfigError(
            f"--metrics: no job has {unknown[0]}; {nearest(unknown[0], sorted(known))}; the results are kept, so the same "
            "command with another name runs no job again"
        )


def print_table(table: SweepTable, console: Console) -> None:
    """Print the table, with intervals below their values and a star beside the best."""
    printed = Table(title=Text(table.title), box=box.SIMPLE)
    for head in table.heads:
        printed.add_column(head, justify="right" if head in table.columns else "left", overflow="fold")
    for row, next_row in zip(table.rows, [*table.rows[1:], None], strict=True):
        cells = [_cell(row, name, "\n", "{}*") for name in table.columns]
        printed.add_row(
            *(
                Text(cell, style="bold" if "*" in cell else "")
                for cell in [*_row_heads(row), *cells, *_front(table, row)]
            ),
            end_section=next_row is not None and next_row.place != row.place,
        )
    console.print(printed)
    console.print(table.footnote, markup=False, highlight=False)


def as_markdown(table: SweepTable) -> str:
    """The table as Markdown, with the best values in bold; text from data is escaped."""
    heads, n_texts = table.heads, 2 + len(table.keys)
    lines = [
        f"# {markdown.escaped(table.title)}",
        "",
        markdown.row("", "job", *map(markdown.escaped, table.keys), *heads[n_texts:]),
        markdown.rule(n_texts, len(heads) - n_texts),
    ]
    for row in table.rows:
        cells = [_cell(row, name, " ", "**{}**") for name in table.columns]
        lines.append(markdown.row(*map(markdown.escaped, _row_heads(row)), *cells, *_front(table, row)))
    return "\n".join([*lines, "", table.footnote, ""])


def as_csv(table: SweepTable) -> str:
    """The table as CSV: values unrounded, the bounds of an interval in columns of their own."""
    lines = []
    for row in table.rows:
        line: dict[str, Any] = {"job": row.number, "experiment": row.experiment, **row.place._asdict()}
        # "experiment" may also be a setting
        line |= {f"set {key}" if key in line else key: value for key, value in row.settings.items()}
        for name in table.columns:
            value, interval = row.values.get(name, Estimate(None))
            line[name] = value
            if interval is not None:
                line |= {f"{name} low": interval[0], f"{name} high": interval[1]}
        lines.append(line if row.front is None else {**line, "front": int(row.front)})
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(name for line in lines for name in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _values(results: Results, place: Place, metrics: Sequence[str]) -> dict[str, Estimate]:
    """The values of a job at a place, by column; empty where the encoder was not evaluated in the task."""
    means, intervals = results.metrics, results.intervals
    task, encoder = place
    if encoder not in means.of_task(task):
        return {}
    exact, exact_intervals = means.of_task(task)[encoder], intervals.of_task(task)[encoder]
    values = {name: Estimate(exact[name], exact_intervals.get(name)) for name in metrics if name in exact}
    modality = MODALITIES[task]
    indexed = means.ann[encoder][modality]
    recalls = [name for name in indexed if name.startswith(_RECALL)]
    for name in sorted(recalls, key=lambda name: abs(int(name.removeprefix(_RECALL)) - _RECALL_K))[:1]:
        values[name] = Estimate(indexed[name], intervals.ann[encoder][modality].get(name))
    times = results.latency.encoders.get(encoder, {}).get(modality)
    values[P50] = Estimate(None if times is None else times["index"].p50_ms)
    values[BYTES] = Estimate(means.data.index_bytes[encoder] / means.data.gallery_images)
    return values


def _marked(rows: Sequence[SweepRow], with_front: bool) -> list[SweepRow]:
    """The rows of one place, with the columns in which each is best after rounding, and with the front."""
    best: dict[str, float] = {}
    for name in dict.fromkeys(name for row in rows for name in row.values):
        values = [value for row in rows if (value := _rounded(row, name)) is not None]
        if len(set(values)) > 1:
            best[name] = min(values) if name in _LOWER_IS_BETTER else max(values)
    marked = [
        replace(row, best=frozenset(name for name, value in best.items() if _rounded(row, name) == value))
        for row in rows
    ]
    if not with_front:
        return marked
    points = [_point(row) for row in rows]
    return [
        replace(row, front=point is not None and not _is_dominated(point, points))
        for row, point in zip(marked, points, strict=True)
    ]


def _point(row: SweepRow) -> tuple[float, float] | None:
    """(ann_recall, -p50): both are better when higher."""
    recall = next((value.value for name, value in row.values.items() if name.startswith(_RECALL)), None)
    p50 = row.values[P50].value
    return None if recall is None or p50 is None else (recall, -p50)


def _is_dominated(point: tuple[float, float], points: Sequence[tuple[float, float] | None]) -> bool:
    return any(
        other is not None and other != point and other[0] >= point[0] and other[1] >= point[1] for other in points
    )


def _rounded(row: SweepRow, name: str) -> float | None:
    value = row.values.get(name, Estimate(None)).value
    return None if value is None else round(value, 0 if name == BYTES else 3)


def _row_heads(row: SweepRow) -> list[str]:
    return [" ".join(row.place), str(row.number), *row.settings.values()]


def _front(table: SweepTable, row: SweepRow) -> list[str]:
    if not table.has_front:
        return []
    return ["front" if row.front else ""]


def _cell(row: SweepRow, name: str, separator: str, mark: str) -> str:
    value, interval = row.values.get(name, Estimate(None))
    if value is None:
        return "-"
    text = f"{value:,.0f}" if name == BYTES else f"{value:.3f}"
    bounds = "" if interval is None else f"{separator}[{interval[0]:.3f}, {interval[1]:.3f}]"
    return (mark.format(text) if name in row.best else text) + bounds
