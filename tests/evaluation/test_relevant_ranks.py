"""cbir.evaluation.relevant_ranks: its arrays and refusals, and ranks against a stable argsort."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir.evaluation.relevant_ranks import NOT_RETRIEVED, RelevantRanks, ranks_of_relevant
from tests.support import oracles

reproducible = settings(deadline=None, derandomize=True)


# --- RelevantRanks --------------------------------------------------------------------------------------------------


def test_from_relevance_fills_every_field() -> None:
    ranks = RelevantRanks.from_relevance(np.int8([[0, 2, -1, 1], [0, 0, 0, 0]]), ideal=[[0, 1, 2], np.array([3])])
    assert ranks.ranks.tolist() == [[2, 4], [NOT_RETRIEVED, NOT_RETRIEVED]]
    assert ranks.gains.tolist() == [[2, 1], [0, 0]]
    assert ranks.ideal.tolist() == [[2, 1], [3, 0]]
    assert ranks.n_relevant.tolist() == [2, 1]


GOOD = {
    "ranks": np.array([[1, 2, NOT_RETRIEVED], [2, 3, 9]]),
    "gains": np.array([[1.0, 2.0, 0.0], [1.0, 1.0, 1.0]]),
    "ideal": np.array([[2.0, 1.0, 1.0], [1.0, 1.0, 1.0]]),
    "n_relevant": np.array([3, 3]),
}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ranks", np.array([1, 2]), r"ranks: expected shape \(n_queries, m\), found \(2,\)"),
        ("ranks", GOOD["ranks"].astype(np.int32), "ranks: expected int64 .* found int32"),
        ("gains", GOOD["gains"].astype(np.float32), "gains: expected float64 .* found float32"),
        ("ideal", np.ones((2, 2)), r"ideal: expected float64 of shape \(2, 3\), found float64 of shape \(2, 2\)"),
        ("n_relevant", np.array([3]), r"n_relevant: expected int64 of shape \(2,\), found int64 of shape \(1,\)"),
        (
            "ranks",
            np.array([[1, 2, NOT_RETRIEVED], [0, 3, 9]]),
            "ranks, query row 1: expected 1-based .* found 0, 3, 9",
        ),
        ("ranks", np.array([[2, 1, NOT_RETRIEVED], [2, 3, 9]]), "ranks, query row 0: .* ascending .* found 2, 1, "),
        ("ranks", np.array([[1, 2, NOT_RETRIEVED], [3, 3, 9]]), "ranks, query row 1: .* without repeats.* found 3, 3"),
        ("ranks", np.array([[1, 2, NOT_RETRIEVED + 1], [2, 3, 9]]), "ranks, query row 0: .* padded with"),
        ("gains", np.array([[1.0, 2.0, 1.0], [1.0, 1.0, 1.0]]), "gains, query row 0: .* 0 where padded"),
        ("gains", np.array([[1.0, 2.0, 0.0], [1.0, 0.0, 1.0]]), "gains, query row 1: .* grade >= 1 at each retrieved"),
        ("gains", np.array([[1.0, np.nan, 0.0], [1.0, 1.0, 1.0]]), "gains, query row 0: expected a finite grade"),
        (
            "gains",
            np.array([[1.0, 5.0, 0.0], [1.0, 1.0, 1.0]]),
            "gains, query row 0: .* no higher grades than in ideal",
        ),
        ("ideal", np.array([[1.0, 2.0, 1.0], [1.0, 1.0, 1.0]]), "ideal, query row 0: .* descending"),
        ("ideal", np.array([[3.0, 1.0, 2.0], [1.0, 1.0, 1.0]]), "ideal, query row 0: .* descending"),
        ("ideal", np.array([[2.0, 1.0, 0.5], [1.0, 1.0, 1.0]]), "ideal, query row 0: expected finite grades >= 1"),
        ("n_relevant", np.array([3, 2]), "n_relevant, query row 1: expected the number of grades in ideal, found 2"),
    ],
)
def test_arrays_that_are_not_as_described_are_refused(name: str, value: np.ndarray, message: str) -> None:
    RelevantRanks(**GOOD)
    with pytest.raises(ValueError, match=message):
        RelevantRanks(**GOOD | {name: value})


@pytest.mark.parametrize(
    ("relevance", "ideal", "message"),
    [
        ([1, 0], [[1], [1]], "relevance: expected int of shape .* found int64 of shape"),
        ([[0.5]], [[1]], "relevance: expected int .* found float64"),
        ([[1], [0]], [[1]], "ideal: expected the grades of 2 queries, found 1"),
        ([[1, 1]], [[1]], "no more and no higher grades than in ideal, found 1.0, 1.0"),
    ],
)
def test_relevance_that_contradicts_the_ideal_is_refused(relevance: list, ideal: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RelevantRanks.from_relevance(relevance, ideal)


def test_ranks_gains_and_ideal_are_of_as_many_queries() -> None:
    for ranks, gains, ideal in (([[1]], [[1], [1]], [[1]]), ([[1], [1]], [[1]], [[1]]), ([[1]], [[1]], [[1], [1]])):
        with pytest.raises(ValueError, match="zip"):
            RelevantRanks.from_ranks(ranks, gains, ideal)


# --- ranks_of_relevant ----------------------------------------------------------------------------------------------


def argsort_ranks(scores: np.ndarray, excluded: int | None) -> np.ndarray:
    """Rank of every position, from a stable argsort of the whole gallery; 0 for the excluded one."""
    order = np.argsort(-scores, kind="stable")
    ranks = np.zeros(len(scores), np.int64)
    ranks[order[order != excluded]] = np.arange(1, len(scores) + (excluded is None))
    return ranks


few_values = st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1e-45, -1e-45, math.inf, -math.inf])
score_lists = st.lists(few_values | st.floats(width=32, allow_nan=False), min_size=1, max_size=40)


@reproducible
@given(scores=score_lists, data=st.data())
def test_ranks_equal_those_of_a_stable_argsort(scores: list[float], data: st.DataObject) -> None:
    array = np.array(scores, np.float32)
    excluded = data.draw(st.none() | st.integers(0, len(scores) - 1), label="excluded")
    candidates = oracles.ranked_positions(array.tolist(), excluded)
    relevant = data.draw(st.lists(st.sampled_from(candidates), unique=True) if candidates else st.just([]))
    found = ranks_of_relevant(array, relevant, excluded)
    assert found.dtype == np.int64
    assert found.tolist() == [candidates.index(position) + 1 for position in relevant]
    assert found.tolist() == argsort_ranks(array, excluded)[relevant].tolist()


@pytest.mark.parametrize("decimals", [0, 2, 4, 9])
def test_ranks_in_a_large_gallery_with_ties(decimals: int) -> None:
    rng = np.random.default_rng(23)
    scores = rng.uniform(-1, 1, 50_000).round(decimals).astype(np.float32)
    relevant = rng.permutation(50_000)[:500]
    excluded = int(rng.choice(np.setdiff1d(np.arange(50_000), relevant)))
    found = ranks_of_relevant(scores, relevant, excluded)
    assert (found == argsort_ranks(scores, excluded)[relevant]).all()


def test_ranks_when_all_scores_are_equal_are_the_positions() -> None:
    everyone = np.arange(200_000)
    assert (ranks_of_relevant(np.zeros(200_000, np.float32), everyone) == everyone + 1).all()


@pytest.mark.parametrize(
    ("scores", "relevant", "excluded", "message"),
    [
        (np.float32([0.1, np.nan]), [0], None, "scores: expected numbers, found NaN at position 1"),
        (np.float64([0.1, 0.2]), [0], None, "scores: expected float32 .* found float64"),
        (np.float32([[0.1, 0.2]]), [0], None, r"scores: .* found float32 of shape \(1, 2\)"),
        (np.float32([0.1, 0.2]), [2], None, "relevant: expected positions from 0 to 1, found 2 to 2"),
        (np.float32([0.1, 0.2]), [-1, 0], None, "relevant: expected positions from 0 to 1, found -1 to 0"),
        (np.float32([0.1, 0.2]), [True, False], None, "relevant: expected int .* found bool"),
        (np.float32([0.1, 0.2]), [0, 1], 1, "excluded: expected a position .* that is not relevant, found 1"),
        (np.float32([0.1, 0.2]), [0], 2, "excluded: expected a position from 0 to 1 .* found 2"),
        (np.float32([0.1, 0.2]), [], -1, "excluded: expected a position from 0 to 1 .* found -1"),
    ],
)
def test_bad_scores_and_positions_are_refused(
    scores: np.ndarray, relevant: list, excluded: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ranks_of_relevant(scores, relevant, excluded)
