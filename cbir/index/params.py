"""The group `index`, and the part of the group `evaluate` that the stage latency reads."""

from dataclasses import asdict, dataclass, field
from enum import Enum

from cbir.core.params import Parameters, at_least, at_most
from cbir.index.kinds import KINDS, check_applicable


class IndexKind(Enum):
    """The kinds of FAISS index; `cbir.index.kinds` describes each."""

    flat = "flat"
    ivf_flat = "ivf_flat"
    ivf_pq = "ivf_pq"
    hnsw = "hnsw"
    sq8 = "sq8"


@dataclass
class BuildParams(Parameters):
    """How an index is built.  None: derived from the gallery (see `cbir.index.build.resolve_build_params`), or not applicable.

    nlist : cells of an IVF index.  pq_m : parts that a vector is split into, each coded in one byte.  hnsw_m : links of each
    vector.  ef_construction : width of the search for those links.  train_rows : the maximum number of rows that train the
    index, sampled with `seed`.
    """

    nlist: int | None = None
    pq_m: int | None = None
    hnsw_m: int | None = None
    ef_construction: int | None = None
    train_rows: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "nlist", "pq_m", "ef_construction", "train_rows", part="build.")
        at_least(2, self, "hnsw_m", part="build.")
        at_least(0, self, "seed", part="build.")


@dataclass
class SearchParams(Parameters):
    """How an index is searched; the index is not built again for these.

    nprobe : cells visited (IVF).  ef_search : width of the search (HNSW).
    """

    nprobe: int | None = None
    ef_search: int | None = None

    def __post_init__(self) -> None:
        at_least(1, self, "nprobe", "ef_search", part="search.")


@dataclass
class IndexParams(Parameters):
    """Group `index`; see the comments in `conf/index/`."""

    kind: IndexKind
    build: BuildParams = field(default_factory=BuildParams)
    search: SearchParams = field(default_factory=SearchParams)

    def __post_init__(self) -> None:
        kind = KINDS[self.kind.value]
        build, search = (asdict(part) for part in (self.build, self.search))
        check_applicable(kind, "build", {name: value for name, value in build.items() if name != "seed"})
        check_applicable(kind, "search", search)
        if self.build.nlist is not None:
            at_most(self.build.nlist, self.search, "nprobe", part="search.")


@dataclass(kw_only=True)
class LatencyParams(Parameters):
    """How latency is measured: the number of single queries, and the seed with which they are sampled."""

    latency_queries: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "latency_queries")
        at_least(0, self, "seed")
