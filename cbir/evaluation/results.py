"""What evaluate writes into `reports/`: means with intervals, runs, per-query values, and where an encoder fails."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cbir.artifacts.images import read_columns
from cbir.artifacts.paths import ReportPaths
from cbir.artifacts.runs import (
    CONFUSION_SCHEMA,
    DUPLICATE_SCHEMA,
    write_class_table,
    write_confusions,
    write_duplicates,
    write_per_query,
    write_run,
)
from cbir.artifacts.vectors import MISSING, Positions, positions_of
from cbir.core.files import write_json
from cbir.evaluation.classes import class_means, confusions
from cbir.evaluation.definitions import define
from cbir.evaluation.duplicates import (
    BYTES,
    PIXELS,
    DuplicatePair,
    Pictures,
    alike,
    pairs_table,
    same_bytes,
    same_pixels,
    same_vectors,
)
from cbir.evaluation.evaluate import TASKS, Answers, Collection, TaskQueries, Values
from cbir.evaluation.metrics import mean
from cbir.evaluation.params import EvaluateParams
from cbir.evaluation.relevance import run_table
from cbir.evaluation.statistics import LEVEL, bounds_of_means, classes_of

IMAGE, GALLERY_IMAGE, TEXT = "image", "gallery image", "text"  # who asks an index
_CONFUSED_RESULTS = 10
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Done:
    """What one task and encoder got by exact search, for the figures without duplicates."""

    task: str
    encoder: str
    asked: TaskQueries
    values: Values
    categorised: int


class Findings:
    """Gathers what evaluate writes into `reports/`."""

    def __init__(self, out: Path, gallery: Collection, params: EvaluateParams) -> None:
        self._out, self._gallery, self._params = out, gallery, params
        self._image_queries = gallery.queries.filter(pa.compute.equal(gallery.queries["task"], "cbir"))
        groups = (*TASKS, "subsets", "categories", "without_duplicates", "ann", "ann_cost")
        self._metrics: dict[str, Any] = {name: {} for name in (*groups, "ceilings", "chance")}
        self._intervals: dict[str, Any] = {name: {} for name in groups}
        self._done: list[_Done] = []
        self._per_query: list[pa.Table] = []
        self._classes: list[pa.Table] = []
        self._confusions: list[pa.Table] = []
        self._pairs: list[DuplicatePair] = []
        self._index_bytes: dict[str, int] = {}

    def add_index(self, encoder: str, folder: Path) -> None:
        """Note the size of an encoder's index."""
        self._index_bytes[encoder] = (folder / "index.faiss").stat().st_size

    def add(self, encoder: str, task: str, asked: TaskQueries, answers: Mapping[str, Answers]) -> None:
        """Add a task's answers and write its runs, the index's and the exact one (`..._exact.parquet`)."""
        exact, indexed = answers["exact"], answers["index"]
        categorised = sum(int((~np.isnan(column)).sum()) for column in [*exact.categories.values()][:1])
        self._done.append(_Done(task, encoder, asked, exact.values, categorised))
        everyone = np.ones(len(asked.ids), bool)
        self._put((task, encoder), exact.values, asked, everyone)
        self._metrics["ceilings"][task] = mean(exact.ceilings)
        self._metrics["chance"][task] = mean(exact.chance)
        for subset, rows in _subsets(asked.table):
            self._put(("subsets", task, encoder, subset), exact.values, asked, rows)
        if exact.categories:
            self._put(("categories", encoder), exact.categories, asked, everyone)
        cost = {name: exact.values[name] - value for name, value in indexed.values.items() if _is_of_users(name)}
        for who, rows in _askers(task, asked.own):
            self._put(("ann", encoder, who), indexed.values, asked, rows)
            self._put(("ann_cost", encoder, who), cost, asked, rows)
        if task == "cbir":
            least = self._params.duplicate_cosine
            self._pairs += same_vectors(exact.near_scores, exact.near_positions, encoder, least)
        self._add_classes(task, encoder, asked, exact)
        for name in ("index", "exact"):
            run = run_table(asked.ids, answers[name].scores, answers[name].positions, self._gallery.ids)
            write_run(ReportPaths(self._out).run(task, encoder, name), run)
            values = answers[name].values | answers[name].categories
            self._per_query.append(_per_query_table(task, encoder, name, asked.table, values))

    def audit(self, images: Path) -> None:
        """Look for image queries whose picture is in the gallery too."""
        columns = ["image_id", "sha256", "fingerprint"]
        gallery, queries = (read_columns(images / kind, columns) for kind in ("gallery", "queries"))
        every = pa.concat_tables([queries, gallery])
        ids = self._image_queries["image_id"].combine_chunks()
        places, own = (positions_of(ids, among) for among in (every["image_id"].combine_chunks(), self._gallery.ids))
        asked, searched = Pictures.of(every.take(pa.array(places))), Pictures.of(gallery)
        self._pairs = [pair for pair in self._pairs if alike(pair, asked, searched)]
        self._pairs += [*same_bytes(asked, searched, own), *same_pixels(asked, searched, own)]

    def write(self) -> None:
        """Write metrics.json with its intervals and definitions, and the tables; empty ones without queries."""
        queries = self._gallery.queries
        self._put_without_duplicates()
        data = {
            "gallery_images": len(self._gallery.ids),
            "queries": queries.num_rows,
            "queries_without_relevant": {one.task: _without_relevant(one) for one in self._done},
            "duplicates": self._duplicates(),
            "index_bytes": self._index_bytes,
        }
        write_json(self._out / "metrics.json", {**self._metrics, "data": data})
        about = {"level": LEVEL, "resamples": self._params.resamples, "seed": self._params.seed, "drawn": "classes"}
        write_json(self._out / "intervals.json", {**self._intervals, "about": about})
        write_json(self._out / "definitions.json", self._definitions())
        write_json(self._out / "test_collection.json", self._gallery.collection)
        ids = self._image_queries["query_id"].combine_chunks()
        write_duplicates(
            self._out / "duplicates.parquet", pairs_table(self._pairs, ids, self._gallery.ids, DUPLICATE_SCHEMA)
        )
        write_class_table(self._out / "classes.parquet", _stacked(self._classes))
        write_confusions(
            self._out / "confusions.parquet", pa.concat_tables([CONFUSION_SCHEMA.empty_table(), *self._confusions])
        )
        tables = self._per_query or [_per_query_table("", "", "", queries.slice(0, 0), {})]
        write_per_query(self._out / "per_query.parquet", _stacked(tables))
        (self._out / "runs").mkdir(parents=True, exist_ok=True)

    def _put(self, path: tuple[str, ...], values: Values, asked: TaskQueries, rows: Mask) -> None:
        """Means and their intervals over these rows, under the same keys of metrics.json and intervals.json."""
        chosen = {name: column[rows] for name, column in values.items()}
        classes = classes_of(asked.table["label"].filter(pa.array(rows)).to_pylist())
        bounds = bounds_of_means(chosen, classes, self._params.resamples, self._params.seed)
        for into, found in ((self._metrics, mean(chosen)), (self._intervals, bounds)):
            for key in path[:-1]:
                into = into.setdefault(key, {})
            into[path[-1]] = found

    def _put_without_duplicates(self) -> None:
        doubled = sorted({pair.query for pair in self._pairs})
        for one in self._done:
            if doubled and one.task == "cbir":
                others = np.ones(len(one.asked.ids), bool)
                others[doubled] = False
                if not others.any():
                    continue
                self._put(("without_duplicates", one.encoder), one.values, one.asked, others)

    def _duplicates(self) -> dict[str, int]:
        """How many queries have a duplicate, and how many by each way of finding."""
        ways = [BYTES, PIXELS, *dict.fromkeys(one.encoder for one in self._done if one.task == "cbir")]
        by = {way: len({pair.query for pair in self._pairs if pair.found_by == way}) for way in ways}
        return {"queries": len({pair.query for pair in self._pairs}), **by}

    def _add_classes(self, task: str, encoder: str, asked: TaskQueries, exact: Answers) -> None:
        classes = self._gallery.classes
        wanted = classes.of_queries(asked.table["label"].combine_chunks())
        n_queries, means = class_means(exact.values, wanted, len(classes.labels))
        asked_for = np.flatnonzero(n_queries)
        columns: dict[str, Any] = {
            "label": pa.array(classes.labels, pa.string()).take(pa.array(asked_for)),
            "name": pa.array(classes.names, pa.string()).take(pa.array(asked_for)),
            "queries": n_queries[asked_for],
        }
        columns |= {name: pa.array(column[asked_for], from_pandas=True) for name, column in means.items()}
        self._classes.append(_of(task, encoder, pa.table(columns)))
        near = exact.near_positions[:, :_CONFUSED_RESULTS]
        found = np.where(near == MISSING, MISSING, classes.of_gallery[near])
        pairs = confusions(found, wanted, len(classes.labels))
        table = pa.table(
            {
                "label": pa.array([classes.labels[one] for one, _, _ in pairs], pa.string()),
                "found": pa.array([classes.labels[other] for _, other, _ in pairs], pa.string()),
                "found_name": pa.array([classes.names[other] for _, other, _ in pairs], pa.string()),
                "share": pa.array([share for *_, share in pairs], pa.float64()),
            }
        )
        self._confusions.append(_of(task, encoder, table).cast(CONFUSION_SCHEMA))

    def _definitions(self) -> dict[str, Any]:
        """Metric -> what it is, and by task the best that any ranking could reach, and over how many queries it is."""
        names: dict[str, dict[str, Any]] = {}
        for one in self._done:
            judged = len(one.asked.ids) - _without_relevant(one)
            ceilings = self._metrics["ceilings"][one.task]
            for name in self._metrics[one.task][one.encoder]:
                names.setdefault(name, {})[one.task] = {"queries": judged, "ceiling": ceilings.get(name, 1.0)}
            for k in self._params.ann_ks:
                names.setdefault(f"ann_recall@{k}", {})[one.task] = {"queries": len(one.asked.ids), "ceiling": 1.0}
            for name in self._metrics["categories"].get(one.encoder, {}) if one.task == "cbir" else {}:
                names.setdefault(name, {})[one.task] = {"queries": one.categorised, "ceiling": 1.0}
        return {name: {**define(name), "tasks": tasks} for name, tasks in names.items()}


