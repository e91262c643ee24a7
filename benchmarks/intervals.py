"""How often the 95 % interval holds the true mean, and how often the paired test finds a difference that is not there.

    python -m benchmarks.intervals

Data sets drawn from known distributions: every class has a mean of its own, every query its precision@10 around it (hits of ten
tries, so between 0 and 1 as the real ones are).  For the test, two runs share the classes' means and differ by chance alone.
"""

import numpy as np
import numpy.typing as npt

from cbir.evaluation.statistics import interval_of_means, p_values_of_differences

DATA_SETS, RESAMPLES = 1000, 2000
Floats = npt.NDArray[np.float64]

# classes, queries of each, and the beta distribution of the classes' means: a, b
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
    """Values of `queries` queries of each class, one below the other, (n, 1)."""
    return rng.binomial(10, np.repeat(means, queries)).reshape(-1, 1) / 10


def measure(classes: int, queries: int, a: float, b: float) -> tuple[float, float]:
    """The share of data sets whose interval holds the true mean, and of those in which p <= 0.05."""
    rng = np.random.default_rng(0)
    numbers = np.repeat(np.arange(classes), queries)
    held = rejected = 0
    for seed in range(DATA_SETS):
        means = rng.beta(a, b, classes)
        one, other = draw(rng, means, queries), draw(rng, means, queries)
        (interval,) = interval_of_means(one, numbers, RESAMPLES, seed)
        held += interval is not None and interval.low <= a / (a + b) <= interval.high
        rejected += p_values_of_differences(other - one, numbers, RESAMPLES, seed)[0] <= 0.05
    return held / DATA_SETS, rejected / DATA_SETS


def main() -> None:
    """Measure and print."""
    print("| classes | queries each | class means | interval holds | test rejects |\n|---:|---:|---|---:|---:|")
    for classes, queries, a, b in DESIGNS:
        held, rejected = measure(classes, queries, a, b)
        print(f"| {classes} | {queries} | beta({a:g}, {b:g}) | {held:.1%} | {rejected:.1%} |", flush=True)


if __name__ == "__main__":
    main()
