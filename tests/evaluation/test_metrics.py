"""cbir.evaluation.metrics against hand-worked tables, naive oracles, trec_eval (through ir-measures) and properties."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import log2
from types import ModuleType
from typing import Any

import ir_measures
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cbir.evaluation import metrics
from cbir.evaluation.relevant_ranks import RelevantRanks, ranks_of_relevant
from tests.support import oracles

Case = tuple[list[str], dict[str, int]]  # ranked image ids, relevance

KS = (1, 3, 10)
reproducible = settings(deadline=None, derandomize=True)


def ranks_of(cases: Sequence[Case]) -> RelevantRanks:
    """The relevant ranks of (ranked, relevance) pairs; shorter runs are padded with images that are not relevant."""
    depth = max(len(ranked) for ranked, _ in cases)
    rows = [[relevance.get(image, 0) for image in ranked] + [0] * (depth - len(ranked)) for ranked, relevance in cases]
    return RelevantRanks.from_relevance(rows, ideal=[list(relevance.values()) for _, relevance in cases])


def random_case(rng: np.random.Generator) -> Case:
    """A run of up to 60 of 80 images, with a varying share of relevant ones and grades up to 4."""
    images = [f"image{i:02d}" for i in range(80)]
    density = rng.choice([0.02, 0.1, 0.5])
    grades = np.where(rng.random(80) < density, rng.integers(1, 5, 80), 0)
    order = rng.permutation(80)[: rng.integers(0, 61)]
    return [images[i] for i in order], dict(zip(images, grades.tolist(), strict=True))


# --- worked by hand -------------------------------------------------------------------------------------------------

HITS_1_AND_3 = RelevantRanks.from_relevance([[1, 0, 1, 0, 0]], ideal=[[1] * 5])
GRADED = RelevantRanks.from_relevance([[0, 3, 0, 1]], ideal=[[1, 3, 2]])  # the image of grade 2 is not retrieved
NOTHING_RETRIEVED = RelevantRanks.from_relevance([[0, 0, 0]], ideal=[[1, 2]])
PERFECT = RelevantRanks.from_relevance([[3, 2, 1, 0]], ideal=[[1, 2, 3]])


@pytest.mark.parametrize(
    ("ranks", "name", "k", "expected"),
    [
        (HITS_1_AND_3, "precision_at_k", 1, 1),
        (HITS_1_AND_3, "precision_at_k", 5, 2 / 5),
        (HITS_1_AND_3, "precision_at_k", 10, 2 / 10),
        (HITS_1_AND_3, "success_at_k", 1, 1),
        (HITS_1_AND_3, "recall_at_k", 1, 1 / 5),
        (HITS_1_AND_3, "recall_at_k", 5, 2 / 5),
        (HITS_1_AND_3, "recall_ceiling_at_k", 2, 2 / 5),
        (HITS_1_AND_3, "recall_ceiling_at_k", 9, 1),
        (HITS_1_AND_3, "precision_ceiling_at_k", 2, 1),
        (HITS_1_AND_3, "precision_ceiling_at_k", 10, 1 / 2),
        (HITS_1_AND_3, "r_precision", None, 2 / 5),
        (HITS_1_AND_3, "average_precision", None, (1 + 2 / 3) / 5),
        (HITS_1_AND_3, "average_precision_at_r", None, (1 + 2 / 3) / 5),
        (HITS_1_AND_3, "reciprocal_rank", None, 1),
        (GRADED, "precision_at_k", 2, 1 / 2),
        (GRADED, "success_at_k", 1, 0),
        (GRADED, "success_at_k", 2, 1),
        (GRADED, "recall_at_k", 4, 2 / 3),
        (GRADED, "r_precision", None, 1 / 3),
        (GRADED, "average_precision", None, (1 / 2 + 2 / 4) / 3),
        (GRADED, "average_precision_at_r", None, (1 / 2) / 3),
        (GRADED, "reciprocal_rank", None, 1 / 2),
        (GRADED, "ndcg_at_k", 1, 0),
        (GRADED, "ndcg_at_k", 2, (3 / log2(3)) / (3 + 2 / log2(3))),
        (GRADED, "ndcg_at_k", 4, (3 / log2(3) + 1 / log2(5)) / (3 + 2 / log2(3) + 1 / log2(4))),
        (NOTHING_RETRIEVED, "precision_at_k", 3, 0),
        (NOTHING_RETRIEVED, "success_at_k", 3, 0),
        (NOTHING_RETRIEVED, "recall_at_k", 3, 0),
        (NOTHING_RETRIEVED, "ndcg_at_k", 3, 0),
        (NOTHING_RETRIEVED, "r_precision", None, 0),
        (NOTHING_RETRIEVED, "average_precision", None, 0),
        (NOTHING_RETRIEVED, "average_precision_at_r", None, 0),
        (NOTHING_RETRIEVED, "reciprocal_rank", None, 0),
        (PERFECT, "r_precision", None, 1),
        (PERFECT, "average_precision", None, 1),
        (PERFECT, "average_precision_at_r", None, 1),
        (PERFECT, "ndcg_at_k", 4, 1),
        (PERFECT, "chance_precision", 12, 3 / 12),
        (HITS_1_AND_3, "chance_precision", np.array([50]), 5 / 50),
    ],
)
def test_values_worked_by_hand(ranks: RelevantRanks, name: str, k: Any, expected: float) -> None:
    metric: Callable[..., np.ndarray] = getattr(metrics, name)
    value = metric(ranks) if k is None else metric(ranks, k)
    assert value.dtype == np.float64
    assert value.tolist() == pytest.approx([expected], abs=1e-15)


def test_average_precision_divides_by_all_relevant_images() -> None:
    assert metrics.average_precision(HITS_1_AND_3)[0] == pytest.approx(0.333, abs=5e-4)  # torchmetrics says 0.833


def test_a_padded_rank_never_counts_however_large_k_is() -> None:
    assert metrics.recall_at_k(NOTHING_RETRIEVED, 10**12).tolist() == [0]
    assert metrics.average_precision(NOTHING_RETRIEVED).tolist() == [0]
    assert metrics.reciprocal_rank(NOTHING_RETRIEVED).tolist() == [0]


# --- queries without relevant images --------------------------------------------------------------------------------


def test_queries_without_relevant_images_are_left_out_of_the_mean() -> None:
    ranks = RelevantRanks.from_relevance([[1, 0], [0, 0], [0, 1]], ideal=[[1], [], [1]])
    values = metrics.per_query(ranks, ks=[1])
    values["recall_ceiling@1"] = metrics.recall_ceiling_at_k(ranks, 1)
    values["precision_ceiling@1"] = metrics.precision_ceiling_at_k(ranks, 1)
    for name, row in values.items():
        assert np.isnan(row).tolist() == [False, True, False], name
    assert metrics.mean(values)["mrr"] == 0.75


def test_the_mean_leaves_out_a_metric_without_any_valid_query() -> None:
    no_relevant = RelevantRanks.from_relevance([[0, 0]], ideal=[[]])
    assert metrics.mean(metrics.per_query(no_relevant, ks=[1, 5])) == {}
    no_queries = RelevantRanks.from_relevance(np.zeros((0, 3), int), ideal=[])
    assert metrics.mean(metrics.per_query(no_queries, ks=[1])) == {}


def test_names_and_order() -> None:
    assert list(metrics.per_query(PERFECT, ks=[5, 1])) == [
        *("precision@5", "success@5", "recall@5", "ndcg@5"),
        *("precision@1", "success@1", "recall@1", "ndcg@1"),
        *("r_precision", "map_at_r", "map", "mrr"),
    ]


# --- against other implementations ----------------------------------------------------------------------------------


def test_equal_to_the_naive_oracles() -> None:
    rng = np.random.default_rng(20)
    cases = [random_case(rng) for _ in range(300)]
    ranks = ranks_of(cases)
    found = metrics.per_query(ranks, KS)
    expected = [oracles.all_metrics(*case, KS) for case in cases]
    assert list(found) == list(expected[0])
    for name, values in found.items():
        np.testing.assert_allclose(values, [row[name] for row in expected], rtol=0, atol=1e-12, err_msg=name)
    for name in ("recall_ceiling_at_k", "precision_ceiling_at_k"):
        for k in KS:
            oracle = [getattr(oracles, name)(*case, k) for case in cases]
            np.testing.assert_allclose(getattr(metrics, name)(ranks, k), oracle, rtol=0, atol=1e-12, err_msg=name)


@dataclass(frozen=True)
class ScoredCase:
    """A query over 80 images, many of them with equal scores; ids fall with the position, so that trec_eval's order of equal
    scores, by id descending, is ours.

    depth : of the run.  missing : whether a query without results is absent from the run.
    """

    scores: np.ndarray
    grades: np.ndarray
    depth: int
    missing: bool

    IDS = tuple(f"image{79 - position:02d}" for position in range(80))

    @classmethod
    def random(cls, rng: np.random.Generator) -> "ScoredCase":
        scores = rng.random(80).round(rng.choice([0, 1, 2, 9])).astype(np.float32)
        grades = np.where(rng.random(80) < rng.choice([0.0, 0.02, 0.1, 0.5]), rng.integers(1, 5, 80), 0)
        empty = rng.random() < 0.1
        return cls(scores, grades, 0 if empty else int(rng.integers(1, 81)), bool(rng.random() < 0.5))

    def retrieved(self) -> tuple[np.ndarray, np.ndarray]:
        """The rank of each relevant image in the run, computed as in cbir.evaluation.evaluate, and its grade."""
        relevant = np.flatnonzero(self.grades)
        ranks = ranks_of_relevant(self.scores, relevant)
        return ranks[ranks <= self.depth], self.grades[relevant[ranks <= self.depth]]

    def run(self) -> dict[str, float] | None:
        """The run for trec_eval, in any order, without some of the images that have the lowest score."""
        if self.depth == 0 and self.missing:
            return None
        kept = sorted(oracles.ranked_positions(self.scores.tolist())[: self.depth])
        return {self.IDS[position]: float(self.scores[position]) for position in kept}


def test_equal_to_trec_eval() -> None:
    n_cases = 10_000
    rng = np.random.default_rng(21)
    cases = {str(number): ScoredCase.random(rng) for number in range(n_cases)}
    found = [case.retrieved() for case in cases.values()]
    ranks = RelevantRanks.from_ranks(*zip(*found, strict=True), ideal=[case.grades for case in cases.values()])
    ours = {name: dict(zip(cases, values, strict=True)) for name, values in metrics.per_query(ranks, KS).items()}

    runs = {q: run for q, case in cases.items() if (run := case.run()) is not None}
    qrels = {q: dict(zip(case.IDS, case.grades.tolist(), strict=True)) for q, case in cases.items()}
    names = {ir_measures.Rprec: "r_precision", ir_measures.AP: "map", ir_measures.RR: "mrr"}
    for k in KS:
        at_k = (ir_measures.P, ir_measures.Success, ir_measures.R, ir_measures.nDCG)
        names |= {measure @ k: f"{name}@{k}" for measure, name in zip(at_k, oracles.AT_K, strict=True)}
    results = [(q, names[measure], value) for q, measure, value in trec_eval(names, qrels, runs)]
    # MAP@R is trec_eval's map_cut at each query's own number of relevant images.
    for r in np.unique(ranks.n_relevant[ranks.n_relevant > 0]):
        queries = {q: qrels[q] for q, r_of_query in zip(cases, ranks.n_relevant, strict=True) if r_of_query == r}
        answered = {q: runs[q] for q in queries if q in runs}
        results += [(q, "map_at_r", value) for q, _, value in trec_eval([ir_measures.AP @ int(r)], queries, answered)]

    no_relevant = {q for q, case in cases.items() if not case.grades.any()}
    compared = [result for result in results if result[0] not in no_relevant]
    assert len(compared) == (n_cases - len(no_relevant)) * len(ours)
    largest = max(compared, key=lambda result: abs(ours[result[1]][result[0]] - result[2]))
    assert ours[largest[1]][largest[0]] == pytest.approx(largest[2], abs=1e-9), (largest, cases[largest[0]])
    assert all(np.isnan(ours[name][q]) for q in no_relevant for name in ours)  # where trec_eval counts 0

    # the cases are as varied as intended
    assert len(no_relevant) > 0.2 * n_cases
    assert len(runs) < 0.97 * n_cases
    assert sum(len(run) == 0 for run in runs.values()) > 0.03 * n_cases
    assert sum(len(set(run.values())) < len(run) for run in runs.values()) > 0.5 * n_cases


def trec_eval(measures: Iterable, qrels: dict, runs: dict) -> Iterator[tuple[str, object, float]]:
    """Query, measure and value of every query of the qrels; one without results, or absent from the run, counts 0."""
    for result in ir_measures.pytrec_eval.iter_calc(list(measures), qrels, runs):
        yield result.query_id, result.measure, result.value


METRIC_LEARNING = {
    "precision_at_1": "precision@1",
    "r_precision": "r_precision",
    "mean_average_precision_at_r": "map_at_r",
    "mean_average_precision": "map",
    "mean_reciprocal_rank": "mrr",
}


@pytest.mark.parametrize("among_themselves", [True, False], ids=["own image left out", "another gallery"])
def test_equal_to_pytorch_metric_learning(among_themselves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class by class, over 40 sets of random embeddings; a query whose label no other image has is left out there as well."""
    # the package imports this module, which replaces FAISS's search for every later test of the process
    monkeypatch.setitem(sys.modules, "faiss.contrib.torch_utils", ModuleType("faiss.contrib.torch_utils"))
    import torch  # seconds, and only here
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    rng = np.random.default_rng(22)
    compared = 0
    for _ in range(40):
        n_classes = int(rng.integers(2, 30))
        centres = rng.normal(size=(n_classes, 8))
        labels = rng.integers(0, n_classes, 150)
        gallery = centres[labels] + rng.choice([0.3, 1, 3]) * rng.normal(size=(150, 8))
        queries, query_labels = gallery, labels
        if not among_themselves:
            query_labels = rng.integers(0, n_classes + 1, 60)
            queries = np.vstack([centres, np.zeros(8)])[query_labels] + rng.normal(size=(60, 8))
        scores = (queries @ gallery.T).astype(np.float32)

        def neighbours(query: Any, k: int, reference: Any, includes: bool, scores: np.ndarray = scores) -> tuple:
            """By our own scores, equal ones in our order; the package's default, FAISS, sums in another order."""
            order = np.argsort(-scores, axis=1, kind="stable")
            if includes:
                order = order[order != np.arange(len(scores))[:, None]].reshape(len(scores), -1)
            return None, torch.from_numpy(order[:, :k])

        calculator = AccuracyCalculator(
            tuple(METRIC_LEARNING), return_per_class=True, device=torch.device("cpu"), knn_func=neighbours
        )
        expected = calculator.get_accuracy(queries, query_labels, gallery, labels, ref_includes_query=among_themselves)

        ranks = []
        for number, label in enumerate(query_labels):
            own = number if among_themselves else None
            relevant = np.flatnonzero((labels == label) & (np.arange(150) != (-1 if own is None else own)))
            ranks.append(ranks_of_relevant(scores[number], relevant, own))
        ones = [np.ones(len(row), int) for row in ranks]
        ours = metrics.per_query(RelevantRanks.from_ranks(ranks, ones, ideal=ones), ks=[1])
        valid = ~np.isnan(ours["mrr"])
        for their_name, name in METRIC_LEARNING.items():
            classes = np.unique(query_labels[valid])
            means = [ours[name][valid & (query_labels == label)].mean() for label in classes]
            atol = 1e-6 if name == "mrr" else 1e-9  # which the package computes in float32
            np.testing.assert_allclose(means, expected[their_name], rtol=0, atol=atol, err_msg=name)
            compared += len(classes)
    assert compared > 1000


