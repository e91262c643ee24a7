"""Encoders compared: each test against the same test of two alone, the error rate by simulation, and refusals."""

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest

from cbir.artifacts.comparison import EncoderCost, MetricComparison
from cbir.core.errors import DataError
from cbir.evaluation.encoder_comparison import (
    classes_needed,
    compare_encoders,
    compare_metric,
    compare_run,
    flips_for,
)
from cbir.evaluation.statistics import bounds_of_means, holm, p_values_of_differences

NAMES = ("a", "b", "c", "d")


def compared(
    values: np.ndarray, classes: np.ndarray, names: tuple[str, ...] = NAMES, resamples: int = 500, flips: int = 2000
) -> MetricComparison:
    comparison = compare_metric("precision@10", names, values, classes, resamples, flips, seed=0)
    assert comparison is not None
    return comparison


def answers(
    rng: np.random.Generator, effects: tuple[float, ...], n_classes: int = 20, per_class: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Values whose encoders share the difficulty of class and query, and have an effect and noise by class of their own."""
    classes = np.repeat(np.arange(n_classes), per_class)
    n = len(effects)
    difficulty = rng.normal(size=n_classes)[classes, None] + rng.normal(size=(len(classes), 1))
    noise = 0.5 * rng.normal(size=(n_classes, n))[classes] + 0.5 * rng.normal(size=(len(classes), n))
    return difficulty + noise + np.array(effects), classes


# ---- what is computed


def test_each_pair_has_the_test_that_two_runs_have() -> None:
    values, classes = answers(np.random.default_rng(0), (0.0, 0.9, 0.2, 0.3))
    comparison = compared(values, classes)
    names = [ranked.encoder for ranked in comparison.ranking]
    assert names == [NAMES[column] for column in np.argsort(-values.mean(axis=0))]
    assert [(test.first, test.second) for test in comparison.tests] == list(combinations(names, 2))
    alone = []
    for test in comparison.tests:
        difference = values[:, NAMES.index(test.first)] - values[:, NAMES.index(test.second)]
        assert test.difference == pytest.approx(difference.mean())
        assert test.interval == pytest.approx(bounds_of_means({"": difference}, classes, 500, 0)[""], abs=2e-6)
        alone.append(p_values_of_differences(difference[:, None], classes, 2000, 0)[0])
    assert [test.p for test in comparison.tests] == alone
    assert [test.p_holm for test in comparison.tests] == holm(np.array(alone)).tolist()
    assert [test.differs for test in comparison.tests] == [p < 0.05 for p in holm(np.array(alone))]
    assert {test.differs for test in comparison.tests} == {True, False}


def test_means_and_intervals_are_those_of_the_report() -> None:
    values, classes = answers(np.random.default_rng(1), (0.0, 0.5))
    values[classes == 3] = np.nan
    comparison = compared(values, classes, NAMES[:2])
    for ranked in comparison.ranking:
        column = values[:, NAMES.index(ranked.encoder)]
        assert ranked.mean == pytest.approx(np.nanmean(column))
        assert ranked.interval == bounds_of_means({"": column}, classes, 500, 0)[""]
    assert (comparison.queries, comparison.classes) == (95, 19)


def test_a_query_that_one_encoder_lacks_counts_for_none() -> None:
    values, classes = answers(np.random.default_rng(2), (0.0, 0.5, 0.1))
    partial = values.copy()
    partial[[4, 40], [0, 2]] = np.nan
    kept = np.delete(np.arange(len(classes)), [4, 40])
    assert compared(partial, classes, NAMES[:3]) == compared(values[kept], classes[kept], NAMES[:3])


def test_overlapping_intervals_do_not_hide_a_difference() -> None:
    """Classes differ much, encoders little but always: the intervals of the means say nothing about the difference."""
    rng = np.random.default_rng(3)
    classes = np.repeat(np.arange(20), 5)
    difficulty = rng.uniform(0.2, 0.8, 20)[classes]
    values = np.column_stack([difficulty, difficulty + 0.02 + 0.005 * rng.normal(size=100)])
    comparison = compared(values, classes, NAMES[:2])
    better, worse = (ranked.interval for ranked in comparison.ranking)
    assert better is not None
    assert worse is not None
    assert worse[0] < better[0] < worse[1]
    assert comparison.best_group == ["b"]
    assert [ranked.letters for ranked in comparison.ranking] == ["a", "b"]


def test_letters_are_those_of_the_tests() -> None:
    values, classes = answers(np.random.default_rng(4), (0.0, 0.3, 0.6, 0.9))
    comparison = compared(values, classes)
    letters = {ranked.encoder: set(ranked.letters) for ranked in comparison.ranking}
    for test in comparison.tests:
        assert bool(letters[test.first] & letters[test.second]) != test.differs
    best = comparison.ranking[0].encoder
    assert comparison.best_group == [name for name in letters if letters[name] & letters[best]]
    assert len(set(map(frozenset, letters.values()))) > 1


def test_equal_means_are_ranked_as_listed() -> None:
    values = np.tile(np.linspace(0, 1, 12)[:, None], (1, 3))
    comparison = compared(values, np.arange(12), ("z", "a", "m"))
    assert [ranked.encoder for ranked in comparison.ranking] == ["z", "a", "m"]
    assert {(test.difference, test.p, test.p_holm, test.differs) for test in comparison.tests} == {(0, 1, 1, False)}
    assert comparison.best_group == ["z", "a", "m"]


def test_a_single_encoder_has_no_tests() -> None:
    values, classes = answers(np.random.default_rng(5), (0.0,))
    comparison = compared(values, classes, NAMES[:1])
    assert (comparison.tests, comparison.best_group) == ([], ["a"])
    assert comparison.ranking[0].letters == "a"
    assert comparison.is_testable


def test_nothing_is_compared_without_a_defined_query() -> None:
    assert compare_metric("map_at_r", ["a"], np.full((3, 1), np.nan), np.arange(3), 100, 100, 0) is None
    assert compare_metric("map_at_r", ["a"], np.empty((0, 1)), np.arange(0), 100, 100, 0) is None


# ---- few classes


@pytest.mark.parametrize(("n_encoders", "expected"), [(1, 6), (2, 6), (3, 7), (6, 10), (20, 13)])
def test_more_pairs_need_more_classes(n_encoders: int, expected: int) -> None:
    n_pairs = n_encoders * (n_encoders - 1) // 2
    assert classes_needed(n_encoders) == expected
    assert expected == 6 or 2 * n_pairs / 2 ** (expected - 1) >= 0.05 > n_pairs / 2 ** (expected - 1)


def test_flips_suffice_for_any_number_of_encoders() -> None:
    for n_encoders in (2, 20, 60):
        assert n_encoders * (n_encoders - 1) / 2 / (flips_for(n_encoders) + 1) < 0.05


def test_below_six_classes_nothing_is_tested() -> None:
    values, classes = answers(np.random.default_rng(6), (0.0, 9.0), n_classes=5)
    comparison = compared(values, classes, NAMES[:2])
    (test,) = comparison.tests
    assert (test.interval, test.p, test.p_holm, test.differs) == (None, None, None, False)
    assert test.difference == pytest.approx(values[:, 1].mean() - values[:, 0].mean())
    assert not comparison.is_testable
    assert comparison.best_group == ["b", "a"]
    assert [ranked.interval for ranked in comparison.ranking] == [None, None]


@pytest.mark.parametrize("n_classes", [6, 7])
def test_too_few_classes_for_three_encoders_decide_nothing(n_classes: int) -> None:
    values, classes = answers(np.random.default_rng(7), (0.0, 50.0, 100.0), n_classes=n_classes)
    comparison = compared(values, classes, NAMES[:3], flips=20_000)
    assert comparison.is_testable == (n_classes == 7)
    assert len(comparison.best_group) == (1 if n_classes == 7 else 3)


# ---- the rate of errors


def test_equal_encoders_differ_in_at_most_one_of_twenty() -> None:
    rng, simulations = np.random.default_rng(8), 400
    wrong = sum(
        any(test.differs for test in compared(*answers(rng, (0.0,) * 4), resamples=100, flips=1000).tests)
        for _ in range(simulations)
    )
    assert wrong / simulations <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / simulations)


def test_true_differences_elsewhere_cause_no_more_errors() -> None:
    """Two pairs of equal encoders, far apart: Holm's method protects the two true hypotheses among six."""
    rng, simulations, wrong, apart = np.random.default_rng(9), 400, 0, 0
    for _ in range(simulations):
        comparison = compared(*answers(rng, (0.0, 0.0, 1.0, 1.0)), resamples=100, flips=1000)
        differing = {frozenset((test.first, test.second)) for test in comparison.tests if test.differs}
        wrong += bool(differing & {frozenset("ab"), frozenset("cd")})
        apart += len(differing - {frozenset("ab"), frozenset("cd")})
    assert wrong / simulations <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / simulations)
    assert apart / simulations > 3.9


