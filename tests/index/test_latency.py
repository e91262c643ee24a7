"""cbir.index.latency on a world of known vectors: what is measured and written, never how long it takes."""

from collections.abc import Iterator
from itertools import accumulate, chain, count, repeat
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from numpy.typing import NDArray

from cbir.core.errors import PassportError
from cbir.core.files import read_json, write_json
from cbir.index import latency
from cbir.index.build import build_index
from cbir.index.kinds import kind_of
from cbir.index.latency import measure_latency, write_latency
from cbir.index.params import BuildParams, SearchParams
from tests.support.world import DIMS, KINDS, World, make_world

ENCODERS = tuple(DIMS)


@pytest.fixture(autouse=True)
def clock() -> Iterator[mock.Mock]:
    """Each search takes 0.04 s, so that all batches are three to warm up and thirteen that count."""
    with mock.patch.object(latency, "perf_counter", side_effect=count(0, 0.04)) as clock:
        yield clock


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("latency")).write(*KINDS)


def measured(world: World, out: Path, kind: str = "flat", n_queries: int = 5, seed: int = 0, **search: int) -> Any:
    """The times of all encoders, each from a file of its own in the folder `out`."""
    encoders: dict[str, Any] = {}
    for encoder in ENCODERS:
        path = out / f"{encoder}.json"
        write_latency(
            path,
            world.embeddings / encoder,
            world.indexes(kind) / encoder,
            encoder,
            SearchParams(**search),
            threads=1,
            n_queries=n_queries,
            seed=seed,
        )
        of_encoder = read_json(path)
        assert list(of_encoder["encoders"]) == [encoder]
        encoders |= of_encoder["encoders"]
    return of_encoder | {"encoders": encoders}


@pytest.fixture
def searches() -> Iterator[list[tuple[str, NDArray[np.float32], int, SearchParams]]]:
    """Records each search: kind of index, queries, k and parameters."""
    recorded: list[tuple[str, NDArray[np.float32], int, SearchParams]] = []

    def record(index: Any, queries: NDArray[np.float32], k: int, params: SearchParams, threads: int) -> Any:
        recorded.append((kind_of(index).name, queries, k, params))
        return search(index, queries, k, params, threads)

    search = latency.search
    with mock.patch.object(latency, "search", record):
        yield recorded


