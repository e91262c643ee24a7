"""Every kind of index, and exact search, against brute force written here without either."""

import tracemalloc
from pathlib import Path
from typing import Any
from unittest import mock

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cbir.core.errors import ConfigError, DataError
from cbir.index import exact
from cbir.index import faiss_index as index
from cbir.index.exact import exact_scores, exact_search, top_k
from cbir.index.faiss_index import (
    BuildParams,
    SearchParams,
    build_index,
    factory_string,
    kind_of,
    read_index,
    resolve_build_params,
    resolve_search_params,
    search,
    write_index,
)

Floats = NDArray[np.float32]

DIM = 32
KINDS = {
    "flat": BuildParams("flat"),
    "ivf_flat": BuildParams("ivf_flat"),
    "ivf_pq": BuildParams("ivf_pq", pq_m=16, train_rows=2000),
    "hnsw": BuildParams("hnsw", hnsw_m=16),
    "sq8": BuildParams("sq8"),
}
every_kind = pytest.mark.parametrize("params", KINDS.values(), ids=KINDS)


def unit(rows: NDArray[np.float64]) -> Floats:
    unit_rows: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit_rows


def clustered(n: int, dim: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(40, dim))
    return unit(centres[rng.integers(40, size=n)] + 0.7 * rng.normal(size=(n, dim)))


def split(rows: Floats, *cuts: int) -> list[Floats]:
    return np.split(rows, cuts)


GALLERY = clustered(3000, DIM, seed=1)
QUERIES = clustered(100, DIM, seed=2)
PARTS = split(GALLERY, 7, 7, 1500, 2999)


def brute_force(queries: Floats, gallery: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
    scores = np.array([[float(np.dot(q, g)) for g in gallery.astype(np.float64)] for q in queries.astype(np.float64)])
    positions = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, positions, axis=1).astype(np.float32), positions


@pytest.fixture(scope="module")
def neighbours() -> tuple[Floats, NDArray[np.int64]]:
    return brute_force(QUERIES, GALLERY, 10)


@pytest.fixture(scope="module")
def built() -> dict[str, faiss.Index]:
    return {kind: build_index(PARTS, 3000, DIM, params, threads=2) for kind, params in KINDS.items()}


def found(queries: Floats, gallery: Floats, positions: NDArray[np.int64]) -> Floats:
    """The true scores of what a search returned."""
    scores: Floats = np.einsum("qd,qkd->qk", queries, gallery[positions])
    return scores


def recall(positions: NDArray[np.int64], neighbours: tuple[Floats, NDArray[np.int64]]) -> float:
    """Share of returned rows that score no less than the true k-th neighbour: a tie counts."""
    return float((found(QUERIES, GALLERY, positions) >= neighbours[0][:, -1:] - 1e-6).mean())


def saved_bytes(params: BuildParams, parts: list[Floats], threads: int, tmp_path: Path) -> bytes:
    path = tmp_path / "index.faiss"
    write_index(path, build_index(parts, sum(map(len, parts)), parts[0].shape[1], params, threads))
    return path.read_bytes()


