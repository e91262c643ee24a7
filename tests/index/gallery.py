"""The gallery and the queries of the index tests, and exact search written with plain loops."""

import numpy as np
import pytest

from cbir.artifacts.vectors import Positions, Scores, Vectors
from cbir.index.params import BuildParams
from tests.support.world import unit

Neighbours = tuple[Scores, Positions]

DIM = 32
KINDS = {
    "flat": BuildParams(),
    "ivf_flat": BuildParams(),
    "ivf_pq": BuildParams(pq_m=16, train_rows=2000),
    "hnsw": BuildParams(hnsw_m=16),
    "sq8": BuildParams(),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def clustered(n: int, dim: int, seed: int) -> Vectors:
    """(n, dim) unit vectors in 40 clusters."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(40, dim))
    return unit(centres[rng.integers(40, size=n)] + 0.7 * rng.normal(size=(n, dim)))


def split(rows: Vectors, *cuts: int) -> list[Vectors]:
    return np.split(rows, cuts)


GALLERY = clustered(3000, DIM, seed=1)
QUERIES = clustered(100, DIM, seed=2)
PARTS = split(GALLERY, 7, 7, 1500, 2999)


def with_last_row_scaled(factor: float) -> Vectors:
    rows = GALLERY.copy()
    rows[2999] *= np.float32(factor)
    return rows


def brute_force(queries: Vectors, gallery: Vectors, k: int) -> Neighbours:
    scores = np.array([[float(np.dot(q, g)) for g in gallery.astype(np.float64)] for q in queries.astype(np.float64)])
    positions = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, positions, axis=1).astype(np.float32), positions


def exact_scores_at(queries: Vectors, gallery: Vectors, positions: Positions) -> Scores:
    """The exact scores of the rows that a search returned."""
    scores: Scores = np.einsum("qd,qkd->qk", queries, gallery[positions])
    return scores
