"""Retrieval metrics with TREC semantics: numpy in, one value per query out.

Every metric divides as trec_eval does (https://github.com/usnistgov/trec_eval): relevant images that the run does not
hold count against it. A query without relevant images has no defined value: it is NaN in every metric and left out of
the mean. An image is relevant when its grade is at least 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NOT_RETRIEVED: Final = int(np.iinfo(np.int64).max // 2)
"""Rank of a relevant image that the run does not hold; half of the range, so that rank + 1 cannot overflow."""


@dataclass(frozen=True, eq=False)
class RelevantRanks:
    """Where the relevant images of each query stand in its ranking: all that the metrics need to know of a run.

    ranks      : (n_queries, m) int64, 1-based, ascending in each row, padded with NOT_RETRIEVED
    gains      : (n_queries, m) float64, grade of the image at that rank (>= 1), 0 where padded
    ideal      : (n_queries, m) float64, grades of all relevant images, retrieved or not, descending, padded with 0
    n_relevant : (n_queries,) int64, number of relevant images, retrieved or not

    Raises ValueError where an array is not as described, naming the first query row at fault.
    """

    ranks: Ints
    gains: Floats
    ideal: Floats
    n_relevant: Ints

    def __post_init__(self) -> None:
        shape = self.ranks.shape
        if len(shape) != 2:
            raise ValueError(f"RelevantRanks.ranks: expected shape (n_queries, m), found {shape}")
        for name, dtype, its_shape in (
            ("ranks", np.int64, shape),
            ("gains", np.float64, shape),
            ("ideal", np.float64, shape),
            ("n_relevant", np.int64, shape[:1]),
        ):
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != its_shape:
                raise ValueError(
                    f"RelevantRanks.{name}: expected {np.dtype(dtype)} of shape {its_shape}, "
                    f"found {array.dtype} of shape {array.shape}"
                )

        retrieved = self.ranks < NOT_RETRIEVED
        before, after = self.ranks[:, :-1], self.ranks[:, 1:]
        self._require(
            "ranks",
            f"1-based ranks, ascending without repeats, padded with {NOT_RETRIEVED}",
            (self.ranks >= 1) & (self.ranks <= NOT_RETRIEVED),
            (before < after) | (before == after) & (after == NOT_RETRIEVED),
        )
        self._require(
            "gains",
            "a finite grade >= 1 at each retrieved rank and 0 where padded",
            np.where(retrieved, (self.gains >= 1) & np.isfinite(self.gains), self.gains == 0),
        )
        self._require(
            "ideal",
            "finite grades >= 1 in descending order, padded with 0",
            (self.ideal == 0) | (self.ideal >= 1) & np.isfinite(self.ideal),
            self.ideal[:, :-1] >= self.ideal[:, 1:],
        )
        n_ideal = np.count_nonzero(self.ideal, axis=1)
        self._require("n_relevant", "the number of grades in ideal", (self.n_relevant == n_ideal)[:, None])
        self._require(
            "gains", "no more and no higher grades than in ideal", -np.sort(-self.gains, axis=1) <= self.ideal
        )

    def _require(self, name: str, expected: str, *holds: NDArray[np.bool_]) -> None:
        good = np.concatenate(holds, axis=1).all(axis=1)
        if not good.all():
            row = int(good.argmin())
            found = np.atleast_1d(getattr(self, name)[row])
            shown = ", ".join(str(value) for value in found[:8].tolist()) + (", ..." if len(found) > 8 else "")
            raise ValueError(f"RelevantRanks.{name}, query row {row}: expected {expected}, found {shown}")

    @classmethod
    def from_relevance(cls, relevance: ArrayLike, ideal: Sequence[ArrayLike]) -> "RelevantRanks":
        """Ranks read from the grades of the retrieved images; for shallow runs and for tests.

        relevance : (n_queries, depth) int or bool, grade of the image at each rank; below 1 is not relevant
        ideal     : for each query the grades of all its relevant images, in any order
        Raises ValueError where the two disagree or are not of these shapes.

        >>> RelevantRanks.from_relevance([[0, 2, 1], [0, 0, 0]], ideal=[[1, 2, 1], []]).ranks[0].tolist()[:2]
        [2, 3]
        """
        grades = np.asarray(relevance)
        if grades.ndim != 2 or grades.dtype.kind not in "iub":
            raise ValueError(
                f"relevance: expected int of shape (n_queries, depth), found {grades.dtype} of shape {grades.shape}"
            )
        if len(ideal) != len(grades):
            raise ValueError(f"ideal: expected the grades of {len(grades)} queries, found {len(ideal)}")

        ranks = [np.flatnonzero(row >= 1) + 1 for row in grades]
        return cls.from_ranks(ranks, [row[row >= 1] for row in grades], ideal)

    @classmethod
    def from_ranks(
        cls, ranks: Sequence[ArrayLike], gains: Sequence[ArrayLike], ideal: Sequence[ArrayLike]
    ) -> "RelevantRanks":
        """The ranks of retrieved relevant images, padded and put in order.

        ranks, gains : for each query the 1-based ranks, in any order, and the grades of the images there
        ideal        : for each query the grades of all its relevant images, in any order; below 1 is not relevant
        Raises ValueError where they disagree.

        >>> RelevantRanks.from_ranks([[7, 2]], [[1, 3]], ideal=[[1, 3, 2]]).gains.tolist()
        [[3.0, 1.0, 0.0]]
        """
        all_relevant = [np.asarray(row, np.float64) for row in ideal]
        all_relevant = [-np.sort(-row[row >= 1]) for row in all_relevant]
        width = max([len(row) for row in all_relevant] + [len(np.asarray(row)) for row in ranks], default=0)
        shape = (len(all_relevant), width)
        placed, grades, best = np.full(shape, NOT_RETRIEVED, np.int64), np.zeros(shape), np.zeros(shape)
        for row, (where, gain, values) in enumerate(zip(ranks, gains, all_relevant, strict=True)):
            order = np.argsort(where)
            placed[row, : len(order)] = np.asarray(where, np.int64)[order]
            grades[row, : len(order)] = np.asarray(gain, np.float64)[order]
            best[row, : len(values)] = values
        return cls(placed, grades, best, np.array([len(row) for row in all_relevant], np.int64))


def precision_at_k(ranks: RelevantRanks, k: int) -> Floats:
    """Share of relevant images among the first k; a run shorter than k is not excused (trec_eval P_k).

    Returns (n_queries,) float64 in [0, 1], NaN without relevant images.  Raises ValueError unless k >= 1.

    >>> precision_at_k(RelevantRanks.from_relevance([[1, 0, 1, 0, 0]], ideal=[[1] * 5]), k=4)
    array([0.5])
    """
    return _share(ranks, _hits(ranks, _at_least_one(k)), k)


def success_at_k(ranks: RelevantRanks, k: int) -> Floats:
    """1 for a query with a relevant image among the first k, else 0 (the "R@k" of CLIP papers; trec_eval success_k).

    Not recall_at_k, which divides the hits by all relevant images.
    Returns (n_queries,) float64 in {0, 1}, NaN without relevant images.  Raises ValueError unless k >= 1.

    >>> success_at_k(RelevantRanks.from_relevance([[0, 1, 0], [0, 0, 1]], ideal=[[1], [1]]), k=2)
    array([1., 0.])
    """
    return _share(ranks, _hits(ranks, _at_least_one(k)) > 0, 1)


def recall_at_k(ranks: RelevantRanks, k: int) -> Floats:
    """Share of all relevant images that stand among the first k (trec_eval recall_k).

    It cannot exceed recall_ceiling_at_k, which is small where a query has many relevant images: print both.
    Returns (n_queries,) float64 in [0, 1], NaN without relevant images.  Raises ValueError unless k >= 1.

    >>> recall_at_k(RelevantRanks.from_relevance([[1, 0, 1, 0, 0]], ideal=[[1] * 5]), k=5)
    array([0.4])
    """
    return _share(ranks, _hits(ranks, _at_least_one(k)), ranks.n_relevant)


def recall_ceiling_at_k(ranks: RelevantRanks, k: int) -> Floats:
    """The greatest recall@k that any ranking can reach: min(k, R) / R for R relevant images.

    Returns (n_queries,) float64 in (0, 1], NaN without relevant images.  Raises ValueError unless k >= 1.

    >>> recall_ceiling_at_k(RelevantRanks.from_relevance([[1]], ideal=[[1] * 500]), k=10)
    array([0.02])
    """
    return _share(ranks, np.minimum(_at_least_one(k), ranks.n_relevant), ranks.n_relevant)


def precision_ceiling_at_k(ranks: RelevantRanks, k: int) -> Floats:
    """The greatest precision@k that any ranking can reach: min(k, R) / k for R relevant images.

    Returns (n_queries,) float64 in (0, 1], NaN without relevant images.  Raises ValueError unless k >= 1.

    >>> precision_ceiling_at_k(RelevantRanks.from_relevance([[1]], ideal=[[1]]), k=10)
    array([0.1])
    """
    return _share(ranks, np.minimum(_at_least_one(k), ranks.n_relevant), k)


def chance_precision(ranks: RelevantRanks, n_candidates: ArrayLike) -> Floats:
    """Expected precision@k of a random ranking, the same for every k: R / n for R relevant among n images.

    n_candidates : int, or (n_queries,) int: the images that can be retrieved, the query's own left out
    Returns (n_queries,) float64 in (0, 1], NaN without relevant images.

    >>> chance_precision(RelevantRanks.from_relevance([[1]], ideal=[[1] * 50]), n_candidates=1000)
    array([0.05])
    """
    return _share(ranks, ranks.n_relevant, np.asarray(n_candidates))


def r_precision(ranks: RelevantRanks) -> Floats:
    """Precision among the first R, where R is the query's number of relevant images (trec_eval Rprec).

    Returns (n_queries,) float64 in [0, 1], NaN without relevant images.

    >>> r_precision(RelevantRanks.from_relevance([[1, 0, 1]], ideal=[[1, 1]]))
    array([0.5])
    """
    return _share(ranks, _hits(ranks, ranks.n_relevant[:, None]), ranks.n_relevant)


def average_precision(ranks: RelevantRanks) -> Floats:
    """Sum of the precision at each retrieved relevant image, divided by all relevant images (trec_eval map).

    Hits at ranks 1 and 3 with R = 5 give (1/1 + 2/3) / 5 = 0.333; torchmetrics divides by the two hits found (0.833).
    It reaches as deep as the ranks do: a run cut at rank 100 yields AP@100.
    Returns (n_queries,) float64 in [0, 1], NaN without relevant images.

    >>> average_precision(RelevantRanks.from_relevance([[1, 0, 1, 0, 0]], ideal=[[1] * 5])).round(3)
    array([0.333])
    """
    return _share(ranks, _precision_sum(ranks, ranks.ranks < NOT_RETRIEVED), ranks.n_relevant)


def average_precision_at_r(ranks: RelevantRanks) -> Floats:
    """Average precision over the first R ranks only, divided by R: the "MAP@R" of metric learning.

    Source: Musgrave, Belongie and Lim, "A Metric Learning Reality Check", ECCV 2020.
    Returns (n_queries,) float64 in [0, 1], NaN without relevant images.

    >>> average_precision_at_r(RelevantRanks.from_relevance([[1, 0, 1]], ideal=[[1, 1]]))
    array([0.5])
    """
    return _share(ranks, _precision_sum(ranks, ranks.ranks <= ranks.n_relevant[:, None]), ranks.n_relevant)


def reciprocal_rank(ranks: RelevantRanks) -> Floats:
    """1 / rank of the first relevant image, 0 where none is retrieved (trec_eval recip_rank).

    Returns (n_queries,) float64 in [0, 1], NaN without relevant images.

    >>> reciprocal_rank(RelevantRanks.from_relevance([[0, 1, 0, 1], [0, 0, 0, 0]], ideal=[[1, 1], [1]]))
    array([0.5, 0. ])
    """
    first = ranks.ranks.min(axis=1, initial=NOT_RETRIEVED)
    return _share(ranks, first < NOT_RETRIEVED, first)


def ndcg_at_k(ranks: RelevantRanks, k: int) -> Floats:
    """Discounted cumulative gain of the first k, divided by that of the best possible ranking (trec_eval ndcg_cut_k).

    The gain is the grade itself, not 2^grade - 1; the discount is log2(rank + 1).
    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002, with
    trec_eval's discount, which starts at rank 1 (theirs, log2(rank), leaves ranks 1 and 2 alike).
    Returns (n_queries,) float64 in [0, 1], NaN without relevant images.  Raises ValueError unless k >= 1.

    >>> ndcg_at_k(RelevantRanks.from_relevance([[2, 1], [1, 2]], ideal=[[2, 1], [2, 1]]), k=2).round(3)
    array([1.  , 0.86])
    """
    _at_least_one(k)
    # The same sum over the same width above and below, so that a perfect ranking yields exactly 1.
    ideal_ranks = np.broadcast_to(_ordinals(ranks), ranks.ranks.shape)
    return _share(ranks, _dcg(ranks.gains, ranks.ranks, k), _dcg(ranks.ideal, ideal_ranks, k))


def per_query(ranks: RelevantRanks, ks: Sequence[int]) -> dict[str, Floats]:
    """Every metric of the report by its name in metrics.json, in the order of the report.

    Returns name -> (n_queries,) float64.  Raises ValueError unless each k >= 1.

    >>> list(per_query(RelevantRanks.from_relevance([[1]], ideal=[[1]]), ks=[1]))
    ['precision@1', 'success@1', 'recall@1', 'ndcg@1', 'r_precision', 'map_at_r', 'map', 'mrr']
    """
    values: dict[str, Floats] = {}
    for k in ks:
        values[f"precision@{k}"] = precision_at_k(ranks, k)
        values[f"success@{k}"] = success_at_k(ranks, k)
        values[f"recall@{k}"] = recall_at_k(ranks, k)
        values[f"ndcg@{k}"] = ndcg_at_k(ranks, k)
    values["r_precision"] = r_precision(ranks)
    values["map_at_r"] = average_precision_at_r(ranks)
    values["map"] = average_precision(ranks)
    values["mrr"] = reciprocal_rank(ranks)
    return values


def mean(values: Mapping[str, Floats]) -> dict[str, float]:
    """Mean of each metric over the queries that have a value; a metric without one is left out.

    values : name -> (n_queries,) float64, NaN for a query without relevant images

    >>> mean({"map": np.array([0.5, np.nan, 1.0]), "mrr": np.array([np.nan])})
    {'map': 0.75}
    """
    defined = {name: row[~np.isnan(row)] for name, row in values.items()}
    return {name: float(row.mean()) for name, row in defined.items() if row.size}


def ann_recall_at_k(
    found_scores: NDArray[np.float32], exact_scores: NDArray[np.float32], k: int, tolerance: float
) -> Floats:
    """Share of the k approximate neighbours that are as good as the k-th exact neighbour.

    Compared by score, not by image, so that either of two equally near images counts; ann-benchmarks does the same with
    distances (Aumüller, Bernhardsson and Faithfull, Information Systems 87, 2020).

    found_scores : (n_queries, k) float32, the exact scores of what the approximate search returned, any order, -inf
                   where it returned nothing
    exact_scores : (n_queries, >= k) float32, scores of the exact neighbours, descending, finite
    tolerance    : >= 0, in units of score; two ways of summing one dot product differ by up to 1e-6
    Returns (n_queries,) float64 in [0, 1].  Raises ValueError where an argument is not as described.

    >>> found, exact = np.float32([[0.9, 0.5, -np.inf]]), np.float32([[0.9, 0.7, 0.5]])
    >>> ann_recall_at_k(found, exact, k=3, tolerance=0).round(3)
    array([0.667])
    """
    _at_least_one(k)
    if not tolerance >= 0:
        raise ValueError(f"tolerance: expected a number >= 0, found {tolerance}")
    if found_scores.ndim != 2 or found_scores.shape[1] != k:
        raise ValueError(f"found_scores: expected shape (n_queries, {k}), found {found_scores.shape}")
    if exact_scores.ndim != 2 or len(exact_scores) != len(found_scores) or exact_scores.shape[1] < k:
        raise ValueError(
            f"exact_scores: expected shape ({len(found_scores)}, {k} or more), found {exact_scores.shape}; "
            "is k larger than the gallery?"
        )
    exact = exact_scores[:, :k]
    if not np.isfinite(exact).all() or (exact[:, :-1] < exact[:, 1:]).any():
        raise ValueError("exact_scores: expected finite scores in descending order, found others")
    if np.isnan(found_scores).any():
        raise ValueError("found_scores: expected scores or -inf, found NaN")
    # In float64, where subtracting a small tolerance loses nothing.
    threshold = exact[:, -1:].astype(np.float64) - tolerance
    return np.asarray((found_scores >= threshold).mean(axis=1), np.float64)


def ranks_of_relevant(scores: NDArray[np.float32], relevant: ArrayLike, excluded: int | None = None) -> Ints:
    """Exact rank of each relevant image of one query among the whole gallery.

    The order is score descending, then position ascending, as in a stable argsort of -scores; -0.0 equals 0.0.

    scores   : (n_gallery,) float32, higher is better, no NaN
    relevant : (n_relevant,) int, positions in the gallery
    excluded : position that takes no rank (the query's own image), not among the relevant
    Returns (n_relevant,) int64, 1-based, aligned with `relevant`.  Raises ValueError where an argument is not so.

    >>> ranks_of_relevant(np.float32([0.5, 0.9, 0.5, 1.0]), relevant=[2, 1], excluded=3)
    array([3, 1])
    """
    if scores.ndim != 1 or scores.dtype != np.float32:
        raise ValueError(
            f"scores: expected float32 of shape (n_gallery,), found {scores.dtype} of shape {scores.shape}"
        )
    if np.isnan(scores).any():
        raise ValueError(f"scores: expected numbers, found NaN at position {int(np.isnan(scores).argmax())}")
    positions = np.asarray(relevant)
    if excluded is not None and (not 0 <= excluded < len(scores) or (positions == excluded).any()):
        raise ValueError(
            f"excluded: expected a position from 0 to {len(scores) - 1} that is not relevant, found {excluded}"
        )
    if positions.size == 0:
        return np.empty(0, np.int64)
    if positions.ndim != 1 or positions.dtype.kind not in "iu":
        raise ValueError(
            f"relevant: expected int of shape (n_relevant,), found {positions.dtype} of shape {positions.shape}"
        )
    if positions.min() < 0 or positions.max() >= len(scores):
        raise ValueError(
            f"relevant: expected positions from 0 to {len(scores) - 1}, found {positions.min()} to {positions.max()}"
        )

    # One int64 holds the whole order: the score's bits above, the position below. Ties then need no path of their own,
    # and numpy's vectorised integer sort takes 2 ms per 100,000 images where a stable argsort takes 10.
    bits = (np.float32(0) - scores).view(np.int32)  # 0 - x, not -x: both zeros become +0.0
    bits = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # a float's bits are sign and magnitude, an integer's are not
    order = bits.astype(np.int64) << 32 | np.arange(len(scores))
    ranks: Ints = np.searchsorted(np.sort(order), order[positions]) + 1
    if excluded is not None:
        ranks -= order[excluded] < order[positions]
    return ranks


def _at_least_one(k: int) -> int:
    if k < 1:
        raise ValueError(f"k: expected 1 or more, found {k}")
    return k


def _share(ranks: RelevantRanks, part: NDArray[Any], whole: NDArray[Any] | int) -> Floats:
    """part / whole, NaN for a query without relevant images."""
    values = np.full(len(ranks.n_relevant), np.nan)
    np.divide(part, whole, out=values, where=ranks.n_relevant > 0)
    return values


def _hits(ranks: RelevantRanks, last_rank: Ints | int) -> Ints:
    return np.asarray(np.count_nonzero(ranks.ranks <= last_rank, axis=1), np.int64)


def _ordinals(ranks: RelevantRanks) -> Ints:
    return np.arange(1, ranks.ranks.shape[1] + 1, dtype=np.int64)


def _precision_sum(ranks: RelevantRanks, counted: NDArray[np.bool_]) -> Floats:
    # The i-th relevant image, at rank r, stands where precision is i / r.
    return np.asarray(np.where(counted, _ordinals(ranks) / ranks.ranks, 0.0).sum(axis=1), np.float64)


def _dcg(gains: Floats, at_ranks: Ints, k: int) -> Floats:
    return np.asarray(np.where(at_ranks <= k, gains / np.log2(at_ranks + 1), 0.0).sum(axis=1), np.float64)