# --- what a search finds ----------------------------------------------------------------------------------------------


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
def test_search_finds_the_exact_neighbours_up_to_the_floor_of_its_kind(
    built: dict[str, faiss.Index],
    neighbours: tuple[Floats, NDArray[np.int64]],
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
        np.testing.assert_allclose(scores, found(QUERIES, GALLERY, positions), atol=1e-5)
    if floor == 1.0:
        np.testing.assert_allclose(scores, neighbours[0], atol=1e-5)


@every_kind
def test_all_copies_of_an_image_in_the_gallery_are_found(params: BuildParams) -> None:
    gallery = np.concatenate([GALLERY[:500], GALLERY[:20], GALLERY[:20]])
    scores, positions = search(build_index([gallery], 540, DIM, params, 2), GALLERY[:20], 3, SearchParams(), threads=2)
    np.testing.assert_allclose(scores, scores[:, :1].repeat(3, axis=1), atol=1e-6)
    assert [sorted(row) for row in positions.tolist()] == [[i, 500 + i, 520 + i] for i in range(20)]


@pytest.mark.parametrize("n_rows", [1, 2, 10])
@pytest.mark.parametrize("kind", ["flat", "hnsw", "sq8", "ivf_flat"])
def test_a_tiny_gallery_is_returned_whole(kind: str, n_rows: int) -> None:
    gallery = GALLERY[:n_rows]
    scores, positions = search(
        build_index([gallery], n_rows, DIM, BuildParams(kind), 1), QUERIES[:5], n_rows, SearchParams(), threads=1
    )
    assert [sorted(row) for row in positions.tolist()] == [list(range(n_rows))] * 5
    np.testing.assert_allclose(scores, found(QUERIES[:5], gallery, positions), atol=0.01)


@pytest.mark.parametrize("kind", ["flat", "sq8", "ivf_flat"])
def test_k_may_be_the_whole_gallery(built: dict[str, faiss.Index], kind: str) -> None:
    every_cell = SearchParams(nprobe=76 if kind == "ivf_flat" else None)
    _, positions = search(built[kind], QUERIES[:2], 3000, every_cell, threads=1)
    assert (np.sort(positions, axis=1) == np.arange(3000)).all()


def test_what_the_visited_cells_cannot_fill_is_position_minus_1_and_score_minus_infinity(
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
def test_a_wider_search_finds_more(
    built: dict[str, faiss.Index],
    neighbours: tuple[Floats, NDArray[np.int64]],
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


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "n_rows", "dim", "expected"),
    [
        (BuildParams("flat"), 1, 512, "Flat"),
        (BuildParams("sq8"), 1, 512, "SQ8"),
        (BuildParams("hnsw"), 1, 512, "HNSW32,Flat"),
        (BuildParams("ivf_flat"), 1, 512, "IVF1,Flat"),
        (BuildParams("ivf_flat"), 3000, 512, "IVF76,Flat"),  # 39 rows a cell
        (BuildParams("ivf_flat"), 100_000, 512, "IVF1265,Flat"),  # 4 * sqrt(n)
        (BuildParams("ivf_flat", train_rows=3900), 100_000, 512, "IVF100,Flat"),
        (BuildParams("ivf_pq", nlist=16), 1000, 512, "IVF16,PQ64x8np"),
        (BuildParams("ivf_pq", nlist=16), 1000, 960, "IVF16,PQ64x8np"),
        (BuildParams("ivf_pq", nlist=16), 1000, 90, "IVF16,PQ45x8np"),
        (BuildParams("ivf_pq", nlist=16), 1000, 97, "IVF16,PQ1x8np"),
    ],
)
def test_null_parameters_are_derived_from_rows_and_dimension(
    params: BuildParams, n_rows: int, dim: int, expected: str
) -> None:
    assert factory_string(params, n_rows, dim) == expected
    resolved = resolve_build_params(params, n_rows, dim)
    assert resolve_build_params(resolved, n_rows, dim) == resolved


def test_build_parameters_reach_faiss() -> None:
    graph: Any = build_index(PARTS, 3000, DIM, BuildParams("hnsw", hnsw_m=5, ef_construction=17), threads=1)
    cells: Any = build_index(
        PARTS, 3000, DIM, BuildParams("ivf_pq", nlist=9, pq_m=2, seed=7, train_rows=256), threads=1
    )
    assert (graph.hnsw.nb_neighbors(1), graph.hnsw.efConstruction) == (5, 17)
    assert (cells.nlist, cells.pq.M, cells.cp.seed, cells.pq.cp.seed) == (9, 2, 7, 7)
    assert all(kind_of(each).startswith(kind) for each, kind in ((graph, "hnsw"), (cells, "ivf_pq")))


def test_search_defaults_fit_the_index(built: dict[str, faiss.Index]) -> None:
    assert resolve_search_params(built["flat"], 10, SearchParams()) == SearchParams()
    assert resolve_search_params(built["ivf_flat"], 10, SearchParams()) == SearchParams(nprobe=8)
    assert resolve_search_params(built["hnsw"], 10, SearchParams()) == SearchParams(ef_search=128)
    assert resolve_search_params(built["hnsw"], 300, SearchParams(ef_search=64)) == SearchParams(ef_search=300)
    many_cells = build_index(PARTS, 3000, DIM, BuildParams("ivf_flat", nlist=320), threads=2)
    assert resolve_search_params(many_cells, 10, SearchParams()) == SearchParams(nprobe=20)


@pytest.mark.parametrize(
    ("params", "n_rows", "error", "message"),
    [
        (BuildParams("hnws"), 99, ConfigError, r"index\.kind: .* found 'hnws', nearest 'hnsw'"),
        (BuildParams("ivf_pq", pq_m=60), 999, ConfigError, "pq_m: expected a divisor of 512, found 60, nearest 64"),
        (BuildParams("ivf_pq"), 255, DataError, "at least 256 rows to train on, found 255: use index=flat"),
        (
            BuildParams("ivf_pq", train_rows=99),
            999,
            ConfigError,
            r"index\.build\.train_rows: expected at least 256 .* 99",
        ),
        (BuildParams("ivf_flat", nlist=11), 10, ConfigError, r"index\.build\.nlist: expected at most 10, .* found 11"),
        (
            BuildParams("ivf_flat", nlist=11, train_rows=9),
            99,
            ConfigError,
            r"index\.build\.nlist: expected at most 9, ",
        ),
        (
            BuildParams("flat", nlist=4),
            99,
            ConfigError,
            r"index\.build\.nlist applies to ivf_flat or ivf_pq, not to flat",
        ),
        (BuildParams("ivf_flat", pq_m=4), 99, ConfigError, r"index\.build\.pq_m applies to ivf_pq, not to ivf_flat"),
        (BuildParams("sq8", hnsw_m=4), 99, ConfigError, r"index\.build\.hnsw_m applies to hnsw, not to sq8"),
        (BuildParams("flat", ef_construction=4), 99, ConfigError, r"ef_construction applies to hnsw, not to flat"),
        (BuildParams("hnsw", train_rows=4), 99, ConfigError, r"train_rows applies to ivf_flat, ivf_pq or sq8, not"),
        (BuildParams("hnsw", hnsw_m=1), 99, ConfigError, r"index\.build\.hnsw_m: expected 2 or more, or null, found 1"),
        (
            BuildParams("ivf_flat", nlist=0),
            99,
            ConfigError,
            r"index\.build\.nlist: expected 1 or more, or null, found 0",
        ),
    ],
)
def test_build_parameters_that_faiss_would_choke_on_or_ignore_are_refused(
    params: BuildParams, n_rows: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        factory_string(params, n_rows, 512)


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
        ("ivf_flat", 5, SearchParams(nprobe=0), r"index\.search\.nprobe: expected 1 or more, or null, found 0"),
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


# --- vectors ----------------------------------------------------------------------------------------------------------


def spoiled(value: float) -> Floats:
    rows = GALLERY.copy()
    rows[2999] *= np.float32(value)
    return rows


@pytest.mark.parametrize("kind", ["flat", "ivf_flat"])
@pytest.mark.parametrize(
    ("value", "norm"), [(np.nan, "nan"), (np.inf, "(inf|nan)"), (0.0, "0"), (1.01, r"1\.01"), (1e30, "inf")]
)
def test_a_row_that_is_no_unit_vector_is_refused_by_its_position(kind: str, value: float, norm: str) -> None:
    bad = spoiled(value)
    with pytest.raises(DataError, match=f"gallery row 2999: expected norm 1 .* found {norm}: embed again"):
        build_index(split(bad, 1000), 3000, DIM, BuildParams(kind), threads=1)
    with pytest.raises(DataError, match=f"query row 1: expected norm 1 .* found {norm}: embed again"):
        search(build_index(PARTS, 3000, DIM, BuildParams("flat"), 1), bad[2998:], 3, SearchParams(), threads=1)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (GALLERY[:, :16], r"expected float32 vectors of shape \(n, 32\), found float32 of shape \(3000, 16\)"),
        (GALLERY.astype(np.float64), r"found float64 of shape \(3000, 32\)"),
        (GALLERY[0], r"found float32 of shape \(32,\)"),
    ],
)
def test_vectors_of_another_shape_or_dtype_are_refused(
    built: dict[str, faiss.Index], rows: Floats, problem: str
) -> None:
    with pytest.raises(DataError, match="gallery part 1: .*" + problem):
        build_index([GALLERY, rows], 6000, DIM, BuildParams("flat"), threads=1)
    with pytest.raises(DataError, match="queries: .*" + problem):
        search(built["flat"], rows, 3, SearchParams(), threads=1)
    with pytest.raises(DataError, match="queries: .*" + problem):
        exact_search(rows, PARTS, 3)
    with pytest.raises(DataError, match="gallery part 1: .*" + problem):
        exact_scores(QUERIES, [GALLERY, rows])


