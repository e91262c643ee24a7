"""Write the evaluation of an encoder: means with intervals, runs, values per query and class, and duplicates."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.images import read_columns
from cbir.artifacts.metrics import (
    GALLERY_IMAGE,
    IMAGE,
    TEXT,
    Counts,
    Intervals,
    Means,
    Metrics,
    write_headline,
    write_intervals,
    write_metrics,
)
from cbir.artifacts.names import SEARCHES
from cbir.artifacts.paths import EvaluationPaths
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
from cbir.evaluation.collection import Collection, TaskQueries
from cbir.evaluation.definitions import define
from cbir.evaluation.duplicates import (
    BYTES,
    PIXELS,
    DuplicatePair,
    Pictures,
    pairs_table,
    same_bytes,
    same_pixels,
    same_vectors,
    similar_pixels,
)
from cbir.evaluation.evaluate import SearchEvaluation, Values
from cbir.evaluation.metrics import headline_k, mean
from cbir.evaluation.params import EvaluateParams
from cbir.evaluation.relevance import run_table
from cbir.evaluation.statistics import LEVEL, bounds_of_means, classes_of
from cbir.index.storage import index_bytes

_CONFUSED_RESULTS = 10
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Evaluated:
    """A task: the values of exact search, and the number of queries with a predicted class."""

    task: str
    queries: TaskQueries
    values: Values
    n_classified: int

    @property
    def n_without_relevant(self) -> int:
        return int(np.isnan(self.values["mrr"]).sum())


class ResultsWriter:
    """Collects the evaluations of an encoder's tasks and writes them.

    params : with ks that fit the gallery.  left_out : the others, from `cbir.evaluation.depths`.
    """

    def __init__(
        self,
        out: EvaluationPaths,
        encoder: str,
        collection: Collection,
        params: EvaluateParams,
        left_out: dict[str, list[int]],
    ) -> None:
        self._paths, self._encoder, self._collection, self._params = out, encoder, collection, params
        self._image_queries = collection.queries.filter(pc.equal(collection.queries["task"], "cbir"))
        self._metrics = Metrics(
            data=Counts(
                gallery_images=len(collection.gallery_ids),
                queries=collection.queries.num_rows,
                queries_without_relevant={},
                duplicates={},
                index_bytes={},
                ks_left_out=left_out,
            )
        )
        self._intervals = Intervals()
        self._evaluated: list[_Evaluated] = []
        self._per_query: list[pa.Table] = []
        self._classes: list[pa.Table] = []
        self._confusions: list[pa.Table] = []
        self._pairs: list[DuplicatePair] = []

    def add_index(self, folder: Path) -> None:
        """Record the size of the index."""
        self._metrics.data.index_bytes[self._encoder] = index_bytes(folder)

    def add(self, task: str, queries: TaskQueries, searches: Mapping[str, SearchEvaluation]) -> None:
        """Add the evaluations of a task and write its runs, of the index and of exact search."""
        exact, index, encoder = searches["exact"], searches["index"], self._encoder
        n_classified = sum(int((~np.isnan(column)).sum()) for column in [*exact.accuracies.values()][:1])
        self._evaluated.append(_Evaluated(task, queries, exact.values, n_classified))
        all_rows = np.ones(len(queries.ids), bool)
        self._add_means((task, encoder), exact.values, queries, all_rows)
        self._metrics.ceilings[task] = mean(exact.ceilings)
        self._metrics.chance[task] = mean(exact.chance)
        for subset, rows in _subsets(queries.table):
            self._add_means(("subsets", task, encoder, subset), exact.values, queries, rows)
        if exact.accuracies:
            self._add_means(("categories", encoder), exact.accuracies, queries, all_rows)
        cost = {name: exact.values[name] - column for name, column in index.values.items() if _is_cost(name)}
        for kind, rows in _kinds_of_queries(task, queries.own_positions):
            self._add_means(("ann", encoder, kind), index.values, queries, rows)
            self._add_means(("ann_cost", encoder, kind), cost, queries, rows)
        if task == "cbir":
            min_cosine = self._params.duplicate_cosine
            self._pairs += same_vectors(exact.nearest_scores, exact.nearest_positions, encoder, min_cosine)
        self._add_classes(task, queries, exact)
        for search in SEARCHES:
            evaluation = searches[search]
            run = run_table(queries.ids, evaluation.scores, evaluation.positions, self._collection.gallery_ids)
            write_run(self._paths.run(task, search), run)
            values = evaluation.values | evaluation.accuracies
            self._per_query.append(_per_query_table(task, encoder, search, queries.table, values))

    def add_duplicates(self, images: Path) -> None:
        """Detect image queries whose picture is also in the gallery."""
        columns = ["image_id", "sha256", "fingerprint"]
        gallery, queries = (read_columns(images / kind, columns) for kind in ("gallery", "queries"))
        all_images = pa.concat_tables([queries, gallery])
        ids = self._image_queries["image_id"].combine_chunks()
        rows = positions_of(ids, all_images["image_id"].combine_chunks())
        own_positions = positions_of(ids, self._collection.gallery_ids)
        query_pictures, gallery_pictures = Pictures.of(all_images.take(pa.array(rows))), Pictures.of(gallery)
        self._pairs = [pair for pair in self._pairs if similar_pixels(pair, query_pictures, gallery_pictures)]
        self._pairs += same_bytes(query_pictures, gallery_pictures, own_positions)
        self._pairs += same_pixels(query_pictures, gallery_pictures, own_positions)

    def write(self) -> None:
        """Write metrics.json with its intervals and definitions, and the tables, which are empty without queries."""
        self._add_means_without_duplicates()
        counts = self._metrics.data
        counts.queries_without_relevant = {done.task: done.n_without_relevant for done in self._evaluated}
        counts.duplicates = self._duplicate_counts()
        write_metrics(self._paths.metrics, self._metrics)
        self._intervals.about = {
            "level": LEVEL,
            "resamples": self._params.resamples,
            "seed": self._params.seed,
            "drawn": "classes",
        }
        write_intervals(self._paths.intervals, self._intervals)
        write_json(self._paths.definitions, self._definitions())
        write_json(self._paths.test_collection, self._collection.identity)
        query_ids = self._image_queries["query_id"].combine_chunks()
        write_duplicates(
            self._paths.duplicates,
            pairs_table(self._pairs, query_ids, self._collection.gallery_ids, DUPLICATE_SCHEMA),
        )
        write_class_table(self._paths.classes, _stacked(self._classes))
        write_confusions(self._paths.confusions, pa.concat_tables([CONFUSION_SCHEMA.empty_table(), *self._confusions]))
        no_queries = self._collection.queries.slice(0, 0)
        tables = self._per_query or [_per_query_table("", "", "", no_queries, {})]
        write_per_query(self._paths.per_query, _stacked(tables))
        self._paths.runs.mkdir(parents=True, exist_ok=True)

    def write_headline(self, path: Path) -> None:
        """Write the metrics by which runs are usually compared, with the k nearest to 10."""
        k, ann_k = (headline_k(ks) for ks in (self._params.ks, self._params.ann_ks))
        names = (f"precision@{k}", f"success@{min(self._params.ks)}", "map_at_r")
        headline: dict[str, dict[str, Means]] = {}
        for done in self._evaluated:
            means = self._metrics.of_task(done.task)[self._encoder]
            kinds = [kind for kind, _ in _kinds_of_queries(done.task, done.queries.own_positions)]
            with_index = self._metrics.ann[self._encoder][kinds[0]]
            recall = f"ann_recall@{ann_k}"
            headline[done.task] = {
                self._encoder: {name: means[name] for name in names if name in means}
                | ({recall: with_index[recall]} if recall in with_index else {})
            }
        write_headline(path, headline)

    def _add_means(self, path: tuple[str, ...], values: Values, queries: TaskQueries, rows: Mask) -> None:
        """Means over these rows and their intervals, under the same keys of metrics.json and intervals.json."""
        chosen = {name: column[rows] for name, column in values.items()}
        classes = classes_of(queries.table["label"].filter(pa.array(rows)).to_pylist())
        bounds = bounds_of_means(chosen, classes, self._params.resamples, self._params.seed)
        group, *keys, last = path
        for groups, result in ((self._metrics, mean(chosen)), (self._intervals, bounds)):
            into: dict[str, Any] = getattr(groups, group)
            for key in keys:
                into = into.setdefault(key, {})
            into[last] = result

    def _add_means_without_duplicates(self) -> None:
        with_duplicate = sorted({pair.query for pair in self._pairs})
        for done in self._evaluated:
            if with_duplicate and done.task == "cbir":
                others = np.ones(len(done.queries.ids), bool)
                others[with_duplicate] = False
                if others.any():
                    self._add_means(("without_duplicates", self._encoder), done.values, done.queries, others)

    def _duplicate_counts(self) -> dict[str, int]:
        """The number of queries with a duplicate, by each way of comparing."""
        ways = (BYTES, PIXELS, self._encoder)
        return {way: len({pair.query for pair in self._pairs if pair.found_by == way}) for way in ways}

    def _add_classes(self, task: str, queries: TaskQueries, exact: SearchEvaluation) -> None:
        classes = self._collection.classes
        query_classes = classes.of_queries(queries.table["label"].combine_chunks())
        n_queries, means = class_means(exact.values, query_classes, len(classes.labels))
        with_queries = np.flatnonzero(n_queries)
        columns: dict[str, Any] = {
            "label": pa.array(classes.labels, pa.string()).take(pa.array(with_queries)),
            "name": pa.array(classes.names, pa.string()).take(pa.array(with_queries)),
            "queries": n_queries[with_queries],
        }
        columns |= {name: pa.array(column[with_queries], from_pandas=True) for name, column in means.items()}
        self._classes.append(_with_task(task, self._encoder, pa.table(columns)))
        nearest = exact.nearest_positions[:, :_CONFUSED_RESULTS]
        result_classes = np.where(nearest == MISSING, MISSING, classes.of_gallery[nearest])
        pairs = confusions(result_classes, query_classes, len(classes.labels))
        table = pa.table(
            {
                "label": pa.array([classes.labels[of_query] for of_query, _, _ in pairs], pa.string()),
                "found": pa.array([classes.labels[of_result] for _, of_result, _ in pairs], pa.string()),
                "found_name": pa.array([classes.names[of_result] for _, of_result, _ in pairs], pa.string()),
                "share": pa.array([share for *_, share in pairs], pa.float64()),
            }
        )
        self._confusions.append(_with_task(task, self._encoder, table).cast(CONFUSION_SCHEMA))

    def _definitions(self) -> dict[str, Any]:
        """Metric -> its definition and, by task, its ceiling and the number of queries that it is defined for."""
        by_task: dict[str, dict[str, Any]] = {}
        for done in self._evaluated:
            n_judged = len(done.queries.ids) - done.n_without_relevant
            ceilings = self._metrics.ceilings[done.task]
            for name in self._metrics.of_task(done.task)[self._encoder]:
                by_task.setdefault(name, {})[done.task] = {"queries": n_judged, "ceiling": ceilings.get(name, 1.0)}
            for k in self._params.ann_ks:
                of_ann = {"queries": len(done.queries.ids), "ceiling": 1.0}
                by_task.setdefault(f"ann_recall@{k}", {})[done.task] = of_ann
            for name in self._metrics.categories.get(self._encoder, {}) if done.task == "cbir" else {}:
                by_task.setdefault(name, {})[done.task] = {"queries": done.n_classified, "ceiling": 1.0}
        return {name: {**define(name), "tasks": tasks} for name, tasks in by_task.items()}


def _is_cost(metric: str) -> bool:
    """Whether the loss in this metric is reported as the cost of an approximate index."""
    return metric == "map_at_r" or metric.startswith("precision@")


def _kinds_of_queries(task: str, own_positions: Positions) -> Iterator[tuple[str, Mask]]:
    """The kinds of queries to an index and their rows; a gallery image is retrieved more easily by an index that holds it."""
    if task == "tbir":
        yield TEXT, np.ones(len(own_positions), bool)
        return
    for kind, rows in ((IMAGE, own_positions == MISSING), (GALLERY_IMAGE, own_positions != MISSING)):
        if rows.any():
            yield kind, rows


def _subsets(table: pa.Table) -> Iterator[tuple[str, Mask]]:
    """Each subset and its rows; "captions/unseen" is part of "captions" as well."""
    names = table["subset"].to_pylist()
    with_parents = [[] if name is None else list(accumulate(name.split("/"), "{}/{}".format)) for name in names]
    for subset in sorted({name for names in with_parents for name in names}):
        yield subset, np.array([subset in names for names in with_parents])


def _with_task(task: str, encoder: str, table: pa.Table) -> pa.Table:
    """The table with the columns task and encoder before the others."""
    n = table.num_rows
    first = {"task": pa.array([task] * n, pa.string()), "encoder": pa.array([encoder] * n, pa.string())}
    return pa.table(first | {name: table[name] for name in table.column_names})


def _stacked(tables: list[pa.Table]) -> pa.Table:
    """The rows of all tables; a column that a table does not have is null there."""
    return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})


def _per_query_table(task: str, encoder: str, search: str, queries: pa.Table, values: Values) -> pa.Table:
    n = queries.num_rows
    columns: dict[str, Any] = {
        "query_id": queries["query_id"],
        "task": pa.array([task] * n, pa.string()),
        "encoder": pa.array([encoder] * n, pa.string()),
        "search": pa.array([search] * n, pa.string()),
        "subset": queries["subset"],
        "label": queries["label"],
    }
    columns |= {name: pa.array(column, from_pandas=True) for name, column in values.items()}  # NaN -> null
    return pa.table(columns)
