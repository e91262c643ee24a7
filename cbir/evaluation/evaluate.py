"""Run the query list against each encoder's index and against exact search, and measure both.

The metrics of an encoder come from exact search over the whole gallery: they are the encoder's own.  What the index loses is
measured beside them: ann_recall@k against the exact neighbours, and the same metrics over what the index returned.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cbir.artifacts.images import read_columns
from cbir.artifacts.queries import read_qrels, read_query_list
from cbir.artifacts.vectors import MISSING, Positions, VectorSet, check_passport, open_vectors, positions_of
from cbir.core.errors import ConfigError, PassportError
from cbir.core.progress import Progress, progress
from cbir.evaluation.classes import NEIGHBOURS, Classes, accuracies, prototypes, rank_by_prototype, rank_by_votes
from cbir.evaluation.collection import GALLERY_COLUMNS, QUERY_COLUMNS, collection_of
from cbir.evaluation.duplicates import MOST_COPIES
from cbir.evaluation.metrics import (
    RelevantRanks,
    ann_recall_at_k,
    average_precision_at_r,
    chance_precision,
    per_query,
    precision_ceiling_at_k,
    ranks_of_relevant,
    recall_ceiling_at_k,
)
from cbir.evaluation.params import EvaluateParams
from cbir.evaluation.relevance import Relevance, Scores
from cbir.index.exact import exact_scores, top_k, without_self
from cbir.index.faiss_index import SearchParams, kind_of, search
from cbir.index.storage import open_index

TASKS = {"cbir": ("image_id", "queries"), "tbir": ("query_id", "texts")}
_DEFAULT_DEPTH = 100
NEAR = max(NEIGHBOURS, MOST_COPIES + 1)  # results that are looked at for votes, confusions and duplicates
_BATCH_QUERIES = 1024  # FAISS multiplies matrices from some 250 queries on: 8 times as fast (1.15.1, flat, 1 thread)
_BLOCK_QUERIES = 128
_BLOCK_SCORES = 2**25  # scores held at a time: 128 MB as float32
_MOST_R = 1000  # map_at_r of an index asks it for as many results as a query has relevant images, up to here
_TIE_TOLERANCE = 1e-6  # float32 inner products of one pair differ by about 2e-7 with the order of summation

Values = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Collection:
    """What is searched: ids, classes and the judgements of all queries.

    collection : rows and hash of gallery, queries and judgements; runs are compared only where they share all three.
    """

    ids: pa.Array
    relevance: Relevance
    queries: pa.Table
    classes: Classes
    collection: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class TaskQueries:
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

    ceilings, chance : what the best and a random ranking would reach.  near_scores, near_positions : the first NEAR results
    of exact search, however deep the run is.  categories : how well classes are predicted.
    """

    values: Values
    ceilings: Values
    chance: Values
    scores: Scores
    positions: Positions
    near_scores: Scores
    near_positions: Positions
    categories: Values = field(default_factory=dict)


def open_gallery(images: Path, queries: Path) -> Collection:
    """Read ids and labels of the gallery, the query list and its judgements."""
    columns = read_columns(images / "gallery", ["image_id", "label", "label_name", "sha256"])
    ids, labels, names = (columns[name].combine_chunks() for name in ("image_id", "label", "label_name"))
    query_list, qrels = read_query_list(queries / "query_list.parquet"), read_qrels(queries / "qrels.parquet")
    query_images = read_columns(images / "queries", QUERY_COLUMNS)
    collection = collection_of(columns.select(GALLERY_COLUMNS), query_list, query_images, qrels)
    return Collection(ids, Relevance(ids, labels, query_list, qrels), query_list, Classes.of(labels, names), collection)


def open_asked(folder: Path, encoder: str, task: str, gallery: Collection, vectors: VectorSet) -> TaskQueries | None:
    """The queries of a task with their vectors; None when there are none, or the encoder reads no text.

    Raises PassportError when they were not made as the gallery's `vectors` were.
    """
    id_column, kind = TASKS[task]
    table = gallery.queries.filter(pa.compute.equal(gallery.queries["task"], task))
    if not (folder / kind).exists() or table.num_rows == 0:
        return None
    found = open_vectors(folder, encoder, kind)
    maker = {name: value for name, value in vectors.passport.items() if name != "rows"}
    check_passport(found.passport, maker, f"{folder / kind} beside the gallery's")
    rows = found.rows(table[id_column].to_pylist(), f"{encoder} {task}")
    own = positions_of(table["image_id"].combine_chunks(), gallery.ids)
    return TaskQueries(table["query_id"].to_pylist(), table, rows, own)


