"""Scores as integers of the same order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cbir.index.ordinals import ordinals, scores_of

numbers = st.floats(width=32, allow_nan=False)


@given(st.lists(numbers, min_size=2, max_size=20))
def test_ordinals_have_the_order_of_the_scores(values: list[float]) -> None:
    scores = np.array(values, np.float32)
    integers = ordinals(scores)
    assert integers.dtype == np.int32
    for score, integer in zip(scores, integers, strict=True):
        np.testing.assert_array_equal(integers < integer, scores < score)
        np.testing.assert_array_equal(integers == integer, scores == score)
    np.testing.assert_array_equal(scores_of(integers), scores)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_neighbouring_floats_are_neighbouring_integers(value: float) -> None:
    score = np.array([value], np.float32)
    above = np.nextafter(score, np.float32(np.inf))
    assert (ordinals(above) - ordinals(score)).tolist() == [1]
    assert scores_of(ordinals(score) + np.int32(1)).tolist() == above.tolist()
