"""The FAISS index: build, write, read and search, over unit float32 vectors and the inner product (cosine similarity).

The same vectors, part by part or whole, and the same parameters give the same bytes for any number of threads (measured
with 1 to 8, and tested): k-means and product quantisation repeat by their seed, and since FAISS 1.15.1 so does the
multi-threaded HNSW build (1.15.0 fails the test). Another processor or release may round differently: other bytes.
"""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import faiss
import numpy as np

from cbir.artifacts.vectors import rows_at
from cbir.core.errors import ConfigError, DataError
from cbir.core.files import replacing
from cbir.index.exact import Floats, Positions, check_k, check_matrix


@dataclass(frozen=True)
class BuildParams:
    """How an index is built. None stands for "derive it" (see resolve_build_params) or "not for this kind".

    kind : flat, ivf_flat, ivf_pq, hnsw or sq8.  nlist : cells of an IVF index.  pq_m : parts of a vector, each coded
    in one byte.  hnsw_m : links a vector.  ef_construction : width of the search that finds those links.
    train_rows : at most so many rows, drawn by `seed`, train the index.
    """

    kind: str
    nlist: int | None = None
    pq_m: int | None = None
    hnsw_m: int | None = None
    ef_construction: int | None = None
    train_rows: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class SearchParams:
    """How an index is searched. nprobe : cells visited (IVF).  ef_search : width of the search (HNSW)."""

    nprobe: int | None = None
    ef_search: int | None = None


@dataclass(frozen=True)
class _Kind:
    factory: str
    faiss_class: Any
    parameters: tuple[str, ...]


# "np" skips polysemous training, which only renumbers the codes for a search mode that is not used here and takes most
# of the training time: 1.5 s for each of pq_m codebooks (measured).
_KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        "flat": _Kind("Flat", faiss.IndexFlat, ()),
        "ivf_flat": _Kind("IVF{nlist},Flat", faiss.IndexIVFFlat, ("nlist", "train_rows", "nprobe")),
        "ivf_pq": _Kind("IVF{nlist},PQ{pq_m}x8np", faiss.IndexIVFPQ, ("nlist", "pq_m", "train_rows", "nprobe")),
        "hnsw": _Kind("HNSW{hnsw_m},Flat", faiss.IndexHNSWFlat, ("hnsw_m", "ef_construction", "ef_search")),
        "sq8": _Kind("SQ8", faiss.IndexScalarQuantizer, ("train_rows",)),
    }
)
_swig: Any = faiss  # FAISS's type stubs lack some of its names
_LEAST = MappingProxyType({"hnsw_m": 2})  # every other parameter is at least 1

# FAISS's own bounds for k-means (ClusteringParameters): it warns below 39 training rows a centroid and leaves out what
# exceeds 256. A product quantiser of 8 bits has 256 centroids.
_MIN_TRAIN_ROWS_PER_CENTROID = 39
_MAX_TRAIN_ROWS_PER_CENTROID = 256
_PQ_CENTROIDS = 256
_MAX_DEFAULT_PQ_M = 64

_BLOCK_ROWS = 16_384  # rows added at a time: 63 MB at 960 dimensions
_NORM_TOLERANCE = 1e-3


