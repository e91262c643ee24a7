"""Which encoder to take, in words: one case of the tests and costs at a time."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir.artifacts.comparison import EncoderCost, MetricComparison
from cbir.report.choice_sentences import choice_sentences, p_value
from tests.support.compared import COST, metric_of

ALIKE = {"a b": 0.21}
TWO = {"a": 0.830, "b": 0.826}
THREE = {"a": 0.830, "b": 0.826, "c": 0.700}
FOUR = {"a": 0.830, "b": 0.826, "c": 0.825, "d": 0.7}


def said(*metrics: MetricComparison, costs: Mapping[str, EncoderCost] | None = None, task: str = "cbir") -> list[str]:
    """The sentences, after what must hold for each."""
    sentences = choice_sentences(task, metrics, costs or {})
    for sentence in sentences:
        assert re.fullmatch(r"\S[^\n]*[^ ,;:]\.", sentence)
        assert not re.search(r"None|nan|  |\(\)|no interval|-0\.0 ", sentence)
    return sentences


def costs_of(**changes: Any) -> dict[str, EncoderCost]:
    """a=(images/s, bytes per vector)"""
    return {name: replace(COST, images_per_s=pair[0], bytes_per_vector=pair[1]) for name, pair in changes.items()}


# ---- what the tests decide


def test_a_single_encoder_is_no_choice() -> None:
    assert said(metric_of({"clip": 0.83}), task="tbir") == [
        "For text queries, clip is the only encoder (precision@10 0.830 [0.800, 0.860])."
    ]
    assert said(metric_of({"clip": 0.83}, classes=2)) == [
        "For image queries, clip is the only encoder (precision@10 0.830)."
    ]


def test_the_better_of_two_is_named_with_its_test() -> None:
    assert said(metric_of({"a": 0.83, "b": 0.79}, {"a b": 0.012})) == [
        "For image queries, take a: its precision@10, 0.830, is higher than that of b, 0.790, by 4.0 percentage points "
        "(95 % interval 1.0 to 7.0, p = 0.012)."
    ]


def test_the_best_of_several_is_better_than_each() -> None:
    assert said(metric_of(THREE, {"a b": 0.02, "a c": 0.003, "b c": 0.5})) == [
        "For image queries, take a: its precision@10, 0.830, is higher than that of each other encoder (p <= 0.020 after "
        "Holm's correction). The second, b, has 0.826, 0.4 percentage points less (95 % interval -2.6 to 3.4)."
    ]
    assert "each other encoder (p < 0.001 after" in said(metric_of(THREE))[0]


def test_two_that_the_test_cannot_tell_apart_are_undecided() -> None:
    assert said(metric_of(TWO, ALIKE)) == [
        "For image queries, undecided between a and b: precision@10 is 0.830 and 0.826, and 300 queries of 12 classes show "
        "no significant difference (0.4 percentage points, 95 % interval -2.6 to 3.4, p = 0.210)."
    ]


def test_those_that_are_worse_than_the_best_are_named() -> None:
    sentences = said(metric_of(THREE, {**ALIKE, "a c": 0.04}))
    assert sentences[0].endswith("p = 0.210 after Holm's correction).")
    assert sentences[1] == "The precision@10 of a is higher than that of c (p = 0.040 after Holm's correction)."
    assert said(metric_of({**THREE, "d": 0.6}, {**ALIKE, "a c": 0.04}))[1].startswith(
        "The precision@10 of a is higher than that of c and d (p <= 0.040 after"
    )


def test_several_that_cannot_be_told_apart_are_undecided() -> None:
    sentences = said(metric_of(FOUR, {"a b": 0.9, "a c": 0.3}))
    assert sentences[0] == (
        "For image queries, undecided between a, b and c: precision@10 is 0.830 to 0.825, and 300 queries of 12 classes show "
        "no significant difference from a (p >= 0.300 after Holm's correction)."
    )
    assert "higher than that of d" in sentences[1]


def test_when_nothing_is_decided_all_are_named() -> None:
    p_values = {f"{first} {second}": 1.0 for first in "abcd" for second in "abcd"}
    (sentence,) = said(metric_of(FOUR, p_values, queries=300, classes=300))
    assert sentence.startswith("For image queries, undecided between a, b, c and d: ")
    assert "and 300 queries show no" in sentence


def test_many_names_are_shortened() -> None:
    names = [f"e{number:02d}" for number in range(20)]
    p_values = {f"{first} {second}": 1.0 for first in names for second in names}
    assert (
        "between e00, e01, e02, e03, e04 and 15 others: "
        in said(metric_of({name: 0.8 - number / 1000 for number, name in enumerate(names)}, p_values, classes=20))[0]
    )


def test_equal_means_are_called_the_same() -> None:
    assert said(metric_of({"a": 0.5, "b": 0.5}, {"a b": 1.0})) == [
        "For image queries, undecided between a and b: they have the same precision@10, 0.500."
    ]
    assert said(metric_of({"a": 0.5, "b": 0.5 - 1e-12}, {"a b": 1.0})) == [
        "For image queries, undecided between a and b: they have the same precision@10, 0.500."
    ]


def test_a_tiny_difference_is_not_called_none() -> None:
    assert "(less than 0.1 percentage points, 95 %" in said(metric_of({"a": 0.5, "b": 0.4998}, {"a b": 0.7}))[0]


@pytest.mark.parametrize("classes", [4, 6])
def test_too_few_classes_decide_nothing(classes: int) -> None:
    assert said(metric_of(THREE, classes=classes)) == [
        "For image queries, nothing is decided: to tell 3 encoders apart, queries of at least 7 classes are needed, and there "
        f"are {classes}. a has precision@10 0.830, b 0.826, the others less."
    ]
    assert said(metric_of(TWO, classes=5))[0].endswith(
        "at least 6 classes are needed, and there are 5. a has precision@10 0.830, b 0.826."
    )


# ---- what the cost decides


def test_the_cheaper_of_two_alike_is_taken() -> None:
    sentences = said(metric_of(TWO, ALIKE), costs=costs_of(a=(40, 3072), b=(120, 512)))
    assert sentences[1:] == [
        "Take b, the cheapest: it embeds 120 images a second (a: 40) and its index takes 512 bytes an image (a: 3,072); its "
        "precision@10 is at most 3.4 percentage points lower (95 % interval)."
    ]


def test_a_bound_near_0_is_rounded_up() -> None:
    alike = metric_of({"a": 0.5, "b": 0.5}, {"a b": 1.0}, half=0.0002)
    assert "at most 0.1 percentage points lower" in said(alike, costs=costs_of(a=(40, 3072), b=(120, 512)))[1]


def test_the_best_is_taken_where_it_is_the_cheapest() -> None:
    sentences = said(metric_of(TWO, ALIKE), costs=costs_of(a=(120, 512), b=(4.25, 3072)))
    assert sentences[1:] == [
        "Take a, the cheapest: it embeds 120 images a second (b: 4.2) and its index takes 512 bytes an image (b: 3,072)."
    ]


def test_speed_and_size_that_disagree_decide_nothing() -> None:
    sentences = said(metric_of(TWO, ALIKE), costs=costs_of(a=(120, 3072), b=(40, 512)))
    assert sentences[1:] == [
        "The fastest is a, 120 images a second; the smallest index is that of b, 512 bytes an image."
    ]


def test_nearly_equal_costs_decide_nothing() -> None:
    sentences = said(metric_of(TWO, ALIKE), costs=costs_of(a=(40, 512), b=(43, 512)))
    assert sentences[1:] == ["They cost about the same: 43 images a second, 512 bytes an image."]


def test_a_speed_that_nobody_measured_is_not_compared() -> None:
    sentences = said(metric_of(TWO, ALIKE), costs=costs_of(a=(None, 3072), b=(40, 512)))
    assert sentences[1:] == [
        "The smallest index is that of b, 512 bytes an image. Their speeds cannot be compared: not each of them embedded 100 "
        "images or more in this run."
    ]


def test_speeds_of_two_machines_are_not_compared() -> None:
    costs = costs_of(a=(400, 3072), b=(40, 512))
    costs["a"] = replace(costs["a"], machine="H100")
    assert said(metric_of(TWO, ALIKE), costs=costs)[1].endswith("they ran on different machines.")


def test_the_cost_of_a_worse_encoder_does_not_matter() -> None:
    costs = costs_of(a=(40, 512), b=(40, 512), c=(4000, 8))
    assert "c" not in said(metric_of(THREE, ALIKE), costs=costs)[2].split()
    assert len(said(metric_of(THREE), costs=costs)) == 1


def test_without_costs_only_quality_is_compared() -> None:
    assert len(said(metric_of(TWO, ALIKE), costs=costs_of(a=(40, 512)))) == 1


# ---- another metric


def test_another_metric_that_prefers_another_encoder_is_mentioned() -> None:
    other = metric_of({"b": 0.61, "a": 0.56}, metric="map_at_r")
    assert said(metric_of(TWO), other)[1:] == ["By map_at_r, b is better than a (0.610 against 0.560, p < 0.001)."]
    unsure = metric_of({"b": 0.61, "a": 0.56}, {"b a": 0.06}, metric="map_at_r")
    assert said(metric_of(TWO), unsure)[1:] == []


def test_another_metric_that_agrees_is_not_mentioned() -> None:
    assert said(metric_of(TWO), metric_of(TWO, metric="map_at_r"))[1:] == []


def test_another_metric_may_decide_between_those_left() -> None:
    decisive = metric_of(FOUR, {"a b": 0.9, "a c": 0.3})
    other = metric_of({"a": 0.6, "b": 0.5, "c": 0.4, "d": 0.3}, {"a c": 0.02}, metric="map_at_r")
    assert said(decisive, other)[-1] == (
        "By map_at_r, a is better than b and c (0.600 against at most 0.500, p <= 0.020 after Holm's correction)."
    )


# ---- any comparison


@given(
    means=st.lists(st.floats(0, 1), min_size=1, max_size=8),
    ps=st.lists(st.floats(0, 1), min_size=28, max_size=28),
    classes=st.integers(1, 20),
    speeds=st.lists(st.one_of(st.none(), st.floats(0.1, 5000)), min_size=8, max_size=8),
)
@settings(max_examples=200, deadline=None)
def test_what_is_taken_is_among_the_best(
    means: list[float], ps: list[float], classes: int, speeds: list[float | None]
) -> None:
    names = [f"enc{number}" for number in range(len(means))]
    values = dict(zip(names, sorted(means, reverse=True), strict=True))
    pairs = [f"{first} {second}" for place, first in enumerate(names) for second in names[place + 1 :]]
    comparison = metric_of(values, dict(zip(pairs, ps, strict=False)), classes=classes)
    costs = {name: replace(COST, images_per_s=speed) for name, speed in zip(names, speeds, strict=False)}
    text = " ".join(said(comparison, costs=costs))
    taken = re.findall(r"\b[Tt]ake (enc\d)", text)
    assert set(taken) <= set(comparison.best_group)
    assert len(taken) <= 1
    if len(names) > 1 and comparison.is_testable:
        assert ("undecided" in text) == (len(comparison.best_group) > 1)


@given(st.floats(0, 1))
def test_a_p_value_is_on_its_side_of_the_level(p: float) -> None:
    text = p_value(p)
    if text != "p < 0.001":
        assert (float(text.removeprefix("p = ")) < 0.05) == (p < 0.05)