def evaluate_encoder(
    gallery: Collection,
    embeddings: Path,
    indexes: Path,
    encoder: str,
    params: EvaluateParams,
    search_params: SearchParams,
    threads: int,
) -> Iterator[tuple[str, TaskQueries, dict[str, Answers]]]:
    """Answer every task that the encoder can; yield the task, its queries and what `evaluate_task` says of them.

    Raises PassportError when vectors or index are not this encoder's.
    """
    vectors = open_vectors(embeddings / encoder, encoder, "gallery")
    if not vectors.ids.equals(gallery.ids):
        raise PassportError(f"{embeddings / encoder}: made from another gallery than data/images; run `dvc repro`")
    index = open_index(indexes / encoder, vectors)
    for task in TASKS:
        asked = open_asked(embeddings / encoder, encoder, task, gallery, vectors)
        if asked is not None:
            depth = check_depths(params, len(gallery.ids), bool((asked.own != MISSING).any()))
            answers = evaluate_task(
                asked, gallery, vectors, index, search_params, params, depth, threads, f"{task} {encoder}"
            )
            if task == "cbir":
                answers["exact"] = _with_categories(answers["exact"], asked, gallery, vectors)
            yield task, asked, answers


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
            f"set evaluate.{name} to values <= {most}; add {mended} to your overrides of `cbir compose`"
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
    asked: TaskQueries,
    gallery: Collection,
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
    deepest = min(max(depth, params.ann_ks[-1], NEAR), len(gallery.ids) - spare)
    n_relevant = _numbers_of_relevant(asked, gallery)
    found, by_relevant = _search_index(
        asked, index, {depth, *params.ann_ks}, n_relevant, spare, search_params, threads, title
    )
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
            if by_relevant is not None:
                answers.values["map_at_r"] = average_precision_at_r(_judged(by_relevant[block], relevant))
            for k in params.ann_ks:
                answers.values[f"ann_recall@{k}"] = _ann_recall(found[k][1][block], scores, best[0], k)
            blocks["index"].append(answers)
            bar.advance(len(own))
    return {name: _joined(parts) for name, parts in blocks.items()}


def _search_index(
    asked: TaskQueries,
    index: faiss.Index,
    ks: set[int],
    n_relevant: npt.NDArray[np.int64],
    spare: int,
    params: SearchParams,
    threads: int,
    title: str,
) -> tuple[dict[int, tuple[Scores, Positions]], Positions | None]:
    """What the index returns for each k, and for as many results as each query has relevant images.

    n_relevant : (n,).  The second answer is (n, its maximum), MISSING behind a query's own results, and None where there is
    nothing relevant, or more than _MOST_R.
    Asked for k as a user would: a graph, asked for more, searches wider and finds more, so every k is a search of its own,
    and so are the queries of about as many relevant images (up to the next power of 2).  Any other index is searched once,
    for the most; the first results are those of every smaller k.
    """
    most = int(n_relevant.max(initial=0))
    most = most if most <= _MOST_R else 0
    n_queries, n_images = len(asked.ids), index.ntotal
    by_relevant = np.full((n_queries, most), MISSING)
    if kind_of(index) == "hnsw":
        widths = np.where(n_relevant > 0, 2 ** np.ceil(np.log2(np.maximum(n_relevant, 1))).astype(np.int64), 0)
        wide = [(int(width), np.flatnonzero(widths == width)) for width in np.unique(widths) if most and width]
        with progress(len(ks) * n_queries + sum(len(rows) for _, rows in wide), f"search {title}", "queries") as bar:
            found = {
                k: without_self(*_search_rows(asked.vectors, index, k + spare, params, threads, bar), asked.own, k)
                for k in sorted(ks)
            }
            for width, rows in wide:
                reached = min(width + spare, n_images)
                raw = _search_rows(asked.vectors[rows], index, reached, params, threads, bar)
                kept = without_self(*raw, asked.own[rows], most)[1]
                by_relevant[rows, : kept.shape[1]] = kept
    else:
        with progress(n_queries, f"search {title}", "queries") as bar:
            reached = min(max(*ks, most) + spare, n_images)
            scores, positions = _search_rows(asked.vectors, index, reached, params, threads, bar)
        found = {k: without_self(scores[:, : k + spare], positions[:, : k + spare], asked.own, k) for k in ks}
        kept = without_self(scores, positions, asked.own, most)[1]
        by_relevant[:, : kept.shape[1]] = kept
    return found, by_relevant if most else None


