"""The zoo of broken images through the stages that a user's folder takes: nothing fails, hangs or needs much memory."""

import os
import subprocess
import sys
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from cbir.artifacts.images import read_columns, read_quarantine, read_shards
from cbir.artifacts.packing import write_packing
from cbir.artifacts.vectors import read_parts
from cbir.compose import composed
from cbir.core.errors import UndecodableImage
from cbir.core.files import read_json
from cbir.datasets.decoding import encode_for_packing
from cbir.encoders.preprocessing import Preprocessing
from tests.support.imports import ROOT
from tests.support.zoo import FILES, OUTCOMES, write_zoo

HANG_S = 600  # speed is not tested here; a test that hangs must fail
MAX_PEAK_BYTES = 500e6  # the whole process of the stage preprocess; the bomb alone would be 900 MB
STAGE = """
import sys
from stages import {0}
from cbir.core.machine import peak_bytes
{0}.main(*sys.argv[1:])
print(peak_bytes())
"""


def run(root: Path, stage: str, *arguments: str) -> int:
    """Run a stage in its own process; return its peak memory in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", STAGE.format(stage), *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CBIR_CACHE": str(root / "cache")},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which scan, download, preprocess, weights and embed have run on the zoo."""
    root = tmp_path_factory.mktemp("zoo")
    write_zoo(root / "zoo")
    overrides = ["dataset=image_folder", f"dataset.url={root / 'zoo'}", "dataset.queries_per_class=0"]
    overrides += ["dataset.max_bad_fraction=1", "device=cpu", "device.workers=2"]
    (root / "params.yaml").write_text(composed(overrides, ROOT / "conf"))
    for stage in ("scan", "download"):
        run(root, stage)
    write_packing(root / "data" / "packing.json", 512)
    (root / "peak").write_text(str(run(root, "preprocess")))
    run(root, "weights", "mobilenet_demo")
    (root / "peak of embed").write_text(str(run(root, "embed", "mobilenet_demo")))
    return root


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_packed_or_refused_without_hanging(name: str) -> None:
    make, reason = FILES[name]

    reasons: list[str | None] = []

    def outcome() -> None:
        try:
            packed = encode_for_packing(make(), 100_000_000, 512)
        except UndecodableImage as error:
            reasons.append(error.reason)
            return
        assert Preprocessing(64, 64, "shortest", "bilinear", (0.5,) * 3, (0.5,) * 3).prepare_packed(packed.data).any()
        reasons.append(None)

    thread = Thread(target=outcome, daemon=True)  # a pool would wait for it
    thread.start()
    thread.join(HANG_S)
    assert reasons == [reason]


def test_each_member_is_in_gallery_or_quarantine_with_a_reason(zoo: Path) -> None:
    gallery = read_columns(zoo / "data/images/gallery", ["image_id"])["image_id"].to_pylist()
    quarantine = {row["source"]: row for row in read_quarantine(zoo / "data/images/quarantine.parquet").to_pylist()}
    outcomes = {**dict.fromkeys(gallery), **{name: row["reason"] for name, row in quarantine.items()}}
    assert outcomes == OUTCOMES
    assert not set(gallery) & set(quarantine)
    assert read_json(zoo / "data/images/summary.json")["gallery"]["images"] == len(gallery)
    details = {name: row["detail"] for name, row in quarantine.items()}
    assert details["bomb.png"] == "30000 x 30000 is more than dataset.max_pixels = 100000000"
    assert details["dangling link.jpg"] == "points to nowhere.jpg"
    assert "text" not in details["text.jpg"] or "begins with" in details["text.jpg"]
    assert all(details[name] for name, reason in OUTCOMES.items() if reason not in (None, "empty file"))


def test_the_bomb_does_not_use_much_memory(zoo: Path) -> None:
    assert int((zoo / "peak").read_text()) < MAX_PEAK_BYTES


def test_a_long_narrow_image_is_not_resized_as_a_whole(tmp_path: Path) -> None:
    """1 x 20,000 would become 224 x 4,480,000 pixels before the crop: 3 GB."""
    code = """
from cbir.encoders.preprocessing import Preprocessing
from PIL import Image
from cbir.core.machine import peak_bytes
for size in ((1, 20_000), (20_000, 1)):
    image = Preprocessing(232, 224, "shortest", "bicubic", (0.5,) * 3, (0.5,) * 3).prepare(Image.new("RGB", size, "red"))
    assert image.shape == (224, 224, 3) and (image == (255, 0, 0)).all()
print(peak_bytes())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200e6


def test_packed_members_are_embedded_with_their_content_and_size(zoo: Path) -> None:
    ids, parts = read_parts(zoo / "data/embeddings/mobilenet_demo/gallery")
    vectors = dict(zip(ids, np.concatenate(parts), strict=True))
    assert set(vectors) == {name for name, reason in OUTCOMES.items() if reason is None}
    assert np.isfinite(np.concatenate(parts)).all()
    assert np.array_equal(vectors["duplicate one.jpg"], vectors["duplicate two.jpg"])
    assert vectors["grey.jpg"] @ vectors["cmyk.jpg"] < 0.999
    sizes = {
        row["image_id"]: (row["width"], row["height"])
        for _, table in read_shards(zoo / "data/images/gallery", ["image_id", "width", "height"])
        for row in table.to_pylist()
    }
    assert {sizes[f"orientation {n}.jpg"] for n in (1, 2, 3, 4)} == {(60, 40)}
    assert {sizes[f"orientation {n}.jpg"] for n in (5, 6, 7, 8)} == {(40, 60)}
    assert (sizes["1x20000.png"], sizes["20000x1.jpg"]) == ((1, 20_000), (20_000, 1))
