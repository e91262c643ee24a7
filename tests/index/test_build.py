"""cbir.index.build: parameters, refusals, and bytes that depend on the vectors and parameters alone."""

import tracemalloc
from pathlib import Path
from typing import Any
from unittest import mock

import faiss
import numpy as np
import pytest

from cbir.artifacts.vectors import Vectors
from cbir.core.errors import ConfigError, DataError
from cbir.index import build
from cbir.index.build import build_index, factory_string, resolve_build_params
from cbir.index.exact import exact_scores, exact_search
from cbir.index.params import BuildParams, SearchParams
from cbir.index.search import search
from cbir.index.storage import write_index
from tests.index.gallery import DIM, GALLERY, KINDS, PARTS, QUERIES, clustered, each_kind, split, with_last_row_scaled


def saved_bytes(kind: str, params: BuildParams, parts: list[Vectors], threads: int, tmp_path: Path) -> bytes:
    path = tmp_path / "index.faiss"
    write_index(path, build_index(parts, sum(map(len, parts)), parts[0].shape[1], kind, params, threads))
    return path.read_bytes()


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "params", "n_rows", "dim", "expected"),
    [
        ("flat", BuildParams(), 1, 512, "Flat"),
        ("sq8", BuildParams(), 1, 512, "SQ8"),
        ("hnsw", BuildParams(), 1, 512, "HNSW32,Flat"),
        ("ivf_flat", BuildParams(), 1, 512, "IVF1,Flat"),
        ("ivf_flat", BuildParams(), 3000, 512, "IVF76,Flat"),  # 39 rows a cell
        ("ivf_flat", BuildParams(), 100_000, 512, "IVF1265,Flat"),  # 4 * sqrt(n)
        ("ivf_flat", BuildParams(train_rows=3900), 100_000, 512, "IVF100,Flat"),
        ("ivf_pq", BuildParams(nlist=16), 1000, 512, "IVF16,PQ64x8np"),
        ("ivf_pq", BuildParams(nlist=16), 1000, 960, "IVF16,PQ64x8np"),
        ("ivf_pq", BuildParams(nlist=16), 1000, 90, "IVF16,PQ45x8np"),
        ("ivf_pq", BuildParams(nlist=16), 1000, 97, "IVF16,PQ1x8np"),
        ("ivf_pq", BuildParams(nlist=16), 1000, 24, "IVF16,PQ24x8np"),
    ],
)
def test_null_parameters_are_derived_from_rows_and_dimension(
    kind: str, params: BuildParams, n_rows: int, dim: int, expected: str
) -> None:
    assert factory_string(kind, params, n_rows, dim) == expected
    resolved = resolve_build_params(kind, params, n_rows, dim)
    assert resolve_build_params(kind, resolved, n_rows, dim) == resolved


def test_build_parameters_reach_faiss() -> None:
    graph: Any = build_index(PARTS, 3000, DIM, "hnsw", BuildParams(hnsw_m=5, ef_construction=17), threads=1)
    cells: Any = build_index(
        PARTS, 3000, DIM, "ivf_pq", BuildParams(nlist=9, pq_m=2, seed=7, train_rows=256), threads=1
    )
    assert (graph.hnsw.nb_neighbors(1), graph.hnsw.efConstruction) == (5, 17)
    assert (cells.nlist, cells.pq.M, cells.cp.seed, cells.pq.cp.seed) == (9, 2, 7, 7)


