"""What a run says, in sentences that are written from its numbers."""

from cbir.report.facts import TASKS, Facts
from cbir.report.figures import figure, share

_RANKING = "map_at_r"


def verdict(facts: Facts) -> list[str]:
    """At most three sentences: which encoder finds most by image, how well texts find, what the indexes cost."""
    if not any(facts.families(task) for task in TASKS):
        return ["Nothing was asked that has a right answer, so nothing can be said about quality."]
    return [told for told in (_images(facts), _texts(facts), _indexes(facts)) if told]


def _images(facts: Facts) -> str:
    """The encoder of greatest MAP@R, beside the next."""
    found = {
        name: values[_RANKING] for name, values in facts.metrics["cbir"].items() if values.get(_RANKING) is not None
    }
    if not found:
        return ""
    first, *others = sorted(found, key=lambda name: -found[name])
    right = facts.metrics["cbir"][first].get(f"precision@{facts.cost_k}")
    told = f"Asked by an image, {first} has {_right(right, facts.cost_k)} ({_RANKING} {figure(found[first])})"
    if not others:
        return f"{told}."
    other = others[0]
    bounds = [facts.intervals["cbir"][name].get(_RANKING) for name in (first, other)]
    if round(found[first] - found[other], 9) == 0:
        return f"{told}, and {other} the same map_at_r."
    against = f"{other} ({_RANKING} {figure(found[other])})"
    if None in bounds:
        return f"{told}, {against}; there are too few classes to say how sure that is."
    if bounds[0][0] > bounds[1][1]:
        return f"{told}, ahead of {against}: their 95 % intervals are apart."
    return f"{told}, {against}; their 95 % intervals overlap."


def _texts(facts: Facts) -> str:
    """How often a text's first results hold a right image."""
    for encoder, values in facts.metrics["tbir"].items():
        ks = facts.families("tbir").get("success", [])
        success, right = (values.get(name) for name in (f"success@{min(ks, default=1)}", f"precision@{facts.cost_k}"))
        if success is not None:
            where = "first" if min(ks) == 1 else f"among the first {min(ks)}"
            return (
                f"Asked by a text, {encoder} puts a right image {where} for {share(success)} of the queries, and has "
                f"{_right(right, facts.cost_k)}."
            )
    return ""


def _indexes(facts: Facts) -> str:
    """What the indexes miss, and what that costs."""
    recalls = [one.values.get(f"ann_recall@{facts.ann_k}") for one in facts.askers]
    costs = [one.cost.get(f"precision@{facts.cost_k}") for one in facts.askers]
    known, lost = [value for value in recalls if value is not None], [value for value in costs if value is not None]
    if facts.index_kinds == "flat":
        return "The index is exact: it finds every neighbour."
    if not known or not lost:
        return ""
    price = "no precision" if max(lost) < 0.0005 else f"at most {figure(max(lost))} of precision@{facts.cost_k}"
    least = share(min(known))
    everywhere = len(facts.as_fast) == sum(map(len, facts.latency["encoders"].values()))
    fast = "; exact search would be as fast here" if facts.as_fast and everywhere else ""
    found = f"{'all' if least == '100 %' else f'at least {least}'} of the {facts.ann_k} exact neighbours"
    return f"The {facts.index_kinds} index finds {found}, which costs {price}{fast}."


def _right(precision: float | None, k: int) -> str:
    if precision is None:
        return "results"
    return f"{share(precision)} of its first {f'{k} results' if k > 1 else 'results'} right"
