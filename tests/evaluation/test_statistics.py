"""Intervals and tests against brute force, scipy and cases worked by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cbir.evaluation.statistics import (
    MIN_CLASSES,
    Interval,
    bounds_of_means,
    classes_of,
    holm,
    interval_of_means,
    least_p,
    p_values_of_differences,
)


def test_a_query_without_label_is_its_own_class() -> None:
    assert classes_of(["b", None, "a", "b", None]).tolist() == [0, 1, 2, 0, 3]
    assert classes_of([]).tolist() == []


def bounds(intervals: list[Interval | None]) -> np.ndarray:
    return np.array([(interval.low, interval.high) for interval in intervals if interval is not None])


def resampled_by_hand(values: np.ndarray, classes: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """The means of the bootstrap, resampled class by class and averaged over queries."""
    rng, means = np.random.default_rng(seed), []
    n_classes = classes.max() + 1
    for _ in range(resamples):
        rows = np.concatenate([np.flatnonzero(classes == drawn) for drawn in rng.integers(0, n_classes, n_classes)])
        means.append(np.nanmean(values[rows]))
    return np.array(means)


@pytest.mark.parametrize("n_classes", [8, 12, 60])
def test_intervals_are_those_of_the_bootstrap_done_by_hand(n_classes: int) -> None:
    rng = np.random.default_rng(n_classes)
    classes = rng.permutation(np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, 3 * n_classes)]))
    values = rng.random(len(classes)) + 0.1 * classes / n_classes
    values[rng.random(len(values)) < 0.1] = np.nan
    (interval,) = interval_of_means(values[:, None], classes, 40_000, seed=0)
    means = resampled_by_hand(values, classes, 10_000, seed=1)
    t = stats.t.ppf(0.025, n_classes - 1) * np.sqrt(n_classes / (n_classes - 1))
    low, high = np.quantile(means, [stats.norm.cdf(t), stats.norm.sf(t)])
    assert interval is not None
    spread = means.std()
    assert abs(interval.low - low) < 0.15 * spread
    assert abs(interval.high - high) < 0.15 * spread


def test_intervals_of_single_queries_are_as_wide_as_students_t() -> None:
    values = np.random.default_rng(3).normal(size=(400, 1))
    (interval,) = interval_of_means(values, np.arange(400), 20_000, seed=0)
    half = stats.t.ppf(0.975, 399) * values.std(ddof=1) / 20
    assert interval is not None
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.03)
    assert (interval.high + interval.low) / 2 == pytest.approx(values.mean(), abs=0.1 * half)


def test_intervals_do_not_depend_on_other_metrics() -> None:
    rng = np.random.default_rng(0)
    values, classes = rng.random((50, 3)), np.arange(50) % 7
    together = bounds(interval_of_means(values, classes, 500, seed=4))
    alone = [bounds(interval_of_means(values[:, [column]], classes, 500, seed=4))[0] for column in range(3)]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-12)
    assert np.abs(together - bounds(interval_of_means(values, classes, 500, seed=5))).max() > 1e-4


def test_few_classes_have_no_interval() -> None:
    values = np.full((12, 3), np.nan)
    values[:, 0], values[:5, 2] = np.linspace(0, 1, 12), 1.0
    for n_classes in range(1, MIN_CLASSES):
        assert interval_of_means(values, np.arange(12) % n_classes, 100, 0) == [None, None, None]
    several = interval_of_means(values, np.arange(12) % MIN_CLASSES, 100, 0)
    assert several[0] is not None
    assert several[1:] == [None, None]
    assert interval_of_means(np.empty((0, 2)), np.empty(0, np.int64), 100, 0) == [None, None]


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert interval_of_means(np.full((6, 1), 0.25), np.arange(6), 100, 0) == [Interval(0.25, 0.25)]


def test_blocks_of_draws_are_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values, classes = rng.random((40, 2)), np.arange(40)
    whole = (interval_of_means(values, classes, 300, 1), p_values_of_differences(values - 0.5, classes, 300, 1))
    monkeypatch.setattr("cbir.evaluation.statistics._BLOCK_NUMBERS", 40 * 7)
    parts = (interval_of_means(values, classes, 300, 1), p_values_of_differences(values - 0.5, classes, 300, 1))
    np.testing.assert_allclose(bounds(whole[0]), bounds(parts[0]), rtol=0, atol=1e-12)
    assert np.array_equal(whole[1], parts[1])


def test_the_p_value_is_the_share_of_all_signs() -> None:
    """8 classes have only 256 sign assignments."""
    rng = np.random.default_rng(5)
    classes = np.repeat(np.arange(8), 3)
    differences = rng.normal(0.2, 0.5, (24, 1))
    sums = np.array([differences[classes == number].sum() for number in range(8)])
    far = [abs(np.dot(signs, sums)) >= abs(sums.sum()) - 1e-9 for signs in itertools.product((-1, 1), repeat=8)]
    found = p_values_of_differences(differences, classes, 50_000, seed=0)
    assert found[0] == pytest.approx(np.mean(far), abs=0.01)


def test_each_metric_has_a_p_value_of_its_own() -> None:
    rng = np.random.default_rng(6)
    differences, classes = rng.normal([0.0, 0.3, 1.0], 0.5, (30, 3)), np.arange(30) % 10
    differences[:, 0][rng.random(30) < 0.5] = np.nan
    together = p_values_of_differences(differences, classes, 500, seed=0)
    alone = [p_values_of_differences(differences[:, [column]], classes, 500, seed=0)[0] for column in range(3)]
    assert together.tolist() == alone
    assert together[0] > together[1] > together[2]


def test_the_observed_difference_is_as_far_as_itself() -> None:
    """With one class both signs are equally far from 0; a metric that one query defines has a p-value."""
    differences = np.array([[0.1, np.nan]])
    found = p_values_of_differences(differences, np.zeros(1, np.int64), 100, seed=0)
    assert found[0] == 1
    assert np.isnan(found[1])


@pytest.mark.parametrize(("n_classes", "flips", "expected"), [(1, 99, 1), (3, 99, 0.25), (8, 99, 0.01), (5000, 9, 0.1)])
def test_the_smallest_p_value_is_bounded_by_classes_and_flips(n_classes: int, flips: int, expected: float) -> None:
    assert least_p(n_classes, flips) == expected


def test_bounds_are_rounded_and_undefined_intervals_left_out() -> None:
    values = {"map": np.linspace(0, 1, 12), "mrr": np.full(12, np.nan), "precision@1": np.full(12, 1 / 3)}
    bounds_of = bounds_of_means(values, np.arange(12), 500, seed=2)
    assert list(bounds_of) == ["map", "precision@1"]
    assert bounds_of["precision@1"] == [0.333333, 0.333333]
    interval = interval_of_means(values["map"][:, None], np.arange(12), 500, seed=2)[0]
    assert interval is not None
    assert bounds_of["map"] == [round(interval.low, 6), round(interval.high, 6)]


def test_no_difference_anywhere_has_p_1() -> None:
    assert p_values_of_differences(np.zeros((10, 1)), np.arange(10), 200, 0).tolist() == [1.0]


def test_a_metric_without_values_has_no_p() -> None:
    found = p_values_of_differences(np.full((10, 1), np.nan), np.arange(10), 200, 0)
    assert np.isnan(found).all()


@given(st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), max_size=8))
@settings(max_examples=200, deadline=None)
def test_holm_is_that_of_the_definition(p_values: list[float]) -> None:
    found = holm(np.array(p_values))
    tested = sorted(p for p in p_values if not np.isnan(p))
    for p, corrected in zip(p_values, found, strict=True):
        if np.isnan(p):
            assert np.isnan(corrected)
            continue
        steps = [min(1.0, (len(tested) - rank) * smaller) for rank, smaller in enumerate(tested) if smaller <= p]
        assert corrected == pytest.approx(max(steps[: tested.index(p) + 1]))
