"""Retrieval metrics as TREC defines them, one value per query.

Every metric has the denominator of trec_eval (https://github.com/usnistgov/trec_eval): relevant images that are not in the
run lower it.  For a query without relevant images every metric is undefined: NaN, and left out of the mean.  An image is
relevant when its grade is at least 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cbir.artifacts.vectors import Scores
from cbir.evaluation.relevant_ranks import NOT_RETRIEVED, RelevantRanks

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def headline_k(ks: Sequence[int]) -> int:
    """Return the k that is shown where a single one is: the one nearest to 10.

    >>> headline_k([1, 5, 20, 50])
    5
    """
    return min(ks, key=lambda k: (abs(k - 10), k), default=10)


def precision_at_k(ranks: RelevantRanks, k: int) -> Floats:
    """Share of relevant images among the first k; in a shorter run the missing results count as not relevant (trec_eval P_k).

    Returns (n_queries,) float64 in [0, 1], NaN without relevant images.  Raises ValueError unless k >= 1.

    >>> precision_at_k(RelevantRanks.from_relevance([[1, 0, 1, 0, 0]], ideal=[[1] * 5]), k=4)
    array([0.5])
    """
    return _share(ranks, _hits(ranks, _at_least_one(k)), k)


def success_at_k(ranks: RelevantRanks, k: int) -> Floats:
    """1 for a query with a relevant image among the first k, else 0 (the "R@k" of CLIP papers; trec_eval success_k).

    recall_at_k is another metric: the hits divided by all relevant images.
    Returns (n_queries,) float64 in {0, 1}, NaN without relevant images.  Raises ValueError unless k >= 1.

    >>> success_at_k(RelevantRanks.from_relevance([[0, 1, 0], [0, 0, 1]], ideal=[[1], [1]]), k=2)
    array([1., 0.])
    """
    return _share(ranks, _hits(ranks, _at_least_one(k)) > 0, 1)


def recall_at_k(ranks: RelevantRanks, k: int) -> Floats:
    """Share of all relevant images that are among the first k (trec_eval recall_k).

    It cannot exceed recall_ceiling_at_k, which is small where a query has many relevant images.
    Returns (n_queries,) float64 in [0, 1], NaN without relevant images.  Raises ValueError unless k >= 1.

    >>> recall_at_k(RelevantRanks.from_relevance([[1, 0, 1, 0, 0]], ideal=[[1] * 5]), k=5)
    array([0.4])
    """
    return _share(ranks, _hits(ranks, _at_least_one(k)), ranks.n_relevant)


def recall_ceiling_at_k(ranks: RelevantRanks, k: int) -> Floats:
    """The highest recall@k that any ranking can reach: min(k, R) / R for R relevant images.

    Returns (n_queries,) float64 in (0, 1], NaN without relevant images.  Raises ValueError unless k >= 1.

    >>> recall_ceiling_at_k(RelevantRanks.from_relevance([[1]], ideal=[[1] * 500]), k=10)
    array([0.02])
    """
    return _share(ranks, np.minimum(_at_least_one(k), ranks.n_relevant), ranks.n_relevant)


def precision_ceiling_at_k(ranks: RelevantRanks, k: int) -> Floats:
    """The highest precision@k that any ranking can reach: min(k, R) / k for R relevant images.

    Returns (n_queries,) float64 in (0, 1], NaN without relevant images.  Raises ValueError unless k >= 1.

    >>> precision_ceiling_at_k(RelevantRanks.from_relevance([[1]], ideal=[[1]]), k=10)
    array([0.1])
    """
    return _share(ranks, np.minimum(_at_least_one(k), ranks.n_relevant), k)


def chance_precision(ranks: RelevantRanks, n_candidates: ArrayLike) -> Floats:
    """Expected precision@k of a random ranking, the same for every k: R / n for R relevant among n images.

    n_candidates : int, or (n_queries,) int: the number of images that can be retrieved, without the query's own
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

    Hits at ranks 1 and 3 with R = 5 give (1/1 + 2/3) / 5 = 0.333; torchmetrics divides by the two hits (0.833).
    The depth is that of the ranks: a run of 100 results yields AP@100.
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

    The gain is the grade itself, not 2^grade - 1.
    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002, with
    trec_eval's discount, log2(rank + 1), in place of log2(rank), which weights ranks 1 and 2 alike.
    Returns (n_queries,) float64 in [0, 1], NaN without relevant images.  Raises ValueError unless k >= 1.

    >>> ndcg_at_k(RelevantRanks.from_relevance([[2, 1], [1, 2]], ideal=[[2, 1], [2, 1]]), k=2).round(3)
    array([1.  , 0.86])
    """
    _at_least_one(k)
    # Numerator and denominator are sums over the same width, so that a perfect ranking yields exactly 1.
    ideal_ranks = np.broadcast_to(_ordinals(ranks), ranks.ranks.shape)
    return _share(ranks, _dcg(ranks.gains, ranks.ranks, k), _dcg(ranks.ideal, ideal_ranks, k))


def per_query(ranks: RelevantRanks, ks: Sequence[int]) -> dict[str, Floats]:
    """All metrics, under their names in metrics.json and in the order of the report.

    Returns metric -> (n_queries,) float64.  Raises ValueError unless each k >= 1.

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
    """Mean of each metric over the queries for which it is defined; a metric that no query defines is left out.

    values : metric -> (n_queries,) float64, NaN where undefined

    >>> mean({"map": np.array([0.5, np.nan, 1.0]), "mrr": np.array([np.nan])})
    {'map': 0.75}
    """
    defined = {name: row[~np.isnan(row)] for name, row in values.items()}
    return {name: float(row.mean()) for name, row in defined.items() if row.size}


