"""Build a FAISS index over unit float32 vectors, with the inner product (cosine similarity) as its metric.

The same vectors, in any split into parts, and the same parameters give the same bytes for any number of threads (measured
with 1 to 8, and tested): k-means and product quantisation are repeatable by their seed, and since FAISS 1.15.1 so is the
multi-threaded HNSW build (1.15.0 fails the test).  Another processor or release may round differently and give other bytes.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import faiss
import numpy as np

from cbir.artifacts.vectors import Positions, Vectors, rows_at
from cbir.core.errors import REPAIR, ConfigError, DataError
from cbir.index.checks import check_matrix, check_unit
from cbir.index.kinds import check_applicable, kind_named
from cbir.index.params import BuildParams
from cbir.index.threads import faiss_threads

_swig: Any = faiss  # FAISS's type stubs lack some of its names

# FAISS's own bounds for k-means (ClusteringParameters): it warns below 39 training rows per centroid and leaves out what
# exceeds 256.  A product quantiser of 8 bits has 256 centroids.
_MIN_TRAIN_ROWS_PER_CENTROID = 39
_MAX_TRAIN_ROWS_PER_CENTROID = 256
_PQ_CENTROIDS = 256
_MAX_DEFAULT_PQ_M = 64

_BLOCK_ROWS = 16_384  # rows added at a time: 63 MB at 960 dimensions


def resolve_build_params(kind: str, params: BuildParams, n_rows: int, dim: int) -> BuildParams:
    """The parameters with a value in place of every None that applies to the kind.

    nlist : 4 * sqrt(n_rows), fewer where a cell would have fewer than 39 training rows, at least 1 (FAISS wiki,
    "Guidelines to choose an index").  pq_m : the largest divisor of dim up to 64.  hnsw_m : 32.  ef_construction : 40
    (FAISS's default).  train_rows : what k-means would use, 256 rows per centroid, or all rows.
    Raises ConfigError for an unknown kind and for a parameter that does not apply to it or is out of range, DataError
    where the gallery is too small for product quantisation.

    >>> resolve_build_params("ivf_flat", BuildParams(), n_rows=100_000, dim=512).nlist
    1265
    """
    applicable = kind_named(kind)
    given = asdict(params)
    del given["seed"]
    check_applicable(applicable, "index.build", given)

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
    resolved = replace(params, **{name: derived[name] for name in applicable.parameters if name in derived})
    _check_trainable(resolved, n_rows, dim)
    return resolved


def factory_string(kind: str, params: BuildParams, n_rows: int, dim: int) -> str:
    """The argument of faiss.index_factory that describes the index.

    The metric must be its third argument: set later, it gives a recall of 0.  Raises as resolve_build_params does.

    >>> factory_string("ivf_pq", BuildParams(), n_rows=10_000, dim=960)
    'IVF256,PQ64x8np'
    """
    return kind_named(kind).factory.format_map(asdict(resolve_build_params(kind, params, n_rows, dim)))


def build_index(
    parts: Sequence[Vectors], n_rows: int, dim: int, kind: str, params: BuildParams, threads: int
) -> faiss.Index:
    """Build an index over the rows of all parts; a row's position is counted from 0 over all of them.

    parts : float32 arrays of shape (n_i, dim), unit rows, memory-mapped where large: besides the index, memory holds the
    training rows or one block, never the gallery.  n_rows : the number of image ids.
    Raises DataError for a wrong dimension, dtype or number of rows, and for a row that is not of norm 1 (zero, NaN,
    infinite), naming its position; ConfigError and DataError as resolve_build_params does.
    """
    for number, part in enumerate(parts):
        check_matrix(part, dim, f"gallery part {number}")
    n_vectors = sum(map(len, parts))
    if n_rows < 1 or n_vectors != n_rows:
        raise DataError(
            f"gallery: expected {max(1, n_rows)} rows, one for each image id, found {n_vectors} "
            f"in {len(parts)} parts: {REPAIR}"
        )
    resolved = resolve_build_params(kind, params, n_rows, dim)
    index = faiss.index_factory(dim, factory_string(kind, resolved, n_rows, dim), faiss.METRIC_INNER_PRODUCT)
    _prepare(index, resolved)
    with faiss_threads(threads):
        if resolved.train_rows is not None:
            chosen = np.random.default_rng(resolved.seed).choice(n_rows, resolved.train_rows, replace=False)
            index.train(_unit_rows(parts, np.sort(chosen)))
        # Blocks of one size, however the gallery is split: an HNSW graph depends on which rows are added together.
        for start in range(0, n_rows, _BLOCK_ROWS):
            index.add(_unit_rows(parts, np.arange(start, min(start + _BLOCK_ROWS, n_rows))))
    return index


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
    """Set what the factory string cannot say."""
    clusterings = [index.cp] if isinstance(index, faiss.IndexIVF) else []
    if isinstance(index, faiss.IndexIVFPQ):
        clusterings.append(index.pq.cp)
    for clustering in clusterings:
        clustering.seed = params.seed
        clustering.min_points_per_centroid = 1  # otherwise FAISS prints the same warning for each of the pq_m codebooks
    if isinstance(index, faiss.IndexHNSW):
        graph: Any = index.hnsw
        graph.rng = _swig.RandomGenerator(params.seed)
        graph.efConstruction = params.ef_construction


def _unit_rows(parts: Sequence[Vectors], positions: Positions) -> Vectors:
    """The rows at these positions.  Raises DataError for the first that is not of norm 1."""
    rows = rows_at(parts, positions, parts[0].shape[1])
    check_unit(rows, "gallery", positions)
    return rows


def _divisors(dim: int) -> list[int]:
    return [m for m in range(1, dim + 1) if dim % m == 0]