@pytest.mark.parametrize("kind", KINDS)
def test_image_and_text_queries_are_timed_by_both_searches(world: World, kind: str, tmp_path: Path) -> None:
    measures = measured(world, tmp_path / "latency", kind)
    assert (list(measures), measures["k"], measures["threads"]) == (["encoders", "k", "threads", "of"], 10, 1)
    assert {encoder: list(found) for encoder, found in measures["encoders"].items()} == {
        "mobilenet": ["image"],  # it reads no text
        "clip": ["image", "text"],
    }
    for found in measures["encoders"].values():
        for by_search in found.values():
            assert list(by_search) == ["index", "exact"]
            for values in by_search.values():
                assert list(values) == ["single_ms", "batch_queries_per_s", "queries"]
                assert list(values["single_ms"]) == ["p50", "p95", "p99"]
                assert set(values["single_ms"].values()) == {40.0}
                assert (values["batch_queries_per_s"], values["queries"]) == (None, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_exact_is_the_flat_index_with_its_own_parameters(
    world: World, kind: str, tmp_path: Path, searches: list[Any]
) -> None:
    search = {"nprobe": 3} if kind.startswith("ivf") else {"ef_search": 20} if kind == "hnsw" else {}
    with mock.patch.object(latency, "build_index", wraps=build_index) as builds:
        measured(world, tmp_path / "latency", kind, **search)
    # A flat index is exact itself; for any other kind, a flat one is built for each encoder.
    assert [call.args[3:5] for call in builds.call_args_list] == [("flat", BuildParams())] * (
        0 if kind == "flat" else 2
    )
    per_measure = 5 + 20 * 5  # warm-up, single queries
    expected = [(kind, SearchParams(**search))] * per_measure + [("flat", SearchParams())] * per_measure
    assert [(found, params) for found, _, _, params in searches] == 3 * expected


def test_single_queries_and_batches_are_timed_after_a_warm_up(searches: list[Any]) -> None:
    rows = np.eye(30, dtype=np.float32)
    index = build_index([rows], 30, 30, "flat", BuildParams(), threads=1)
    found = measure_latency(index, rows, 3, SearchParams(), threads=1)
    assert [len(queries) for _, queries, _, _ in searches] == [1] * 20 + [1] * 120 + [30] * (3 + 13)
    assert {k for _, _, k, _ in searches} == {3}
    for row in range(30):
        assert searches[20 + row][1].tolist() == rows[row : row + 1].tolist()
    assert found["queries"] == 30
    assert found["batch_queries_per_s"] == 30 / 0.04


def test_one_slow_batch_does_not_change_the_throughput(clock: mock.Mock) -> None:
    rows = np.eye(20, dtype=np.float32)
    index = build_index([rows], 20, 20, "flat", BuildParams(), threads=1)
    durations = chain(
        [0.02] * (100 + 8), [0.3], repeat(0.02)
    )  # single queries, five or six batches to warm up, some that count
    clock.side_effect = accumulate(time for duration in durations for time in (0, duration))
    assert measure_latency(index, rows, 3, SearchParams(), threads=1)["batch_queries_per_s"] == 20 / 0.02


def test_batches_slower_than_single_queries_have_no_throughput(clock: mock.Mock) -> None:
    rows = np.eye(20, dtype=np.float32)
    index = build_index([rows], 20, 20, "flat", BuildParams(), threads=1)
    durations = chain([0.001] * 100, repeat(0.021))
    clock.side_effect = accumulate(time for duration in durations for time in (0, duration))
    found = measure_latency(index, rows, 3, SearchParams(), threads=1)
    assert (found["batch_queries_per_s"], round(found["single_ms"]["p50"])) == (None, 1)


@pytest.mark.parametrize(("queries", "timed"), [(1, 100), (7, 105), (99, 198), (100, 100)])
def test_few_queries_are_timed_again_and_again(searches: list[Any], queries: int, timed: int) -> None:
    rows = np.eye(100, dtype=np.float32)[:queries]
    index = build_index([rows], queries, 100, "flat", BuildParams(), threads=1)
    measure_latency(index, rows, 1, SearchParams(), threads=1)
    assert sum(len(found) == 1 for _, found, _, _ in searches[min(20, queries) :]) == timed


def test_the_sample_is_seeded_and_holds_no_query_twice(world: World, tmp_path: Path, searches: list[Any]) -> None:
    def samples(seed: int) -> list[set[tuple[float, ...]]]:
        """The queries of each measurement: three sets of queries, by index and exact."""
        searches.clear()
        measured(world, tmp_path / "latency", n_queries=8, seed=seed)
        rows = [tuple(queries[0].tolist()) for _, queries, _, _ in searches]
        per_measure = 8 + 13 * 8
        assert len(rows) == 6 * per_measure
        return [set(rows[start : start + per_measure]) for start in range(0, len(rows), per_measure)]

    first, again, other = samples(0), samples(0), samples(1)
    assert first == again
    assert first[::2] == first[1::2]  # the same queries for both searches
    assert all(sample != of_other for sample, of_other in zip(first, other, strict=True))
    assert all(len(sample) == 8 for sample in first)
    known = {tuple(row.tolist()) for row in world.vectors["mobilenet"]["queries"].values()}
    assert first[0] <= known


def test_a_sample_larger_than_the_queries_takes_them_all(world: World, tmp_path: Path) -> None:
    measures = measured(world, tmp_path / "latency", n_queries=10_000)["encoders"]["clip"]
    assert (measures["image"]["index"]["queries"], measures["text"]["exact"]["queries"]) == (22, 14)


def test_k_is_at_most_the_size_of_the_gallery(tmp_path: Path, searches: list[Any]) -> None:
    small = make_world(tmp_path, n_gallery=20)
    keep = list(small.gallery)[:7]
    small.gallery = {image_id: small.gallery[image_id] for image_id in keep}
    for found in small.vectors.values():
        found["gallery"] = {image_id: found["gallery"][image_id] for image_id in keep}
    assert measured(small.write(), tmp_path / "latency")["k"] == 7
    assert {k for _, _, k, _ in searches} == {7}


def test_an_encoder_without_queries_has_no_times(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    for found in world.vectors.values():
        found["queries"] = {}
    del world.vectors["clip"]["texts"]
    assert measured(world.write(), tmp_path / "latency")["encoders"] == {"mobilenet": {}, "clip": {}}


def test_an_index_of_other_weights_is_refused(tmp_path: Path) -> None:
    world = make_world(tmp_path).write()
    passport = world.embeddings / "clip" / "gallery" / "passport.json"
    write_json(passport, read_json(passport) | {"weights_sha256": "0" * 64})
    with pytest.raises(PassportError, match=r"index/clip: vectors: passport field 'weights_sha256'"):
        measured(world, tmp_path / "latency")
    assert not (tmp_path / "latency" / "clip.json").exists()
