"""How fast an index answers: single queries one after another, and all of them in one batch, after warm-up."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from cbir.artifacts.vectors import VectorSet, open_vectors
from cbir.core.files import write_json
from cbir.index.faiss_index import BuildParams, SearchParams, build_index, kind_of, search
from cbir.index.storage import open_index

_K = 10
_WARM_UP_QUERIES, _BATCHES = 20, 3
_PERCENTILES = (50, 95, 99)
_MODALITIES = {"queries": "image", "texts": "text"}


def write_latency(
    out: Path,
    embeddings: Path,
    indexes: Path,
    encoders: Sequence[str],
    params: SearchParams,
    threads: int,
    n_queries: int,
    seed: int,
) -> None:
    """Time each encoder's index, and exact search, on at most n_queries seeded image queries, and text queries."""
    found: dict[str, Any] = {}
    k = _K
    for encoder in encoders:
        folder = embeddings / encoder
        vectors = open_vectors(folder, encoder, "gallery")
        index = open_index(indexes / encoder, vectors)
        k = min(_K, index.ntotal)
        flat = index if kind_of(index) == "flat" else _flat(vectors, threads)
        found[encoder] = {}
        for kind, modality in _MODALITIES.items():
            asked = open_vectors(folder, encoder, kind) if (folder / kind).exists() else None
            if asked is None or len(asked.ids) == 0:
                continue
            queries = _sample(asked, n_queries, seed)
            found[encoder][modality] = {
                "index": measure_latency(index, queries, k, params, threads),
                "exact": measure_latency(flat, queries, k, SearchParams(), threads),
            }
    write_json(out, {"encoders": found, "k": k, "threads": threads})


def measure_latency(
    index: faiss.Index, queries: npt.NDArray[np.float32], k: int, params: SearchParams, threads: int
) -> dict[str, Any]:
    """Percentiles of single-query search in ms, and queries/s of one batch.

    queries : (n, dim) float32, unit rows.
    """
    for row in range(min(_WARM_UP_QUERIES, len(queries))):
        search(index, queries[row : row + 1], k, params, threads)
    times_ms = [_timed(index, queries[row : row + 1], k, params, threads) for row in range(len(queries))]
    _timed(index, queries, k, params, threads)  # the first batch pays for memory that the others find
    batch_s = median(_timed(index, queries, k, params, threads) for _ in range(_BATCHES)) / 1e3
    return {
        "single_ms": {f"p{p}": round(float(np.percentile(times_ms, p)), 4) for p in _PERCENTILES},
        "batch_queries_per_s": round(len(queries) / batch_s, 1),
        "queries": len(queries),
    }


def _timed(index: faiss.Index, queries: npt.NDArray[np.float32], k: int, params: SearchParams, threads: int) -> float:
    begun = perf_counter()
    search(index, queries, k, params, threads)
    return 1e3 * (perf_counter() - begun)


def _flat(vectors: VectorSet, threads: int) -> faiss.Index:
    return build_index(vectors.parts, len(vectors.ids), vectors.passport["dim"], BuildParams("flat"), threads)


def _sample(vectors: VectorSet, number: int, seed: int) -> npt.NDArray[np.float32]:
    ids = vectors.ids.to_pylist()
    chosen = np.random.default_rng(seed).permutation(len(ids))[:number]
    return vectors.rows([ids[row] for row in chosen], "latency")