# --- properties -----------------------------------------------------------------------------------------------------

grade_lists = st.lists(st.sampled_from([0, 0, 0, 1, 2, 3]), min_size=1, max_size=12)


@reproducible
@given(grades=grade_lists, data=st.data())
def test_swapping_a_better_image_upward_never_lowers_a_metric(grades: list[int], data: st.DataObject) -> None:
    assume(any(grades))
    depth = data.draw(st.integers(1, len(grades)), label="depth of the run")  # beyond it, images are not retrieved
    swapped = [grades]
    for low in range(len(grades)):
        for high in range(low):
            if grades[high] < grades[low]:
                row = list(grades)
                row[high], row[low] = row[low], row[high]
                swapped.append(row)
    ranks = RelevantRanks.from_relevance([row[:depth] for row in swapped], ideal=swapped)
    for name, values in metrics.per_query(ranks, KS).items():
        assert (values[1:] >= values[0] - 1e-12).all(), name


@reproducible
@given(seed=st.integers(0, 2**32 - 1), step=st.sampled_from([0.0, 0.01, 0.1, 1.0]), data=st.data())
def test_a_higher_score_of_a_best_image_lowers_no_metric(seed: int, step: float, data: st.DataObject) -> None:
    case = ScoredCase.random(np.random.default_rng(seed))
    assume(case.grades.any())
    best = data.draw(st.sampled_from(np.flatnonzero(case.grades == case.grades.max()).tolist()), label="best")
    raised = case.scores.copy()
    raised[best] += np.float32(step)
    found = [case.retrieved(), replace(case, scores=raised).retrieved()]
    values = metrics.per_query(RelevantRanks.from_ranks(*zip(*found, strict=True), ideal=[case.grades] * 2), KS)
    for name, (before, after) in values.items():
        assert after >= before - 1e-12, name


