"""The uncertainty of a mean over queries: bootstrap intervals, a paired randomisation test, Holm's correction.

The unit that is resampled is the class, not the query, because queries of one class are similar: 10,000 queries of 200
classes say little more about a mean than 200 classes do.  A query without a label is a class of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEVEL: Final = 0.95
# with fewer classes, the bounds are little more than the lowest and highest class (coverage of 89 % with 4)
MIN_CLASSES: Final = 6
_BLOCK_NUMBERS: Final = 4_000_000  # numbers of a block of resamples: 32 MB


@dataclass(frozen=True)
class Interval:
    """The bounds of an interval at LEVEL.  With few classes of skewed values the mean may be outside."""

    low: float
    high: float

    @property
    def bounds(self) -> list[float]:
        """[low, high] for JSON, rounded: further digits depend on the resamples, and the last ones on the matrix product."""
        return [round(self.low, 6), round(self.high, 6)]


@dataclass(frozen=True, eq=False)
class ClassSums:
    """The sum and the number of defined values of each class, from which a mean over resampled classes is computed.

    sums, counts : (n_classes, n_metrics) float64
    """

    sums: Floats
    counts: Floats

    @classmethod
    def of(cls, values: Floats, classes: Ints) -> "ClassSums":
        """values : (n_queries, n_metrics) float64, NaN where undefined.  classes : (n_queries,) from classes_of."""
        defined = ~np.isnan(values)
        n_classes = int(classes.max(initial=-1)) + 1
        sums, counts = np.zeros((n_classes, values.shape[1])), np.zeros((n_classes, values.shape[1]))
        np.add.at(sums, classes, np.where(defined, values, 0.0))
        np.add.at(counts, classes, defined)
        return cls(sums, counts)


def classes_of(labels: Sequence[str | None]) -> Ints:
    """Number the classes from 0, (n_queries,) int64; a query without a label is a class of its own.

    >>> classes_of(["cat", "dog", None, "cat", None]).tolist()
    [0, 1, 2, 0, 3]
    """
    numbers: dict[object, int] = {}
    return np.array(
        [numbers.setdefault(row if label is None else label, len(numbers)) for row, label in enumerate(labels)],
        np.int64,
    )


def interval_of_means(values: Floats, classes: Ints, resamples: int, seed: int) -> list[Interval | None]:
    """A 95 % bootstrap interval of each metric's mean; None where fewer than MIN_CLASSES classes have a value.

    values : (n_queries, n_metrics) float64, NaN where undefined.  classes : (n_queries,) from classes_of.

    Classes are resampled with replacement, each with all its queries: resampling queries within classes as well would count
    their variance twice (Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8).  For few classes
    the percentiles are further out, as Student's t is wider than the normal distribution (Hesterberg, "What Teachers Should
    Know About the Bootstrap", The American Statistician 69(4), 2015, section 5).
    """
    if not len(values):
        return [None] * values.shape[1]
    sums = ClassSums.of(values, classes)
    intervals: list[Interval | None] = []
    means = _resampled_means(sums, resamples, seed)
    for column in range(values.shape[1]):
        n_classes = int((sums.counts[:, column] > 0).sum())
        defined = means[:, column][~np.isnan(means[:, column])]
        if n_classes < MIN_CLASSES:
            intervals.append(None)
            continue
        tail = _tail(n_classes)
        low, high = np.quantile(defined, [tail, 1 - tail])
        intervals.append(Interval(float(low), float(high)))
    return intervals


def bounds_of_means(values: Mapping[str, Floats], classes: Ints, resamples: int, seed: int) -> dict[str, list[float]]:
    """Metric -> [low, high] of `interval_of_means`, without the metrics that have no interval."""
    intervals = interval_of_means(np.column_stack([*values.values()]), classes, resamples, seed)
    return {name: interval.bounds for name, interval in zip(values, intervals, strict=True) if interval is not None}


def _tail(n_classes: int) -> float:
    """The share of resamples beyond each bound."""
    t = stats.t.ppf((1 - LEVEL) / 2, n_classes - 1) * np.sqrt(n_classes / (n_classes - 1))
    return NormalDist().cdf(float(t))


def _resampled_means(sums: ClassSums, resamples: int, seed: int) -> Floats:
    """(resamples, n_metrics) means over resampled classes; NaN where no class of a resample has a value."""
    n_classes = len(sums.sums)
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK_NUMBERS // max(n_classes, 1))
    means = []
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        times_drawn = rng.multinomial(n_classes, np.full(n_classes, 1 / n_classes), size=size).astype(np.float64)
        with np.errstate(invalid="ignore"):
            means.append((times_drawn @ sums.sums) / (times_drawn @ sums.counts))
    return np.concatenate(means)


def p_values_of_differences(differences: Floats, classes: Ints, flips: int, seed: int) -> Floats:
    """Two-sided p-value of each metric's mean difference, by a paired randomisation test; NaN where no query has a value.

    differences : (n_queries, n_metrics) float64, the value of one run minus that of the other, NaN where undefined.
    classes : (n_queries,) from classes_of.  flips : the number of random sign assignments.

    If the runs do not differ, both signs of a class's summed difference are equally likely: p is the share of sign
    assignments (the observed one included) whose mean is at least as far from 0.  Source: Fisher's randomisation test as in
    Smucker, Allan and Carterette, CIKM 2007, with the class as the unit.
    """
    sums = ClassSums.of(differences, classes)
    rng = np.random.default_rng(seed)
    observed = np.abs(sums.sums.sum(0))
    n_at_least = np.zeros(differences.shape[1])
    n_classes = len(sums.sums)
    rows = max(1, _BLOCK_NUMBERS // max(n_classes, 1))
    for start in range(0, flips, rows):
        signs = rng.integers(0, 2, (min(rows, flips - start), n_classes)) * 2.0 - 1.0
        # with a tolerance, because sums of the same numbers in another order differ by rounding
        n_at_least += (np.abs(signs @ sums.sums) >= observed * (1 - 1e-12)).sum(0)
    return np.where(sums.counts.sum(0) > 0, (n_at_least + 1) / (flips + 1), np.nan)


def least_p(n_classes: int, flips: int) -> float:
    """The smallest p-value that `p_values_of_differences` can return: n classes have 2^n sign assignments, two of them extreme.

    >>> least_p(3, 10_000)
    0.25
    """
    return max(2.0 ** (1 - min(n_classes, 64)), 1 / (flips + 1))


def holm(p_values: Floats) -> Floats:
    """Holm's step-down correction for multiple tests; NaN stands for a test that was not made, and remains NaN.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6, 1979.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    corrected = np.full(len(p_values), np.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    order = tested[np.argsort(p_values[tested])]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected
