"""Exact search against brute force and a stable argsort."""

import tracemalloc
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir.core.errors import CbirError, ConfigError, DataError
from cbir.index import exact
from cbir.index.exact import exact_neighbours, exact_scores, exact_search, top_k
from tests.index.gallery import GALLERY, PARTS, QUERIES, Neighbours, clustered, split, with_last_row_scaled
from tests.support.world import unit


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_exact_search_is_a_stable_argsort(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n_queries, n_rows, dim = data.draw(st.tuples(st.integers(0, 9), st.integers(1, 40), st.integers(1, 3)))
    k = data.draw(st.integers(1, n_rows))
    queries = rng.integers(-2, 3, size=(n_queries, dim)).astype(np.float32)
    gallery = rng.integers(-2, 3, size=(n_rows, dim)).astype(np.float32)
    parts = split(gallery, *sorted(data.draw(st.lists(st.integers(0, n_rows), max_size=3))))
    expected = queries @ gallery.T  # whole numbers: exact in any order of summation
    order = np.argsort(-expected, axis=1, kind="stable")[:, :k]
    with mock.patch.object(exact, "_CHUNK_ROWS", data.draw(st.integers(1, 50))):
        scores, positions = exact_search(queries, parts, k, block_queries=data.draw(st.integers(1, 10)))
        all_scores = exact_scores(queries, parts)
    np.testing.assert_array_equal(positions, order)
    np.testing.assert_array_equal(scores, np.take_along_axis(expected, order, axis=1))
    np.testing.assert_array_equal(all_scores, expected)
    assert [each.dtype.name for each in (scores, positions, all_scores)] == ["float32", "int64", "float32"]


def test_exact_search_agrees_with_brute_force(neighbours: Neighbours) -> None:
    scores, positions = exact_search(QUERIES, PARTS, 10)
    np.testing.assert_array_equal(positions, neighbours[1])
    np.testing.assert_allclose(scores, neighbours[0], atol=1e-7)


def test_a_query_scores_the_same_bits_in_any_block() -> None:
    gallery, queries = clustered(500, 100, seed=5), clustered(60, 100, seed=6)
    alone = [exact_scores(queries[i : i + 1], [gallery]) for i in range(60)]
    together = exact_scores(queries, [gallery])
    np.testing.assert_array_equal(np.concatenate(alone), together)
    for block_queries in (1, 7, 48, 60):
        scores, positions = exact_search(queries, split(gallery, 123), 500, block_queries)
        np.testing.assert_array_equal(scores, np.take_along_axis(together, positions, axis=1))


def test_exact_search_holds_no_score_matrix() -> None:
    gallery, queries = clustered(5000, 8, seed=7), clustered(2000, 8, seed=8)
    with mock.patch.object(exact, "_CHUNK_ROWS", 250):
        tracemalloc.start()
        exact_search(queries, [gallery], 5, block_queries=100)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak_bytes < len(queries) * len(gallery) * 4 / 10


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_exact_search_refuses_what_cannot_be_ranked(value: float) -> None:
    bad = with_last_row_scaled(value)
    with pytest.raises(DataError, match="gallery row 2999: expected finite values, found NaN or infinity"):
        exact_search(QUERIES, split(bad, 1000), 3)
    with pytest.raises(DataError, match="query row 2999: expected finite values"):
        exact_scores(bad, PARTS)


@pytest.mark.parametrize("k", [0, 3001])
def test_exact_search_refuses_a_k_that_the_gallery_cannot_fill(k: int) -> None:
    with pytest.raises(ConfigError, match=f"k = {k} is .*: set k to a value from 1 to 3000"):
        exact_search(QUERIES, PARTS, k)


def test_top_k_of_whole_score_rows_is_exact_search() -> None:
    for ranked, searched in zip(top_k(exact_scores(QUERIES, PARTS), 20), exact_search(QUERIES, PARTS, 20), strict=True):
        np.testing.assert_array_equal(ranked, searched)
    with pytest.raises(ConfigError, match="k = 3 is larger than the gallery of 2 images"):
        top_k(np.zeros((1, 2), np.float32), 3)


def test_exact_scores_of_an_empty_gallery_are_no_columns() -> None:
    assert exact_scores(QUERIES, []).shape == (100, 0)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_neighbours_of_one_query_are_those_of_exact_search(data: st.DataObject) -> None:
    """Over copies and near-ties, of some or of all rows."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n_rows, dim = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 30)))
    centres = rng.normal(size=(3, dim))
    noise = rng.choice([0, 1e-7, 1], (n_rows, 1)) * rng.normal(size=(n_rows, dim))
    gallery = unit(centres[rng.integers(3, size=n_rows)] + noise)
    query = gallery[rng.integers(n_rows)]
    parts = split(gallery, *sorted(data.draw(st.lists(st.integers(0, n_rows), max_size=3))))
    among = rng.random(n_rows) < data.draw(st.sampled_from([0.3, 1.1]))
    kept = np.flatnonzero(among)
    k = data.draw(st.integers(0, n_rows))
    if not 1 <= k <= len(kept):
        with pytest.raises(ConfigError, match=f"k = {k} is "):
            exact_neighbours(query, parts, k, among)
        return
    scores, positions = exact_neighbours(query, parts, k, among)
    expected_scores, rows = exact_search(query[None], [gallery[kept]], k)
    np.testing.assert_array_equal(positions, kept[rows[0]])
    np.testing.assert_array_equal(scores, expected_scores[0])
    if among.all():
        np.testing.assert_array_equal(exact_neighbours(query, parts, k)[1], positions)


def test_neighbours_refuse_rows_that_cannot_be_ranked() -> None:
    bad = with_last_row_scaled(np.nan)
    with pytest.raises(DataError, match="gallery row 2999: expected finite values, found NaN or infinity"):
        exact_neighbours(QUERIES[0], split(bad, 1000), 3)
    with pytest.raises(DataError, match="query row 0: expected finite values, found NaN or infinity"):
        exact_neighbours(bad[2999], PARTS, 3)
    with pytest.raises(DataError, match=r"gallery part 1: expected float32 vectors of shape \(n, 32\), found float64"):
        exact_neighbours(QUERIES[0], [GALLERY, GALLERY.astype(np.float64)], 3)


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
    gallery = unit(rows)
    parts = np.split(gallery, np.cumsum(sizes)[:-1])
    query = gallery[random.integers(len(gallery))] if data.draw(st.booleans()) else -gallery[0]
    k = data.draw(st.integers(1, len(gallery)))
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
