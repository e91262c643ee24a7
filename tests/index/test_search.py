"""Searches of each kind of index against exact neighbours by brute force."""

import faiss
import numpy as np
import pytest

from cbir.artifacts.vectors import Positions
from cbir.core.errors import ConfigError
from cbir.index.build import build_index
from cbir.index.params import BuildParams, SearchParams
from cbir.index.search import resolve_search_params, search
from cbir.index.threads import faiss_threads
from tests.index.gallery import DIM, GALLERY, KINDS, PARTS, QUERIES, Neighbours, each_kind, exact_scores_at


def recall(positions: Positions, neighbours: Neighbours) -> float:
    """Share of returned rows that score no less than the true k-th neighbour: a tie counts."""
    return float((exact_scores_at(QUERIES, GALLERY, positions) >= neighbours[0][:, -1:] - 1e-6).mean())


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "params", "floor"),
    [  # measured: 1, 1, 1, 0.882, 1, 0.985
        ("flat", SearchParams(), 1.0),
        ("ivf_flat", SearchParams(nprobe=76), 1.0),
        ("ivf_flat", SearchParams(), 0.9),
        ("ivf_pq", SearchParams(), 0.8),
        ("hnsw", SearchParams(), 0.9),
        ("sq8", SearchParams(), 0.97),
    ],
)
def test_recall_reaches_the_floor_of_the_kind(
    built: dict[str, faiss.Index],
    neighbours: Neighbours,
    kind: str,
    params: SearchParams,
    floor: float,
) -> None:
    scores, positions = search(built[kind], QUERIES, 10, params, threads=2)
    assert (scores.dtype.name, positions.dtype.name) == ("float32", "int64")
    assert scores.shape == positions.shape == (100, 10)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert all(len(set(row)) == 10 for row in positions.tolist())
    assert recall(positions, neighbours) >= floor
    if kind not in ("ivf_pq", "sq8"):  # those two score the decoded vector
        np.testing.assert_allclose(scores, exact_scores_at(QUERIES, GALLERY, positions), atol=1e-5)
    if floor == 1.0:
        np.testing.assert_allclose(scores, neighbours[0], atol=1e-5)


@each_kind
def test_all_copies_of_an_image_are_returned(kind: str) -> None:
    gallery = np.concatenate([GALLERY[:500], GALLERY[:20], GALLERY[:20]])
    scores, positions = search(
        build_index([gallery], 540, DIM, kind, KINDS[kind], 2), GALLERY[:20], 3, SearchParams(), threads=2
    )
    np.testing.assert_allclose(scores, scores[:, :1].repeat(3, axis=1), atol=1e-6)
    assert [sorted(row) for row in positions.tolist()] == [[i, 500 + i, 520 + i] for i in range(20)]


@pytest.mark.parametrize("n_rows", [1, 2, 10])
@pytest.mark.parametrize("kind", ["flat", "hnsw", "sq8", "ivf_flat"])
def test_a_tiny_gallery_is_returned_whole(kind: str, n_rows: int) -> None:
    gallery = GALLERY[:n_rows]
    scores, positions = search(
        build_index([gallery], n_rows, DIM, kind, BuildParams(), 1), QUERIES[:5], n_rows, SearchParams(), threads=1
    )
    assert [sorted(row) for row in positions.tolist()] == [list(range(n_rows))] * 5
    np.testing.assert_allclose(scores, exact_scores_at(QUERIES[:5], gallery, positions), atol=0.01)


@pytest.mark.parametrize("kind", ["flat", "sq8", "ivf_flat"])
def test_k_may_be_the_whole_gallery(built: dict[str, faiss.Index], kind: str) -> None:
    every_cell = SearchParams(nprobe=76 if kind == "ivf_flat" else None)
    _, positions = search(built[kind], QUERIES[:2], 3000, every_cell, threads=1)
    assert (np.sort(positions, axis=1) == np.arange(3000)).all()