@pytest.mark.parametrize(("parts", "n_rows"), [(PARTS, 2999), (PARTS, 3001), ([], 5), ([], 0), ([GALLERY[:0]], 0)])
def test_a_gallery_of_another_number_of_rows_than_image_ids_is_refused(parts: list[Floats], n_rows: int) -> None:
    with pytest.raises(DataError, match=f"expected {max(1, n_rows)} rows, one for each image id, found "):
        build_index(parts, n_rows, DIM, BuildParams("flat"), threads=1)


# --- bytes, files, memory, threads ------------------------------------------------------------------------------------


@every_kind
def test_the_same_vectors_give_the_same_bytes_for_any_threads_and_parts(params: BuildParams, tmp_path: Path) -> None:
    with mock.patch.object(index, "_BLOCK_ROWS", 1000):
        first = saved_bytes(params, [GALLERY], 1, tmp_path)
        assert saved_bytes(params, PARTS, 2, tmp_path) == first
        assert saved_bytes(params, [GALLERY], 2, tmp_path) == first
        assert saved_bytes(params, PARTS, 1, tmp_path) == first


@pytest.mark.parametrize("kind", ["ivf_flat", "hnsw"])
def test_the_seed_decides_what_chance_decides(kind: str, tmp_path: Path) -> None:
    one, two = (saved_bytes(BuildParams(kind, seed=seed), PARTS, 2, tmp_path) for seed in (1, 2))
    assert one != two


