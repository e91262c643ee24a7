"""The verdict: what a run's metrics say, in at most three sentences."""

from cbir.artifacts.names import TASKS
from cbir.report.facts import Facts
from cbir.report.figures import figure, share

_RANKING = "map_at_r"


def verdict(facts: Facts) -> list[str]:
    """Return sentences on the best encoder for image queries, on text queries, and on the cost of the indexes."""
    if not any(facts.families(task) for task in TASKS):
        return ["No query has a relevant image, so retrieval quality is unknown."]
    sentences = [_on_image_queries(facts), _on_text_queries(facts), _on_indexes(facts)]
    return [sentence for sentence in sentences if sentence]


def _on_image_queries(facts: Facts) -> str:
    """Compare the encoder that has the highest MAP@R with the second best."""
    rankings = {encoder: means[_RANKING] for encoder, means in facts.metrics.cbir.items() if _RANKING in means}
    if not rankings:
        return ""
    best, *others = sorted(rankings, key=lambda encoder: -rankings[encoder])
    precision = facts.metrics.cbir[best].get(f"precision@{facts.cost_k}")
    if precision is None:
        sentence = f"For image queries, {best} has {_RANKING} {figure(rankings[best])}"
    else:
        relevant = _relevant(f"{best}'s", precision, facts.cost_k)
        sentence = f"For image queries, {relevant} ({_RANKING} {figure(rankings[best])})"
    if not others:
        return f"{sentence}."
    second = others[0]
    if round(rankings[best] - rankings[second], 9) == 0:
        return f"{sentence}; {second} has the same {_RANKING}."
    against = f"{second} ({_RANKING} {figure(rankings[second])})"
    bounds = [facts.intervals.cbir[encoder].get(_RANKING) for encoder in (best, second)]
    if bounds[0] is None or bounds[1] is None:
        return f"{sentence}, compared with {against}; there are too few classes for confidence intervals."
    if bounds[0][0] > bounds[1][1]:
        return f"{sentence}, ahead of {against}; their 95 % intervals do not overlap."
    return f"{sentence}, compared with {against}; their 95 % intervals overlap."


def _on_text_queries(facts: Facts) -> str:
    """Say how often the first results of a text query include a relevant image."""
    smallest_k = min(facts.families("tbir").get("success", []), default=1)
    for encoder, means in facts.metrics.tbir.items():
        success, precision = means.get(f"success@{smallest_k}"), means.get(f"precision@{facts.cost_k}")
        if success is not None:
            includes = (
                "first result is relevant"
                if smallest_k == 1
                else f"first {smallest_k} results include a relevant image"
            )
            relevant = "" if precision is None else f"; {_relevant('its', precision, facts.cost_k)}"
            return f"For {share(success)} of the text queries, {encoder}'s {includes}{relevant}."
    return ""


def _on_indexes(facts: Facts) -> str:
    """Say what share of the exact neighbours the indexes find, and what precision that costs."""
    if all(facts.is_exact(encoder) for encoder in facts.passports):
        return "The index is exact: it finds every neighbour."
    recalls = [
        recall for index in facts.index_metrics if (recall := index.values.get(f"ann_recall@{facts.ann_k}")) is not None
    ]
    costs = [cost for index in facts.index_metrics if (cost := index.cost.get(f"precision@{facts.cost_k}")) is not None]
    if not recalls or not costs:
        return ""
    lowest = share(min(recalls))
    neighbours = f"{'all' if lowest == '100 %' else f'at least {lowest}'} of the {facts.ann_k} exact neighbours"
    price = "no cost" if max(costs) < 0.0005 else f"a cost of at most {figure(max(costs))}"
    n_timed = sum(map(len, facts.latency.encoders.values()))
    as_fast = "; exact search is as fast here" if facts.as_fast and len(facts.as_fast) == n_timed else ""
    indexes = "indexes find" if " and " in facts.index_kinds else "index finds"
    return f"The {facts.index_kinds} {indexes} {neighbours}, at {price} in precision@{facts.cost_k}{as_fast}."


def _relevant(whose: str, precision: float, k: int) -> str:
    """Put precision@k into words."""
    if k == 1:
        return f"{whose} first result is relevant for {share(precision)} of the queries"
    return f"{whose} top {k} results are {share(precision)} relevant"
