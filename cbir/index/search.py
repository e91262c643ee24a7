"""Search a FAISS index."""

from dataclasses import asdict, replace
from typing import Any

import faiss
import numpy as np

from cbir.artifacts.vectors import Positions, Scores, Vectors
from cbir.core.errors import ConfigError
from cbir.index.checks import check_k, check_matrix, check_unit
from cbir.index.kinds import check_applicable, kind_of
from cbir.index.params import SearchParams
from cbir.index.threads import faiss_threads

_swig: Any = faiss  # FAISS's type stubs lack some of its names


def resolve_search_params(index: faiss.Index, k: int, params: SearchParams) -> SearchParams:
    """The parameters with a value in place of every None that applies to the index.

    nprobe : a sixteenth of the cells, at least 8, at most all.  ef_search : 128; k where k is larger, even than a given value,
    because FAISS never searches narrower than k.
    Raises ConfigError for a parameter that does not apply to the kind of index, and for nprobe above nlist, which FAISS
    would silently lower.
    """
    check_applicable(kind_of(index), "index.search", asdict(params))
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


def search(
    index: faiss.Index, queries: Vectors, k: int, params: SearchParams, threads: int
) -> tuple[Scores, Positions]:
    """The k best gallery rows for each query, as far as the index finds them.

    queries : (n, dim) float32, unit rows.  Returns scores (n, k) float32, inner products in descending order, and
    positions (n, k) int64.  Where the index returns fewer than k rows, the score is -inf and the position -1.
    Raises DataError for queries of a wrong dimension, dtype or norm; ConfigError unless 1 <= k <= rows of the index, and
    as resolve_search_params does.
    """
    check_matrix(queries, index.d, "queries")
    check_unit(queries, "query", np.arange(len(queries)))
    check_k(k, index.ntotal)
    resolved = resolve_search_params(index, k, params)
    options = None
    if resolved.nprobe is not None:
        options = _swig.SearchParametersIVF(nprobe=resolved.nprobe)
    elif resolved.ef_search is not None:
        options = _swig.SearchParametersHNSW(efSearch=resolved.ef_search)
    with faiss_threads(threads):
        scores, positions = index.search(np.ascontiguousarray(queries), k, params=options)
    scores[positions < 0] = -np.inf
    return scores, positions
