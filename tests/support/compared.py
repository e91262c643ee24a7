"""Comparisons of encoders, made by hand."""

from collections.abc import Mapping
from itertools import combinations

from cbir.artifacts.comparison import EncoderCost, MetricComparison, PairedTest, RankedEncoder
from cbir.evaluation.encoder_comparison import classes_needed
from cbir.evaluation.letters import letters_of

COST = EncoderCost(
    dim=512,
    index_bytes=2_048_045,
    bytes_per_vector=2048.01,
    weights_bytes=350_000_000,
    parameters=87_000_000,
    images_per_s=40.0,
    machine="AMD EPYC, 2 cores, Linux, cpu",
)


def metric_of(
    means: Mapping[str, float],
    p_values: Mapping[str, float] | None = None,
    metric: str = "precision@10",
    queries: int = 300,
    classes: int = 12,
    half: float = 0.03,
) -> MetricComparison:
    """Encoders with these means, the best first; p_values : "a b" -> p after Holm's correction, 0.0001 where it is absent.

    half : of the intervals of means and differences.
    """
    names, p_values = list(means), p_values or {}
    tests = []
    for first, second in combinations(names, 2):
        p, difference = p_values.get(f"{first} {second}", 0.0001), means[first] - means[second]
        is_testable = classes >= classes_needed(len(names))
        tests.append(
            PairedTest(
                first, second, difference, [difference - half, difference + half], p / 2, p, is_testable and p < 0.05
            )
        )
    if classes < 6:
        tests = [
            PairedTest(test.first, test.second, test.difference, None, None, None, differs=False) for test in tests
        ]
    letters = letters_of(
        len(names), [(names.index(test.first), names.index(test.second)) for test in tests if test.differs]
    )
    ranking = [
        RankedEncoder(name, mean, None if classes < 6 else [mean - half, mean + half], letter)
        for (name, mean), letter in zip(means.items(), letters, strict=True)
    ]
    return MetricComparison(metric, queries, classes, classes_needed(len(names)), 20_000, ranking, tests)
