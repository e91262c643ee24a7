"""Evaluation by class against plain loops: prototypes, votes, means, confusions."""

import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from cbir.artifacts.evaluations import read_all_confusions, read_classes, read_per_query
from cbir.artifacts.paths import ReportPaths
from cbir.artifacts.vectors import MISSING
from cbir.evaluation.classes import (
    Classes,
    accuracies,
    class_means,
    confusions,
    rank_by_prototype,
    rank_by_votes,
    vector_sums,
)
from tests.support.world import make_world, unit

LABELS = ["ant", "bee", "cat", "dog"]


def world(seed: int, n: int = 60, n_queries: int = 25) -> tuple[Classes, np.ndarray, np.ndarray, np.ndarray]:
    """Classes of a gallery with some labels missing, its vectors, the vectors of the queries, and their classes."""
    rng = np.random.default_rng(seed)
    labels = [LABELS[number] if number < 4 else None for number in rng.integers(0, 5, n)]
    classes = Classes.of(pa.array(labels, pa.string()))
    query_classes = classes.of_queries(pa.array([*rng.choice(LABELS, n_queries - 2), None, "yak"], pa.string()))
    return classes, unit(rng.normal(size=(n, 6))), unit(rng.normal(size=(n_queries, 6))), query_classes


@pytest.mark.parametrize("seed", range(5))
def test_classes_are_ranked_by_the_cosine_to_their_mean_vector(seed: int) -> None:
    classes, gallery, queries, query_classes = world(seed)
    sums = vector_sums([gallery[:25], gallery[25:]], classes, 6)
    no_own = np.full(len(queries), MISSING)
    ranks = rank_by_prototype(queries, sums, sizes_of(classes), query_classes, no_own, no_own)
    means = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    for query, number, rank in zip(queries, query_classes, ranks, strict=True):
        if number == MISSING:
            assert math.isnan(rank)
        else:
            assert rank == 1 + sum(mean @ query > means[number] @ query for mean in means)


def test_the_own_image_is_excluded_from_the_class_mean() -> None:
    classes, gallery, _, _ = world(7)
    own = np.flatnonzero(classes.of_gallery != MISSING)[:10]
    query_classes = classes.of_gallery[own]
    sums = vector_sums([gallery], classes, 6)
    ranks = rank_by_prototype(gallery[own], sums, sizes_of(classes), query_classes, own, query_classes)
    for position, number, rank in zip(own, query_classes, ranks, strict=True):
        scores = []
        for other in range(len(classes.labels)):
            rows = [row for row in range(len(gallery)) if classes.of_gallery[row] == other and row != position]
            mean = gallery[rows].astype(float).mean(0)
            scores.append(mean @ gallery[position] / np.linalg.norm(mean))
        assert rank == sum(score >= scores[number] for score in scores)


def test_a_class_without_another_image_has_no_prototype() -> None:
    classes = Classes.of(pa.array(["ant", "bee", "cat"]))
    gallery = unit(np.eye(3) + 0.1)
    nearly = (gallery[:1] * (1 + 1e-7)).astype(np.float32)  # as embedded in another batch
    sums, sizes, own = vector_sums([gallery], classes, 3), sizes_of(classes), np.array([0])
    assert np.isnan(rank_by_prototype(nearly, sums, sizes, own, own, own)).all()
    assert rank_by_prototype(nearly, sums, sizes, np.array([1]), own, own).tolist() == [2]  # bee and cat are as near


def sizes_of(classes: Classes) -> np.ndarray:
    return np.bincount(classes.of_gallery[classes.of_gallery != MISSING], minlength=len(classes.labels))


@settings(deadline=None)
@given(st.lists(st.integers(-1, 3), min_size=1, max_size=8), st.integers(0, 3), st.randoms())
def test_votes_are_counted(neighbours: list[int], query_classes: int, random: object) -> None:
    scores = np.sort(np.random.default_rng(len(neighbours)).random(len(neighbours)))[::-1].astype(np.float32)
    rank = rank_by_votes(scores[None], np.array([neighbours]), np.array([query_classes]))[0]
    votes = Counter(number for number in neighbours if number != MISSING)
    sums = {number: sum(float(s) for s, n in zip(scores, neighbours, strict=True) if n == number) for number in votes}
    order = sorted(votes, key=lambda number: (-votes[number], -sums[number]))
    assert rank == (order.index(query_classes) + 1 if query_classes in votes else math.inf)


