"""Run the query list against each encoder's index and against exact search, and measure both.

The metrics of an encoder come from exact search over the whole gallery: they are the encoder's own.  What the index loses is
measured beside them: ann_recall@k against the exact neighbours, and the same metrics over what the index returned.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cbir.artifacts.files import hash_ids, write_json
from cbir.artifacts.images import read_columns
from cbir.artifacts.queries import read_qrels, read_query_list
from cbir.artifacts.runs import write_per_query, write_run
from cbir.artifacts.vectors import MISSING, Positions, VectorSet, check_passport, open_vectors, positions_of
from cbir.config import EvaluateParams
from cbir.definitions import define
from cbir.errors import ConfigError, PassportError
from cbir.exact import exact_scores, top_k
from cbir.index import SearchParams, search
from cbir.indexing import open_index
from cbir.metrics import (
    RelevantRanks,
    ann_recall_at_k,
    chance_precision,
    mean,
    per_query,
    precision_ceiling_at_k,
    ranks_of_relevant,
    recall_ceiling_at_k,
)
from cbir.progress import progress
from cbir.retrieval import Relevance, Scores, run_table, without_self
from cbir.statistics import LEVEL, Ints, classes_of, interval_of_means

TASKS = {"cbir": ("image_id", "queries", "image"), "tbir": ("query_id", "texts", "text")}
_DEFAULT_DEPTH = 100
_BATCH_QUERIES = 1024  # FAISS multiplies matrices from some 250 queries on: 8 times as fast (1.15.1, flat, 1 thread)
_BLOCK_QUERIES = 128
_BLOCK_SCORES = 2**25  # scores held at a time: 128 MB as float32
_TIE_TOLERANCE = 1e-6  # float32 inner products of one pair differ by about 2e-7 with the order of summation

Values = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Gallery:
    """What is searched: ids, labels and the judgements of all queries.

    collection : rows and hash of gallery, queries and judgements; runs are compared only where they share all three.
    """

    ids: pa.Array
    relevance: Relevance
    queries: pa.Table
    collection: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Asked:
    """The queries of one task for one encoder.

    vectors : (n, dim) float32.  own : (n,) the position of each query's own image in the gallery, or MISSING.
    """

    ids: list[str]
    table: pa.Table
    vectors: npt.NDArray[np.float32]
    own: Positions


@dataclass(frozen=True)
class Answers:
    """What a task's queries got: per-query values of every metric, and the ranked results to the run's depth.

    ceilings, chance : what the best and a random ranking would reach.
    """

    values: Values
    ceilings: Values
    chance: Values
    scores: Scores
    positions: Positions


def open_gallery(images: Path, queries: Path) -> Gallery:
    """Read ids and labels of the gallery, the query list and its judgements."""
    columns = read_columns(images / "gallery", ["image_id", "label", "sha256"])
    ids, labels = (columns[name].combine_chunks() for name in ("image_id", "label"))
    query_list, qrels = read_query_list(queries / "query_list.parquet"), read_qrels(queries / "qrels.parquet")
    collection = {"gallery": _identity(columns), "queries": _identity(query_list), "judgements": _identity(qrels)}
    return Gallery(ids, Relevance(ids, labels, query_list, qrels), query_list, collection)


def _identity(table: pa.Table) -> dict[str, Any]:
    batches = table.combine_chunks().to_batches(max_chunksize=1024)  # the same, however the table was sharded
    cells = (repr(cell) for batch in batches for column in batch.columns for cell in column.to_pylist())
    return {"rows": table.num_rows, "sha256": hash_ids(cells)}


def open_asked(folder: Path, encoder: str, task: str, gallery: Gallery, vectors: VectorSet) -> Asked | None:
    """The queries of a task with their vectors; None when there are none, or the encoder reads no text.

    Raises PassportError when they were not made as the gallery's `vectors` were.
    """
    id_column, kind, _ = TASKS[task]
    table = gallery.queries.filter(pa.compute.equal(gallery.queries["task"], task))
    if not (folder / kind).exists() or table.num_rows == 0:
        return None
    found = open_vectors(folder, encoder, kind)
    maker = {name: value for name, value in vectors.passport.items() if name != "rows"}
    check_passport(found.passport, maker, f"{folder / kind} beside the gallery's")
    rows = found.rows(table[id_column].to_pylist(), f"{encoder} {task}")
    own = positions_of(table["image_id"].combine_chunks(), gallery.ids)
    return Asked(table["query_id"].to_pylist(), table, rows, own)


def evaluate_encoder(
    report: "Report",
    gallery: Gallery,
    embeddings: Path,
    indexes: Path,
    encoder: str,
    params: EvaluateParams,
    search_params: SearchParams,
    threads: int,
) -> None:
    """Answer every task that the encoder can, and add the answers to the report.

    Raises PassportError when vectors or index are not this encoder's.
    """
    vectors = open_vectors(embeddings / encoder, encoder, "gallery")
    if not vectors.ids.equals(gallery.ids):
        raise PassportError(f"{embeddings / encoder}: made from another gallery than data/images; run `dvc repro`")
    index = open_index(indexes / encoder, vectors)
    report.index_bytes[encoder] = (indexes / encoder / "index.faiss").stat().st_size
    for task in TASKS:
        asked = open_asked(embeddings / encoder, encoder, task, gallery, vectors)
        if asked is not None:
            depth = check_depths(params, len(gallery.ids), bool((asked.own != MISSING).any()))
            answers = evaluate_task(
                asked, gallery, vectors, index, search_params, params, depth, threads, f"{task} {encoder}"
            )
            report.add(task, encoder, asked, answers)


def check_depths(params: EvaluateParams, n_gallery: int, asks_itself: bool) -> int:
    """The depth of the runs.

    asks_itself : whether a query is a gallery image, which is left out of its own results.
    Raises ConfigError when a k or the depth is larger than what there is to retrieve, or a k is larger than the depth.
    """
    most = n_gallery - asks_itself
    depth = min(_DEFAULT_DEPTH, most) if params.run_depth is None else params.run_depth
    asked = {"ks": params.ks, "ann_ks": params.ann_ks, "run_depth": [depth]}
    too_deep = {name: ks for name, ks in asked.items() if ks[-1] > most}
    if too_deep:
        name, ks = next(iter(too_deep.items()))
        left_out = ", less the query's own image" if asks_itself else ""
        mended = " ".join(_override(name, [k for k in ks if k <= most] or [most]) for name, ks in too_deep.items())
        raise ConfigError(
            f"evaluate.{name}: k = {ks[-1]} is larger than the gallery of {n_gallery} images{left_out}: "
            f"set evaluate.{name} to values <= {most}; add {mended} to your overrides of `python -m cbir.compose`"
        )
    if params.ks[-1] > depth:
        raise ConfigError(
            f"evaluate.run_depth: expected at least the largest of evaluate.ks, {params.ks[-1]}, found {depth}: "
            f"set evaluate.run_depth to a value from {params.ks[-1]} to {most}"
        )
    return depth


def _override(name: str, ks: Sequence[int]) -> str:
    """How a command line sets evaluate.`name`: a list but for the run's depth."""
    return f"evaluate.run_depth={ks[-1]}" if name == "run_depth" else f"'evaluate.{name}={ks}'".replace(" ", "")


