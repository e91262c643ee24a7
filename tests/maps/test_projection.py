"""The map of the gallery: its sample, its coordinates, and whether what is near is shown near."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_info, threadpool_limits

from cbir.artifacts import vectors as vectors_module
from cbir.artifacts.images import read_columns
from cbir.artifacts.maps import MAP_SCHEMA, read_map, write_map
from cbir.artifacts.vectors import VectorSet, open_vectors
from cbir.compose import composed
from cbir.core.errors import DataError
from cbir.core.files import hash_ids
from cbir.maps import projection as mapping
from cbir.maps.projection import draw_map, project, sample_by_class
from stages import draw_map as stage
from tests.support.imports import ROOT
from tests.support.world import World, make_world, unit

CLASSES = 3


def clusters(n: int, dim: int = 32, spread: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of three well-separated Gaussian clusters, and the cluster of each."""
    rng = np.random.default_rng(n)
    of = np.arange(n) % CLASSES
    return unit(3 * np.eye(dim)[of] + spread * rng.normal(size=(n, dim))), of


def gallery_of(vectors: np.ndarray, labels: list[str | None]) -> tuple[VectorSet, pa.Table]:
    ids = [f"image {number}" for number in range(len(vectors))]
    text = pa.string()
    columns = {"image_id": pa.array(ids, text), "label": pa.array(labels, text), "label_name": pa.array(labels, text)}
    parts = [vectors[start : start + 40] for start in range(0, len(vectors), 40)]
    return VectorSet(pa.array(ids, text), parts, {"dim": vectors.shape[1]}), pa.table(columns)


# ---- the sample

LABELS = st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=60)


@given(labels=LABELS, n_images=st.integers(0, 70), seed=st.integers(0, 2**40))
def test_each_class_gets_its_share_rounded_down_or_up(labels: list[str | None], n_images: int, seed: int) -> None:
    sample = sample_by_class(pa.array(labels, pa.string()), n_images, seed)
    assert len(sample) == min(n_images, len(labels))
    assert (np.diff(sample) > 0).all()
    taken, held = Counter(labels[position] for position in sample), Counter(labels)
    for label, count in held.items():
        assert abs(taken[label] - count * len(sample) / len(labels)) < 1, label


def test_the_sample_depends_on_the_seed_alone() -> None:
    labels = pa.array(["a", "b"] * 100)
    first, again, other = (sample_by_class(labels, 50, seed).tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_every_image_is_sampled_equally_often() -> None:
    labels = pa.array([*"aaaaaaabbc", None])
    sampled = np.concatenate([sample_by_class(labels, 4, seed) for seed in range(3000)])
    shares = np.bincount(sampled, minlength=11) / 3000
    np.testing.assert_allclose(shares, 4 / 11, atol=0.05)  # five standard deviations and more


# ---- the coordinates


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 12])
@pytest.mark.parametrize("dim", [1, 2, 60])
def test_odd_galleries_have_a_map(n: int, dim: int) -> None:
    rows = np.random.default_rng(n).normal(size=(n, dim)).astype(np.float32)
    same = np.repeat(rows[:1], n, 0)
    half = rows.copy()
    half[n // 2 :] = rows[:1]
    nearly = same.copy()
    nearly[:1, 0] = np.nextafter(nearly[:1, 0], np.float32(9))
    for vectors in (rows, same, half, nearly):
        points = project(vectors, 30)
        assert (points.shape, points.dtype) == ((n, 2), np.float32)
        assert (np.abs(points) <= 1).all()  # False for NaN
    assert not project(same, 30).any()


def test_the_longer_side_of_the_map_has_length_two() -> None:
    for n in (2, 3, 40):
        points = project(clusters(n)[0], 5)
        low, high = points.min(0), points.max(0)
        assert (high - low).max() == 2.0
        np.testing.assert_allclose(low + high, 0, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(bad: float) -> None:
    rows = clusters(10)[0]
    rows[3, 3] = bad
    with pytest.raises(DataError, match=r"map: expected finite vectors, found NaN or infinity: run `cbir repair`"):
        project(rows, 30)


def test_the_number_of_threads_changes_no_byte() -> None:
    """Not only the bytes of the map are compared, because a small map may be the same on two threads by chance."""
    rows = clusters(300, 512)[0]
    maps, pools = [], []

    class Watched(mapping.TSNE):
        def fit_transform(self, points: np.ndarray) -> np.ndarray:
            pools.extend((pool["user_api"], pool["num_threads"]) for pool in threadpool_info())
            maps.append(points.tobytes())  # the principal components: these do differ
            return super().fit_transform(points)

    with mock.patch.object(mapping, "TSNE", Watched):
        for threads in (1, 2, 1):
            with threadpool_limits(limits=threads):
                maps.append(project(rows, 30).tobytes())
                assert {pool["num_threads"] for pool in threadpool_info()} == {threads}
    assert len(set(maps)) == 2
    assert set(pools) == {("openmp", 1), ("blas", 1)}


# ---- whether the map preserves neighbourhoods


def test_nearest_neighbours_on_the_map_share_a_cluster() -> None:
    rows, of = clusters(300)
    points = project(rows, 30)
    nearest = NearestNeighbors(n_neighbors=1).fit(points).kneighbors(return_distance=False)[:, 0]
    assert (of[nearest] == of).mean() > 0.95
    strangers = np.random.default_rng(0).permutation(points)  # to show that the measure can fail
    nearest = NearestNeighbors(n_neighbors=1).fit(strangers).kneighbors(return_distance=False)[:, 0]
    assert (of[nearest] == of).mean() < 0.6


def test_neighbours_in_the_map_are_neighbours_among_the_vectors() -> None:
    """On a curve, whose neighbourhoods two dimensions can hold: a Gaussian in 32 dimensions has none that fit."""
    turns = np.linspace(0, 4, 300)[:, None] * np.arange(1, 17)
    rows = unit(np.concatenate([np.cos(turns), np.sin(turns)], 1) / np.tile(np.arange(1, 17), 2))
    points = project(rows, 30)
    assert trustworthiness(rows, points, n_neighbors=10) > 0.9
    assert trustworthiness(rows, np.random.default_rng(0).permutation(points), n_neighbors=10) < 0.6


# ---- the table


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("map")).write()


@pytest.fixture(scope="module")
def opened(world: World) -> tuple[VectorSet, pa.Table]:
    gallery = open_vectors(world.embeddings / "clip", "clip", "gallery")
    return gallery, read_columns(world.data / "images" / "gallery", ["image_id", "label", "label_name"])


def test_the_table_holds_images_of_the_gallery_in_its_order(world: World, opened: tuple[VectorSet, pa.Table]) -> None:
    table = draw_map(*opened, 100, 30, 0)
    assert table.schema.equals(MAP_SCHEMA)
    rows = table.to_pylist()
    positions = [list(world.gallery).index(row["image_id"]) for row in rows]
    assert positions == sorted(set(positions))
    assert len(positions) == 100
    assert [row["label"] for row in rows] == [world.gallery[row["image_id"]] for row in rows]
    assert {None, "c0"} < {row["label"] for row in rows}
    assert [row["label_name"] for row in rows] == [row["label"] for row in rows]


def test_each_row_is_the_point_of_its_own_vector(world: World, opened: tuple[VectorSet, pa.Table]) -> None:
    table = draw_map(*opened, 100, 30, 0)
    own = np.stack([world.vectors["clip"]["gallery"][image_id] for image_id in table["image_id"].to_pylist()])
    points = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], 1)
    np.testing.assert_array_equal(points, project(own, 30))


