"""An encoder's `metrics.json` and `intervals.json`, typed: the only module that knows their keys.

Both files have the same groups.  metrics.json holds the mean of each metric, intervals.json the bounds of its 95 % interval.
A metric that is undefined or has no interval is absent.  `cbir.artifacts.evaluations` reads those of all encoders.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from cbir.artifacts.names import TASKS
from cbir.artifacts.ranges import check_values
from cbir.core.errors import REPAIR, DataError
from cbir.core.files import write_json

Means = dict[str, float]  # metric -> mean over the queries that have a value
Bounds = dict[str, list[float]]  # metric -> [low, high]
V = TypeVar("V")
_RATES = {
    "cbir",
    "tbir",
    "subsets",
    "categories",
    "without_duplicates",
    "ann",
    "ann_cost",
    "ceilings",
    "chance",
}  # groups

IMAGE, GALLERY_IMAGE, TEXT = "image", "gallery image", "text"  # kinds of queries to an index


@dataclass(kw_only=True)
class Groups(Generic[V]):
    """Values by group; V is `Means` or `Bounds`.

    cbir, tbir : encoder -> values with exact search.  subsets : task -> encoder -> subset -> values.
    categories : encoder -> accuracies of predicted classes.  without_duplicates : encoder -> cbir values over the queries
    that have no copy in the gallery.  ann : encoder -> kind of query -> values with the index.
    ann_cost : the same, the values with exact search minus those with the index.
    """

    cbir: dict[str, V] = field(default_factory=dict)
    tbir: dict[str, V] = field(default_factory=dict)
    subsets: dict[str, dict[str, dict[str, V]]] = field(default_factory=dict)
    categories: dict[str, V] = field(default_factory=dict)
    without_duplicates: dict[str, V] = field(default_factory=dict)
    ann: dict[str, dict[str, V]] = field(default_factory=dict)
    ann_cost: dict[str, dict[str, V]] = field(default_factory=dict)

    def of_task(self, task: str) -> dict[str, V]:
        """encoder -> values of the task."""
        values: dict[str, dict[str, V]] = {"cbir": self.cbir, "tbir": self.tbir}
        return values[task]

    def to_json(self) -> dict[str, Any]:
        """Return plain values, in the order of the fields."""
        return {name.name: _plain(getattr(self, name.name)) for name in fields(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], path: Path) -> Self:
        """Build from the values of to_json.

        path : for messages.  Raises DataError if a group is absent or not an object, or a value is not in [0, 1].
        """
        for name in fields(cls):
            if not isinstance(value.get(name.name), Mapping):
                raise DataError(
                    f"{path}: expected the group '{name.name}' that evaluate writes, found "
                    f"{type(value.get(name.name)).__name__}: {REPAIR}"
                )
        for group in _RATES & {name.name for name in fields(cls)}:
            check_values(path, group, value[group], -1 if group == "ann_cost" else 0, 1)
        return cls(**{name.name: value[name.name] for name in fields(cls)})


@dataclass(kw_only=True)
class Counts:
    """Numbers of images and queries.

    queries_without_relevant : task -> queries to which no gallery image is relevant.  duplicates : kind of comparison ->
    queries with a copy in the gallery that it detects.  index_bytes : encoder -> size of its index.  ks_left_out : parameter of
    `evaluate` -> its ks that the gallery is too small for; absent from the file if there are none.
    """

    gallery_images: int
    queries: int
    queries_without_relevant: dict[str, int]
    duplicates: dict[str, int]
    index_bytes: dict[str, int]
    ks_left_out: dict[str, list[int]] = field(default_factory=dict)


@dataclass(kw_only=True)
class Metrics(Groups[Means]):
    """metrics.json.  ceilings : task -> the best values any ranking could reach.  chance : task -> a random ranking's."""

    ceilings: dict[str, Means] = field(default_factory=dict)
    chance: dict[str, Means] = field(default_factory=dict)
    data: Counts

    @classmethod
    def from_json(cls, value: Mapping[str, Any], path: Path) -> Self:
        """Build from the values of to_json.  Raises DataError as `Groups.from_json` does."""
        metrics = super().from_json(value, path)
        try:
            metrics.data = Counts(**value["data"])
        except TypeError as error:
            raise DataError(f"{path}: data: not what this version writes ({error}): {REPAIR}") from error
        check_values(path, "data", value["data"], 0, math.inf)
        return metrics


@dataclass(kw_only=True)
class Intervals(Groups[Bounds]):
    """intervals.json.  about : level, resamples, seed, and the unit of the bootstrap."""

    about: dict[str, Any] = field(default_factory=dict)


def write_metrics(path: Path, metrics: Metrics) -> None:
    """Write metrics.json."""
    write_json(path, metrics.to_json())


def write_headline(path: Path, headline: Mapping[str, Mapping[str, Means]]) -> None:
    """Write the most important metrics, task -> encoder -> means: what `dvc metrics` and `dvc exp` show."""
    write_json(path, headline, sealed=False)


def write_intervals(path: Path, intervals: Intervals) -> None:
    """Write intervals.json."""
    write_json(path, intervals.to_json())


def evaluated(groups: Groups[Any]) -> list[tuple[str, str]]:
    """List each (task, encoder) that has values."""
    return [(task, encoder) for task in TASKS for encoder in groups.of_task(task)]


def _plain(value: Any) -> Any:
    if not isinstance(value, Counts):
        return value
    return {name: count for name, count in value.__dict__.items() if count or name != "ks_left_out"}
