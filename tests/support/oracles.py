"""The metrics written a second time from their definitions, with plain loops and no code shared with cbir.

ranked    : image ids of the run, best first
relevance : image id -> grade of each judged image, retrieved or not; an image is relevant from grade 1 on
"""

import math
from collections.abc import Callable, Mapping, Sequence


def is_relevant(image_id: str, relevance: Mapping[str, int]) -> bool:
    return relevance.get(image_id, 0) >= 1


def number_of_relevant(relevance: Mapping[str, int]) -> int:
    count = 0
    for image_id in relevance:
        if is_relevant(image_id, relevance):
            count += 1
    return count


def hits_at_k(ranked: Sequence[str], relevance: Mapping[str, int], k: int) -> int:
    hits = 0
    for image_id in ranked[:k]:
        if is_relevant(image_id, relevance):
            hits += 1
    return hits


def precision_at_k(ranked: Sequence[str], relevance: Mapping[str, int], k: int) -> float:
    if number_of_relevant(relevance) == 0:
        return math.nan
    return hits_at_k(ranked, relevance, k) / k


def success_at_k(ranked: Sequence[str], relevance: Mapping[str, int], k: int) -> float:
    if number_of_relevant(relevance) == 0:
        return math.nan
    return 1.0 if hits_at_k(ranked, relevance, k) > 0 else 0.0


def recall_at_k(ranked: Sequence[str], relevance: Mapping[str, int], k: int) -> float:
    if number_of_relevant(relevance) == 0:
        return math.nan
    return hits_at_k(ranked, relevance, k) / number_of_relevant(relevance)


def best_ranking(relevance: Mapping[str, int]) -> list[str]:
    return sorted(relevance, key=lambda image_id: relevance[image_id], reverse=True)


def recall_ceiling_at_k(ranked: Sequence[str], relevance: Mapping[str, int], k: int) -> float:
    return recall_at_k(best_ranking(relevance), relevance, k)


def precision_ceiling_at_k(ranked: Sequence[str], relevance: Mapping[str, int], k: int) -> float:
    return precision_at_k(best_ranking(relevance), relevance, k)


def r_precision(ranked: Sequence[str], relevance: Mapping[str, int]) -> float:
    if number_of_relevant(relevance) == 0:
        return math.nan
    return precision_at_k(ranked, relevance, number_of_relevant(relevance))


def average_precision(ranked: Sequence[str], relevance: Mapping[str, int]) -> float:
    if number_of_relevant(relevance) == 0:
        return math.nan
    total = 0.0
    for rank, image_id in enumerate(ranked, start=1):
        if is_relevant(image_id, relevance):
            total += precision_at_k(ranked, relevance, rank)
    return total / number_of_relevant(relevance)


def average_precision_at_r(ranked: Sequence[str], relevance: Mapping[str, int]) -> float:
    return average_precision(ranked[: number_of_relevant(relevance)], relevance)


def reciprocal_rank(ranked: Sequence[str], relevance: Mapping[str, int]) -> float:
    if number_of_relevant(relevance) == 0:
        return math.nan
    for rank, image_id in enumerate(ranked, start=1):
        if is_relevant(image_id, relevance):
            return 1 / rank
    return 0.0


def dcg_at_k(ranked: Sequence[str], relevance: Mapping[str, int], k: int) -> float:
    total = 0.0
    for rank, image_id in enumerate(ranked[:k], start=1):
        total += relevance.get(image_id, 0) / math.log2(rank + 1)
    return total


def ndcg_at_k(ranked: Sequence[str], relevance: Mapping[str, int], k: int) -> float:
    if number_of_relevant(relevance) == 0:
        return math.nan
    return dcg_at_k(ranked, relevance, k) / dcg_at_k(best_ranking(relevance), relevance, k)


AT_K: dict[str, Callable[[Sequence[str], Mapping[str, int], int], float]] = {
    "precision": precision_at_k,
    "success": success_at_k,
    "recall": recall_at_k,
    "ndcg": ndcg_at_k,
}
WHOLE: dict[str, Callable[[Sequence[str], Mapping[str, int]], float]] = {
    "r_precision": r_precision,
    "map_at_r": average_precision_at_r,
    "map": average_precision,
    "mrr": reciprocal_rank,
}


def all_metrics(ranked: Sequence[str], relevance: Mapping[str, int], ks: Sequence[int]) -> dict[str, float]:
    """The metrics of one query under their names in metrics.json."""
    values = {}
    for k in ks:
        for name, metric in AT_K.items():
            values[f"{name}@{k}"] = metric(ranked, relevance, k)
    for name, whole in WHOLE.items():
        values[name] = whole(ranked, relevance)
    return values


def ranked_positions(scores: Sequence[float], excluded: int | None = None) -> list[int]:
    """Gallery positions by score descending, then position ascending, without the excluded one."""
    positions = [position for position in range(len(scores)) if position != excluded]
    return sorted(positions, key=lambda position: (-scores[position], position))


def ann_recall_at_k(scores: Sequence[float], exact: Sequence[float], k: int, tolerance: float) -> float:
    hits = 0
    for score in scores[:k]:
        if score >= exact[k - 1] - tolerance:
            hits += 1
    return hits / k