# ---- from tables


def table_of(
    values: np.ndarray, classes: np.ndarray, task: str = "cbir", search: str = "exact", names: tuple[str, ...] = NAMES
) -> pa.Table:
    """per_query.parquet, the queries of each encoder in another order."""
    tables = []
    for column, name in enumerate(names):
        rows = np.random.default_rng(column).permutation(len(classes))
        tables.append(
            pa.table(
                {
                    "query_id": [f"q{row}" for row in rows],
                    "task": [task] * len(rows),
                    "encoder": [name] * len(rows),
                    "search": [search] * len(rows),
                    "label": [f"c{classes[row]}" for row in rows],
                    "precision@1": np.zeros(len(rows)),
                    "precision@10": pa.array(values[rows, column], from_pandas=True),
                    "precision@50": np.ones(len(rows)),
                    "map_at_r": pa.array(values[rows, column] / 2, from_pandas=True),
                }
            )
        )
    return pa.concat_tables(tables)


def test_queries_are_joined_by_their_ids() -> None:
    values, classes = answers(np.random.default_rng(10), (0.0, 0.9, 0.2, 0.3))
    values[7] = np.nan
    index = table_of(values[:, ::-1], classes, search="index")
    (task,) = compare_encoders(pa.concat_tables([table_of(values, classes), index]), NAMES, 500, 0).items()
    assert (task[0], [comparison.metric for comparison in task[1]]) == ("cbir", ["precision@10", "map_at_r"])
    expected = compared(values, classes, flips=20_000)
    assert [ranked.encoder for ranked in task[1][0].ranking] == [ranked.encoder for ranked in expected.ranking]
    for ranked, by_hand in zip(task[1][0].ranking, expected.ranking, strict=True):
        assert ranked.mean == pytest.approx(by_hand.mean)
    for test, by_hand_test in zip(task[1][0].tests, expected.tests, strict=True):
        assert test.difference == pytest.approx(by_hand_test.difference)
        assert test.p == pytest.approx(by_hand_test.p, abs=0.02)


