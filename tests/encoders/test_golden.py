"""Pixels, tokens and vectors of the demo encoders are the golden ones, and faults would not go unnoticed."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
import torch
from PIL import Image, ImageOps

from cbir.encoders import preprocessing, tokens, vector_cache
from cbir.encoders.layers import Normalise
from cbir.encoders.preprocessing import Preprocessing
from cbir.encoders.vector_cache import VectorCache
from cbir.encoders.version import VECTORS_VERSION
from tests.encoders.golden import (
    ENCODERS,
    REMEDY,
    compute_golden,
    differences,
    export_demo,
    needs_new_version,
    read_golden,
    ways,
)
from tests.support.imports import ROOT


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of both demo encoders with their towers."""
    folder = tmp_path_factory.mktemp("demo")
    export_demo(folder)
    return folder


@pytest.mark.parametrize("way", ways())
@pytest.mark.parametrize("name", ENCODERS)
def test_pixels_tokens_and_vectors_are_golden(name: str, way: str, demo: Path) -> None:
    changed = differences(read_golden(), compute_golden(demo, [f"{name}/{way}"]))
    assert not changed, f"{'; '.join(changed)}: these values changed; {REMEDY}"


def test_golden_values_are_of_the_current_version() -> None:
    assert read_golden().version == VECTORS_VERSION, REMEDY


# ---- faults


def scaled(statistic: str, factor: float) -> Callable[[pytest.MonkeyPatch], None]:
    def plant(patch: pytest.MonkeyPatch) -> None:
        init = Normalise.__init__

        def wrong(self: Normalise, preprocessing: Preprocessing) -> None:
            init(self, preprocessing)
            getattr(self, statistic).mul_(factor)

        patch.setattr(Normalise, "__init__", wrong)

    return plant


def other_filter(patch: pytest.MonkeyPatch) -> None:
    filters = {"bilinear": Image.Resampling.BICUBIC, "bicubic": Image.Resampling.BILINEAR}
    patch.setattr(preprocessing, "_INTERPOLATIONS", filters)


def shifted_crop(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(preprocessing._CROP_OFFSETS, "round", lambda margin: round(margin) + (margin > 1))


def turned_by_exif(patch: pytest.MonkeyPatch) -> None:
    prepare = Preprocessing.prepare
    patch.setattr(Preprocessing, "prepare", lambda self, image: prepare(self, ImageOps.exif_transpose(image)))


def other_gelu(patch: pytest.MonkeyPatch) -> None:
    """QuickGELU in place of GELU: the fault of a lost or wrong `quick_gelu`."""
    patch.setattr(torch.nn.GELU, "forward", lambda self, values: values * torch.sigmoid(1.702 * values))


def case_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(tokens.CLEANERS, "lower", tokens.CLEANERS["whitespace"])


PIXELS, VECTORS = "pixels of", "vectors of"


@pytest.mark.parametrize(
    ("plant", "name", "way", "value"),
    [
        (other_filter, "mobilenet", "torch/fp32", PIXELS),
        (other_filter, "mobilenet", "torch/fp32", VECTORS),
        (other_filter, "clip", "torch/bf16", VECTORS),
        (shifted_crop, "mobilenet", "torch/fp32", PIXELS),
        (shifted_crop, "clip", "torch/bf16", VECTORS),
        (turned_by_exif, "clip", "torch/fp32", PIXELS),
        *(
            (scaled(statistic, factor), name, f"torch/{precision}", VECTORS)
            for statistic in ("mean", "std")
            for factor in (0.99, 1.01)
            for name in ENCODERS
            for precision in ("fp32", "fp16")
        ),
        (other_gelu, "clip", "torch/fp32", VECTORS),
        (other_gelu, "clip", "torch/fp16", VECTORS),
        (case_kept, "clip", "openvino/fp32", "tokens"),
        (case_kept, "clip", "openvino/fp32", VECTORS),
    ],
)
def test_a_fault_is_noticed(
    plant: Callable[[pytest.MonkeyPatch], None],
    name: str,
    way: str,
    value: str,
    demo: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    changed = differences(read_golden(), compute_golden(demo, [f"{name}/{way}"]))
    assert any(difference.startswith(value) for difference in changed)


def test_changed_values_need_a_new_version_or_other_settings() -> None:
    golden = read_golden()
    changed = replace(golden, pixels=dict.fromkeys(golden.pixels, "0" * 64))
    assert needs_new_version(golden, changed)
    assert not needs_new_version(golden, golden)
    assert not needs_new_version(golden, replace(changed, version=golden.version + 1))
    assert not needs_new_version(golden, replace(changed, settings={}))


# ---- the key of the cache

KEY = """
import sys
from pathlib import Path
import cbir.encoders
from cbir.encoders.embedding import VectorCache
print(cbir.encoders.__file__)
print(VectorCache(Path("/cache"), {"dim": 32, "precision": "fp32"}).path(["image"]))
"""


def test_a_comment_changes_no_key(tmp_path: Path) -> None:
    code = copytree(ROOT / "cbir/encoders", tmp_path / "cbir/encoders", ignore=ignore_patterns("__pycache__"))
    for path in (ROOT / "cbir").iterdir():
        if path.name != "encoders":
            (tmp_path / "cbir" / path.name).symlink_to(path)
    for path in code.rglob("*.py"):
        path.write_text(f"{path.read_text(encoding='utf-8')}# a comment\n", encoding="utf-8")
    outputs = [
        subprocess.run(
            [sys.executable, "-c", KEY],
            cwd=root,
            env={"PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for root in (ROOT, tmp_path)
    ]
    assert [Path(output[0]).parents[2] for output in outputs] == [ROOT, tmp_path]
    assert outputs[0][1] == outputs[1][1]


def test_a_new_version_changes_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"dim": 32}
    before = VectorCache(Path("/cache"), settings).path(["image"])
    monkeypatch.setattr(vector_cache, "VECTORS_VERSION", VECTORS_VERSION + 1)
    assert VectorCache(Path("/cache"), settings).path(["image"]) != before