@reproducible
@given(rows=st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=8), data=st.data())
def test_permuting_queries_permutes_values(rows: list[list[int]], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(rows))), label="order")
    ranks = RelevantRanks.from_relevance(rows, ideal=rows)
    permuted = RelevantRanks.from_relevance([rows[i] for i in order], ideal=[rows[i] for i in order])
    before, after = metrics.per_query(ranks, KS), metrics.per_query(permuted, KS)
    for name in before:
        np.testing.assert_array_equal(after[name], before[name][order], err_msg=name)


@reproducible
@given(grades=grade_lists, missing=st.lists(st.integers(1, 3), max_size=5), k=st.integers(1, 15))
def test_values_stay_between_zero_and_their_ceiling(grades: list[int], missing: list[int], k: int) -> None:
    assume(any(grades) or missing)
    ranks = RelevantRanks.from_relevance([grades], ideal=[grades + missing])
    values = metrics.per_query(ranks, [k])
    for name, row in values.items():
        assert 0 <= row[0] <= 1 + 1e-12, name
    assert values[f"recall@{k}"] <= metrics.recall_ceiling_at_k(ranks, k) <= 1
    assert values[f"precision@{k}"] <= metrics.precision_ceiling_at_k(ranks, k) <= 1


@reproducible
@given(grades=grade_lists)
def test_the_best_ranking_reaches_every_ceiling_exactly(grades: list[int]) -> None:
    assume(any(grades))
    best = sorted(grades, reverse=True)
    ranks = RelevantRanks.from_relevance([best], ideal=[grades])
    for k in KS:
        assert metrics.ndcg_at_k(ranks, k) == 1
        assert metrics.recall_at_k(ranks, k) == metrics.recall_ceiling_at_k(ranks, k)
        assert metrics.precision_at_k(ranks, k) == metrics.precision_ceiling_at_k(ranks, k)
    assert metrics.average_precision(ranks) == metrics.average_precision_at_r(ranks) == 1


