"""A small pipeline run of the real stages, with the demo encoders: what searches are tested on."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from cbir.artifacts.names import ENCODERS
from cbir.compose import composed
from tests.support.imports import ROOT

SMALL = ("dataset.draw_gallery_images=400", "dataset.draw_query_images=80", "queries.prompt_sets=[]", "device=cpu")


def run_stages(root: Path, *overrides: str) -> Path:
    """Everything up to the indexes, in `root`, the working directory."""
    if not (root / "cbir").exists():
        (root / "cbir").symlink_to(ROOT / "cbir")  # conf/ names files in it
    (root / "params.yaml").write_text(composed([*SMALL, *overrides], ROOT / "conf"), encoding="utf-8")
    for stage in ("scan", "download", "preprocess"):
        import_module(f"stages.{stage}").main()
    for stage in ("weights", "embed", "build_index"):
        for encoder in ENCODERS:
            import_module(f"stages.{stage}").main(encoder)
    return root


@pytest.fixture(scope="module")
def searchable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root of a finished run: 400 gallery images of 80 classes, both encoders, HNSW."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("searchable")
        patch.chdir(root)
        patch.setenv("CBIR_CACHE", str(root / "cache"))
        yield run_stages(root, "index=hnsw")
