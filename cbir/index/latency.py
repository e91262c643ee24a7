"""Search latency of an index: single queries one after another, then batches of all queries, both after a warm-up."""

from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import faiss
import numpy as np

from cbir.artifacts.vectors import Vectors, VectorSet, open_vectors, read_passport
from cbir.core.files import write_json
from cbir.index.build import build_index
from cbir.index.kinds import kind_of
from cbir.index.params import BuildParams, SearchParams
from cbir.index.search import search
from cbir.index.storage import open_index

_K = 10
_WARM_UP_QUERIES = 20
_LEAST_SINGLES = 100  # with fewer times, the 99th percentile would be the maximum
_LEAST_BATCH = 20  # FAISS's flat index searches fewer queries one by one
_WARM_UP_S, _BATCHES_S = 0.1, 0.5  # a batch can take less time than the start of its threads
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
    of = read_passport(index_folder)["sha256"]
    write_json(out, {"encoders": {encoder: measured}, "k": k, "threads": threads, "of": of})


def measure_latency(index: faiss.Index, queries: Vectors, k: int, params: SearchParams, threads: int) -> dict[str, Any]:
    """Percentiles of the latency of single queries in ms, and queries/s in batches of all queries.

    queries : (n, dim) float32, unit rows.  Few queries are searched several times, one by one.  The throughput is the median
    of batches that take half a second together.  It is None for too few queries, and where a batch takes longer than its
    queries one by one: then its threads waited for a processor that other work keeps busy, and the time is not the index's.
    """
    for row in range(min(_WARM_UP_QUERIES, len(queries))):
        search(index, queries[row : row + 1], k, params, threads)
    rounds = -(-_LEAST_SINGLES // len(queries))
    times_ms = [
        _timed_ms(index, queries[row : row + 1], k, params, threads)
        for _ in range(rounds)
        for row in range(len(queries))
    ]
    queries_per_s = None
    if len(queries) >= _LEAST_BATCH:
        _batches_ms(index, queries, k, params, threads, _WARM_UP_S)
        batch_ms = median(_batches_ms(index, queries, k, params, threads, _BATCHES_S))
        if batch_ms <= len(queries) * median(times_ms):
            queries_per_s = round(1e3 * len(queries) / batch_ms, 1)
    return {
        "single_ms": {f"p{p}": round(float(np.percentile(times_ms, p)), 4) for p in _PERCENTILES},
        "batch_queries_per_s": queries_per_s,
        "queries": len(queries),
    }


def _batches_ms(
    index: faiss.Index, queries: Vectors, k: int, params: SearchParams, threads: int, least_s: float
) -> list[float]:
    """The times of batches, one after another, that take at least least_s together."""
    times_ms, total_ms = list[float](), 0.0
    while not times_ms or total_ms < 1e3 * least_s:
        times_ms.append(_timed_ms(index, queries, k, params, threads))
        total_ms += times_ms[-1]
    return times_ms


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