def test_each_task_compares_the_encoders_that_it_has() -> None:
    values, classes = answers(np.random.default_rng(11), (0.0, 0.9, 0.2, 0.3))
    both = pa.concat_tables([table_of(values, classes), table_of(values[:, 1:3], classes, "tbir", names=NAMES[1:3])])
    tasks = compare_encoders(both, NAMES, 200, 0)
    ranked = {task: sorted(ranked.encoder for ranked in metrics[0].ranking) for task, metrics in tasks.items()}
    assert ranked == {"cbir": ["a", "b", "c", "d"], "tbir": ["b", "c"]}
    assert tasks["cbir"] == compare_encoders(both, NAMES[:4], 200, 0)["cbir"]
    left_out = compare_encoders(both, NAMES[2:], 200, 0)
    assert sorted(ranked.encoder for ranked in left_out["cbir"][0].ranking) == ["c", "d"]


@pytest.mark.parametrize(("ks", "k"), [([1, 5], 5), ([5, 15], 5), ([20], 20), ([1, 10, 12], 10)])
def test_precision_at_the_k_nearest_to_10_decides(ks: list[int], k: int) -> None:
    columns = {f"precision@{k}": np.ones(2) for k in ks}
    table = pa.table({"query_id": ["q", "r"], "task": ["tbir"] * 2, "encoder": ["a"] * 2, "search": ["exact"] * 2})
    for name, column in {"label": pa.array([None, None], pa.string()), **columns}.items():
        table = table.append_column(name, pa.array(column))
    assert compare_encoders(table, ["a"], 100, 0)["tbir"][0].metric == f"precision@{k}"


def test_a_run_without_relevant_images_compares_nothing() -> None:
    values, classes = answers(np.random.default_rng(12), (0.0,) * 4)
    assert compare_encoders(table_of(np.full_like(values, np.nan), classes), NAMES, 100, 0) == {}
    assert compare_encoders(table_of(values[:0], classes[:0]), NAMES, 100, 0) == {}


def test_encoders_with_different_queries_are_refused() -> None:
    values, classes = answers(np.random.default_rng(13), (0.0, 0.5))
    table = table_of(values, classes, names=NAMES[:2])
    short = table.slice(0, table.num_rows - 1)
    renamed = short.append_column("x", short["query_id"]).drop_columns("x")
    with pytest.raises(DataError, match=r"cbir: .* found 100 of a and others, 99, of b: run `cbir repair"):
        compare_encoders(renamed, NAMES[:2], 100, 0)


def test_a_run_is_compared_with_the_costs_of_its_encoders() -> None:
    values, classes = answers(np.random.default_rng(15), (0.0, 0.5))
    cost = EncoderCost(8, 800, 8.0, None, None, None, None)
    table = table_of(values, classes, names=NAMES[:2])
    comparison = compare_run(table, {"b": cost, "a": cost}, 200, 7)
    assert comparison.costs == {"b": cost, "a": cost}
    assert comparison.tasks == compare_encoders(table, ["b", "a"], 200, 7)
    assert (comparison.about["resamples"], comparison.about["seed"], comparison.about["drawn"]) == (200, 7, "classes")
