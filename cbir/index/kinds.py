"""The kinds of index: one entry of `KINDS` per kind holds all that is specific to it.

This module imports FAISS on demand, so that the report can ask about a kind without it.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from cbir.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    import faiss


@dataclass(frozen=True)
class Kind:
    """A kind of index.

    factory : FAISS's factory string, with the names of build parameters in braces.  faiss_class : the name
    of the class of such an index.
    parameters : the names of the build and search parameters that apply to it.
    is_exact : whether it returns the exact neighbours.
    depends_on_k : whether a search for more results also visits more vectors, so that the first k of a deeper search are not
    the results of a search for k.
    """

    name: str
    factory: str
    faiss_class: str
    parameters: tuple[str, ...]
    is_exact: bool = False
    depends_on_k: bool = False


# "np" skips polysemous training.  It only renumbers the codes for a search mode that is not used here, and takes most of the
# training time: 1.5 s for each of the pq_m codebooks (measured).
_ALL = (
    Kind("flat", "Flat", "IndexFlat", (), is_exact=True),
    Kind("ivf_flat", "IVF{nlist},Flat", "IndexIVFFlat", ("nlist", "train_rows", "nprobe")),
    Kind("ivf_pq", "IVF{nlist},PQ{pq_m}x8np", "IndexIVFPQ", ("nlist", "pq_m", "train_rows", "nprobe")),
    Kind("hnsw", "HNSW{hnsw_m},Flat", "IndexHNSWFlat", ("hnsw_m", "ef_construction", "ef_search"), depends_on_k=True),
    Kind("sq8", "SQ8", "IndexScalarQuantizer", ("train_rows",)),
)
KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in _ALL})


def kind_named(name: str) -> Kind:
    """The kind of this name.  Raises ConfigError, naming the nearest, when there is none."""
    if name not in KINDS:
        nearest = difflib.get_close_matches(name, KINDS, n=1, cutoff=0.0)[0]
        raise ConfigError(f"index.kind: expected one of {_listed(KINDS)}, found {name!r}, nearest {nearest!r}")
    return KINDS[name]


def kind_of(index: "faiss.Index") -> Kind:
    """The kind of an index.  Raises DataError for an index of any other class or metric."""
    import faiss

    for kind in KINDS.values():
        if isinstance(index, getattr(faiss, kind.faiss_class)) and index.metric_type == faiss.METRIC_INNER_PRODUCT:
            return kind
    raise DataError(
        f"expected an inner-product index of kind {_listed(KINDS)}, "
        f"found {type(index).__name__} of FAISS metric {index.metric_type}"
    )


def check_applicable(kind: Kind, group: str, values: Mapping[str, int | None]) -> None:
    """Refuse a parameter that the kind would ignore.

    group : "index.build" or "index.search".  values : name -> value, None where not set.
    Raises ConfigError that names the kinds to which the parameter applies.
    """
    for name, value in values.items():
        if value is not None and name not in kind.parameters:
            kinds = _listed(other.name for other in KINDS.values() if name in other.parameters)
            raise ConfigError(f"{group}.{name} applies to {kinds}, not to {kind.name}: expected null, found {value}")


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
