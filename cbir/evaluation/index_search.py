"""Results of an index at the depths that its evaluation needs."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from cbir.artifacts.vectors import MISSING, Positions, Scores, Vectors
from cbir.core.progress import Progress, progress
from cbir.evaluation.collection import TaskQueries
from cbir.index.exact import without_self
from cbir.index.kinds import kind_of
from cbir.index.params import SearchParams
from cbir.index.search import search

Ints = npt.NDArray[np.int64]

_BATCH_QUERIES = 1024  # FAISS multiplies matrices from about 250 queries on: 8 times as fast (1.15.1, flat, 1 thread)
_MAX_R = 1000  # the largest number of relevant images for which map_at_r of an index is computed


@dataclass(frozen=True)
class IndexResults:
    """The ranked results of an index, without each query's own image.

    at_k : k -> scores and positions, (n, k).  to_r : positions (n, max R) of as many results as each query has relevant
    images, MISSING after them; None when nothing is relevant, or more than _MAX_R images are.
    """

    at_k: dict[int, tuple[Scores, Positions]]
    to_r: Positions | None


def search_to_depths(
    queries: TaskQueries,
    index: faiss.Index,
    ks: Iterable[int],
    n_relevant: Ints,
    spare: int,
    params: SearchParams,
    threads: int,
    title: str,
) -> IndexResults:
    """Search for k results for each k, and for as many results as each query has relevant images.

    n_relevant : (n,).  spare : 1 when a query can retrieve its own image, which is then left out, otherwise 0.
    Where the results depend on k (a graph searches wider for more results), each k is a search of its own, as a user would
    run it, and so is each group of queries with similar numbers of relevant images (up to the next power of 2).  Any other
    index is searched once, at the greatest depth, and the results for a smaller k are the first k.
    """
    ks = sorted(set(ks))
    max_r = int(n_relevant.max(initial=0))
    max_r = max_r if max_r <= _MAX_R else 0
    n_queries, n_images = len(queries.ids), index.ntotal
    to_r = np.full((n_queries, max_r), MISSING)
    if kind_of(index).depends_on_k:
        widths = np.where(n_relevant > 0, 2 ** np.ceil(np.log2(np.maximum(n_relevant, 1))).astype(np.int64), 0)
        groups = [(int(width), np.flatnonzero(widths == width)) for width in np.unique(widths) if max_r and width]
        with progress(len(ks) * n_queries + sum(len(rows) for _, rows in groups), f"search {title}", "queries") as bar:
            at_k = {
                k: without_self(
                    *_search_batches(queries.vectors, index, k + spare, params, threads, bar), queries.own_positions, k
                )
                for k in ks
            }
            for width, rows in groups:
                depth = min(width + spare, n_images)
                results = _search_batches(queries.vectors[rows], index, depth, params, threads, bar)
                positions = without_self(*results, queries.own_positions[rows], max_r)[1]
                to_r[rows, : positions.shape[1]] = positions
    else:
        with progress(n_queries, f"search {title}", "queries") as bar:
            depth = min(max(*ks, max_r) + spare, n_images)
            scores, positions = _search_batches(queries.vectors, index, depth, params, threads, bar)
        at_k = {
            k: without_self(scores[:, : k + spare], positions[:, : k + spare], queries.own_positions, k) for k in ks
        }
        positions = without_self(scores, positions, queries.own_positions, max_r)[1]
        to_r[:, : positions.shape[1]] = positions
    return IndexResults(at_k, to_r if max_r else None)


def _search_batches(
    vectors: Vectors, index: faiss.Index, k: int, params: SearchParams, threads: int, bar: Progress
) -> tuple[Scores, Positions]:
    """Search in batches of one size, each in one thread: the last bits of FAISS's scores depend on both."""
    batches = [slice(start, start + _BATCH_QUERIES) for start in range(0, len(vectors), _BATCH_QUERIES)]
    parts = []
    with ThreadPoolExecutor(threads) as pool:
        for part in pool.map(lambda batch: search(index, vectors[batch], k, params, 1), batches):
            parts.append(part)
            bar.advance(len(part[0]))
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
