"""A small pipeline run by the real stages and the demo encoders, to search in.

from tests.support.searchable import finished_run, searchable  # noqa: F401  (fixtures)
"""

import os
import shutil
from collections.abc import Iterator
from importlib import import_module
from io import BytesIO
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

from cbir import Searcher
from cbir.artifacts.names import read_encoder_names
from cbir.artifacts.paths import DataPaths
from cbir.compose import composed
from tests.support.imports import ROOT

DRAWN = ("dataset.draw_gallery_images=400", "dataset.draw_query_images=80")
SMALL = ("queries.prompt_sets=[]", "device=cpu")


def run_stages(root: Path, *overrides: str) -> Path:
    """Run all stages up to the indexes in `root`, which must be the working directory.

    The data set is a small drawn one, unless an override chooses another.
    """
    drawn = () if any(override.startswith("dataset=") for override in overrides) else DRAWN
    if not (root / "cbir").exists():
        (root / "cbir").symlink_to(ROOT / "cbir")  # conf/ names files in it
    (root / "params.yaml").write_text(composed([*SMALL, *drawn, *overrides], ROOT / "conf"), encoding="utf-8")
    names = ["scan", "download", "weights", "packing", "preprocess", "embed", "build_index"]
    for stage in names:
        of_encoder = stage in ("weights", "embed", "build_index")
        encoders = read_encoder_names(DataPaths(root / "data").encoders) if of_encoder else []
        for arguments in [(encoder,) for encoder in encoders] if of_encoder else [()]:
            import_module(f"stages.{stage}").main(*arguments)
    return root


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a finished run: 400 gallery images of 80 classes, both encoders, HNSW.  Do not change its data."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # of all workers: one of them runs the stages
    root = base / "finished_run"
    with FileLock(f"{root}.lock"):
        if not root.exists():
            started = base / "unfinished_run"
            started.mkdir()
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(started)
                patch.setenv("CBIR_CACHE", str(base / "finished_run_cache"))
                run_stages(started, "index=hnsw")
            started.rename(root)
    return root


@pytest.fixture(scope="module")
def searchable(finished_run: Path) -> Iterator[Path]:
    """The root of the finished run, which is the working directory meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished_run)
        yield finished_run


@pytest.fixture(scope="module")
def searcher(searchable: Path) -> Searcher:
    return Searcher.open(searchable / "data")


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A drawing that is not in the gallery and larger than any image there, as a PNG."""
    image = Image.new("RGB", (300, 200), "white")
    image.paste("red", (100, 50, 200, 150))
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def copy_run(root: Path, out: Path) -> Path:
    """Copy the data and params.yaml of a run; return the copied data folder."""
    shutil.copytree(root / "data", out / "data")
    shutil.copy(root / "params.yaml", out)
    return out / "data"
