"""Artifacts of encoders that left the run are deleted, and nothing else is."""

from pathlib import Path

import pytest

from cbir.artifacts.leftovers import delete_leftovers
from cbir.artifacts.paths import DataPaths, ReportPaths
from tests.support.repository import files_below

ENCODERS = ("first", "first-2", "second")
SHARED = ("data/timings/download.json", "data/timings/preprocess.json", "data/encoders.json", "data/raw/first/a.jpg")
# of the user, or of no finished stage: not in a folder that holds the stage's own file, or of another kind
NOT_OURS = (
    "data/weights/mine/model.safetensors",
    "data/weights/notes.txt",
    "data/embeddings/half/gallery/part-00000.npy",
    "data/index/mine/notes/passport.json",
    "data/map/gone.png",
    "data/timings/gone.json",
    "reports/evaluation/mine/notes.md",
    "reports/metrics/gone.txt",
    "reports/latency/gone.csv",
    "reports/gone.json",
)


def own_files(encoder: str) -> tuple[str, ...]:
    """What the stages of an encoder write, some of it."""
    stages = ("weights", "embed", "index", "map", "evaluate", "latency")
    return (
        f"data/weights/{encoder}/encoder.json",
        f"data/weights/{encoder}/towers/image.xml",
        f"data/embeddings/{encoder}/gallery/passport.json",
        f"data/embeddings/{encoder}/queries/part-00000.npy",
        f"data/index/{encoder}/passport.json",
        f"data/index/{encoder}/index.faiss",
        f"data/map/{encoder}.parquet",
        f"reports/evaluation/{encoder}/metrics.json",
        f"reports/evaluation/{encoder}/runs/cbir_index.parquet",
        f"reports/metrics/{encoder}.json",
        f"reports/latency/{encoder}.json",
        *(f"data/timings/{stage}@{encoder}.json" for stage in stages),
    )


def write_files(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name, encoding="utf-8")


def delete(root: Path, *encoders: str) -> set[str]:
    """Delete the leftovers of a run of these encoders; return the files that are left."""
    delete_leftovers(DataPaths(root / "data"), ReportPaths(root / "reports"), encoders)
    return set(files_below(root))


@pytest.mark.parametrize("kept", [ENCODERS, ENCODERS[:1], ENCODERS[1:], ENCODERS[1:2], ("another",)])
def test_all_artifacts_of_other_encoders_go(tmp_path: Path, kept: tuple[str, ...]) -> None:
    write_files(tmp_path, *SHARED, *(name for encoder in ENCODERS for name in own_files(encoder)))
    expected = {*SHARED, *(name for encoder in ENCODERS if encoder in kept for name in own_files(encoder))}
    assert delete(tmp_path, *kept) == expected
    for folder in ("data/weights", "data/embeddings", "data/index", "reports/evaluation"):
        assert {path.name for path in (tmp_path / folder).iterdir()} == {*ENCODERS} & {*kept}


def test_what_no_stage_wrote_stays(tmp_path: Path) -> None:
    write_files(tmp_path, *NOT_OURS, *own_files("gone"))
    assert delete(tmp_path, "first") == {*NOT_OURS}


def test_a_second_time_nothing_is_left_to_delete(tmp_path: Path) -> None:
    write_files(tmp_path, *own_files("first"), *own_files("second"))
    assert delete(tmp_path, "first") == delete(tmp_path, "first") == {*own_files("first")}


def test_before_the_first_run_there_is_nothing(tmp_path: Path) -> None:
    assert delete(tmp_path, "first") == set()
