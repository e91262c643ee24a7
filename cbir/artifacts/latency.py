"""`reports/latency.json`, typed: the only reader that knows its keys (see `cbir.index.latency`, which writes it)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cbir.core.errors import DataError
from cbir.core.files import read_json


@dataclass(frozen=True)
class SearchTimes:
    """The speed of one way to search: percentiles of single searches, and the throughput of one batch."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    batch_queries_per_s: float
    queries: int

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Build from an entry of latency.json."""
        single_ms = value["single_ms"]
        return cls(single_ms["p50"], single_ms["p95"], single_ms["p99"], value["batch_queries_per_s"], value["queries"])


@dataclass(frozen=True)
class Latency:
    """latency.json.  encoders : encoder -> modality of the queries -> search ("index" or "exact") -> times.

    k : results per query.  threads : of each search.
    """

    encoders: dict[str, dict[str, dict[str, SearchTimes]]]
    k: int
    threads: int


def read_latency(path: Path) -> Latency:
    """Read latency.json.  Raises DataError if it is absent, damaged or of another version."""
    value = read_json(path)
    try:
        encoders = {
            encoder: {
                modality: {search: SearchTimes.from_json(times) for search, times in searches.items()}
                for modality, searches in modalities.items()
            }
            for encoder, modalities in value["encoders"].items()
        }
        return Latency(encoders, value["k"], value["threads"])
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: expected the times that latency writes, found something else ({error!r}): "
            "run `dvc repro --force latency`"
        ) from error
