"""Search latency of an index: single queries one after another, then all queries in one batch, after warm-up."""

from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import faiss
import numpy as np

from cbir.artifacts.vectors import Vectors, VectorSet, open_vectors
from cbir.core.files import write_json
from cbir.index.build import build_index
from cbir.index.kinds import kind_of
from cbir.index.params import BuildParams, SearchParams
from cbir.index.search import search
from cbir.index.storage import open_index

_K = 10
_WARM_UP_QUERIES, _BATCHES = 20, 3
_PERCENTILES = (50, 95, 99)
_MODALITIES = {"queries": "image", "texts": "text"}  # kind of vectors -> key in the file


def write_latency(
    out: Path,
    embeddings: Path,
    index_folder: Path,
    encoder: str,
    params: SearchParams,
    threads: int,
    n_queries: int,
    seed: int,
) -> None:
    """Measure an encoder's index, and exact search, on a sample of at most n_queries image queries and text queries.

    embeddings, index_folder : the encoder's.
    """
    vectors = open_vectors(embeddings, encoder, "gallery")
    index = open_index(index_folder, vectors)
    k = min(_K, index.ntotal)
    exact = index if kind_of(index).is_exact else _flat(vectors, threads)
    measured: dict[str, Any] = {}
    for kind, modality in _MODALITIES.items():
        query_vectors = open_vectors(embeddings, encoder, kind) if (embeddings / kind).exists() else None
        if query_vectors is None or len(query_vectors.ids) == 0:
            continue
        queries = _sample(query_vectors, n_queries, seed)
        measured[modality] = {
            "index": measure_latency(index, queries, k, params, threads),
            "exact": measure_latency(exact, queries, k, SearchParams(), threads),
        }
    write_json(out, {"encoders": {encoder: measured}, "k": k, "threads": threads})


def measure_latency(index: faiss.Index, queries: Vectors, k: int, params: SearchParams, threads: int) -> dict[str, Any]:
    """Percentiles of the latency of single queries in ms, and queries/s of one batch.

    queries : (n, dim) float32, unit rows.
    """
    for row in range(min(_WARM_UP_QUERIES, len(queries))):
        search(index, queries[row : row + 1], k, params, threads)
    times_ms = [_timed_ms(index, queries[row : row + 1], k, params, threads) for row in range(len(queries))]
    _timed_ms(index, queries, k, params, threads)  # the first batch allocates the memory that the others reuse
    batch_s = median(_timed_ms(index, queries, k, params, threads) for _ in range(_BATCHES)) / 1e3
    return {
        "single_ms": {f"p{p}": round(float(np.percentile(times_ms, p)), 4) for p in _PERCENTILES},
        "batch_queries_per_s": round(len(queries) / batch_s, 1),
        "queries": len(queries),
    }


def _timed_ms(index: faiss.Index, queries: Vectors, k: int, params: SearchParams, threads: int) -> float:
    begun = perf_counter()
    search(index, queries, k, params, threads)
    return 1e3 * (perf_counter() - begun)


def _flat(vectors: VectorSet, threads: int) -> faiss.Index:
    return build_index(vectors.parts, len(vectors.ids), vectors.passport["dim"], "flat", BuildParams(), threads)


def _sample(vectors: VectorSet, size: int, seed: int) -> Vectors:
    ids = vectors.ids.to_pylist()
    chosen = np.random.default_rng(seed).permutation(len(ids))[:size]
    return vectors.rows([ids[row] for row in chosen], "latency")
