"""The exact neighbours of one query, against exact_search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir.core.errors import CbirError
from cbir.index.exact import exact_neighbours, exact_search


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_exact_neighbours_agree_with_exact_search(data: st.DataObject) -> None:
    """Copies and near copies, whose float32 products differ in their last bits, among them."""
    seed, dim = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.integers(1, 40))
    sizes = data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=5).filter(any))
    random = np.random.default_rng(seed)
    rows = random.normal(size=(sum(sizes), dim)) + 1e-3
    copied = random.random(len(rows)) < 0.5
    rows[copied] = rows[0] + random.choice([0, 1e-7, 1e-4], size=(int(copied.sum()), 1))
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    parts = np.split(unit, np.cumsum(sizes)[:-1])
    query = unit[random.integers(len(unit))] if data.draw(st.booleans()) else -unit[0]
    k = data.draw(st.integers(1, len(unit)))
    scores, positions = exact_neighbours(query, parts, k)
    expected = exact_search(query[None], parts, k)
    np.testing.assert_array_equal(positions, expected[1][0])
    np.testing.assert_array_equal(scores, expected[0][0])


def test_exact_neighbours_refuse_invalid_arguments() -> None:
    parts = [np.eye(3, dtype=np.float32)]
    for query, broken, k in (
        (np.ones(3, np.float32), parts, 4),
        (np.ones(2, np.float32), parts, 1),
        (np.full(3, np.nan, np.float32), parts, 1),
        (np.ones(3, np.float32), [np.full((2, 3), np.nan, np.float32)], 1),
    ):
        with pytest.raises(CbirError):
            exact_neighbours(query, broken, k)