@pytest.mark.parametrize("k", [0, -1])
@pytest.mark.parametrize(
    "name",
    ["precision_at_k", "success_at_k", "recall_at_k", "recall_ceiling_at_k", "precision_ceiling_at_k", "ndcg_at_k"],
)
def test_k_below_one_is_refused(name: str, k: int) -> None:
    with pytest.raises(ValueError, match=f"k: expected 1 or more, found {k}"):
        getattr(metrics, name)(PERFECT, k)


# --- ann_recall_at_k ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "tolerance", "expected"),
    [
        ([0.9, 0.5], 0.0, 1.0),  # the exact neighbours themselves
        ([0.5, 0.5], 0.0, 1.0),  # another image, as near as the second
        ([0.9, 0.4], 0.0, 0.5),
        ([0.9, 0.4], 0.2, 1.0),
        ([0.9, 0.5 - 2**-25], 2e-8, 0.5),  # one float32 below: in float32 this threshold would be rounded down to it
        ([0.9, 0.5 - 2**-25], 3e-8, 1.0),
        ([0.9, -np.inf], 0.2, 0.5),  # nothing returned is never relevant
        ([-np.inf, -np.inf], 0.0, 0.0),
    ],
)
def test_ann_recall_counts_ties(found: list[float], tolerance: float, expected: float) -> None:
    exact = [0.9, 0.5, 0.5, 0.4]
    value = metrics.ann_recall_at_k(np.float32([found]), np.float32([exact]), k=2, tolerance=tolerance)
    assert value.tolist() == [expected]
    assert oracles.ann_recall_at_k(found, exact, 2, tolerance) == expected