def test_results_beyond_the_visited_cells_are_missing(
    built: dict[str, faiss.Index],
) -> None:
    scores, positions = search(built["ivf_flat"], QUERIES, 1000, SearchParams(nprobe=1), threads=2)
    missing = positions < 0
    assert missing.any(axis=1).all()
    assert (positions[missing] == -1).all()
    assert (scores[missing] == -np.inf).all()
    assert np.isfinite(scores[~missing]).all()


@pytest.mark.parametrize(
    ("kind", "narrow", "wide"),
    [
        ("ivf_flat", SearchParams(nprobe=1), SearchParams(nprobe=76)),
        ("ivf_pq", SearchParams(nprobe=1), SearchParams(nprobe=51)),
        ("hnsw", SearchParams(ef_search=10), SearchParams(ef_search=200)),
    ],
)
def test_a_wider_search_has_a_higher_recall(
    built: dict[str, faiss.Index],
    neighbours: Neighbours,
    kind: str,
    narrow: SearchParams,
    wide: SearchParams,
) -> None:
    def recall_of(params: SearchParams) -> float:
        return recall(search(built[kind], QUERIES, 10, params, threads=2)[1], neighbours)

    assert recall_of(narrow) < recall_of(wide)


def test_no_queries_give_no_results(built: dict[str, faiss.Index]) -> None:
    scores, positions = search(built["flat"], QUERIES[:0], 3, SearchParams(), threads=1)
    assert scores.shape == positions.shape == (0, 3)


def test_search_defaults_fit_the_index(built: dict[str, faiss.Index]) -> None:
    assert resolve_search_params(built["flat"], 10, SearchParams()) == SearchParams()
    assert resolve_search_params(built["ivf_flat"], 10, SearchParams()) == SearchParams(nprobe=8)
    assert resolve_search_params(built["hnsw"], 10, SearchParams()) == SearchParams(ef_search=128)
    assert resolve_search_params(built["hnsw"], 300, SearchParams(ef_search=64)) == SearchParams(ef_search=300)
    many_cells = build_index(PARTS, 3000, DIM, "ivf_flat", BuildParams(nlist=320), threads=2)
    assert resolve_search_params(many_cells, 10, SearchParams()) == SearchParams(nprobe=20)
    assert search(many_cells, GALLERY[:1], 1, SearchParams(), threads=1)[1].tolist() == [[0]]


@pytest.mark.parametrize(
    ("kind", "k", "params", "message"),
    [
        (
            "flat",
            3001,
            SearchParams(),
            "k = 3001 is larger than the gallery of 3000 images: set k to a value from 1 to",
        ),
        ("flat", 0, SearchParams(), "k = 0 is smaller than 1: set k"),
        ("ivf_flat", 5, SearchParams(nprobe=77), "nprobe = 77 is larger than nlist, the 76 cells"),
        ("hnsw", 5, SearchParams(nprobe=4), r"index\.search\.nprobe applies to ivf_flat or ivf_pq, not to hnsw"),
        (
            "flat",
            5,
            SearchParams(ef_search=64),
            r"index\.search\.ef_search applies to hnsw, not to flat: expected null",
        ),
    ],
)
def test_search_parameters_that_faiss_would_lower_or_ignore_are_refused(
    built: dict[str, faiss.Index], kind: str, k: int, params: SearchParams, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        search(built[kind], QUERIES, k, params, threads=1)


def test_the_number_of_threads_is_restored(built: dict[str, faiss.Index]) -> None:
    before = faiss.omp_get_max_threads()
    search(built["flat"], QUERIES, 1, SearchParams(), threads=before + 1)
    with pytest.raises(ConfigError, match="threads: expected 1 or more, found 0"):
        search(built["flat"], QUERIES, 1, SearchParams(), threads=0)
    with faiss_threads(before + 1):
        assert faiss.omp_get_max_threads() == before + 1
    assert faiss.omp_get_max_threads() == before
