"""How sure a mean over queries is: bootstrap intervals, a paired randomisation test, Holm's correction.

Queries of one class are alike, so a class, not a query, is the unit that is drawn: 10,000 queries of 200 classes say as much
about a mean as 200 classes do.  A query without a label is a class of its own.
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
MIN_CLASSES: Final = 6  # with fewer, the bounds are hardly more than the least and the greatest class (4 hold 89 %)
_BLOCK_NUMBERS: Final = 4_000_000  # draws of classes held at a time: 32 MB


@dataclass(frozen=True)
class Interval:
    """The bounds of an interval at LEVEL; low <= mean <= high is not promised where few classes are lopsided."""

    low: float
    high: float

    @property
    def bounds(self) -> list[float]:
        """For JSON; the digits beyond are the draw's chance, and in the last ones the matrix product's."""
        return [round(self.low, 6), round(self.high, 6)]


@dataclass(frozen=True, eq=False)
class ClassSums:
    """The sum and the number of defined values of each class: all that a mean over drawn classes needs.

    sums, counts : (n_classes, n_metrics) float64
    """

    sums: Floats
    counts: Floats

    @classmethod
    def of(cls, values: Floats, classes: Ints) -> "ClassSums":
        """values : (n_queries, n_metrics) float64, NaN where a query has no value.  classes : (n_queries,) from classes_of."""
        defined = ~np.isnan(values)
        n_classes = int(classes.max(initial=-1)) + 1
        sums, counts = np.zeros((n_classes, values.shape[1])), np.zeros((n_classes, values.shape[1]))
        np.add.at(sums, classes, np.where(defined, values, 0.0))
        np.add.at(counts, classes, defined)
        return cls(sums, counts)


def classes_of(labels: Sequence[str | None]) -> Ints:
    """The number of each query's class, (n_queries,) int64, from 0 without gaps; without a label, one of its own.

    >>> classes_of(["cat", "dog", None, "cat", None]).tolist()
    [0, 1, 2, 0, 3]
    """
    numbers: dict[object, int] = {}
    return np.array(
        [numbers.setdefault(row if label is None else label, len(numbers)) for row, label in enumerate(labels)],
        np.int64,
    )


def interval_of_means(values: Floats, classes: Ints, resamples: int, seed: int) -> list[Interval | None]:
    """A 95 % interval of each metric's mean; None where fewer than MIN_CLASSES classes have a value.

    values : (n_queries, n_metrics) float64, NaN where a query has no value.  classes : (n_queries,) from classes_of.

    Classes are drawn with replacement, each with all its queries: drawing queries within them once more would count their
    scatter twice (Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8).  The percentiles are
    taken further out as Student's t is wider than the normal distribution, for few classes (Hesterberg, "What Teachers
    Should Know About the Bootstrap", The American Statistician 69(4), 2015, section 5).
    """
    if not len(values):
        return [None] * values.shape[1]
    sums = ClassSums.of(values, classes)
    found: list[Interval | None] = []
    means = _drawn_means(sums, resamples, seed)
    for column in range(values.shape[1]):
        n_classes = int((sums.counts[:, column] > 0).sum())
        drawn = means[:, column][~np.isnan(means[:, column])]
        if n_classes < MIN_CLASSES:
            found.append(None)
            continue
        tail = _tail(n_classes)
        low, high = np.quantile(drawn, [tail, 1 - tail])
        found.append(Interval(float(low), float(high)))
    return found


def bounds_of_means(values: Mapping[str, Floats], classes: Ints, resamples: int, seed: int) -> dict[str, list[float]]:
    """Metric -> [low, high] of `interval_of_means`; without the metrics that have no interval."""
    found = interval_of_means(np.column_stack([*values.values()]), classes, resamples, seed)
    return {name: one.bounds for name, one in zip(values, found, strict=True) if one is not None}


def _tail(n_classes: int) -> float:
    """The share of draws beyond each bound."""
    t = stats.t.ppf((1 - LEVEL) / 2, n_classes - 1) * np.sqrt(n_classes / (n_classes - 1))
    return NormalDist().cdf(float(t))


def _drawn_means(sums: ClassSums, resamples: int, seed: int) -> Floats:
    """(resamples, n_metrics) means over drawn classes; NaN where a draw has no value."""
    n_classes = len(sums.sums)
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK_NUMBERS // max(n_classes, 1))
    means = []
    for start in range(0, resamples, rows):
        number = min(rows, resamples - start)
        drawn = rng.multinomial(n_classes, np.full(n_classes, 1 / n_classes), size=number).astype(np.float64)
        with np.errstate(invalid="ignore"):
            means.append((drawn @ sums.sums) / (drawn @ sums.counts))
    return np.concatenate(means)


def p_values_of_differences(differences: Floats, classes: Ints, flips: int, seed: int) -> Floats:
    """Two-sided p of each metric's mean difference, by a paired randomisation test; NaN where no query has a value.

    differences : (n_queries, n_metrics) float64, one run's value less the other's, query by query, NaN where undefined.

    When the runs do not differ, the sign of a class's summed difference is as likely the one as the other: p is the share of
    random signs (the found ones counted among them) whose mean is as far from 0.  Source: Fisher's randomisation test as in
    Smucker, Allan and Carterette, CIKM 2007, with the class as the unit.
    """
    sums = ClassSums.of(differences, classes)
    rng = np.random.default_rng(seed)
    found = np.abs(sums.sums.sum(0))
    at_least = np.zeros(differences.shape[1])
    n_classes = len(sums.sums)
    rows = max(1, _BLOCK_NUMBERS // max(n_classes, 1))
    for start in range(0, flips, rows):
        signs = rng.integers(0, 2, (min(rows, flips - start), n_classes)) * 2.0 - 1.0
        # as far, within rounding: sums of the same numbers in another order
        at_least += (np.abs(signs @ sums.sums) >= found * (1 - 1e-12)).sum(0)
    return np.where(sums.counts.sum(0) > 0, (at_least + 1) / (flips + 1), np.nan)


def least_p(n_classes: int, flips: int) -> float:
    """The least p that `p_values_of_differences` can give: n classes have 2^n signs, of which two are as far as can be.

    >>> least_p(3, 10_000)
    0.25
    """
    return max(2.0 ** (1 - min(n_classes, 64)), 1 / (flips + 1))


def holm(p_values: Floats) -> Floats:
    """Holm's step-down correction for several tests; NaN, a test not made, stays NaN and counts for nothing.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6, 1979.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    corrected = np.full(len(p_values), np.nan)
    made = np.flatnonzero(~np.isnan(p_values))
    order = made[np.argsort(p_values[made])]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected
