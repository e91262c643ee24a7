"""Which encoder to take, in words: what the paired tests decide, what they leave undecided, and what then costs less."""

from collections.abc import Mapping, Sequence
from typing import Final

from cbir.artifacts.comparison import EncoderCost, MetricComparison, PairedTest
from cbir.artifacts.names import MODALITIES
from cbir.core.text import listed
from cbir.evaluation.statistics import LEVEL
from cbir.report.costs import MIN_TIMED_IMAGES
from cbir.report.figures import counted, figure, whole

_ALIKE: Final = 1.1  # costs count as equal up to this ratio: times vary as much
_MAX_NAMES = 6


def choice_sentences(task: str, metrics: Sequence[MetricComparison], costs: Mapping[str, EncoderCost]) -> list[str]:
    """Return sentences on the best encoder for the queries of a task.

    metrics : the comparisons of the task; the first decides.  costs : encoder -> cost; those without an entry are compared in
    quality alone.
    """
    decisive, *others = metrics
    if len(decisive.ranking) == 1:
        (only,) = decisive.ranking
        return [
            f"For {MODALITIES[task]} queries, {only.encoder} is the only encoder "
            f"({decisive.metric} {figure(only.mean, only.interval)})."
        ]
    if not decisive.is_testable:
        return [f"For {MODALITIES[task]} queries, {_untested(decisive)}"]
    group = decisive.best_group
    first = _decided(decisive) if len(group) == 1 else _undecided(decisive, group)
    sentences = [f"For {MODALITIES[task]} queries, {first}"]
    rest = [ranked.encoder for ranked in decisive.ranking if ranked.encoder not in group]
    if len(group) > 1 and rest:
        p = _p_at_most(decisive, group[0], rest)
        sentences.append(
            f"The {decisive.metric} of {group[0]} is higher than that of {listed(rest, _MAX_NAMES)} ({p})."
        )
    if len(group) > 1 and all(name in costs for name in group):
        sentences.append(_by_cost(decisive, group, costs))
    return sentences + [sentence for other in others if (sentence := _by_another_metric(other, group))]


def p_value(p: float) -> str:
    """Format a p-value; one below the level of the tests never looks like the level.

    >>> p_value(0.21), p_value(0.0499), p_value(0.00005)
    ('p = 0.210', 'p = 0.0499', 'p < 0.001')
    """
    if p < 0.001:
        return "p < 0.001"
    level = round(1 - LEVEL, 3)
    return f"p = {p:.4f}" if round(p, 3) == level != p else f"p = {p:.3f}"


def points(difference: float) -> str:
    """Format a difference of shares in percentage points.

    >>> points(0.004), points(0.01), points(0.0001)
    ('0.4 percentage points', '1.0 percentage points', 'less than 0.1 percentage points')
    """
    return "less than 0.1 percentage points" if 0 < difference < 0.001 else f"{100 * difference:.1f} percentage points"


def _untested(comparison: MetricComparison) -> str:
    n, first, second = len(comparison.ranking), comparison.ranking[0], comparison.ranking[1]
    return (
        f"nothing is decided: to tell {n} encoders apart, queries of at least {comparison.classes_needed} classes are needed, "
        f"and there are {comparison.classes}. {first.encoder} has {comparison.metric} {figure(first.mean)}, "
        f"{second.encoder} {figure(second.mean)}{', the others less' if n > 2 else ''}."
    )


def _decided(comparison: MetricComparison) -> str:
    best, second, *rest = comparison.ranking
    test = comparison.test(best.encoder, second.encoder)
    if not rest:
        return (
            f"take {best.encoder}: its {comparison.metric}, {figure(best.mean)}, is higher than that of {second.encoder}, "
            f"{figure(second.mean)}, by {points(test.difference)} ({_range(test.interval)}, {p_value(_p(test))})."
        )
    p = _p_at_most(comparison, best.encoder, [ranked.encoder for ranked in (second, *rest)])
    return (
        f"take {best.encoder}: its {comparison.metric}, {figure(best.mean)}, is higher than that of each other encoder ({p}). "
        f"The second, {second.encoder}, has {figure(second.mean)}, {points(test.difference)} less ({_range(test.interval)})."
    )


def _undecided(comparison: MetricComparison, group: Sequence[str]) -> str:
    means = {ranked.encoder: ranked.mean for ranked in comparison.ranking}
    tests = [comparison.test(group[0], other) for other in group[1:]]
    first, last = figure(means[group[0]]), figure(means[group[-1]])
    between = f"undecided between {listed(group, _MAX_NAMES)}: "
    if all(round(test.difference, 9) == 0 for test in tests):
        return f"{between}they have the same {comparison.metric}, {first}."
    p = min(map(_p, tests))
    correction = " after Holm's correction" if len(comparison.ranking) > 2 else ""
    if len(group) == 2:
        test = tests[0]
        return (
            f"{between}{comparison.metric} is {first} and {last}, and {_queries(comparison)} show no significant difference "
            f"({points(test.difference)}, {_range(test.interval)}, {p_value(p)}{correction})."
        )
    at_least = p_value(p).replace("=", ">=")
    return (
        f"{between}{comparison.metric} is {first} to {last}, and {_queries(comparison)} show no significant difference from "
        f"{group[0]} ({at_least}{correction})."
    )


def _by_cost(comparison: MetricComparison, group: Sequence[str], costs: Mapping[str, EncoderCost]) -> str:
    """Choose by cost among encoders that cannot be told apart from the best; `group` is in the order of the ranking."""
    n_bytes = {name: costs[name].bytes_per_vector for name in group}
    smallest = min(group, key=lambda name: n_bytes[name])
    speeds = {name: speed for name in group if (speed := costs[name].images_per_s) is not None}
    small = f"{smallest}, {whole(n_bytes[smallest])} bytes an image"
    if len(speeds) < len(group):
        return (
            f"The smallest index is that of {small}. Their speeds cannot be compared: not each of them embedded "
            f"{MIN_TIMED_IMAGES} images or more in this run."
        )
    if len({costs[name].machine for name in group}) > 1:
        return (
            f"The smallest index is that of {small}. Their speeds cannot be compared: they ran on different machines."
        )
    fastest = max(group, key=lambda name: speeds[name])
    cheap = [
        name
        for name in group
        if speeds[name] * _ALIKE >= speeds[fastest] and n_bytes[name] <= n_bytes[smallest] * _ALIKE
    ]
    if len(cheap) == len(group):
        each = f"{_speed(speeds[fastest])} images a second, {whole(n_bytes[smallest])} bytes an image"
        return f"They cost about the same: {each}."
    if not cheap:
        return f"The fastest is {fastest}, {_speed(speeds[fastest])} images a second; the smallest index is that of {small}."
    chosen, best = cheap[0], group[0]
    other = next(name for name in group if name not in cheap) if chosen == best else best
    sentence = (
        f"Take {chosen}, the cheapest: it embeds {_speed(speeds[chosen])} images a second ({other}: {_speed(speeds[other])}) "
        f"and its index takes {whole(n_bytes[chosen])} bytes an image ({other}: {whole(n_bytes[other])})"
    )
    if chosen == best:
        return f"{sentence}."
    test = comparison.test(best, chosen)
    most = max(test.difference if test.interval is None else test.interval[1], 0.001)
    return f"{sentence}; its {comparison.metric} is at most {points(most)} lower (95 % interval)."


def _by_another_metric(comparison: MetricComparison, group: Sequence[str]) -> str:
    """Say that another metric ranks an encoder above the best, or decides between those left undecided."""
    best = comparison.ranking[0]
    rivals = [name for name in group if name != best.encoder]
    if not rivals or not all(comparison.test(best.encoder, rival).differs for rival in rivals):
        return ""
    means = {ranked.encoder: ranked.mean for ranked in comparison.ranking}
    highest = max(means[rival] for rival in rivals)
    return (
        f"By {comparison.metric}, {best.encoder} is better than {listed(rivals, _MAX_NAMES)} ({figure(best.mean)} against "
        f"{'' if len(rivals) == 1 else 'at most '}{figure(highest)}, {_p_at_most(comparison, best.encoder, rivals)})."
    )


def _p_at_most(comparison: MetricComparison, best: str, others: Sequence[str]) -> str:
    """The largest p-value of the best against the others."""
    p = p_value(max(_p(comparison.test(best, other)) for other in others))
    correction = " after Holm's correction" if len(comparison.ranking) > 2 else ""
    return f"{p if len(others) == 1 else p.replace('=', '<=')}{correction}"


def _p(test: PairedTest) -> float:
    return 1.0 if test.p_holm is None else test.p_holm


def _range(interval: Sequence[float] | None) -> str:
    """Format the interval of a difference, in percentage points."""
    if interval is None:
        return "no interval"
    low, high = (f"{100 * bound:.1f}".replace("-0.0", "0.0") for bound in interval)
    return f"95 % interval {low} to {high}"


def _queries(comparison: MetricComparison) -> str:
    """The queries, and their classes unless each is a class of its own."""
    queries = counted(comparison.queries, "query", "queries")
    if comparison.classes == comparison.queries:
        return queries
    return f"{queries} of {counted(comparison.classes, 'class', 'classes')}"


def _speed(images_per_s: float) -> str:
    return whole(images_per_s) if images_per_s >= 10 else f"{images_per_s:.1f}"
