"""report.html: the results of a run as a page."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
from markupsafe import Markup

from cbir.artifacts.evaluations import read_classes, read_definitions
from cbir.artifacts.maps import read_map
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.core.text import printable
from cbir.report.charts import Dot, Series, bar_chart, line_chart, scatter_chart
from cbir.report.choice import choices
from cbir.report.class_names import short_name
from cbir.report.examples import EXAMPLES_PER_KIND, SAMPLE, Example, images_of
from cbir.report.facts import Facts
from cbir.report.judged import JudgedCollection
from cbir.report.notes import notes
from cbir.report.page import drawings, read_pictures, script_json, write_page
from cbir.report.thumbnails import Sheet, read_sheet
from cbir.report.verdict import verdict

_TILE_PX = 48
_BARS = 8  # of the best and of the worst classes
_MAX_ROWS = {"quarantine": 50, "duplicates": 20, "classes": 500}
Rows = Sequence[dict[str, Any]]


def write_html(
    out: Path,
    facts: Facts,
    collection: JudgedCollection,
    examples: Sequence[Example],
    data: DataPaths,
    reports: ReportPaths,
    thumbnail_px: int,
) -> None:
    """Write the page."""
    maps, sheets = _maps(data, facts)
    classes = _classes(facts, read_classes(reports))
    duplicates = [(collection.query(pair["query_id"]), pair) for pair in facts.duplicates[: _MAX_ROWS["duplicates"]]]
    copies = {str(image_id) for query, pair in duplicates for image_id in (query.image_id, pair["image_id"])}
    write_page(
        out,
        "report.html.j2",
        facts.names,
        read_definitions(reports),
        facts=facts,
        notes=notes(facts),
        verdict=verdict(facts),
        choices=choices(facts.comparison),
        charts={
            "over k": drawings(_over_k(facts)),
            "index": drawings(_recall_over_time(facts)),
        },
        class_charts=_best_and_worst(facts, classes),
        open_classes={(task, means[0].ranking[0].encoder) for task, means in facts.comparison.tasks.items()},
        classes=classes,
        examples=examples,
        kinds=[*EXAMPLES_PER_KIND, SAMPLE],
        pictures=read_pictures(data, images_of(examples) | copies, thumbnail_px),
        maps=maps,
        sheets=sheets,
        duplicates=duplicates,
        max_rows=_MAX_ROWS,
    )


def _over_k(facts: Facts) -> list[str]:
    charts = []
    for task, family in product(_tasks(facts), ("precision", "recall")):
        lines = [
            Series.over_k(
                encoder, family, values, facts.intervals.of_task(task)[encoder], facts.metrics.ceilings[task],
                facts.encoders.index(encoder),
            )
            for encoder, values in facts.metrics.of_task(task).items()
        ]  # fmt: skip
        if defined := [line for line in lines if line.xs]:
            charts.append(line_chart(defined, f"{task}: {family}@k with exact search", "k", family))
    return charts


def _recall_over_time(facts: Facts) -> list[str]:
    recall = f"ann_recall@{facts.ann_k}"
    charts = []
    for task in _tasks(facts):
        dots = [
            Dot(
                timed.encoder, timed.p50_ms, timed.recall, timed.search != "exact", facts.encoders.index(timed.encoder)
            )
            for timed in facts.recall_over_time
            if timed.task == task and timed.recall is not None
        ]  # fmt: skip
        if dots:
            title = f"{task}: {recall} over search time ({facts.index_kinds})"
            charts.append(scatter_chart(dots, title, "median time of one search, ms", recall))
    return charts


def _tasks(facts: Facts) -> list[str]:
    return list(dict.fromkeys(task for task, _ in facts.evaluated))


def _classes(facts: Facts, table: pa.Table) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return (task, encoder) -> classes that have a precision, the worst first: by precision, then by MAP@R."""
    precision = f"precision@{facts.cost_k}"
    classes: dict[tuple[str, str], list[dict[str, Any]]] = {}
    if precision in table.column_names:
        for row in table.to_pylist():
            if row[precision] is not None:
                classes.setdefault((row["task"], row["encoder"]), []).append(row)
    for rows in classes.values():
        rows.sort(key=lambda row: (row[precision], row["map_at_r"], row["label"]))
    return {place: classes[place] for place in facts.evaluated if place in classes}


def _best_and_worst(facts: Facts, classes: Mapping[tuple[str, str], Rows]) -> dict[tuple[str, str], list[Markup]]:
    """Draw the classes of lowest and of highest precision, for each (task, encoder); no class is in both charts."""
    precision = f"precision@{facts.cost_k}"
    charts = {}
    for (task, encoder), rows in classes.items():
        falling = sorted(rows[_BARS:], key=lambda row: (-row[precision], -row["map_at_r"], row["label"]))
        drawn = []
        for which, chosen in (("worst", rows[:_BARS]), ("best", falling[:_BARS])):
            if chosen:
                bars = [(printable(facts.class_name(row["label"])), row[precision]) for row in chosen]
                last = chosen[-1][precision]
                ties = sum(row[precision] == last for row in rows)
                suffix = f", {ties} of {len(rows)} at {last:.2f}" if ties > len(chosen) else ""
                title = f"{task} {encoder}: {which} classes{suffix}"
                drawn.append(bar_chart(bars, title, precision, facts.encoders.index(encoder)))
        charts[task, encoder] = drawings(drawn)
    return charts


def _maps(data: DataPaths, facts: Facts) -> tuple[list[dict[str, Any]], list[Sheet]]:
    """Return the map of each encoder, and the sheets of their thumbnails; maps of the same images share a sheet."""
    maps: list[dict[str, Any]] = []
    sheets: dict[tuple[str, ...], Sheet] = {}
    for encoder in facts.encoders:
        table = read_map(data.map(encoder))
        if table.num_rows == 0:
            continue
        ids = tuple(table["image_id"].to_pylist())
        if ids not in sheets:
            sheets[ids] = read_sheet(data.images("gallery"), ids, _TILE_PX)
        names = dict(zip(table["label"].to_pylist(), table["label_name"].to_pylist(), strict=True)) | facts.names
        distinct, numbers = _numbered(
            ["no class" if label is None else short_name(label, names) for label in table["label"].to_pylist()]
        )
        xs, ys = (table[axis].to_pylist() for axis in ("x", "y"))
        points = [[round(x, 3), round(y, 3), number] for x, y, number in zip(xs, ys, numbers, strict=True)]
        maps.append(
            {
                "encoder": encoder,
                "count": len(ids),
                "content": script_json(
                    {
                        "sheet": list(sheets).index(ids),
                        "tile": sheets[ids].tile_px,
                        "columns": sheets[ids].columns,
                        "points": points,
                        "names": [printable(name) for name in distinct],
                        "ids": [printable(image_id) for image_id in ids],
                    }
                ),
            }
        )
    return maps, list(sheets.values())


def _numbered(names: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return the distinct names in order, and the number of each name among them."""
    distinct = sorted(set(names))
    places = {name: number for number, name in enumerate(distinct)}
    return distinct, [places[name] for name in names]
