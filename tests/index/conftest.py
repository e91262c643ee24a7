"""A gallery of clustered vectors, an index of each kind over it, and its exact neighbours by brute force."""

import faiss
import pytest

from cbir.index.build import build_index
from tests.index.gallery import DIM, GALLERY, KINDS, PARTS, QUERIES, Neighbours, brute_force


@pytest.fixture(scope="session")
def neighbours() -> Neighbours:
    return brute_force(QUERIES, GALLERY, 10)


@pytest.fixture(scope="session")
def built() -> dict[str, faiss.Index]:
    return {kind: build_index(PARTS, 3000, DIM, kind, params, threads=2) for kind, params in KINDS.items()}
