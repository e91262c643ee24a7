"""Vectors are those of the present images and texts, and an evaluation that of its index."""

from dataclasses import replace
from pathlib import Path

import pytest

from cbir.artifacts.contents import VECTOR_KINDS, check_vectors
from cbir.artifacts.evaluation_passport import check_evaluated, checked, is_listed
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.artifacts.vectors import read_passport, write_passport
from cbir.core.errors import DataError, PassportError
from tests.support.world import World, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = make_world(tmp_path_factory.mktemp("world")).write()
    world.evaluate(world.root / "reports")
    return world


@pytest.mark.parametrize("kind", VECTOR_KINDS)
def test_vectors_of_other_data_are_refused(world: World, kind: str) -> None:
    data = DataPaths(world.data)
    check_vectors(data, "clip")
    folder = data.vectors("clip", kind)
    passport = read_passport(folder)
    for field in ("count", "ids_sha256", "content_sha256"):
        write_passport(folder, {**passport, "rows": {**passport["rows"], field: 7}})
        with pytest.raises(
            PassportError, match=rf"clip/{kind}: expected the vectors of .*, found those of other data: run"
        ):
            check_vectors(data, "clip")
        check_vectors(data, "clip", [other for other in VECTOR_KINDS if other != kind])
    write_passport(folder, passport)


def test_stale_texts_beside_an_empty_list_are_refused(tmp_path: Path) -> None:
    world = make_world(tmp_path).write()
    replace(world, queries=[], vectors={}).write()
    with pytest.raises(
        PassportError, match=r"clip/texts: expected the vectors of .*queries, found those of other data"
    ):
        check_vectors(DataPaths(world.data), "clip")


def test_files_of_another_evaluation_are_refused(world: World) -> None:
    reports = ReportPaths(world.root / "reports")
    mobilenet, clip = reports.evaluation("mobilenet"), reports.evaluation("clip")
    assert checked(clip, clip.metrics) == clip.metrics
    assert not is_listed(clip, clip.passport)
    check_evaluated(clip, world.indexes() / "clip")
    with pytest.raises(
        PassportError, match=r"evaluation/clip: expected the evaluation of the index in .*mobilenet, found"
    ):
        check_evaluated(clip, world.indexes() / "mobilenet")
    kept = clip.metrics.read_bytes()
    clip.metrics.write_bytes(mobilenet.metrics.read_bytes())
    with pytest.raises(
        DataError, match=r"clip/metrics\.json: expected the file that evaluate wrote, whose sha256 is \w{64}"
    ):
        checked(clip, clip.metrics)
    clip.metrics.write_bytes(kept)
    with pytest.raises(DataError, match=r"clip/runs/new.parquet is not here: run `dvc repro`"):
        checked(clip, clip.runs / "new.parquet")
