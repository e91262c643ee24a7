"""The metrics of metrics.json: definition, denominator, ties, and their names in other tools.

The number of queries and the ceiling of each metric belong to a run; `cbir.evaluation.results` adds them.
"""

from dataclasses import asdict, dataclass
from typing import Any, Final

_EXACT_TIES = "equal scores are ranked in the order of the gallery"
_OWN_IMAGE = "the query's own image is left out of its results, and later results move up"
_NO_RELEVANT = "left out of the mean; data.queries_without_relevant counts them"


@dataclass(frozen=True)
class Definition:
    """A family of metrics; R is the number of relevant images of a query, k the number in the metric's name.

    also_called : tool or literature -> name there.
    """

    definition: str
    denominator: str
    also_called: dict[str, str]
    ties: str = _EXACT_TIES
    self_matches: str = _OWN_IMAGE
    queries_without_relevant: str = _NO_RELEVANT


FAMILIES: Final = {
    "precision@k": Definition(
        "relevant images among the first k",
        "k, even if R or the number of results is smaller",
        {"trec_eval": "P_k", "ir-measures": "P@k", "metric learning": "precision@k"},
    ),
    "success@k": Definition(
        "1 if a relevant image is among the first k, else 0",
        "1",
        {
            "trec_eval": "success_k",
            "ir-measures": "Success@k",
            "CLIP papers": "R@k, also called recall@k",
            "metric learning": "recall@k; precision_at_1 for k = 1",
        },
    ),
    "recall@k": Definition(
        "relevant images among the first k",
        "R",
        {"trec_eval": "recall_k", "ir-measures": "R@k"},
    ),
    "ndcg@k": Definition(
        "sum of grade / log2(rank + 1) over the first k; the grade itself, not 2^grade - 1",
        "the same sum for the best possible ranking",
        {"trec_eval": "ndcg_cut_k", "ir-measures": "nDCG@k"},
    ),
    "r_precision": Definition(
        "relevant images among the first R",
        "R",
        {"trec_eval": "Rprec", "ir-measures": "Rprec", "pytorch-metric-learning": "r_precision"},
    ),
    "map_at_r": Definition(
        "sum of the precision at each relevant image of the first R",
        "R",
        {"pytorch-metric-learning": "mean_average_precision_at_r", "Musgrave et al. 2020": "MAP@R"},
    ),
    "map": Definition(
        "sum of the precision at each relevant image of the whole ranking",
        "R, whether retrieved or not (torchmetrics' RetrievalMAP divides by the number of relevant images retrieved)",
        {"trec_eval": "map", "ir-measures": "AP", "pytorch-metric-learning": "mean_average_precision"},
    ),
    "mrr": Definition(
        "1 / rank of the first relevant image, 0 if none is retrieved",
        "1",
        {"trec_eval": "recip_rank", "ir-measures": "RR", "pytorch-metric-learning": "mean_reciprocal_rank"},
    ),
    "prototype_accuracy@k": Definition(
        "1 if the query's class is among the k classes with the nearest mean vectors (by cosine), else 0",
        "1",
        {"few-shot learning": "accuracy of prototypical networks (Snell et al. 2017)"},
        ties="of equally near classes, the query's own ranks last",
        self_matches="the query's own image is excluded from the mean of its class",
        queries_without_relevant="queries whose class is not in the gallery are left out of the mean",
    ),
    "knn_accuracy@k": Definition(
        "1 if the query's class is among the k classes with the most votes of its 20 nearest neighbours, else 0",
        "1",
        {"scikit-learn": "KNeighborsClassifier(20), except for ties"},
        ties="of classes with equal votes, the one with the larger sum of scores ranks first",
        queries_without_relevant="queries whose class is not in the gallery are left out of the mean",
    ),
    "ann_recall@k": Definition(
        "results of the index whose exact score is among the k best",
        "k",
        {"ann-benchmarks": "recall (by distance)", "FAISS": "intersection measure, except for ties"},
        ties="a result whose score is within 1e-6 of that of the k-th exact neighbour counts",
        queries_without_relevant="included, because the judgements are not used",
    ),
}


def define(metric: str) -> dict[str, Any]:
    """The definition of a metric by its name in metrics.json, with k filled in.

    Raises KeyError for a name that no metric has.

    >>> define("recall@10")["also_called"]
    {'trec_eval': 'recall_10', 'ir-measures': 'R@10'}
    """
    family, at, k = metric.partition("@")
    family = f"{family}@k" if at else family
    definition = asdict(FAMILIES[family])
    definition["also_called"] = {
        where: name.replace("@k", f"@{k}").replace("_k", f"_{k}") for where, name in definition["also_called"].items()
    }
    return {"family": family, **definition}
