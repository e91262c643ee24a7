"""cbir.evaluation.relevance: relevant images without the query's own, and run tables."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cbir.artifacts.queries import QRELS_SCHEMA, QUERY_SCHEMA
from cbir.artifacts.runs import RUN_SCHEMA
from cbir.artifacts.vectors import MISSING
from cbir.evaluation.relevance import Relevance, run_table
from cbir.index.exact import without_self

reproducible = settings(deadline=None, derandomize=True)
GALLERY = ["a", "b", "c", "d", "e"]


def relevance(labels: list[str | None], queries: dict[str, str | None], *qrels: tuple[str, str, int]) -> Relevance:
    """queries : query_id -> label.  qrels : (query_id, image_id, grade)."""
    rows = [{"query_id": query_id, "task": "cbir", "label": label} for query_id, label in queries.items()]
    judged = [dict(zip(QRELS_SCHEMA.names, row, strict=True)) for row in qrels]
    return Relevance(
        pa.array(GALLERY[: len(labels)], pa.string()),
        pa.array(labels, pa.string()),
        pa.Table.from_pylist(rows, QUERY_SCHEMA),
        pa.Table.from_pylist(judged, QRELS_SCHEMA),
    )


def as_lists(found: tuple[NDArray[np.int64], NDArray[np.float64]]) -> tuple[list[int], list[float]]:
    assert found[0].dtype == np.int64
    assert found[1].dtype == np.float64
    return found[0].tolist(), found[1].tolist()


# --- by label ---------------------------------------------------------------------------------------------------------


def test_every_image_of_the_label_is_relevant_with_grade_1() -> None:
    found = relevance(["x", "y", "x", None, "x"], {"q": "x", "r": "y"})
    assert as_lists(found.of("q", MISSING)) == ([0, 2, 4], [1, 1, 1])
    assert as_lists(found.of("r", MISSING)) == ([1], [1])


def test_the_querys_own_image_is_not_relevant_to_it() -> None:
    found = relevance(["x", "y", "x", "x"], {"q": "x"})
    assert as_lists(found.of("q", 2)) == ([0, 3], [1, 1])
    assert as_lists(found.of("q", 1)) == ([0, 2, 3], [1, 1, 1])  # an image of another label
    assert as_lists(found.of("q", MISSING)) == ([0, 2, 3], [1, 1, 1])  # a call changes nothing


def test_unlabelled_images_are_not_relevant_to_unlabelled_queries() -> None:
    assert as_lists(relevance(["x", None, None], {"q": None}).of("q", MISSING)) == ([], [])


def test_a_label_that_no_gallery_image_has_makes_nothing_relevant() -> None:
    assert as_lists(relevance(["x", None], {"q": "z"}).of("q", MISSING)) == ([], [])


def test_a_gallery_without_labels_makes_nothing_relevant() -> None:
    assert as_lists(relevance([None, None], {"q": "x", "r": None}).of("q", MISSING)) == ([], [])


# --- by judgements ----------------------------------------------------------------------------------------------------


def test_by_judgements_grades_count_and_labels_do_not() -> None:
    found = relevance(["x"] * 5, {"q": "x", "r": "x"}, ("q", "e", 3), ("q", "b", 1), ("r", "a", 2))
    assert as_lists(found.of("q", MISSING)) == ([1, 4], [1, 3])  # ascending, for any order of the rows
    assert as_lists(found.of("r", MISSING)) == ([0], [2])


def test_grade_0_and_below_is_not_relevant() -> None:
    found = relevance(["x"] * 3, {"q": "x"}, ("q", "a", 0), ("q", "b", 1), ("q", "c", -1))
    assert as_lists(found.of("q", MISSING)) == ([1], [1])


def test_labels_do_not_replace_judgements_of_grade_0() -> None:
    assert as_lists(relevance(["x"] * 2, {"q": "x"}, ("q", "a", 0)).of("q", MISSING)) == ([], [])


def test_judged_images_that_are_not_in_the_gallery_are_ignored() -> None:
    found = relevance(["x"] * 3, {"q": None, "r": None}, ("q", "gone", 3), ("q", "c", 2), ("r", "gone", 1))
    for own in (0, MISSING):
        assert as_lists(found.of("q", own)) == ([2], [2])
        assert as_lists(found.of("r", own)) == ([], [])


def test_a_query_without_judgements_has_nothing_relevant() -> None:
    assert as_lists(relevance(["x"], {"q": "x", "r": "x"}, ("q", "a", 1)).of("r", MISSING)) == ([], [])


def test_a_judgement_of_the_querys_own_image_is_left_out() -> None:
    found = relevance(["x"] * 3, {"q": "x"}, ("q", "a", 2), ("q", "b", 3), ("q", "c", 1))
    assert as_lists(found.of("q", 1)) == ([0, 2], [2, 1])


# --- the query's own image --------------------------------------------------------------------------------------------


def leave_out(scores: list[list[float]], positions: list[list[int]], own: list[int], k: int) -> tuple[Any, Any]:
    kept, places = without_self(np.float32(scores), np.array(positions, np.int64), np.array(own, np.int64), k)
    assert kept.dtype == np.float32
    assert places.dtype == np.int64
    return kept.tolist(), places.tolist()


@pytest.mark.parametrize(
    ("positions", "kept"),
    [([7, 3, 4, 5], [3, 4, 5]), ([3, 7, 4, 5], [3, 4, 5]), ([3, 4, 5, 7], [3, 4, 5]), ([3, 4, 5, 6], [3, 4, 5])],
    ids=["first", "in the middle", "last", "absent"],
)
def test_the_own_image_is_removed_at_any_rank(positions: list[int], kept: list[int]) -> None:
    scores = {7: 0.5, 3: 0.75, 4: 0.625, 5: 0.375, 6: 0.25}
    expected = [scores[position] for position in kept]
    found = leave_out([[scores[position] for position in positions]], [positions], own=[7], k=3)
    assert found == ([expected], [kept])


def test_a_duplicate_of_the_own_vector_under_another_id_stays() -> None:
    assert leave_out([[1.0, 1.0, 1.0, 0.5]], [[2, 7, 9, 4]], own=[7], k=3) == ([[1.0, 1.0, 0.5]], [[2, 9, 4]])


def test_queries_outside_the_gallery_keep_their_first_k() -> None:
    assert leave_out([[0.9, 0.5, 0.25]], [[0, 1, 2]], own=[MISSING], k=2)[1] == [[0, 1]]


def test_missing_results_stay_last() -> None:
    scores, positions = leave_out(
        [[0.5, 0.25, -np.inf, -np.inf]] * 2, [[7, 3, MISSING, MISSING]] * 2, own=[7, MISSING], k=3
    )
    assert positions == [[3, MISSING, MISSING], [7, 3, MISSING]]
    assert scores == [[0.25, -np.inf, -np.inf], [0.5, 0.25, -np.inf]]


def test_without_a_spare_result_the_last_place_stays_empty() -> None:
    assert leave_out([[0.5, 0.25]], [[7, 3]], own=[7], k=2) == ([[0.25, -np.inf]], [[3, MISSING]])


@st.composite
def searches(draw: st.DrawFn) -> tuple[list[list[int]], list[int], int]:
    """Results of distinct positions, missing ones last; own images among them or not; how many to keep."""
    k = draw(st.integers(1, 6))
    n = draw(st.integers(1, 5))
    rows = []
    for _ in range(n):
        found = draw(st.lists(st.integers(0, 12), max_size=k + 1, unique=True))
        rows.append(found + [MISSING] * (k + 1 - len(found)))
    return rows, draw(st.lists(st.integers(MISSING, 12), min_size=n, max_size=n)), k


@reproducible
@given(search=searches())
def test_without_self_and_run_table_equal_a_plain_loop(search: tuple[list[list[int]], list[int], int]) -> None:
    rows, own, k = search
    score = {position: 1 - position / 16 for position in range(13)} | {MISSING: -np.inf}
    kept = without_self(np.float32([[score[p] for p in row] for row in rows]), np.array(rows), np.array(own), k)
    ids = [f"i{number}" for number in range(13)]
    queries = [f"q{number}" for number in range(len(rows))]

    expected = []
    for query_id, row, own_position in zip(queries, rows, own, strict=True):
        rank = 0
        for position in row:
            if position in (MISSING, own_position) or rank == k:
                continue
            rank += 1
            expected.append({"query_id": query_id, "image_id": ids[position], "rank": rank, "score": score[position]})
    assert run_table(queries, *kept, pa.array(ids)).to_pylist() == expected


# --- the run table ----------------------------------------------------------------------------------------------------


def test_a_run_has_ranks_from_1_and_no_missing_results() -> None:
    scores = np.float32([[0.5, 0.25, -np.inf], [0.75, -np.inf, -np.inf], [-np.inf] * 3])
    positions = np.array([[2, 0, MISSING], [1, MISSING, MISSING], [MISSING] * 3])
    table = run_table(["q", "r", "s"], scores, positions, pa.array(["a", "b", "c"]))
    assert table.schema.equals(RUN_SCHEMA)
    assert [list(row.values()) for row in table.to_pylist()] == [
        ["q", "c", 1, 0.5],
        ["q", "a", 2, 0.25],
        ["r", "b", 1, 0.75],
    ]


def test_a_run_of_no_queries_is_an_empty_table() -> None:
    table = run_table([], np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int64), pa.array(["a"], pa.string()))
    assert table.num_rows == 0
    assert table.schema.equals(RUN_SCHEMA)