def test_images_and_vectors_meet_by_id(opened: tuple[VectorSet, pa.Table]) -> None:
    gallery, images = opened
    backwards = VectorSet(gallery.ids[::-1], [part[::-1] for part in reversed(gallery.parts)], gallery.passport)
    assert draw_map(backwards, images, 100, 30, 0).equals(draw_map(gallery, images, 100, 30, 0))
    with pytest.raises(DataError, match=r"map: no vector for 'img000'; run `cbir repair`, then `dvc repro`"):
        draw_map(VectorSet(gallery.ids[1:], [gallery.parts[0][1:]], gallery.passport), images, 300, 30, 0)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_tiny_galleries_have_a_table(n: int) -> None:
    table = draw_map(*gallery_of(clusters(n)[0], [None, "a", "b"][:n]), 2000, 30, 0)
    assert table.num_rows == n


def test_no_images_make_an_empty_map(opened: tuple[VectorSet, pa.Table], tmp_path: Path) -> None:
    write_map(tmp_path / "clip.parquet", draw_map(*opened, 0, 30, 0))
    assert read_map(tmp_path / "clip.parquet").equals(MAP_SCHEMA.empty_table())


def test_memory_holds_the_samples_vectors_and_no_others(opened: tuple[VectorSet, pa.Table]) -> None:
    gallery, images = opened
    assert len(gallery.parts) == 4
    assert all(isinstance(part, np.memmap) for part in gallery.parts)
    row_counts: list[int] = []
    rows_at = vectors_module.rows_at

    def record(parts: list[np.ndarray], positions: np.ndarray, dim: int) -> np.ndarray:
        row_counts.append(len(positions))
        return rows_at(parts, positions, dim)

    with mock.patch.object(vectors_module, "rows_at", record):
        draw_map(gallery, images, 20, 30, 0)
    assert row_counts == [20]


# ---- the stage


def test_the_stage_writes_the_same_bytes_in_every_process(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.root)
    (world.root / "cbir").symlink_to(ROOT / "cbir")
    params = composed(["map.images=120"], ROOT / "conf").replace("mobilenet_demo:", "mobilenet:")  # as the world has it
    Path("params.yaml").write_text(params, encoding="utf-8")
    stage.main("mobilenet")
    path = world.data / "map" / "mobilenet.parquet"
    assert read_map(path).num_rows == 120
    contents = {path.read_bytes()}
    for threads in ("1", "2"):
        environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        subprocess.run([sys.executable, "-m", "stages.draw_map", "mobilenet"], env=environment, check=True)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    assert hash_ids(read_map(path)["image_id"].to_pylist()) != hash_ids(world.gallery)


def test_the_stage_tells_a_mistake_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(composed([], ROOT / "conf"), encoding="utf-8")
    command = [sys.executable, "-m", "stages.draw_map", "clip_demo"]
    ended = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    expected = "error: data/embeddings/clip_demo/gallery/passport.json is not here: run `dvc repro`\n"
    assert (ended.returncode, ended.stderr) == (1, expected)
