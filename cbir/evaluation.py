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

from cbir.artifacts.files import hash_ids
from cbir.artifacts.images import read_columns
from cbir.artifacts.queries import read_qrels, read_query_list
from cbir.artifacts.vectors import MISSING, Positions, VectorSet, check_passport, open_vectors, positions_of
from cbir.classes import NEIGHBOURS, Classes, accuracies, prototypes, rank_by_prototype, rank_by_votes
from cbir.config import EvaluateParams
from cbir.errors import ConfigError, PassportError
from cbir.exact import exact_scores, top_k
from cbir.index import SearchParams, kind_of, search
from cbir.indexing import open_index
from cbir.metrics import (
    RelevantRanks,
    ann_recall_at_k,
    average_precision_at_r,
    chance_precision,
    per_query,
    precision_ceiling_at_k,
    ranks_of_relevant,
    recall_ceiling_at_k,
)
from cbir.progress import progress
from cbir.retrieval import Relevance, Scores, without_self

TASKS = {"cbir": ("image_id", "queries"), "tbir": ("query_id", "texts")}
_DEFAULT_DEPTH = 100
_BATCH_QUERIES = 1024  # FAISS multiplies matrices from some 250 queries on: 8 times as fast (1.15.1, flat, 1 thread)
_BLOCK_QUERIES = 128
_BLOCK_SCORES = 2**25  # scores held at a time: 128 MB as float32
_MOST_R = 1000  # map_at_r of an index asks it for as many results as a query has relevant images, up to here
_TIE_TOLERANCE = 1e-6  # float32 inner products of one pair differ by about 2e-7 with the order of summation

Values = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Gallery:
    """What is searched: ids, classes and the judgements of all queries.

    collection : rows and hash of gallery, queries and judgements; runs are compared only where they share all three.
    """

    ids: pa.Array
    relevance: Relevance
    queries: pa.Table
    classes: Classes
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

    ceilings, chance : what the best and a random ranking would reach.  categories : how well classes are predicted.
    """

    values: Values
    ceilings: Values
    chance: Values
    scores: Scores
    positions: Positions
    categories: Values = field(default_factory=dict)


def open_gallery(images: Path, queries: Path) -> Gallery:
    """Read ids and labels of the gallery, the query list and its judgements."""
    columns = read_columns(images / "gallery", ["image_id", "label", "label_name", "sha256"])
    ids, labels, names = (columns[name].combine_chunks() for name in ("image_id", "label", "label_name"))
    query_list, qrels = read_query_list(queries / "query_list.parquet"), read_qrels(queries / "qrels.parquet")
    collection = {
        "gallery": _identity(columns.drop_columns("label_name")),
        "queries": _identity(query_list),
        "judgements": _identity(qrels),
    }
    return Gallery(ids, Relevance(ids, labels, query_list, qrels), query_list, Classes.of(labels, names), collection)


def _identity(table: pa.Table) -> dict[str, Any]:
    batches = table.combine_chunks().to_batches(max_chunksize=1024)  # the same, however the table was sharded
    cells = (repr(cell) for batch in batches for column in batch.columns for cell in column.to_pylist())
    return {"rows": table.num_rows, "sha256": hash_ids(cells)}


def open_asked(folder: Path, encoder: str, task: str, gallery: Gallery, vectors: VectorSet) -> Asked | None:
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
    return Asked(table["query_id"].to_pylist(), table, rows, own)


def evaluate_encoder(
    gallery: Gallery,
    embeddings: Path,
    indexes: Path,
    encoder: str,
    params: EvaluateParams,
    search_params: SearchParams,
    threads: int,
) -> Iterator[tuple[str, Asked, dict[str, Answers]]]:
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
    most_relevant = min(_most_relevant(asked, gallery), len(gallery.ids) - spare)
    ks = {depth, *params.ann_ks} | ({most_relevant} if 0 < most_relevant <= _MOST_R else set())
    found = _search_index(asked, index, ks, spare, search_params, threads, title)
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
            if most_relevant in found:
                judged = _judged(found[most_relevant][1][block], relevant)
                answers.values["map_at_r"] = average_precision_at_r(judged)
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
    """What the index returns for each k, asked for k as a user would: a graph, asked for more, searches wider and finds more.

    Any other index is searched once, for the greatest k, of which the others are the first results.
    Batches of one size, each searched by one thread: the last bits of FAISS's scores depend on both.
    """
    found = {}
    searched = sorted(ks) if kind_of(index) == "hnsw" else [max(ks)]
    batches = [slice(start, start + _BATCH_QUERIES) for start in range(0, len(asked.ids), _BATCH_QUERIES)]
    with (
        ThreadPoolExecutor(threads) as pool,
        progress(len(searched) * len(asked.ids), f"search {title}", "queries") as bar,
    ):
        for k in searched:

            def answer(batch: slice, k: int = k) -> tuple[Scores, Positions]:
                return search(index, asked.vectors[batch], k + spare, params, 1)

            parts = []
            for part in pool.map(answer, batches):
                parts.append(part)
                bar.advance(len(part[0]))
            scores, positions = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
            for less in [k] if len(searched) > 1 else ks:
                reached = slice(0, less + spare)
                found[less] = without_self(scores[:, reached], positions[:, reached], asked.own, less)
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
    values = per_query(_judged(found[1], relevant), params.ks)
    return Answers({name: value for name, value in values.items() if "@" in name or name == "mrr"}, {}, {}, *found)


def _judged(found: Positions, relevant: Sequence[tuple[Positions, npt.NDArray[np.float64]]]) -> RelevantRanks:
    """found : (n, depth) the ranked results.  relevant : positions, ascending, and grades of what is relevant to each query."""
    relevance = np.zeros(found.shape, np.int64)
    for row, (positions, grades) in enumerate(relevant):
        columns = np.flatnonzero(np.isin(found[row], positions))
        relevance[row, columns] = grades[np.searchsorted(positions, found[row, columns])]
    return RelevantRanks.from_relevance(relevance, [grades for _, grades in relevant])


def _most_relevant(asked: Asked, gallery: Gallery) -> int:
    return max(
        (
            len(gallery.relevance.of(query_id, int(mine))[0])
            for query_id, mine in zip(asked.ids, asked.own, strict=True)
        ),
        default=0,
    )


def _with_categories(exact: Answers, asked: Asked, gallery: Gallery, vectors: VectorSet) -> Answers:
    """With the class of each image query predicted by the nearest prototype, and by the votes of its neighbours."""
    classes = gallery.classes
    wanted = classes.of_queries(asked.table["label"].combine_chunks())
    sums = prototypes(vectors.parts, classes, vectors.passport["dim"])
    own_classes = np.where(asked.own == MISSING, MISSING, classes.of_gallery[asked.own])
    by_prototype = rank_by_prototype(asked.vectors, sums, wanted, asked.own, own_classes)
    near = exact.positions[:, :NEIGHBOURS]
    found = np.where(near == MISSING, MISSING, classes.of_gallery[near])
    by_votes = rank_by_votes(exact.scores[:, :NEIGHBOURS], found, wanted)
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
    )
