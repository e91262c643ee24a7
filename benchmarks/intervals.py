"""Coverage of the 95 % interval, and false positives of the paired test.

    python -m benchmarks.intervals

Data sets are sampled from known distributions: each class has a mean, and the precision@10 of each query is binomial around it
(hits of ten results, so between 0 and 1).  For the test, two runs have the same class means and differ by chance only.
"""

import numpy as np
import numpy.typing as npt

from cbir.evaluation.statistics import interval_of_means, p_values_of_differences

DATA_SETS, RESAMPLES = 1000, 2000
Floats = npt.NDArray[np.float64]

# classes, queries per class, and the beta distribution of the classes' means: a, b
DESIGNS = [
    (8, 10, 4.0, 2.0),
    (10, 20, 4.0, 2.0),
    (20, 1, 4.0, 2.0),
    (20, 10, 4.0, 2.0),
    (80, 10, 4.0, 2.0),
    (200, 1, 1.0, 3.0),
    (200, 50, 8.0, 2.0),
]


def draw(rng: np.random.Generator, means: Floats, queries: int) -> Floats:
    """Sample the values of `queries` queries per class, (n, 1)."""
    return rng.binomial(10, np.repeat(means, queries)).reshape(-1, 1) / 10


def measure(classes: int, queries: int, a: float, b: float) -> tuple[float, float]:
    """The share of data sets whose interval covers the true mean, and the share with p <= 0.05."""
    rng = np.random.default_rng(0)
    class_of = np.repeat(np.arange(classes), queries)
    covered = rejected = 0
    for seed in range(DATA_SETS):
        means = rng.beta(a, b, classes)
        first, second = draw(rng, means, queries), draw(rng, means, queries)
        (interval,) = interval_of_means(first, class_of, RESAMPLES, seed)
        covered += interval is not None and interval.low <= a / (a + b) <= interval.high
        rejected += p_values_of_differences(second - first, class_of, RESAMPLES, seed)[0] <= 0.05
    return covered / DATA_SETS, rejected / DATA_SETS


def main() -> None:
    """Measure and print."""
    print("| classes | queries each | class means | coverage | test rejects |\n|---:|---:|---|---:|---:|")
    for classes, queries, a, b in DESIGNS:
        coverage, rejected = measure(classes, queries, a, b)
        print(f"| {classes} | {queries} | beta({a:g}, {b:g}) | {coverage:.1%} | {rejected:.1%} |", flush=True)


if __name__ == "__main__":
    main()
