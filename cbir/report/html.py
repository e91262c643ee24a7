"""report.html: what a run found, to be looked at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from cbir.artifacts.maps import read_map
from cbir.artifacts.names import ENCODERS
from cbir.artifacts.runs import read_open_table
from cbir.core.files import read_json
from cbir.core.text import printable
from cbir.report.charts import Dot, Series, bar_chart, line_chart, scatter_chart
from cbir.report.examples import KINDS, SAMPLE, Example, Judge, images_of
from cbir.report.facts import Facts, short_name
from cbir.report.page import drawings, pictures_of, script_json, write_page
from cbir.report.thumbnails import Sheet, read_sheet
from cbir.report.verdict import verdict

_TILE_PX = 48
_BARS = 8  # best and worst classes
_SHOWN = {"quarantine": 50, "duplicates": 20, "classes": 500}


def write_html(
    out: Path, facts: Facts, judge: Judge, examples: Sequence[Example], data: Path, reports: Path, thumbnail_px: int
) -> None:
    """Write the page.  data : where images and maps lie.  reports : what evaluate wrote."""
    maps, sheets = _maps(data, facts.names)
    classes = _classes(facts, read_open_table(reports / "classes.parquet"))
    duplicates = [(judge.asked(one["query_id"]), one) for one in facts.duplicates[: _SHOWN["duplicates"]]]
    copies = {str(image_id) for asked, one in duplicates for image_id in (asked.image_id, one["image_id"])}
    write_page(
        out,
        "report.html.j2",
        facts.names,
        read_json(reports / "definitions.json"),
        facts=facts,
        verdict=verdict(facts),
        charts={
            "over k": drawings(_over_k(facts)),
            "index": drawings(_recall_over_time(facts)),
            "classes": drawings(_best_and_worst(facts, classes)),
        },
        classes=classes,
        examples=examples,
        kinds=[*KINDS, SAMPLE],
        pictures=pictures_of(data, images_of(examples) | copies, thumbnail_px),
        maps=maps,
        sheets=sheets,
        duplicates=duplicates,
        most=_SHOWN,
    )


def _over_k(facts: Facts) -> list[str]:
    charts = []
    for family in ("precision", "recall"):
        lines = [
            Series.over_k(
                f"{task} {encoder}",
                family,
                facts.metrics[task][encoder],
                facts.intervals[task][encoder],
                facts.metrics["ceilings"][task],
            )
            for task, encoder in facts.answered
        ]
        if drawn := [line for line in lines if line.xs]:
            charts.append(line_chart(drawn, f"{family}@k by exact search", "k", family))
    return charts


def _recall_over_time(facts: Facts) -> list[str]:
    dots = [
        Dot(f"{one.task} {one.encoder}", one.p50_ms, one.recall, is_filled=one.search != "exact")
        for one in facts.recall_over_time
        if one.recall is not None
    ]
    title = f"what the {facts.index_kinds} index finds, against the time of one search"
    return [scatter_chart(dots, title, "ms of one search, median", f"ann_recall@{facts.ann_k}")] if dots else []


def _classes(facts: Facts, table: pa.Table) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Every class of each that answered, the worst first: by precision, then by MAP@R; none without a value."""
    name = f"precision@{facts.cost_k}"
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    if name in table.column_names:
        for row in table.to_pylist():
            if row[name] is not None:
                found.setdefault((row["task"], row["encoder"]), []).append(row)
    for rows in found.values():
        rows.sort(key=lambda row: (row[name], row["map_at_r"], row["label"]))
    return found


def _best_and_worst(facts: Facts, classes: Mapping[tuple[str, str], Sequence[dict[str, Any]]]) -> list[str]:
    """Bars of the classes of least and of greatest precision, no class in both."""
    name = f"precision@{facts.cost_k}"
    charts = []
    for series, (task, encoder) in enumerate(facts.answered):
        rows = classes.get((task, encoder), [])
        falling = sorted(rows[_BARS:], key=lambda row: (-row[name], -row["map_at_r"], row["label"]))
        for which, chosen in (("worst", rows[:_BARS]), ("best", falling[:_BARS])):
            if chosen:
                bars = [(printable(facts.class_name(row["label"])), row[name]) for row in chosen]
                alike = sum(row[name] == chosen[-1][name] for row in rows)
                more = f", {alike} of {len(rows)} at {chosen[-1][name]:.2f}" if alike > len(chosen) else ""
                charts.append(bar_chart(bars, f"{task} {encoder}: {which} classes{more}", name, series))
    return charts


def _maps(data: Path, classes: dict[str, str]) -> tuple[list[dict[str, Any]], list[Sheet]]:
    """The map of each encoder, and the sheets of pictures that they point into: maps of the same images share one."""
    maps: list[dict[str, Any]] = []
    sheets: dict[tuple[str, ...], Sheet] = {}
    for encoder in ENCODERS:
        table = read_map(data / "map" / f"{encoder}.parquet")
        if table.num_rows == 0:
            continue
        ids = tuple(table["image_id"].to_pylist())
        if ids not in sheets:
            sheets[ids] = read_sheet(data / "images" / "gallery", ids, _TILE_PX)
        known = dict(zip(table["label"].to_pylist(), table["label_name"].to_pylist(), strict=True)) | classes
        names, numbers = _numbered(
            ["no class" if label is None else short_name(label, known) for label in table["label"].to_pylist()]
        )
        xs, ys = (table[axis].to_pylist() for axis in ("x", "y"))
        points = [[round(x, 3), round(y, 3), number] for x, y, number in zip(xs, ys, numbers, strict=True)]
        maps.append(
            {
                "encoder": encoder,
                "count": len(ids),
                "sheet": list(sheets).index(ids),
                "points": script_json(
                    {
                        "points": points,
                        "names": [printable(name) for name in names],
                        "ids": [printable(one) for one in ids],
                    }
                ),
            }
        )
    return maps, list(sheets.values())


def _numbered(labels: Sequence[str]) -> tuple[list[str], list[int]]:
    """The different names in order, and for each label the number of its name."""
    names = sorted(set(labels))
    place = {name: number for number, name in enumerate(names)}
    return names, [place[name] for name in labels]
