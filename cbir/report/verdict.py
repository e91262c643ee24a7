"""The verdict: what a run's metrics say, in a few sentences."""

from typing import Final

from cbir.artifacts.names import TASKS
from cbir.report.choice_sentences import choice_sentences
from cbir.report.facts import Facts
from cbir.report.figures import figure, share

_NEAR_CHANCE: Final = 2.0  # a figure below this multiple of what a random ranking reaches is told beside it


def verdict(facts: Facts) -> list[str]:
    """Return sentences on the encoder to take, by paired tests, on text queries, and on the cost of the indexes."""
    if not any(facts.families(task) for task in TASKS):
        return ["No query has a relevant image, so retrieval quality is unknown."]
    text = _choice(facts, "tbir") if len(facts.metrics.tbir) > 1 else [_on_text_queries(facts)]
    return [sentence for sentence in (*_choice(facts, "cbir"), *text, _on_indexes(facts)) if sentence]


def _choice(facts: Facts, task: str) -> list[str]:
    metrics = facts.comparison.tasks.get(task)
    if metrics is None:
        return []
    sentences = choice_sentences(task, metrics, facts.comparison.costs)
    decisive = metrics[0]
    chance = _chance_near(facts, task, decisive.metric, decisive.ranking[-1].mean)
    if chance is not None:
        sentences.append(f"A random ranking has {decisive.metric} {figure(chance)}.")
    return sentences


def _chance_near(facts: Facts, task: str, metric: str, value: float | None) -> float | None:
    """What a random ranking reaches in a metric, if the value is near it."""
    chance = facts.metrics.chance[task].get(metric.partition("@")[0])
    return chance if chance is not None and value is not None and value < _NEAR_CHANCE * chance else None


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
            chance = _chance_near(facts, "tbir", "precision", precision)
            by_chance = "" if chance is None else f" ({share(chance)} by chance)"
            return f"For {share(success)} of the text queries, {encoder}'s {includes}{relevant}{by_chance}."
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
