"""The zoo of broken images, by the road that a user's folder takes: nothing stops, hangs or bloats, all are accounted for."""

import os
import subprocess
import sys
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from cbir.artifacts.images import read_columns, read_quarantine, read_shards
from cbir.artifacts.vectors import read_parts
from cbir.compose import composed
from cbir.core.errors import UndecodableImage
from cbir.core.files import read_json
from cbir.datasets.decoding import encode_for_packing
from cbir.encoders.preprocessing import Preprocessing
from tests.support.imports import ROOT
from tests.support.zoo import FILES, OUTCOMES, make_zoo

HANG_S = 60  # no speed is claimed: what hangs shall fail its test
BLOAT_BYTES = 500e6  # the whole process of the stage preprocess; the bomb alone would be 900 MB
STAGE = """
import sys
from stages import {0}
from cbir.core.timing import peak_bytes
{0}.main(*sys.argv[1:])
print(peak_bytes())
"""


def run(root: Path, stage: str, *arguments: str) -> int:
    """Run a stage in a process of its own; returns the most memory that it held, in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", STAGE.format(stage), *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CBIR_CACHE": str(root / "cache")},
        capture_output=True,
        text=True,
        timeout=10 * HANG_S,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the zoo went through scan, download, preprocess, weights and embed."""
    root = tmp_path_factory.mktemp("zoo")
    make_zoo(root / "zoo")
    overrides = ["dataset=image_folder", f"dataset.url={root / 'zoo'}", "dataset.queries_per_class=0"]
    overrides += ["dataset.max_bad_fraction=1", "device=cpu", "device.workers=2"]
    (root / "params.yaml").write_text(composed(overrides, ROOT / "conf"))
    for stage in ("scan", "download"):
        run(root, stage)
    (root / "peak").write_text(str(run(root, "preprocess")))
    run(root, "weights", "mobilenet")
    (root / "peak of embed").write_text(str(run(root, "embed", "mobilenet")))
    return root


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_packed_or_refused_with_its_reason_and_hangs_nothing(name: str) -> None:
    make, reason = FILES[name]

    found: list[str | None] = []

    def outcome() -> None:
        try:
            packed = encode_for_packing(make(), 100_000_000, 512)
        except UndecodableImage as error:
            found.append(error.reason)
            return
        assert Preprocessing(64, 64, "shortest", "bilinear", (0.5,) * 3, (0.5,) * 3).prepare_packed(packed.data).any()
        found.append(None)

    thread = Thread(target=outcome, daemon=True)  # a pool would wait for it
    thread.start()
    thread.join(HANG_S)
    assert found == [reason]


def test_every_member_is_in_the_gallery_or_in_quarantine_with_a_reason(zoo: Path) -> None:
    gallery = read_columns(zoo / "data/images/gallery", ["image_id"])["image_id"].to_pylist()
    quarantine = {row["source"]: row for row in read_quarantine(zoo / "data/images/quarantine.parquet").to_pylist()}
    found = {**dict.fromkeys(gallery), **{name: row["reason"] for name, row in quarantine.items()}}
    assert found == OUTCOMES
    assert not set(gallery) & set(quarantine)
    assert read_json(zoo / "data/images/summary.json")["gallery"]["images"] == len(gallery)
    details = {name: row["detail"] for name, row in quarantine.items()}
    assert details["bomb.png"] == "30000 x 30000 is more than dataset.max_pixels = 100000000"
    assert details["dangling link.jpg"] == "points to nowhere.jpg"
    assert "text" not in details["text.jpg"] or "begins with" in details["text.jpg"]
    assert all(details[name] for name, reason in OUTCOMES.items() if reason not in (None, "empty file"))


def test_the_bomb_does_not_bloat_the_run(zoo: Path) -> None:
    assert int((zoo / "peak").read_text()) < BLOAT_BYTES


def test_a_long_and_narrow_image_is_not_resized_whole(tmp_path: Path) -> None:
    """1 x 20,000 would become 224 x 4,480,000 pixels before the crop: 3 GB."""
    code = """
from cbir.encoders.preprocessing import Preprocessing
from PIL import Image
from cbir.core.timing import peak_bytes
for size in ((1, 20_000), (20_000, 1)):
    shown = Preprocessing(232, 224, "shortest", "bicubic", (0.5,) * 3, (0.5,) * 3).prepare(Image.new("RGB", size, "red"))
    assert shown.shape == (224, 224, 3) and (shown == (255, 0, 0)).all()
print(peak_bytes())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200e6


def test_what_was_packed_embeds_and_shows_what_the_member_showed(zoo: Path) -> None:
    ids, parts = read_parts(zoo / "data/embeddings/mobilenet/gallery")
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
    assert (sizes["1x20000.png"], sizes["20000x1.jpg"]) == ((1, 512), (512, 1))
