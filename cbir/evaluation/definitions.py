"""What each figure of metrics.json is: definition, denominator, ties, and what others call it.

The numbers that go with it, how many queries it is over and what the best ranking would reach, are of a run: see
`cbir.evaluation.evaluate.Report`.
"""

from dataclasses import asdict, dataclass
from typing import Any, Final

_EXACT_TIES = "equal scores stand in the order of the gallery"
_OWN_IMAGE = "the query's own image is left out of its results, and the ranks close up"
_NO_RELEVANT = "left out of the mean; their number stands in data.queries_without_relevant"


@dataclass(frozen=True)
class Definition:
    """A family of metrics; R is the number of relevant images of a query, k the number in the metric's name.

    also_called : where -> the name there.
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
        "k, though R or the run be smaller",
        {"trec_eval": "P_k", "ir-measures": "P@k", "metric learning": "precision@k"},
    ),
    "success@k": Definition(
        "1 where the first k hold a relevant image, else 0",
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
        "the same sum of the best possible ranking",
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
        "R, found or not",
        {
            "trec_eval": "map",
            "ir-measures": "AP",
            "pytorch-metric-learning": "mean_average_precision",
            "not": "torchmetrics' RetrievalMAP, which divides by the relevant images found",
        },
    ),
    "mrr": Definition(
        "1 / rank of the first relevant image, 0 where none is retrieved",
        "1",
        {"trec_eval": "recip_rank", "ir-measures": "RR", "pytorch-metric-learning": "mean_reciprocal_rank"},
    ),
    "prototype_accuracy@k": Definition(
        "1 where the query's class is among the k whose mean vectors are nearest by cosine, else 0",
        "1",
        {"few-shot learning": "accuracy of prototypical networks (Snell et al. 2017)"},
        ties="of classes equally near, the query's own counts as the farthest",
        self_matches="the query's own image is taken out of its class's mean",
        queries_without_relevant="without a class that the gallery has, left out of the mean",
    ),
    "knn_accuracy@k": Definition(
        "1 where the query's class is among the k with most votes of its 20 nearest neighbours, else 0",
        "1",
        {"scikit-learn": "KNeighborsClassifier(20), but for ties"},
        ties="of equal votes, the class with the larger sum of scores",
        queries_without_relevant="without a class that the gallery has, left out of the mean",
    ),
    "ann_recall@k": Definition(
        "results of the index whose exact score is among the k best",
        "k",
        {"ann-benchmarks": "recall (by distance)", "FAISS": "intersection measure, but for ties"},
        ties="a result as good as the k-th exact neighbour, within 1e-6, counts as found",
        queries_without_relevant="counted like any other: judgements play no part",
    ),
}


def define(metric: str) -> dict[str, Any]:
    """The definition of a metric by its name in metrics.json, with k filled in.

    Raises KeyError for a name that no metric has.

    >>> define("recall@10")["also_called"]
    {'trec_eval': 'recall_10', 'ir-measures': 'R@10'}
    """
    family, at, k = metric.partition("@")
    found = asdict(FAMILIES[f"{family}@k" if at else family])
    found["also_called"] = {
        where: name.replace("@k", f"@{k}").replace("_k", f"_{k}") for where, name in found["also_called"].items()
    }
    return {"family": f"{family}@k" if at else family, **found}
