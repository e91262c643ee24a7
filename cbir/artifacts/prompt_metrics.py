"""An encoder's `prompts.json`, typed: the only reader that knows its keys (see `cbir.evaluation.prompts`)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cbir.artifacts.metrics import Bounds, Means
from cbir.artifacts.ranges import check_values
from cbir.core.errors import REPAIR, DataError
from cbir.core.files import read_json


@dataclass(frozen=True)
class PromptSetMetrics:
    """The metrics of one prompt set.

    prompts_per_class : smallest and largest number.  mean : over all prompts, with equal weight for each class.
    ensemble : of the mean vector of a class's prompts.  spread : standard deviation over the prompts of a class, mean over
    classes.  worst_label, worst_class : the class with the lowest MAP@R of its ensemble, and its metrics.
    """

    classes: int
    prompts_per_class: tuple[int, int]
    mean: Means
    mean_intervals: Bounds
    ensemble: Means
    ensemble_intervals: Bounds
    spread: Means
    worst_label: str
    worst_class: Means

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Build from an entry of prompts.json."""
        least, most = value["wordings"]
        worst = dict(value["worst_class"])
        return cls(
            value["classes"],
            (least, most),
            value["mean"],
            value["intervals"]["mean"],
            value["ensemble"],
            value["intervals"]["ensemble"],
            value["spread"],
            worst.pop("label"),
            worst,
        )


def read_prompt_metrics(path: Path) -> dict[str, PromptSetMetrics]:
    """Read prompts.json: prompt set -> metrics.  Raises DataError if it is absent, damaged or of another version."""
    try:
        prompts = {prompt_set: PromptSetMetrics.from_json(value) for prompt_set, value in read_json(path).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: expected the metrics that evaluate writes, found something else ({error!r}): {REPAIR}"
        ) from error
    for name, metrics in prompts.items():
        rates = (
            metrics.mean,
            metrics.mean_intervals,
            metrics.ensemble,
            metrics.ensemble_intervals,
            metrics.worst_class,
        )
        check_values(path, name, [*rates, metrics.spread], 0, 1)
    return prompts