def evaluate_task(
    asked: Asked,
    gallery: Gallery,
    vectors: VectorSet,
    index: faiss.Index,
    search_params: SearchParams,
    params: EvaluateParams,
    depth: int,
    threads: int,
    title: str,
) -> dict[str, Answers]:
    """Answer the queries by exact search and by the index: {"exact": ..., "index": ...}.

    Memory holds one block of queries against the gallery, never all of them.
    """
    # One result more, for the query's own image: for all queries or for none, or a result would depend on its neighbours.
    spare = int((asked.own != MISSING).any())
    deepest = max(depth, params.ann_ks[-1])
    found = _search_index(asked, index, {depth, *params.ann_ks}, spare, search_params, threads, title)
    blocks: dict[str, list[Answers]] = {"exact": [], "index": []}
    rows = max(1, min(_BLOCK_QUERIES, _BLOCK_SCORES // len(gallery.ids)))
    with progress(len(asked.ids), f"evaluate {title}", "queries") as bar:
        for start in range(0, len(asked.ids), rows):
            block = slice(start, start + rows)
            own = asked.own[block]
            relevant = [
                gallery.relevance.of(query_id, mine) for query_id, mine in zip(asked.ids[block], own, strict=True)
            ]
            scores = exact_scores(asked.vectors[block], vectors.parts)
            best = without_self(*top_k(scores, deepest + spare), own, deepest)
            blocks["exact"].append(_exact_answers(scores, best, relevant, own, params, depth))
            run = (found[depth][0][block], found[depth][1][block])
            answers = _index_answers(run, relevant, params)
            for k in params.ann_ks:
                answers.values[f"ann_recall@{k}"] = _ann_recall(found[k][1][block], scores, best[0], k)
            blocks["index"].append(answers)
            bar.advance(len(own))
    return {name: _joined(parts) for name, parts in blocks.items()}


def _search_index(
    asked: Asked,
    index: faiss.Index,
    ks: set[int],
    spare: int,
    params: SearchParams,
    threads: int,
    title: str,
) -> dict[int, tuple[Scores, Positions]]:
    """What the index returns for each k, asked for k as a user would: a deeper search would find more.

    Batches of one size, each searched by one thread: the last bits of FAISS's scores depend on both.
    """
    found = {}
    batches = [slice(start, start + _BATCH_QUERIES) for start in range(0, len(asked.ids), _BATCH_QUERIES)]
    with (
        ThreadPoolExecutor(threads) as pool,
        progress(len(ks) * len(asked.ids), f"search {title}", "queries") as bar,
    ):
        for k in sorted(ks):

            def answer(batch: slice, k: int = k) -> tuple[Scores, Positions]:
                scores, positions = search(index, asked.vectors[batch], k + spare, params, 1)
                return without_self(scores, positions, asked.own[batch], k)

            parts = []
            for part in pool.map(answer, batches):
                parts.append(part)
                bar.advance(len(part[0]))
            found[k] = (np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))
    return found


def _exact_answers(
    scores: Scores,
    best: tuple[Scores, Positions],
    relevant: Sequence[tuple[Positions, npt.NDArray[np.float64]]],
    own: Positions,
    params: EvaluateParams,
    depth: int,
) -> Answers:
    ranks = [
        ranks_of_relevant(row, positions, None if mine == MISSING else int(mine))
        for row, (positions, _), mine in zip(scores, relevant, own, strict=True)
    ]
    grades = [grade for _, grade in relevant]
    judged = RelevantRanks.from_ranks(ranks, grades, ideal=grades)
    chance = {"precision": chance_precision(judged, scores.shape[1] - (own != MISSING))}
    run = (best[0][:, :depth], best[1][:, :depth])
    return Answers(per_query(judged, params.ks), _ceilings(judged, params.ks), chance, *run)


def _index_answers(
    found: tuple[Scores, Positions],
    relevant: Sequence[tuple[Positions, npt.NDArray[np.float64]]],
    params: EvaluateParams,
) -> Answers:
    relevance = np.zeros(found[1].shape, np.int64)
    for row, (positions, grades) in enumerate(relevant):
        columns = np.flatnonzero(np.isin(found[1][row], positions))
        relevance[row, columns] = grades[np.searchsorted(positions, found[1][row, columns])]
    judged = RelevantRanks.from_relevance(relevance, [grades for _, grades in relevant])
    at_ks = {name: value for name, value in per_query(judged, params.ks).items() if "@" in name or name == "mrr"}
    return Answers(at_ks, {}, {}, *found)


def _ann_recall(positions: Positions, scores: Scores, best: Scores, k: int) -> npt.NDArray[np.float64]:
    """positions : what the index returned.  scores : of the whole gallery.  best : of the exact neighbours."""
    found = np.where(positions == MISSING, np.float32(-np.inf), np.take_along_axis(scores, np.maximum(positions, 0), 1))
    return ann_recall_at_k(found, best, k, _TIE_TOLERANCE)


def _ceilings(judged: RelevantRanks, ks: Sequence[int]) -> Values:
    found: Values = {}
    for k in ks:
        found[f"precision@{k}"] = precision_ceiling_at_k(judged, k)
        found[f"recall@{k}"] = recall_ceiling_at_k(judged, k)
    return found


def _joined(parts: Sequence[Answers]) -> Answers:
    def join(dicts: Sequence[Values]) -> Values:
        return {name: np.concatenate([values[name] for values in dicts]) for name in dicts[0]}

    return Answers(
        join([part.values for part in parts]),
        join([part.ceilings for part in parts]),
        join([part.chance for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.positions for part in parts]),
    )


class Report:
    """Gathers what evaluate writes into `reports/`."""

    def __init__(self, out: Path, gallery: Gallery, params: EvaluateParams) -> None:
        self._out, self._gallery, self._params = out, gallery, params
        self._metrics: dict[str, Any] = {name: {} for name in (*TASKS, "subsets", "ceilings", "chance", "ann")}
        self._intervals: dict[str, Any] = {name: {} for name in (*TASKS, "subsets", "ann")}
        self._queries: dict[str, int] = {}
        self._per_query: list[pa.Table] = []
        self._without_relevant: dict[str, int] = {}
        self.index_bytes: dict[str, int] = {}

    def add(self, task: str, encoder: str, asked: Asked, answers: Mapping[str, Answers]) -> None:
        """Add a task's answers and write its runs, the index's and the exact one (`..._exact.parquet`)."""
        exact, indexed, modality = answers["exact"], answers["index"], TASKS[task][2]
        classes = classes_of(asked.table["label"].to_pylist())
        self._metrics[task][encoder] = mean(exact.values)
        self._intervals[task][encoder] = self._interval_of(exact.values, classes)
        self._metrics["ceilings"][task] = mean(exact.ceilings)
        self._metrics["chance"][task] = mean(exact.chance)
        self._metrics["ann"].setdefault(encoder, {})[modality] = mean(indexed.values)
        self._intervals["ann"].setdefault(encoder, {})[modality] = self._interval_of(indexed.values, classes)
        for subset, rows in _subsets(asked.table):
            chosen = {name: values[rows] for name, values in exact.values.items()}
            self._metrics["subsets"].setdefault(task, {}).setdefault(encoder, {})[subset] = mean(chosen)
            interval = self._interval_of(chosen, classes[rows])
            self._intervals["subsets"].setdefault(task, {}).setdefault(encoder, {})[subset] = interval
        self._without_relevant[task] = int(np.isnan(exact.values["mrr"]).sum())
        self._queries[task] = len(asked.ids)
        for name, suffix in (("index", ""), ("exact", "_exact")):
            run = run_table(asked.ids, answers[name].scores, answers[name].positions, self._gallery.ids)
            write_run(self._out / "runs" / f"run_{task}_{encoder}{suffix}.parquet", run)
            self._per_query.append(_per_query_table(task, encoder, name, asked.table, answers[name].values))

    def write(self) -> None:
        """Write metrics.json with its intervals and definitions, and per_query.parquet; an empty table without queries."""
        queries = self._gallery.queries
        data = {
            "gallery_images": len(self._gallery.ids),
            "queries": queries.num_rows,
            "queries_without_relevant": self._without_relevant,
            "index_bytes": self.index_bytes,
        }
        write_json(self._out / "metrics.json", {**self._metrics, "data": data})
        about = {"level": LEVEL, "resamples": self._params.resamples, "seed": self._params.seed, "drawn": "classes"}
        write_json(self._out / "intervals.json", {**self._intervals, "about": about})
        write_json(self._out / "definitions.json", self._definitions())
        write_json(self._out / "test_collection.json", self._gallery.collection)
        tables = self._per_query or [_per_query_table("", "", "", queries.slice(0, 0), {})]
        write_per_query(self._out / "per_query.parquet", pa.concat_tables(tables, promote_options="default"))
        (self._out / "runs").mkdir(parents=True, exist_ok=True)

    def _interval_of(self, values: Values, classes: Ints) -> dict[str, list[float]]:
        """Metric -> [low, high]; without those that have none."""
        found = interval_of_means(
            np.column_stack([*values.values()]), classes, self._params.resamples, self._params.seed
        )
        # the digits beyond are the draw's chance, and in the last ones the matrix product's
        return {
            name: [round(one.low, 6), round(one.high, 6)]
            for name, one in zip(values, found, strict=True)
            if one is not None
        }

    def _definitions(self) -> dict[str, Any]:
        """Metric -> what it is, and by task the best that any ranking could reach, and over how many queries it is."""
        names: dict[str, dict[str, Any]] = {}
        for task, number in self._queries.items():
            judged = number - self._without_relevant[task]
            found = dict.fromkeys(name for values in self._metrics[task].values() for name in values)
            ceilings = self._metrics["ceilings"][task]
            for name in found:
                names.setdefault(name, {})[task] = {"queries": judged, "ceiling": ceilings.get(name, 1.0)}
            for k in self._params.ann_ks:
                names.setdefault(f"ann_recall@{k}", {})[task] = {"queries": number, "ceiling": 1.0}
        return {name: {**define(name), "tasks": tasks} for name, tasks in names.items()}


def _subsets(table: pa.Table) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Every subset with its rows; "captions/unseen" is a subset of "captions" too."""
    names = table["subset"].to_pylist()
    wholes = [[] if name is None else list(accumulate(name.split("/"), "{}/{}".format)) for name in names]
    for subset in sorted({name for within in wholes for name in within}):
        yield subset, np.array([subset in within for within in wholes])


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
