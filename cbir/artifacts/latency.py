"""`reports/latency/<encoder>.json`, typed: the only reader that knows its keys (see `cbir.index.latency`, which writes it)."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from cbir.artifacts.ranges import check_values
from cbir.core.errors import REPAIR, DataError


@dataclass(frozen=True)
class SearchTimes:
    """The speed of one way to search: percentiles of single searches, and the throughput in batches of all queries.

    batch_queries_per_s : None where it could not be measured.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float
    batch_queries_per_s: float | None
    queries: int

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Build from the times of one way to search."""
        single_ms = value["single_ms"]
        return cls(single_ms["p50"], single_ms["p95"], single_ms["p99"], value["batch_queries_per_s"], value["queries"])


@dataclass(frozen=True)
class Latency:
    """The search times of one or more encoders.

    encoders : encoder -> modality of the queries -> search ("index" or "exact") -> times.
    k : results per query.  threads : of each search.
    """

    encoders: dict[str, dict[str, dict[str, SearchTimes]]]
    k: int
    threads: int

    @classmethod
    def from_json(cls, value: dict[str, Any], path: Path) -> Self:
        """Build from the file's values.  path : for messages.  Raises DataError if they are of another version."""
        try:
            encoders = {
                encoder: {
                    modality: {search: SearchTimes.from_json(times) for search, times in searches.items()}
                    for modality, searches in modalities.items()
                }
                for encoder, modalities in value["encoders"].items()
            }
            latency = cls(encoders, value["k"], value["threads"])
        except (AttributeError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: expected the times that latency writes, found something else ({error!r}): {REPAIR}"
            ) from error
        for encoder, modalities in latency.encoders.items():
            of_encoder = [asdict(times) for searches in modalities.values() for times in searches.values()]
            measured = [{name: time for name, time in times.items() if time is not None} for times in of_encoder]
            check_values(path, encoder, measured, 0, math.inf)
        return latency