def _is_of_users(metric: str) -> bool:
    """What users care about when an index is approximate."""
    return metric == "map_at_r" or metric.startswith("precision@")


def _without_relevant(one: _Done) -> int:
    return int(np.isnan(one.values["mrr"]).sum())


def _askers(task: str, own: Positions) -> Iterator[tuple[str, Mask]]:
    """Who asks the index, and their rows: an image that the index holds is found more easily than another."""
    if task == "tbir":
        yield TEXT, np.ones(len(own), bool)
        return
    for who, rows in ((IMAGE, own == MISSING), (GALLERY_IMAGE, own != MISSING)):
        if rows.any():
            yield who, rows


def _subsets(table: pa.Table) -> Iterator[tuple[str, Mask]]:
    """Every subset with its rows; "captions/unseen" is a subset of "captions" too."""
    names = table["subset"].to_pylist()
    wholes = [[] if name is None else list(accumulate(name.split("/"), "{}/{}".format)) for name in names]
    for subset in sorted({name for within in wholes for name in within}):
        yield subset, np.array([subset in within for within in wholes])


def _of(task: str, encoder: str, table: pa.Table) -> pa.Table:
    """The table with the columns task and encoder before the others."""
    n = table.num_rows
    first = {"task": pa.array([task] * n, pa.string()), "encoder": pa.array([encoder] * n, pa.string())}
    return pa.table(first | {name: table[name] for name in table.column_names})


def _stacked(tables: list[pa.Table]) -> pa.Table:
    """Tables one below the other; a column that one lacks is null there."""
    return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})


def _per_query_table(task: str, encoder: str, searched: str, queries: pa.Table, values: Values) -> pa.Table:
    n = queries.num_rows
    columns: dict[str, Any] = {
        "query_id": queries["query_id"],
        "task": pa.array([task] * n, pa.string()),
        "encoder": pa.array([encoder] * n, pa.string()),
        "search": pa.array([searched] * n, pa.string()),
        "subset": queries["subset"],
        "label": queries["label"],
    }
    columns |= {name: pa.array(column, from_pandas=True) for name, column in values.items()}  # NaN -> null
    return pa.table(columns)
