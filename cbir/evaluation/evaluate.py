"""Evaluate the query list by exact search and by each encoder's index.

The metrics of an encoder come from exact search over the whole gallery, so they do not depend on the index.  What the index
loses is measured separately: ann_recall@k against the exact neighbours, and the same metrics over the results of the index.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from cbir.artifacts.names import TASKS
from cbir.artifacts.vectors import MISSING, Positions, Scores, VectorSet, open_vectors
from cbir.core.errors import PassportError
from cbir.core.progress import progress
from cbir.evaluation.classes import NEIGHBOURS, accuracies, rank_by_prototype, rank_by_votes, vector_sums
from cbir.evaluation.collection import Collection, TaskQueries, open_queries
from cbir.evaluation.depths import depth_of_runs
from cbir.evaluation.duplicates import MAX_COPIES
from cbir.evaluation.index_search import search_to_depths
from cbir.evaluation.metrics import (
    ann_recall_at_k,
    average_precision_at_r,
    chance_precision,
    per_query,
    precision_ceiling_at_k,
    recall_ceiling_at_k,
)
from cbir.evaluation.params import EvaluateParams
from cbir.evaluation.relevant_ranks import RelevantRanks, ranks_of_relevant
from cbir.index.exact import exact_scores, queries_per_block, top_k, without_self
from cbir.index.params import SearchParams
from cbir.index.storage import open_index

N_NEAREST = max(NEIGHBOURS, MAX_COPIES + 1)  # results used for votes, confusions and duplicates
_TIE_TOLERANCE = 1e-6  # float32 inner products of one pair differ by about 2e-7 with the order of summation

Floats = npt.NDArray[np.float64]
Values = dict[str, Floats]  # metric -> value of each query
Relevant = tuple[Positions, Floats]  # positions, ascending, and grades of the images that are relevant to one query


@dataclass(frozen=True)
class SearchEvaluation:
    """The ranked results of one search for all queries of a task, and their metrics.

    values : every metric.  ceilings, chance : what the best and a random ranking would reach.
    scores, positions : (n, depth) the run.  nearest_scores, nearest_positions : (n, N_NEAREST) the first results of exact
    search, for any depth of the run.  accuracies : of predicted classes.
    """

    values: Values
    ceilings: Values
    chance: Values
    scores: Scores
    positions: Positions
    nearest_scores: Scores
    nearest_positions: Positions
    accuracies: Values = field(default_factory=dict)


def evaluate_encoder(
    collection: Collection,
    embeddings: Path,
    index_folder: Path,
    encoder: str,
    params: EvaluateParams,
    search_params: SearchParams,
    threads: int,
) -> Iterator[tuple[str, TaskQueries, dict[str, SearchEvaluation]]]:
    """Evaluate each task that the encoder supports; yield the task, its queries and the result of `evaluate_task`.

    embeddings, index_folder : the encoder's.  params : with ks that fit the gallery.
    Raises PassportError unless vectors and index belong to this encoder and gallery.
    """
    vectors = open_vectors(embeddings, encoder, "gallery")
    if not vectors.ids.equals(collection.gallery_ids):
        raise PassportError(
            f"{embeddings}: expected vectors of the gallery in data/images, found those of another: run `dvc repro`"
        )
    index = open_index(index_folder, vectors)
    for task in TASKS:
        queries = open_queries(embeddings, encoder, task, collection, vectors)
        if queries is not None:
            depth = depth_of_runs(params, collection.n_results)
            searches = evaluate_task(
                queries, collection, vectors, index, search_params, params, depth, threads, f"{task} {encoder}"
            )
            if task == "cbir":
                searches["exact"] = _with_accuracies(searches["exact"], queries, collection, vectors)
            yield task, queries, searches


def evaluate_task(
    queries: TaskQueries,
    collection: Collection,
    vectors: VectorSet,
    index: faiss.Index,
    search_params: SearchParams,
    params: EvaluateParams,
    depth: int,
    threads: int,
    title: str,
) -> dict[str, SearchEvaluation]:
    """Evaluate exact search and the index: {"exact": ..., "index": ...}.

    vectors : of the gallery.  depth : of the runs.  title : for the progress bar.
    Memory holds the scores of one block of queries with the gallery, never of all queries.
    """
    # One result more, because the query's own image is left out; for all queries or for none, or results would differ in depth.
    spare = int((queries.own_positions != MISSING).any())
    deepest = min(max(depth, params.ann_ks[-1], N_NEAREST), len(vectors.ids) - spare)
    n_relevant = np.array([len(positions) for positions, _ in _relevant(queries, collection, slice(None))], np.int64)
    results = search_to_depths(
        queries, index, {depth, *params.ann_ks}, n_relevant, spare, search_params, threads, title
    )
    blocks: dict[str, list[SearchEvaluation]] = {"exact": [], "index": []}
    rows = queries_per_block(len(vectors.ids))
    with progress(len(queries.ids), f"evaluate {title}", "queries") as bar:
        for start in range(0, len(queries.ids), rows):
            block = slice(start, start + rows)
            own = queries.own_positions[block]
            relevant = list(_relevant(queries, collection, block))
            scores = exact_scores(queries.vectors[block], vectors.parts)
            nearest = without_self(*top_k(scores, deepest + spare), own, deepest)
            blocks["exact"].append(_evaluate_exact(scores, nearest, relevant, own, params, depth))
            run = (results.at_k[depth][0][block], results.at_k[depth][1][block])
            evaluation = _evaluate_index(run, relevant, params)
            if results.to_r is not None:
                evaluation.values["map_at_r"] = average_precision_at_r(_relevant_ranks(results.to_r[block], relevant))
            for k in params.ann_ks:
                evaluation.values[f"ann_recall@{k}"] = _ann_recall(results.at_k[k][1][block], scores, nearest[0], k)
            blocks["index"].append(evaluation)
            bar.advance(len(own))
    return {name: _joined(parts) for name, parts in blocks.items()}


def _relevant(queries: TaskQueries, collection: Collection, rows: slice) -> Iterator[Relevant]:
    """Yield the relevant images of each of these queries, without its own; those of all queries may exceed memory."""
    for query_id, own in zip(queries.ids[rows], queries.own_positions[rows], strict=True):
        yield collection.relevance.of(query_id, int(own))


def _evaluate_exact(
    scores: Scores,
    nearest: tuple[Scores, Positions],
    relevant: Sequence[Relevant],
    own: Positions,
    params: EvaluateParams,
    depth: int,
) -> SearchEvaluation:
    """scores : (n, n_gallery).  nearest : (n, deepest), without the query's own image."""
    ranks = [
        ranks_of_relevant(query_scores, positions, None if position == MISSING else int(position))
        for query_scores, (positions, _), position in zip(scores, relevant, own, strict=True)
    ]
    grades = [query_grades for _, query_grades in relevant]
    relevant_ranks = RelevantRanks.from_ranks(ranks, grades, ideal=grades)
    chance = {"precision": chance_precision(relevant_ranks, scores.shape[1] - (own != MISSING))}
    run = (nearest[0][:, :depth], nearest[1][:, :depth])
    nearest = (nearest[0][:, :N_NEAREST], nearest[1][:, :N_NEAREST])
    values, ceilings = per_query(relevant_ranks, params.ks), _ceilings(relevant_ranks, params.ks)
    return SearchEvaluation(values, ceilings, chance, *run, *nearest)