def resolve_build_params(params: BuildParams, n_rows: int, dim: int) -> BuildParams:
    """The parameters with every None that applies to the kind made explicit.

    nlist : 4 * sqrt(n_rows), fewer where a cell would have less than 39 training rows, at least 1 (FAISS wiki,
    "Guidelines to choose an index").  pq_m : the largest divisor of dim up to 64.  hnsw_m : 32.  ef_construction : 40
    (FAISS's default).  train_rows : what k-means would use, 256 rows a centroid, or all rows.
    Raises ConfigError for an unknown kind and for a parameter that does not apply to it or is out of range, DataError
    where the gallery is too small for product quantisation.

    >>> resolve_build_params(BuildParams("ivf_flat"), n_rows=100_000, dim=512).nlist
    1265
    """
    if params.kind not in _KINDS:
        nearest = difflib.get_close_matches(params.kind, _KINDS, n=1, cutoff=0.0)[0]
        raise ConfigError(f"index.kind: expected one of {_listed(_KINDS)}, found {params.kind!r}, nearest {nearest!r}")
    given = {key: value for key, value in asdict(params).items() if key not in ("kind", "seed")}
    _check_applicable(params.kind, "index.build", given)

    train_rows = min(n_rows, params.train_rows or n_rows)
    nlist = params.nlist or max(1, min(round(4 * math.sqrt(n_rows)), train_rows // _MIN_TRAIN_ROWS_PER_CENTROID))
    centroids = max(nlist, _PQ_CENTROIDS)
    derived: dict[str, Any] = {
        "nlist": nlist,
        "pq_m": params.pq_m or max(m for m in _divisors(dim) if m <= _MAX_DEFAULT_PQ_M),
        "hnsw_m": params.hnsw_m or 32,
        "ef_construction": params.ef_construction or 40,
        "train_rows": min(train_rows, params.train_rows or _MAX_TRAIN_ROWS_PER_CENTROID * centroids),
    }
    resolved = replace(params, **{key: derived[key] for key in _KINDS[params.kind].parameters if key in derived})
    _check_trainable(resolved, n_rows, dim)
    return resolved


def resolve_search_params(index: faiss.Index, k: int, params: SearchParams) -> SearchParams:
    """The search parameters with every None that applies to the index made explicit.

    nprobe : a sixteenth of the cells, at least 8, at most all.  ef_search : 128; given or not, k where k is larger, for
    FAISS never searches narrower than k.
    Raises ConfigError for a parameter that does not apply to the kind of index, and for nprobe above nlist, which FAISS
    would silently lower.
    """
    kind = kind_of(index)
    _check_applicable(kind, "index.search", asdict(params))
    if isinstance(index, faiss.IndexIVF):
        nprobe = params.nprobe or min(index.nlist, max(8, index.nlist // 16))
        if nprobe > index.nlist:
            raise ConfigError(
                f"index.search.nprobe = {nprobe} is larger than nlist, the {index.nlist} cells of this index: "
                f"set index.search.nprobe to a value from 1 to {index.nlist}"
            )
        return replace(params, nprobe=nprobe)
    if isinstance(index, faiss.IndexHNSW):
        return replace(params, ef_search=max(params.ef_search or 128, k))
    return params


def factory_string(params: BuildParams, n_rows: int, dim: int) -> str:
    """What faiss.index_factory is told. The metric must be its third argument: set later, it gives a recall of 0.

    Raises as resolve_build_params does.

    >>> factory_string(BuildParams("ivf_pq"), n_rows=10_000, dim=960)
    'IVF256,PQ64x8np'
    """
    resolved = resolve_build_params(params, n_rows, dim)
    return _KINDS[resolved.kind].factory.format_map(asdict(resolved))


def build_index(parts: Sequence[Floats], n_rows: int, dim: int, params: BuildParams, threads: int) -> faiss.Index:
    """An index over the rows of all parts; a row's position is its place in them, counted from 0.

    parts : float32 arrays of shape (n_i, dim), unit rows, memory-mapped where large: beside the index, memory holds the
    training rows or one block, never the gallery.  n_rows : the number of image ids.
    Raises DataError for a wrong dimension, dtype or number of rows, and for a row that is not of norm 1 (zero, NaN,
    infinite), naming its position; ConfigError and DataError as resolve_build_params does.
    """
    for number, part in enumerate(parts):
        check_matrix(part, dim, f"gallery part {number}")
    found_rows = sum(map(len, parts))
    if n_rows < 1 or found_rows != n_rows:
        raise DataError(
            f"gallery: expected {max(1, n_rows)} rows, one for each image id, found {found_rows} "
            f"in {len(parts)} parts: embed again: dvc repro --force embed"
        )
    resolved = resolve_build_params(params, n_rows, dim)
    index = faiss.index_factory(dim, factory_string(resolved, n_rows, dim), faiss.METRIC_INNER_PRODUCT)
    _prepare(index, resolved)
    with _omp_threads(threads):
        if resolved.train_rows is not None:
            chosen = np.random.default_rng(resolved.seed).choice(n_rows, resolved.train_rows, replace=False)
            index.train(_unit_rows(parts, np.sort(chosen)))
        # Blocks of one size whatever the parts: an HNSW graph depends on which rows are added together.
        for start in range(0, n_rows, _BLOCK_ROWS):
            index.add(_unit_rows(parts, np.arange(start, min(start + _BLOCK_ROWS, n_rows))))
    return index


def write_index(path: Path, index: faiss.Index) -> None:
    """Write the index under a temporary name, then rename: a crash leaves the old file or none, never half a file."""
    with replacing(path) as temporary:
        faiss.write_index(index, str(temporary))


def read_index(path: Path) -> faiss.Index:
    """Read an index that write_index wrote.

    Raises DataError when there is no such file, when FAISS cannot read it, or when it is no index of ours.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected a FAISS index, found no such file: build it: dvc repro index")
    try:
        index = faiss.read_index(str(path))
        kind_of(index)
    except (RuntimeError, DataError) as error:
        raise DataError(
            f"{path}: expected a whole index that FAISS {faiss.__version__} reads, found otherwise ({error}): "
            "build it again: dvc repro --force index"
        ) from error
    return index


def kind_of(index: faiss.Index) -> str:
    """The kind of an index: flat, ivf_flat, ivf_pq, hnsw or sq8.

    Raises DataError for an index of any other class or metric.
    """
    for kind, entry in _KINDS.items():
        if isinstance(index, entry.faiss_class) and index.metric_type == faiss.METRIC_INNER_PRODUCT:
            return kind
    raise DataError(
        f"expected an inner-product index of kind {_listed(_KINDS)}, "
        f"found {type(index).__name__} of FAISS metric {index.metric_type}"
    )


def search(index: faiss.Index, queries: Floats, k: int, params: SearchParams, threads: int) -> tuple[Floats, Positions]:
    """The k best gallery rows of each query, as far as the index finds them.

    queries : (n, dim) float32, unit rows.  Returns scores (n, k) float32, inner products in descending order, and
    positions (n, k) int64. Where the index found fewer than k rows, the score is -inf and the position -1.
    Raises DataError for queries of a wrong dimension, dtype or norm; ConfigError unless 1 <= k <= rows of the index, and
    as resolve_search_params does.
    """
    check_matrix(queries, index.d, "queries")
    _check_unit(queries, "query", np.arange(len(queries)))
    check_k(k, index.ntotal)
    resolved = resolve_search_params(index, k, params)
    options = None
    if resolved.nprobe is not None:
        options = _swig.SearchParametersIVF(nprobe=resolved.nprobe)
    elif resolved.ef_search is not None:
        options = _swig.SearchParametersHNSW(efSearch=resolved.ef_search)
    with _omp_threads(threads):
        scores, positions = index.search(np.ascontiguousarray(queries), k, params=options)
    scores[positions < 0] = -np.inf
    return scores, positions


def _check_applicable(kind: str, group: str, given: Mapping[str, int | None]) -> None:
    """Refuse a parameter below its range or one that this kind would ignore: all kinds share the keys."""
    for key, value in given.items():
        if value is None:
            continue
        if key not in _KINDS[kind].parameters:
            kinds = _listed(name for name, entry in _KINDS.items() if key in entry.parameters)
            raise ConfigError(f"{group}.{key} applies to {kinds}, not to {kind}: expected null, found {value}")
        if value < _LEAST.get(key, 1):
            raise ConfigError(f"{group}.{key}: expected {_LEAST.get(key, 1)} or more, or null, found {value}")


def _check_trainable(params: BuildParams, n_rows: int, dim: int) -> None:
    if params.train_rows is not None and params.nlist is not None and params.nlist > params.train_rows:
        raise ConfigError(
            f"index.build.nlist: expected at most {params.train_rows}, the training rows among the {n_rows} of the gallery, "
            f"found {params.nlist}: set index.build.nlist to null"
        )
    if params.pq_m is None:
        return
    if dim % params.pq_m:
        nearest = min(_divisors(dim), key=lambda m: abs(m - (params.pq_m or 1)))
        raise ConfigError(f"index.build.pq_m: expected a divisor of {dim}, found {params.pq_m}, nearest {nearest}")
    if n_rows < _PQ_CENTROIDS:
        raise DataError(
            f"ivf_pq: expected a gallery of at least {_PQ_CENTROIDS} rows to train on, found {n_rows}: use index=flat"
        )
    if params.train_rows is not None and params.train_rows < _PQ_CENTROIDS:
        raise ConfigError(
            f"index.build.train_rows: expected at least {_PQ_CENTROIDS} for ivf_pq, found {params.train_rows}"
        )


def _prepare(index: faiss.Index, params: BuildParams) -> None:
    clusterings = [index.cp] if isinstance(index, faiss.IndexIVF) else []
    if isinstance(index, faiss.IndexIVFPQ):
        clusterings.append(index.pq.cp)
    for clustering in clusterings:
        clustering.seed = params.seed
        clustering.min_points_per_centroid = 1  # or FAISS prints the same warning for each of pq_m codebooks
    if isinstance(index, faiss.IndexHNSW):
        graph: Any = index.hnsw
        graph.rng = _swig.RandomGenerator(params.seed)
        graph.efConstruction = params.ef_construction


def _unit_rows(parts: Sequence[Floats], positions: Positions) -> Floats:
    """The rows at these positions; refuses the first that is not of norm 1."""
    rows = rows_at(parts, positions, parts[0].shape[1])
    _check_unit(rows, "gallery", positions)
    return rows


def _check_unit(rows: Floats, what: str, positions: Positions) -> None:
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(rows, axis=1)
    unit = np.abs(norms - 1) <= _NORM_TOLERANCE  # False for NaN
    if not unit.all():
        row = int(unit.argmin())
        raise DataError(
            f"{what} row {positions[row]}: expected norm 1 (within {_NORM_TOLERANCE}), found {norms[row]:.6g}: "
            "embed again: dvc repro --force embed"
        )


@contextmanager
def _omp_threads(threads: int) -> Iterator[None]:
    """Let FAISS use so many threads, then what it used before: the setting belongs to the process."""
    if threads < 1:
        raise ConfigError(f"threads: expected 1 or more, found {threads}")
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _divisors(dim: int) -> list[int]:
    return [m for m in range(1, dim + 1) if dim % m == 0]


def _listed(names: Any) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else str(last)