def _search_rows(
    vectors: npt.NDArray[np.float32], index: faiss.Index, k: int, params: SearchParams, threads: int, bar: Progress
) -> tuple[Scores, Positions]:
    """Batches of one size, each searched by one thread: the last bits of FAISS's scores depend on both."""
    batches = [slice(start, start + _BATCH_QUERIES) for start in range(0, len(vectors), _BATCH_QUERIES)]
    parts = []
    with ThreadPoolExecutor(threads) as pool:
        for part in pool.map(lambda batch: search(index, vectors[batch], k, params, 1), batches):
            parts.append(part)
            bar.advance(len(part[0]))
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


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
    run, near = (best[0][:, :depth], best[1][:, :depth]), (best[0][:, :NEAR], best[1][:, :NEAR])
    return Answers(per_query(judged, params.ks), _ceilings(judged, params.ks), chance, *run, *near)


def _index_answers(
    found: tuple[Scores, Positions],
    relevant: Sequence[tuple[Positions, npt.NDArray[np.float64]]],
    params: EvaluateParams,
) -> Answers:
    values = per_query(_judged(found[1], relevant), params.ks)
    at_ks = {name: value for name, value in values.items() if "@" in name or name == "mrr"}
    return Answers(at_ks, {}, {}, *found, found[0][:, :0], found[1][:, :0])


def _judged(found: Positions, relevant: Sequence[tuple[Positions, npt.NDArray[np.float64]]]) -> RelevantRanks:
    """found : (n, depth) the ranked results.  relevant : positions, ascending, and grades of what is relevant to each query."""
    relevance = np.zeros(found.shape, np.int64)
    for row, (positions, grades) in enumerate(relevant):
        columns = np.flatnonzero(np.isin(found[row], positions))
        relevance[row, columns] = grades[np.searchsorted(positions, found[row, columns])]
    return RelevantRanks.from_relevance(relevance, [grades for _, grades in relevant])


def _numbers_of_relevant(asked: TaskQueries, gallery: Collection) -> npt.NDArray[np.int64]:
    of = gallery.relevance.of
    return np.array([len(of(query, int(mine))[0]) for query, mine in zip(asked.ids, asked.own, strict=True)], np.int64)


def _with_categories(exact: Answers, asked: TaskQueries, gallery: Collection, vectors: VectorSet) -> Answers:
    """With the class of each image query predicted by the nearest prototype, and by the votes of its neighbours."""
    classes = gallery.classes
    wanted = classes.of_queries(asked.table["label"].combine_chunks())
    sums = prototypes(vectors.parts, classes, vectors.passport["dim"])
    own_classes = np.where(asked.own == MISSING, MISSING, classes.of_gallery[asked.own])
    sizes = np.bincount(classes.of_gallery[classes.of_gallery != MISSING], minlength=len(classes.labels))
    by_prototype = rank_by_prototype(asked.vectors, sums, sizes, wanted, asked.own, own_classes)
    alone = np.isnan(by_prototype)  # whose class has no other image
    near = exact.near_positions[:, :NEIGHBOURS]
    found = np.where(near == MISSING, MISSING, classes.of_gallery[near])
    by_votes = rank_by_votes(exact.near_scores[:, :NEIGHBOURS], found, np.where(alone, MISSING, wanted))
    return replace(exact, categories=accuracies(by_prototype, "prototype") | accuracies(by_votes, "knn"))


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
        np.concatenate([part.near_scores for part in parts]),
        np.concatenate([part.near_positions for part in parts]),
    )
