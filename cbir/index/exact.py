"""Exact neighbours by brute force: the yardstick of every approximate index, and the full-depth ranking of the metrics.

A score is the float64 inner product rounded to float32. A float32 product differs by up to 2e-7 with the block that a
query falls into (measured, OpenBLAS), the number of threads and the processor: enough to swap near-ties and to part
exact duplicates. In float64 such differences are about 1e-16 and next to never outlive the rounding, so a query's
ranking is its own, whatever is asked beside it. It costs twice the time.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cbir.artifacts.vectors import MISSING, rows_at
from cbir.core.errors import ConfigError, DataError

Floats = NDArray[np.float32]
Positions = NDArray[np.int64]

_CHUNK_ROWS = 4096  # 31 MB of float64 at 960 dimensions
_TOP_ROWS = 16  # rows of scores ranked at a time: 256 at once take 9 times the time (measured, 100,000 images)
_LOW_32_BITS = 0xFFFFFFFF
_NORM_TOLERANCE = 1e-3
_HALF_ULP = 2.0**-24  # the unit roundoff of float32


def check_matrix(rows: np.ndarray, dim: int, what: str) -> None:
    """Refuse anything but a float32 array of shape (n, dim).

    Raises DataError that names `what`, the expected and the found dtype and shape.
    """
    if rows.dtype != np.float32 or rows.ndim != 2 or rows.shape[1] != dim:
        raise DataError(
            f"{what}: expected float32 vectors of shape (n, {dim}), found {rows.dtype} of shape {rows.shape}: "
            "queries and gallery must come from one encoder; embed them again: dvc repro --force embed"
        )


def check_k(k: int, n_gallery: int) -> None:
    """Refuse a k that the gallery cannot fill.

    Raises ConfigError unless 1 <= k <= n_gallery.
    """
    if not 1 <= k <= n_gallery:
        problem = "smaller than 1" if k < 1 else f"larger than the gallery of {n_gallery} images"
        raise ConfigError(f"k = {k} is {problem}: set k to a value from 1 to {n_gallery}")


def exact_search(
    queries: Floats, parts: Sequence[Floats], k: int, block_queries: int = 256
) -> tuple[Floats, Positions]:
    """The k gallery rows of the highest inner product with each query, ties by the lower position.

    queries : (n, dim) float32.  parts : the gallery, float32 arrays of shape (n_i, dim), memory-mapped or not.
    Positions count over all of them (fewer than 2**32).
    Returns scores (n, k) float32, descending, and positions (n, k) int64: the order of a stable argsort of the negated
    score rows. Memory holds one chunk of the gallery and one block of queries against it, never n x n_gallery; the
    gallery is read once.
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
            found = _smallest(_keys(_inner_products(queries[block], chunk), positions), k)
            best[block] = _smallest(np.hstack([best[block], found]), k)
    best.sort(axis=1)
    return _scores_of(best), best & _LOW_32_BITS


def exact_scores(queries: Floats, parts: Sequence[Floats]) -> Floats:
    """The scores of one block of queries against the whole gallery: the same numbers that exact_search ranks.

    queries : (b, dim) float32.  parts : as in exact_search.  Returns (b, n_gallery) float32, columns in position order.
    Raises DataError for a wrong shape or dtype and for a NaN or infinite value.

    >>> exact_scores(np.float32([[0, 1]]), [np.float32([[1, 0], [0, 1]]), np.float32([[0, -1]])])
    array([[ 0.,  1., -1.]], dtype=float32)
    """
    _check_queries(queries, parts)
    scores = np.empty((len(queries), sum(map(len, parts))), np.float32)
    for first, chunk in _chunks(parts, queries.shape[1]):
        scores[:, first : first + len(chunk)] = _inner_products(queries, chunk)
    return scores