@every_kind
def test_an_index_survives_its_file(built: dict[str, faiss.Index], params: BuildParams, tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    write_index(path, built[params.kind])
    again = read_index(path)
    assert kind_of(again) == params.kind
    for before, after in zip(
        search(built[params.kind], QUERIES, 10, SearchParams(), threads=1),
        search(again, QUERIES, 10, SearchParams(), threads=1),
        strict=True,
    ):
        np.testing.assert_array_equal(before, after)
    assert [entry.name for entry in tmp_path.iterdir()] == ["index.faiss"]


def test_a_write_that_fails_leaves_the_old_file(built: dict[str, faiss.Index], tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    path.write_bytes(b"old")

    def fail(_index: faiss.Index, name: str) -> None:
        Path(name).write_bytes(b"half")
        raise RuntimeError("disk full")

    with mock.patch.object(faiss, "write_index", fail), pytest.raises(RuntimeError, match="disk full"):
        write_index(path, built["flat"])
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("index.faiss", b"old")]


@every_kind
def test_a_file_that_is_no_whole_index_is_refused(
    built: dict[str, faiss.Index], params: BuildParams, tmp_path: Path
) -> None:
    path = tmp_path / "index.faiss"
    write_index(path, built[params.kind])
    whole = path.read_bytes()
    for content in (b"", b"not an index", whole[:50], whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"index\.faiss: expected a whole index .* dvc repro --force index"):
            read_index(path)


def test_a_missing_file_or_an_index_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    with pytest.raises(DataError, match=r"index\.faiss: expected a FAISS index, found no such file.* dvc repro index"):
        read_index(path)
    for foreign in (faiss.IndexFlatL2(DIM), faiss.IndexLSH(DIM, 8)):
        faiss.write_index(foreign, str(path))
        with pytest.raises(DataError, match=r"expected an inner-product index of kind flat, .* or sq8, found Index"):
            read_index(path)


@pytest.mark.parametrize("params", [BuildParams("flat"), BuildParams("ivf_flat", nlist=8, train_rows=1000)])
def test_a_build_never_holds_the_gallery_in_numpy(params: BuildParams, tmp_path: Path) -> None:
    np.save(tmp_path / "part.npy", clustered(20_000, 64, seed=3))
    part = np.load(tmp_path / "part.npy", mmap_mode="r")
    with mock.patch.object(index, "_BLOCK_ROWS", 1000):
        tracemalloc.start()
        build_index([part], len(part), 64, params, threads=1)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak_bytes < part.nbytes / 4


def test_the_number_of_threads_is_put_back(built: dict[str, faiss.Index]) -> None:
    before = faiss.omp_get_max_threads()
    search(built["flat"], QUERIES, 1, SearchParams(), threads=before + 1)
    with pytest.raises(ConfigError, match="threads: expected 1 or more, found 0"):
        search(built["flat"], QUERIES, 1, SearchParams(), threads=0)
    with index._omp_threads(before + 1):
        assert faiss.omp_get_max_threads() == before + 1
    assert faiss.omp_get_max_threads() == before


# --- exact search -----------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_exact_search_is_a_stable_argsort_also_among_ties(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n_queries, n_rows, dim = data.draw(st.tuples(st.integers(0, 9), st.integers(1, 40), st.integers(1, 3)))
    k = data.draw(st.integers(1, n_rows))
    queries = rng.integers(-2, 3, size=(n_queries, dim)).astype(np.float32)
    gallery = rng.integers(-2, 3, size=(n_rows, dim)).astype(np.float32)
    parts = split(gallery, *sorted(data.draw(st.lists(st.integers(0, n_rows), max_size=3))))
    expected = queries @ gallery.T  # whole numbers: exact in any order of summation
    order = np.argsort(-expected, axis=1, kind="stable")[:, :k]
    with mock.patch.object(exact, "_CHUNK_ROWS", data.draw(st.integers(1, 50))):
        scores, positions = exact_search(queries, parts, k, block_queries=data.draw(st.integers(1, 10)))
        all_scores = exact_scores(queries, parts)
    np.testing.assert_array_equal(positions, order)
    np.testing.assert_array_equal(scores, np.take_along_axis(expected, order, axis=1))
    np.testing.assert_array_equal(all_scores, expected)
    assert [each.dtype.name for each in (scores, positions, all_scores)] == ["float32", "int64", "float32"]


def test_exact_search_agrees_with_brute_force(neighbours: tuple[Floats, NDArray[np.int64]]) -> None:
    scores, positions = exact_search(QUERIES, PARTS, 10)
    np.testing.assert_array_equal(positions, neighbours[1])
    np.testing.assert_allclose(scores, neighbours[0], atol=1e-7)


def test_a_query_scores_the_same_bits_in_any_block() -> None:
    gallery, queries = clustered(500, 100, seed=5), clustered(60, 100, seed=6)
    alone = [exact_scores(queries[i : i + 1], [gallery]) for i in range(60)]
    together = exact_scores(queries, [gallery])
    np.testing.assert_array_equal(np.concatenate(alone), together)
    for block_queries in (1, 7, 48, 60):
        scores, positions = exact_search(queries, split(gallery, 123), 500, block_queries)
        np.testing.assert_array_equal(scores, np.take_along_axis(together, positions, axis=1))


def test_exact_search_holds_no_score_matrix() -> None:
    gallery, queries = clustered(5000, 8, seed=7), clustered(2000, 8, seed=8)
    with mock.patch.object(exact, "_CHUNK_ROWS", 250):
        tracemalloc.start()
        exact_search(queries, [gallery], 5, block_queries=100)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak_bytes < len(queries) * len(gallery) * 4 / 10


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_exact_search_refuses_what_cannot_be_ranked(value: float) -> None:
    bad = spoiled(value)
    with pytest.raises(DataError, match="gallery row 2999: expected finite values, found NaN or infinity"):
        exact_search(QUERIES, split(bad, 1000), 3)
    with pytest.raises(DataError, match="query row 2999: expected finite values"):
        exact_scores(bad, PARTS)


@pytest.mark.parametrize("k", [0, 3001])
def test_exact_search_refuses_a_k_that_the_gallery_cannot_fill(k: int) -> None:
    with pytest.raises(ConfigError, match=f"k = {k} is .*: set k to a value from 1 to 3000"):
        exact_search(QUERIES, PARTS, k)


def test_top_k_of_whole_score_rows_is_exact_search() -> None:
    for ranked, searched in zip(top_k(exact_scores(QUERIES, PARTS), 20), exact_search(QUERIES, PARTS, 20), strict=True):
        np.testing.assert_array_equal(ranked, searched)
    with pytest.raises(ConfigError, match="k = 3 is larger than the gallery of 2 images"):
        top_k(np.zeros((1, 2), np.float32), 3)


def test_exact_scores_of_an_empty_gallery_are_no_columns() -> None:
    assert exact_scores(QUERIES, []).shape == (100, 0)