def ann_recall_at_k(scores: Scores, exact_scores: Scores, k: int, tolerance: float) -> Floats:
    """Share of the k approximate neighbours whose scores reach that of the k-th exact neighbour.

    Scores are compared, not images, so that either of two equally near images counts; ann-benchmarks does the same with
    distances (Aumüller, Bernhardsson and Faithfull, Information Systems 87, 2020).

    scores       : (n_queries, k) float32, the exact scores of the results of the approximate search, in any order, -inf
                   where it returned nothing
    exact_scores : (n_queries, >= k) float32, scores of the exact neighbours, descending, finite
    tolerance    : >= 0, in units of score; two ways of summing one dot product differ by up to 1e-6
    Returns (n_queries,) float64 in [0, 1].  Raises ValueError for any other argument.

    >>> scores, exact = np.float32([[0.9, 0.5, -np.inf]]), np.float32([[0.9, 0.7, 0.5]])
    >>> ann_recall_at_k(scores, exact, k=3, tolerance=0).round(3)
    array([0.667])
    """
    _at_least_one(k)
    if not tolerance >= 0:
        raise ValueError(f"tolerance: expected a number >= 0, found {tolerance}")
    if scores.ndim != 2 or scores.shape[1] != k:
        raise ValueError(f"scores: expected shape (n_queries, {k}), found {scores.shape}")
    if exact_scores.ndim != 2 or len(exact_scores) != len(scores) or exact_scores.shape[1] < k:
        raise ValueError(
            f"exact_scores: expected shape ({len(scores)}, {k} or more), found {exact_scores.shape}; "
            "is k larger than the gallery?"
        )
    exact = exact_scores[:, :k]
    if not np.isfinite(exact).all() or (exact[:, :-1] < exact[:, 1:]).any():
        raise ValueError("exact_scores: expected finite scores in descending order, found others")
    if np.isnan(scores).any():
        raise ValueError("scores: expected numbers or -inf, found NaN")
    # In float64, where subtracting a small tolerance loses nothing.
    threshold = exact[:, -1:].astype(np.float64) - tolerance
    return np.asarray((scores >= threshold).mean(axis=1), np.float64)


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
    # The precision at the rank r of the i-th relevant image is i / r.
    return np.asarray(np.where(counted, _ordinals(ranks) / ranks.ranks, 0.0).sum(axis=1), np.float64)


def _dcg(gains: Floats, at_ranks: Ints, k: int) -> Floats:
    return np.asarray(np.where(at_ranks <= k, gains / np.log2(at_ranks + 1), 0.0).sum(axis=1), np.float64)