def top_k(scores: Floats, k: int) -> tuple[Floats, Positions]:
    """The k highest of each row of scores, ties by the lower position.

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
    return _scores_of(best), best & _LOW_32_BITS


def exact_neighbours(
    query: Floats, parts: Sequence[Floats], k: int, among: NDArray[np.bool_] | None = None
) -> tuple[Floats, Positions]:
    """exact_search for one query, several times as fast: float32 finds the candidates, float64 ranks them.

    query : (dim,) float32, a unit vector.  parts : as in exact_search, unit rows.  among : (n_gallery,) the rows that may be
    found, or None for all.  Returns (k,) float32 and (k,) int64.
    A float32 product of unit vectors is off by at most dim u / (1 - dim u), u = 2**-24 (Higham, Accuracy and Stability of
    Numerical Algorithms, 2002, 3.1), so what scores lower than the k-th best by more than twice that is no neighbour.
    Raises as exact_search does; k is at most the number of rows that may be found.
    """
    check_k(k, sum(map(len, parts)) if among is None else int(among.sum()))
    _check_queries(query[None], parts)
    for number, part in enumerate(parts):
        check_matrix(part, len(query), f"gallery part {number}")
    rough = np.concatenate([part @ query for part in parts])
    _check_finite(rough[:, None], "gallery", first=0)
    if among is not None:
        rough[~among] = -np.inf
    error = len(query) * _HALF_ULP / (1 - len(query) * _HALF_ULP)
    least = np.partition(rough, len(rough) - k)[len(rough) - k] - 2 * error * (1 + _NORM_TOLERANCE) ** 2
    kept = np.flatnonzero(rough >= least)
    scores = _inner_products(query[None], rows_at(parts, kept, len(query)).astype(np.float64))
    best = np.sort(_keys(scores, kept)[0])[:k]
    return _scores_of(best), best & _LOW_32_BITS


def without_self(scores: Floats, positions: Positions, own: Positions, k: int) -> tuple[Floats, Positions]:
    """Take each query's own image out of its results and keep k of them, ranks closed up.

    scores, positions : (n, k or k + 1), position MISSING where nothing was found.  own : (n,), MISSING where the query is no
    gallery image.
    """
    is_own = (positions == own[:, None]) & (own[:, None] != MISSING)
    order = np.argsort(is_own, axis=1, kind="stable")  # own images last, the rest in place
    scores = np.where(is_own, np.float32(-np.inf), scores)
    positions = np.where(is_own, MISSING, positions)
    return np.take_along_axis(scores, order, 1)[:, :k], np.take_along_axis(positions, order, 1)[:, :k]


def _check_queries(queries: Floats, parts: Sequence[Floats]) -> None:
    # A stack of no parts has no dimension of its own: then the queries need only be a matrix.
    check_matrix(queries, parts[0].shape[-1] if len(parts) else queries.shape[-1], "queries")
    _check_finite(queries, "query", first=0)


def _check_finite(rows: Floats, what: str, first: int) -> None:
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        row = first + int(finite.argmin())
        raise DataError(
            f"{what} row {row}: expected finite values, found NaN or infinity: embed again: dvc repro --force embed"
        )


def _chunks(parts: Sequence[Floats], dim: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """The gallery in float64 chunks, each with the position of its first row."""
    first = 0
    for number, part in enumerate(parts):
        check_matrix(part, dim, f"gallery part {number}")
        for start in range(0, len(part), _CHUNK_ROWS):
            chunk = part[start : start + _CHUNK_ROWS]
            _check_finite(chunk, "gallery", first)
            yield first, chunk.astype(np.float64)
            first += len(chunk)


def _inner_products(queries: Floats, chunk: NDArray[np.float64]) -> Floats:
    return (queries.astype(np.float64) @ chunk.T).astype(np.float32)


def _keys(scores: Floats, positions: Positions) -> NDArray[np.int64]:
    """One integer for each score and position, ascending as (score descending, position ascending).

    scores : (b, n) float32.  positions : (n,) of its columns.
    No two keys are equal, so that partition and sort, neither of them stable, leave nothing to chance.
    """
    bits = (scores + np.float32(0)).view(np.int32)  # + 0 makes -0.0 equal to 0.0
    keys = np.invert(_ordered(bits)).astype(np.int64)
    keys <<= 32
    keys |= positions
    return keys


def _scores_of(keys: NDArray[np.int64]) -> Floats:
    return _ordered(np.invert(keys >> 32).astype(np.int32)).view(np.float32)


def _ordered(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Float bits as integers of the same order, and back: IEEE 754 is sign and magnitude, integers two's complement."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _smallest(keys: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The k smallest keys of each row, in any order; all of them where there are fewer."""
    if keys.shape[1] > k:
        keys.partition(k - 1, axis=1)
    return keys[:, :k]