def _evaluate_index(
    run: tuple[Scores, Positions], relevant: Sequence[Relevant], params: EvaluateParams
) -> SearchEvaluation:
    values = per_query(_relevant_ranks(run[1], relevant), params.ks)
    at_ks = {name: column for name, column in values.items() if "@" in name or name == "mrr"}
    return SearchEvaluation(at_ks, {}, {}, *run, run[0][:, :0], run[1][:, :0])


def _relevant_ranks(positions: Positions, relevant: Sequence[Relevant]) -> RelevantRanks:
    """The ranks of relevant images in a run.  positions : (n, depth)."""
    relevance = np.zeros(positions.shape, np.int64)
    for row, (relevant_positions, grades) in enumerate(relevant):
        columns = np.flatnonzero(np.isin(positions[row], relevant_positions))
        relevance[row, columns] = grades[np.searchsorted(relevant_positions, positions[row, columns])]
    return RelevantRanks.from_relevance(relevance, [grades for _, grades in relevant])


def _with_accuracies(
    exact: SearchEvaluation, queries: TaskQueries, collection: Collection, vectors: VectorSet
) -> SearchEvaluation:
    """Add the accuracy of the classes predicted for image queries, by the nearest prototype and by votes of neighbours."""
    classes, own = collection.classes, queries.own_positions
    query_classes = classes.of_queries(queries.table["label"].combine_chunks())
    sums = vector_sums(vectors.parts, classes, vectors.passport["dim"])
    own_classes = np.where(own == MISSING, MISSING, classes.of_gallery[own])
    sizes = np.bincount(classes.of_gallery[classes.of_gallery != MISSING], minlength=len(classes.labels))
    by_prototype = rank_by_prototype(queries.vectors, sums, sizes, query_classes, own, own_classes)
    neighbours = exact.nearest_positions[:, :NEIGHBOURS]
    neighbour_classes = np.where(neighbours == MISSING, MISSING, classes.of_gallery[neighbours])
    # A class without another image has no prototype: its queries are left out of both accuracies.
    query_classes = np.where(np.isnan(by_prototype), MISSING, query_classes)
    by_votes = rank_by_votes(exact.nearest_scores[:, :NEIGHBOURS], neighbour_classes, query_classes)
    return replace(exact, accuracies=accuracies(by_prototype, "prototype") | accuracies(by_votes, "knn"))


def _ann_recall(positions: Positions, scores: Scores, nearest_scores: Scores, k: int) -> Floats:
    """positions : (n, k) results of the index.  scores : (n, n_gallery) exact.  nearest_scores : of the exact neighbours."""
    of_results = np.take_along_axis(scores, np.maximum(positions, 0), 1)
    of_results = np.where(positions == MISSING, np.float32(-np.inf), of_results)
    return ann_recall_at_k(of_results, nearest_scores, k, _TIE_TOLERANCE)


def _ceilings(relevant_ranks: RelevantRanks, ks: Sequence[int]) -> Values:
    ceilings: Values = {}
    for k in ks:
        ceilings[f"precision@{k}"] = precision_ceiling_at_k(relevant_ranks, k)
        ceilings[f"recall@{k}"] = recall_ceiling_at_k(relevant_ranks, k)
    return ceilings


def _joined(blocks: Sequence[SearchEvaluation]) -> SearchEvaluation:
    """The evaluations of all blocks of queries as one."""

    def join(dicts: Sequence[Values]) -> Values:
        return {name: np.concatenate([values[name] for values in dicts]) for name in dicts[0]}

    return SearchEvaluation(
        join([block.values for block in blocks]),
        join([block.ceilings for block in blocks]),
        join([block.chance for block in blocks]),
        np.concatenate([block.scores for block in blocks]),
        np.concatenate([block.positions for block in blocks]),
        np.concatenate([block.nearest_scores for block in blocks]),
        np.concatenate([block.nearest_positions for block in blocks]),
    )
