"""The group `index`, and the part of the group `evaluate` that the stage latency reads."""

from dataclasses import dataclass, field
from enum import Enum

from cbir.core.params import Parameters, at_least


class IndexKind(Enum):
    """The kinds of FAISS index."""

    flat = "flat"
    ivf_flat = "ivf_flat"
    ivf_pq = "ivf_pq"
    hnsw = "hnsw"
    sq8 = "sq8"


@dataclass
class IndexBuildParams(Parameters):
    """What changes the index file; null where the kind has no such setting, or to let it be derived."""

    nlist: int | None = None
    pq_m: int | None = None
    hnsw_m: int | None = None
    ef_construction: int | None = None
    train_rows: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "nlist", "pq_m", "hnsw_m", "ef_construction", "train_rows", part="build.")
        at_least(0, self, "seed", part="build.")


@dataclass
class IndexSearchParams(Parameters):
    """What changes a search only: the index is not built again for these."""

    nprobe: int | None = None
    ef_search: int | None = None

    def __post_init__(self) -> None:
        at_least(1, self, "nprobe", "ef_search", part="search.")


@dataclass
class IndexParams(Parameters):
    """Group `index`; see the comments in `conf/index/`."""

    kind: IndexKind
    build: IndexBuildParams = field(default_factory=IndexBuildParams)
    search: IndexSearchParams = field(default_factory=IndexSearchParams)


@dataclass(kw_only=True)
class LatencyParams(Parameters):
    """How an index is timed: the number of single queries, and the seed of their choice."""

    latency_queries: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "latency_queries")
        at_least(0, self, "seed")