@pytest.mark.parametrize(
    ("kind", "params", "n_rows", "error", "message"),
    [
        ("hnws", BuildParams(), 99, ConfigError, r"index\.kind: .* found 'hnws', nearest 'hnsw'"),
        ("ivf_pq", BuildParams(pq_m=60), 999, ConfigError, "pq_m: expected a divisor of 512, found 60, nearest 64"),
        ("ivf_pq", BuildParams(), 255, DataError, "at least 256 rows to train on, found 255: use index=flat"),
        (
            "ivf_pq",
            BuildParams(train_rows=99),
            999,
            ConfigError,
            r"index\.build\.train_rows: expected at least 256 .* 99",
        ),
        ("ivf_flat", BuildParams(nlist=11), 10, ConfigError, r"index\.build\.nlist: expected at most 10, .* found 11"),
        (
            "ivf_flat",
            BuildParams(nlist=11, train_rows=9),
            99,
            ConfigError,
            r"index\.build\.nlist: expected at most 9, ",
        ),
        (
            "flat",
            BuildParams(nlist=4),
            99,
            ConfigError,
            r"index\.build\.nlist applies to ivf_flat or ivf_pq, not to flat",
        ),
        ("ivf_flat", BuildParams(pq_m=4), 99, ConfigError, r"index\.build\.pq_m applies to ivf_pq, not to ivf_flat"),
        ("sq8", BuildParams(hnsw_m=4), 99, ConfigError, r"index\.build\.hnsw_m applies to hnsw, not to sq8"),
        ("flat", BuildParams(ef_construction=4), 99, ConfigError, r"ef_construction applies to hnsw, not to flat"),
        ("hnsw", BuildParams(train_rows=4), 99, ConfigError, r"train_rows applies to ivf_flat, ivf_pq or sq8, not"),
    ],
)
def test_build_parameters_that_faiss_would_reject_or_ignore_are_refused(
    kind: str, params: BuildParams, n_rows: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        factory_string(kind, params, n_rows, 512)


@pytest.mark.parametrize("kind", ["flat", "ivf_flat"])
@pytest.mark.parametrize(
    ("value", "norm"), [(np.nan, "nan"), (np.inf, "(inf|nan)"), (0.0, "0"), (1.01, r"1\.01"), (1e30, "inf")]
)
def test_a_row_that_is_no_unit_vector_is_refused(kind: str, value: float, norm: str) -> None:
    bad = with_last_row_scaled(value)
    with pytest.raises(DataError, match=f"gallery row 2999: expected norm 1 .* found {norm}: run `cbir repair`"):
        build_index(split(bad, 1000), 3000, DIM, kind, BuildParams(), threads=1)
    with pytest.raises(DataError, match=f"query row 1: expected norm 1 .* found {norm}: run `cbir repair`"):
        search(build_index(PARTS, 3000, DIM, "flat", BuildParams(), 1), bad[2998:], 3, SearchParams(), threads=1)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (GALLERY[:, :16], r"expected float32 vectors of shape \(n, 32\), found float32 of shape \(3000, 16\)"),
        (GALLERY.astype(np.float64), r"found float64 of shape \(3000, 32\)"),
        (GALLERY[0], r"found float32 of shape \(32,\)"),
    ],
)
def test_vectors_of_another_shape_or_dtype_are_refused(
    built: dict[str, faiss.Index], rows: Vectors, problem: str
) -> None:
    with pytest.raises(DataError, match="gallery part 1: .*" + problem):
        build_index([GALLERY, rows], 6000, DIM, "flat", BuildParams(), threads=1)
    with pytest.raises(DataError, match="queries: .*" + problem):
        search(built["flat"], rows, 3, SearchParams(), threads=1)
    with pytest.raises(DataError, match="queries: .*" + problem):
        exact_search(rows, PARTS, 3)
    with pytest.raises(DataError, match="gallery part 1: .*" + problem):
        exact_scores(QUERIES, [GALLERY, rows])


@pytest.mark.parametrize(("parts", "n_rows"), [(PARTS, 2999), (PARTS, 3001), ([], 5), ([], 0), ([GALLERY[:0]], 0)])
def test_as_many_rows_as_image_ids_are_required(parts: list[Vectors], n_rows: int) -> None:
    with pytest.raises(DataError, match=f"expected {max(1, n_rows)} rows, one for each image id, found "):
        build_index(parts, n_rows, DIM, "flat", BuildParams(), threads=1)


@each_kind
def test_bytes_depend_neither_on_threads_nor_on_parts(kind: str, tmp_path: Path) -> None:
    params = KINDS[kind]
    with mock.patch.object(build, "_BLOCK_ROWS", 1000):
        first = saved_bytes(kind, params, [GALLERY], 1, tmp_path)
        assert saved_bytes(kind, params, PARTS, 2, tmp_path) == first
        assert saved_bytes(kind, params, [GALLERY], 2, tmp_path) == first
        assert saved_bytes(kind, params, PARTS, 1, tmp_path) == first


@pytest.mark.parametrize("kind", ["ivf_flat", "hnsw"])
def test_another_seed_gives_another_index(kind: str, tmp_path: Path) -> None:
    first, second = (saved_bytes(kind, BuildParams(seed=seed), PARTS, 2, tmp_path) for seed in (1, 2))
    assert first != second


@pytest.mark.parametrize(
    ("kind", "params"), [("flat", BuildParams()), ("ivf_flat", BuildParams(nlist=8, train_rows=1000))]
)
def test_a_build_never_holds_the_gallery_in_numpy(kind: str, params: BuildParams, tmp_path: Path) -> None:
    np.save(tmp_path / "part.npy", clustered(20_000, 64, seed=3))
    part = np.load(tmp_path / "part.npy", mmap_mode="r")
    with mock.patch.object(build, "_BLOCK_ROWS", 1000):
        tracemalloc.start()
        build_index([part], len(part), 64, kind, params, threads=1)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak_bytes < part.nbytes / 4
