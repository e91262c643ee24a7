"""Exact neighbours by brute force: the reference for every approximate index, and the full ranking behind the metrics.

A score is the float64 inner product rounded to float32.  Float32 products of the same two vectors differ by up to 2e-7,
depending on the block of queries (measured, OpenBLAS), the number of threads and the processor: enough to swap near-ties and
to separate exact duplicates.  In float64 such differences are about 1e-16 and almost never survive the rounding, so a
query's ranking does not depend on the other queries.  This takes twice the time.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cbir.artifacts.vectors import MISSING, NORM_TOLERANCE, Positions, Scores, Vectors, rows_at
from cbir.index.checks import check_finite, check_k, check_matrix
from cbir.index.ordinals import ordinals, scores_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_CHUNK_ROWS = 4096  # 31 MB of float64 at 960 dimensions
_BLOCK_QUERIES, _BLOCK_SCORES = 128, 2**25  # 128 MB of float32
_TOP_ROWS = 16  # rows of scores ranked at a time: 256 at once take 9 times as long (measured, 100,000 images)
_LOW_32_BITS = 0xFFFFFFFF
_HALF_ULP = 2.0**-24  # the unit roundoff of float32


def queries_per_block(n_gallery: int) -> int:
    """The number of queries whose scores against the whole gallery are held at a time: at most 128, and 128 MB."""
    return max(1, min(_BLOCK_QUERIES, _BLOCK_SCORES // n_gallery))


def exact_search(
    queries: Vectors, parts: Sequence[Vectors], k: int, block_queries: int = 256
) -> tuple[Scores, Positions]:
    """The k gallery rows with the highest inner product with each query, ties by the lower position.

    queries : (n, dim) float32.  parts : the gallery, float32 arrays of shape (n_i, dim), memory-mapped or not; positions
    count over all of them (fewer than 2**32).
    Returns scores (n, k) float32, descending, and positions (n, k) int64, in the order of a stable argsort of the negated
    scores.  Memory holds one chunk of the gallery and its scores with one block of queries, never n x n_gallery; the gallery
    is read once.
    Raises DataError for a wrong shape or dtype and for a NaN or infinite value, ConfigError unless 1 <= k <= n_gallery.

    >>> gallery = np.eye(3, dtype=np.float32)[[0, 1, 0]]
    >>> scores, positions = exact_search(gallery[:1], [gallery], k=2)
    >>> positions.tolist()
    [[0, 2]]
    """
    check_k(k, sum(map(len, parts)))
    _check_queries(queries, parts)
    best = np.full((len(queries), k), np.iinfo(np.int64).max)
    for first, chunk in _chunks(parts, queries.shape[1]):
        positions = np.arange(first, first + len(chunk))
        for start in range(0, len(queries), block_queries):
            block = slice(start, start + block_queries)
            of_chunk = _smallest(_keys(_inner_products(queries[block], chunk), positions), k)
            best[block] = _smallest(np.hstack([best[block], of_chunk]), k)
    best.sort(axis=1)
    return _scores_of_keys(best), best & _LOW_32_BITS


def exact_scores(queries: Vectors, parts: Sequence[Vectors]) -> Scores:
    """The scores of one block of queries with the whole gallery, as exact_search ranks them.

    queries : (b, dim) float32.  parts : as in exact_search.  Returns (b, n_gallery) float32, columns in order of position.
    Raises DataError for a wrong shape or dtype and for a NaN or infinite value.

    >>> exact_scores(np.float32([[0, 1]]), [np.float32([[1, 0], [0, 1]]), np.float32([[0, -1]])])
    array([[ 0.,  1., -1.]], dtype=float32)
    """
    _check_queries(queries, parts)
    scores = np.empty((len(queries), sum(map(len, parts))), np.float32)
    for first, chunk in _chunks(parts, queries.shape[1]):
        scores[:, first : first + len(chunk)] = _inner_products(queries, chunk)
    return scores


def top_k(scores: Scores, k: int) -> tuple[Scores, Positions]:
    """The k highest scores of each row, ties by the lower position.

    scores : (b, n_gallery) float32.  Returns scores (b, k) float32, descending, and positions (b, k) int64.
    Raises ConfigError unless 1 <= k <= n_gallery.

    >>> top_k(np.float32([[0.5, 0.9, 0.9]]), k=2)[1].tolist()
    [[1, 2]]
    """
    check_k(k, scores.shape[1])
    best = np.empty((len(scores), k), np.int64)
    positions = np.arange(scores.shape[1])
    for start in range(0, len(scores), _TOP_ROWS):
        rows = slice(start, start + _TOP_ROWS)
        best[rows] = _smallest(_keys(scores[rows], positions), k)
    best.sort(axis=1)
    return _scores_of_keys(best), best & _LOW_32_BITS


def exact_neighbours(
    query: Vectors, parts: Sequence[Vectors], k: int, among: NDArray[np.bool_] | None = None
) -> tuple[Scores, Positions]:
    """exact_search for one query, several times as fast: float32 selects the candidates, float64 ranks them.

    query : (dim,) float32, a unit vector.  parts : as in exact_search, unit rows.  among : (n_gallery,) which rows may be
    returned; None for all.  Returns (k,) float32 and (k,) int64.
    A float32 product of unit vectors is off by at most dim u / (1 - dim u), u = 2**-24 (Higham, Accuracy and Stability of
    Numerical Algorithms, 2002, 3.1), so a row whose score is below the k-th best by more than twice that is no neighbour.
    Raises as exact_search does; k is at most the number of rows that may be returned.
    """
    check_k(k, sum(map(len, parts)) if among is None else int(among.sum()))
    _check_queries(query[None], parts)
    for number, part in enumerate(parts):
        check_matrix(part, len(query), f"gallery part {number}")
    approximate = np.concatenate([part @ query for part in parts])
    check_finite(approximate[:, None], "gallery", first=0)
    if among is not None:
        approximate[~among] = -np.inf
    error = len(query) * _HALF_ULP / (1 - len(query) * _HALF_ULP)
    kth_best = np.partition(approximate, len(approximate) - k)[len(approximate) - k]
    candidates = np.flatnonzero(approximate >= kth_best - 2 * error * (1 + NORM_TOLERANCE) ** 2)
    scores = _inner_products(query[None], rows_at(parts, candidates, len(query)).astype(np.float64))
    best = np.sort(_keys(scores, candidates)[0])[:k]
    return _scores_of_keys(best), best & _LOW_32_BITS


def without_self(scores: Scores, positions: Positions, own: Positions, k: int) -> tuple[Scores, Positions]:
    """Remove each query's own image from its results and keep k of them; lower ranks move up.

    scores, positions : (n, k or k + 1), position MISSING where the search returned nothing.  own : (n,) the position of the
    query's own image, MISSING where it is not in the gallery.
    """
    is_own = (positions == own[:, None]) & (own[:, None] != MISSING)
    order = np.argsort(is_own, axis=1, kind="stable")  # own images last, the rest in place
    scores = np.where(is_own, np.float32(-np.inf), scores)
    positions = np.where(is_own, MISSING, positions)
    return np.take_along_axis(scores, order, 1)[:, :k], np.take_along_axis(positions, order, 1)[:, :k]


def _check_queries(queries: Vectors, parts: Sequence[Vectors]) -> None:
    # Without parts there is no dimension to compare with: the queries need only be a matrix.
    check_matrix(queries, parts[0].shape[-1] if len(parts) else queries.shape[-1], "queries")
    check_finite(queries, "query", first=0)


def _chunks(parts: Sequence[Vectors], dim: int) -> Iterator[tuple[int, Floats]]:
    """The gallery in float64 chunks, each with the position of its first row."""
    first = 0
    for number, part in enumerate(parts):
        check_matrix(part, dim, f"gallery part {number}")
        for start in range(0, len(part), _CHUNK_ROWS):
            chunk = part[start : start + _CHUNK_ROWS]
            check_finite(chunk, "gallery", first)
            yield first, chunk.astype(np.float64)
            first += len(chunk)


def _inner_products(queries: Vectors, chunk: Floats) -> Scores:
    return (queries.astype(np.float64) @ chunk.T).astype(np.float32)


def _keys(scores: Scores, positions: Positions) -> Ints:
    """One integer per score and position, ascending as (score descending, position ascending).

    scores : (b, n) float32.  positions : (n,) of the columns.
    No two keys are equal, so the result does not depend on partition and sort, neither of which is stable.
    """
    keys = (-ordinals(scores)).astype(np.int64)
    keys <<= 32
    keys |= positions
    return keys


def _scores_of_keys(keys: Ints) -> Scores:
    return scores_of((-(keys >> 32)).astype(np.int32))


def _smallest(keys: Ints, k: int) -> Ints:
    """The k smallest keys of each row, in any order; all of them where there are fewer."""
    if keys.shape[1] > k:
        keys.partition(k - 1, axis=1)
    return keys[:, :k]
