"""`reports/comparison.json`, typed: the encoders of a run compared on each task, and what each costs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cbir.core.errors import REPAIR, DataError
from cbir.core.files import read_json, write_json


@dataclass(frozen=True)
class RankedEncoder:
    """The mean of a metric over the queries, its 95 % interval, None if there is none, and the encoder's letters.

    letters : encoders that share a letter cannot be told apart.
    """

    encoder: str
    mean: float
    interval: list[float] | None
    letters: str


@dataclass(frozen=True)
class PairedTest:
    """Two encoders compared query by query; `first` has the higher mean, or the same.

    difference : mean of the first minus mean of the second.  interval : 95 %, of this difference alone, without correction.
    p : two-sided.  p_holm : corrected by Holm's method over all pairs of the metric.  differs : whether the test tells them
    apart.  interval, p and p_holm are None when there are too few classes.
    """

    first: str
    second: str
    difference: float
    interval: list[float] | None
    p: float | None
    p_holm: float | None
    differs: bool


@dataclass(frozen=True)
class MetricComparison:
    """All encoders of a task in one metric, over the queries for which it is defined.

    classes : of these queries.  classes_needed : with fewer, no difference between so many encoders could be significant.
    flips : random sign assignments of the tests.  ranking : the highest mean first.  tests : of each pair, in the order of the
    ranking.
    """

    metric: str
    queries: int
    classes: int
    classes_needed: int
    flips: int
    ranking: list[RankedEncoder]
    tests: list[PairedTest]

    @property
    def is_testable(self) -> bool:
        """Whether there are classes enough for a difference to be significant."""
        return self.classes >= self.classes_needed

    @property
    def best_group(self) -> list[str]:
        """The encoder with the highest mean, and those that cannot be told apart from it, in the order of the ranking."""
        best = self.ranking[0].encoder
        worse = {test.second for test in self.tests if test.first == best and test.differs}
        return [ranked.encoder for ranked in self.ranking if ranked.encoder not in worse]

    def test(self, first: str, second: str) -> PairedTest:
        """Return the test of two encoders; `first` ranks higher."""
        return next(test for test in self.tests if (test.first, test.second) == (first, second))


@dataclass(frozen=True)
class EncoderCost:
    """What an encoder costs.

    dim : of a vector.  index_bytes : of its index.  bytes_per_vector : of its index, for each gallery image.
    weights_bytes, parameters : of its files of weights, with the text tower; None without such files.
    images_per_s : embedded, with decoding; None if too few were embedded in the run.  machine : that embedded them.
    """

    dim: int
    index_bytes: int
    bytes_per_vector: float
    weights_bytes: int | None
    parameters: int | None
    images_per_s: float | None
    machine: str | None


@dataclass(frozen=True)
class EncoderComparison:
    """comparison.json.

    tasks : task -> one comparison for each metric; the first metric decides.  costs : encoder -> cost.
    about : level, resamples of the intervals, seed, what is drawn, test and correction.
    """

    tasks: dict[str, list[MetricComparison]]
    costs: dict[str, EncoderCost]
    about: dict[str, Any]


def write_comparison(path: Path, comparison: EncoderComparison) -> None:
    """Write comparison.json."""
    write_json(path, asdict(comparison))


def read_comparison(path: Path) -> EncoderComparison:
    """Read comparison.json.  Raises DataError if it is absent, damaged or of another version."""
    value = read_json(path)
    try:
        return EncoderComparison(
            {task: [_metric(metric) for metric in metrics] for task, metrics in value["tasks"].items()},
            {encoder: EncoderCost(**cost) for encoder, cost in value["costs"].items()},
            dict(value["about"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: expected the comparison that report writes, found something else ({error!r}): {REPAIR}"
        ) from error


def _metric(value: Mapping[str, Any]) -> MetricComparison:
    lists = {
        "ranking": [RankedEncoder(**ranked) for ranked in value["ranking"]],
        "tests": [PairedTest(**test) for test in value["tests"]],
    }
    return MetricComparison(**{**value, **lists})