def test_the_winner_of_the_vote_is_that_of_scikit_learn() -> None:
    classes, gallery, queries, query_classes = world(3, n=200, n_queries=80)
    labelled = classes.of_gallery != MISSING
    gallery, of_gallery = gallery[labelled], classes.of_gallery[labelled]
    reference = KNeighborsClassifier(9, metric="cosine").fit(gallery, of_gallery)
    products = queries @ gallery.T
    near = np.argsort(-products, axis=1)[:, :9]
    ranks = rank_by_votes(np.take_along_axis(products, near, 1), of_gallery[near], query_classes)
    compared = 0
    for row in np.flatnonzero(query_classes != MISSING):
        first, second = [count for _, count in Counter([*of_gallery[near[row]].tolist(), -5, -6]).most_common(2)]
        if first > second:
            assert (ranks[row] == 1) == (reference.predict(queries[row : row + 1])[0] == query_classes[row])
            compared += 1
    assert compared > 40


def test_a_class_is_named_by_its_first_image_or_label() -> None:
    labels = pa.array(["n2", "n1", None, "n2", "n3"])
    names = pa.array(["cat, tabby", "dog", "nobody", "another cat", None])
    found = Classes.of(labels, names)
    assert (found.labels, found.names) == (["n1", "n2", "n3"], ["dog", "cat, tabby", "n3"])
    assert found.of_gallery.tolist() == [1, 0, MISSING, 1, 2]
    assert Classes.of(labels).names == found.labels


def test_accuracy_is_1_within_the_first_k() -> None:
    found = accuracies(np.array([1, 2, 5, 6, math.inf, math.nan]), "knn")
    assert list(found) == ["knn_accuracy@1", "knn_accuracy@5"]
    np.testing.assert_array_equal(found["knn_accuracy@1"], [1, 0, 0, 0, 0, math.nan])
    np.testing.assert_array_equal(found["knn_accuracy@5"], [1, 1, 1, 0, 0, math.nan])


def test_confusions_are_shares_of_all_results() -> None:
    found = np.array([[0, 1, 1, MISSING], [2, 2, 0, 0], [1, 1, 1, 1], [3, 3, 3, 3]])
    query_classes = np.array([0, 0, 1, MISSING])
    assert confusions(found, query_classes, 4) == [(0, 1, 2 / 8), (0, 2, 2 / 8)]


def test_means_of_classes_leave_out_what_is_undefined() -> None:
    values = {"map": np.array([0.5, math.nan, 1.0, 0.25, 0.75])}
    counts, means = class_means(values, np.array([0, 0, 1, MISSING, 0]), 3)
    assert counts.tolist() == [3, 1, 0]
    np.testing.assert_array_equal(means["map"], [0.625, 1.0, math.nan])


def test_evaluate_writes_tables_of_classes_and_confusions(tmp_path: pytest.TempPathFactory) -> None:
    made = make_world(tmp_path).write()  # type: ignore[arg-type]
    metrics = made.evaluate(made.root / "out")
    reports = ReportPaths(made.root / "out")
    rows, table = read_per_query(reports).to_pylist(), read_classes(reports).to_pylist()
    assert {(row["task"], row["encoder"]) for row in table} == {
        ("cbir", "mobilenet"),
        ("cbir", "clip"),
        ("tbir", "clip"),
    }
    assert {row["label"] for row in table} == {f"c{n}" for n in range(8)}
    for row in table:
        of_class = [
            of_query
            for of_query in rows
            if of_query["search"] == "exact"
            and (of_query["task"], of_query["encoder"], of_query["label"])
            == (row["task"], row["encoder"], row["label"])
        ]
        assert row["queries"] == len(of_class)
        assert row["map_at_r"] == pytest.approx(sum(of_query["map_at_r"] for of_query in of_class) / len(of_class))
    for row in read_all_confusions(reports).to_pylist():
        assert row["label"] != row["found"]
        assert 0 < row["share"] <= 1
    assert set(metrics["categories"]["clip"]) == {
        f"{name}_accuracy@{k}" for name in ("prototype", "knn") for k in (1, 5)
    }
    by_hand = [row["knn_accuracy@1"] for row in rows if (row["task"], row["encoder"]) == ("cbir", "clip")]
    defined = [value for value in by_hand if value is not None]
    assert metrics["categories"]["clip"]["knn_accuracy@1"] == pytest.approx(sum(defined) / len(defined))