def test_ann_recall_equals_the_naive_oracle() -> None:
    rng = np.random.default_rng(24)
    exact = -np.sort(-rng.uniform(-1, 1, (200, 12)).round(1).astype(np.float32), axis=1)
    found = rng.permuted(exact, axis=1)[:, :5]
    found[rng.random(found.shape) < 0.1] = -np.inf
    for tolerance in (0.0, 1e-6, 0.15):
        expected = [
            oracles.ann_recall_at_k(*rows, 5, tolerance) for rows in zip(found.tolist(), exact.tolist(), strict=True)
        ]
        assert metrics.ann_recall_at_k(found, exact, 5, tolerance).tolist() == expected


@pytest.mark.parametrize(
    ("found", "exact", "k", "tolerance", "message"),
    [
        ([[1.0]], [[1.0]], 0, 0.0, "k: expected 1 or more, found 0"),
        ([[1.0]], [[1.0]], 1, -1.0, "tolerance: expected a number >= 0, found -1.0"),
        ([[1.0]], [[1.0]], 1, np.nan, "tolerance: expected a number >= 0, found nan"),
        ([[1.0]], [[1.0, 0.9]], 2, 0.0, r"scores: expected shape \(n_queries, 2\), found \(1, 1\)"),
        (
            [[1.0, 0.9]],
            [[1.0]],
            2,
            0.0,
            r"exact_scores: expected shape \(1, 2 or more\).* is k larger than the gallery",
        ),
        ([[1.0]], [1.0], 1, 0.0, r"exact_scores: expected shape \(1, 1 or more\), found \(1,\)"),
        ([[1.0]], [[1.0], [1.0]], 1, 0.0, r"exact_scores: expected shape \(1, 1 or more\), found \(2, 1\)"),
        ([[1.0, 0.9]], [[0.9, 1.0]], 2, 0.0, "exact_scores: expected finite scores in descending order"),
        ([[1.0, 0.9, 0.8]], [[0.9, 0.7, 0.8]], 3, 0.0, "exact_scores: expected finite scores in descending order"),
        ([[1.0, 0.9]], [[0.9, -np.inf]], 2, 0.0, "exact_scores: expected finite scores"),
        ([[1.0, np.nan]], [[1.0, 0.9]], 2, 0.0, "scores: expected numbers or -inf, found NaN"),
    ],
)
def test_ann_recall_refuses_bad_scores(found: list, exact: list, k: int, tolerance: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.ann_recall_at_k(np.float32(found), np.float32(exact), k, tolerance)
