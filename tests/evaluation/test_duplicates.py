"""Queries that are also in the gallery: detected by their bytes, their pixels or their vectors."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageEnhance

from cbir.artifacts.images import PackedImage
from cbir.artifacts.paths import ReportPaths
from cbir.artifacts.runs import read_duplicates
from cbir.artifacts.vectors import MISSING
from cbir.core.files import read_json
from cbir.datasets.decoding import encode_for_packing
from cbir.evaluation.duplicates import (
    MAX_COPIES,
    NEAR_GREYS,
    DuplicatePair,
    Pictures,
    same_bytes,
    same_pixels,
    same_vectors,
    similar_pixels,
)
from tests.support import world as worlds
from tests.support.world import PARAMS, World, make_world

NO_OWN = np.full(100, MISSING, np.int64)


def jpeg(image: Image.Image, quality: int = 95) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def pictures(*images: bytes) -> Pictures:
    packed = [encode_for_packing(image, 10**6, 512) for image in images]
    table = pa.table(
        {
            "sha256": pa.array([image.sha256 for image in packed], pa.string()),
            "fingerprint": pa.array([image.fingerprint for image in packed], pa.binary(256)),
        }
    )
    return Pictures.of(table)


@pytest.fixture(scope="module")
def drawings() -> list[Image.Image]:
    return [Image.open(BytesIO(image)).convert("RGB") for image in draw_images(30)]


def draw_images(count: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    images = []
    for _ in range(count):
        smooth = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize(
            (96, 80), Image.Resampling.BICUBIC
        )
        images.append(jpeg(smooth))
    return images


def test_copies_of_a_file_are_duplicates_except_the_own_image() -> None:
    first, second, third = draw_images(3)
    gallery = pictures(first, second, first, third)
    assert list(same_bytes(pictures(first, third), gallery, NO_OWN[:2])) == [
        *(DuplicatePair(0, 0, "bytes", 1.0), DuplicatePair(0, 2, "bytes", 1.0), DuplicatePair(1, 3, "bytes", 1.0))
    ]
    own = np.array([2, 3])
    assert list(same_bytes(pictures(first, third), gallery, own)) == [DuplicatePair(0, 0, "bytes", 1.0)]


@pytest.mark.parametrize("way", ["recompressed", "half as large", "larger", "as PNG"])
def test_a_copy_is_detected_by_its_pixels_alone(drawings: list[Image.Image], way: str) -> None:
    copies = {
        "recompressed": lambda image: jpeg(image, 40),
        "half as large": lambda image: jpeg(image.resize((48, 40), Image.Resampling.BICUBIC)),
        "larger": lambda image: jpeg(image.resize((300, 250), Image.Resampling.LANCZOS)),
        "as PNG": lambda image: (file := BytesIO(), image.save(file, "PNG"))[0].getvalue(),
    }
    queries = pictures(*(copies[way](image) for image in drawings))
    found = list(same_pixels(queries, pictures(*map(jpeg, drawings)), NO_OWN[: len(drawings)]))
    assert [(pair.query, pair.position) for pair in found] == [(n, n) for n in range(len(drawings))]
    assert all(0 <= pair.likeness <= NEAR_GREYS for pair in found)
    assert list(same_pixels(queries, pictures(*map(jpeg, drawings)), np.arange(len(drawings)))) == []


def test_pixels_are_compared_as_by_the_definition() -> None:
    rng = np.random.default_rng(1)
    base = rng.integers(0, 256, (40, 256))
    near = np.clip(base + rng.integers(-7, 8, base.shape), 0, 255)
    digests = pa.array([str(n) for n in range(40)])
    queries, gallery = Pictures(digests, near.astype(np.uint8)), Pictures(digests, base.astype(np.uint8))
    differences = np.sqrt(((near[:, None].astype(float) - base) ** 2).mean(2))
    expected = [(int(q), int(p), differences[q, p]) for q, p in np.argwhere(differences <= NEAR_GREYS)]
    found = [(pair.query, pair.position, pair.likeness) for pair in same_pixels(queries, gallery, NO_OWN[:40])]
    assert [pair[:2] for pair in found] == [pair[:2] for pair in expected]
    assert [pair[2] for pair in found] == pytest.approx([pair[2] for pair in expected])
    assert 0 < len(found) < 40


def test_vectors_are_near_from_the_given_cosine_on() -> None:
    scores = np.array([[1.0, 0.999, 0.99], [0.5, 0.4, -np.inf]], np.float32)
    positions = np.array([[4, 2, 0], [1, 0, MISSING]])
    found = [(pair.query, pair.position, pair.found_by) for pair in same_vectors(scores, positions, "clip", 0.995)]
    assert found == [(0, 4, "clip"), (0, 2, "clip")]


def test_pictures_without_contrast_are_duplicates_by_bytes_only() -> None:
    plain = [jpeg(Image.new("RGB", (64, 64), colour)) for colour in ("white", (254, 255, 255), (255, 255, 250))]
    queries, gallery = pictures(plain[0]), pictures(*plain)
    assert list(same_pixels(queries, gallery, NO_OWN[:1])) == []
    assert [pair.position for pair in same_bytes(queries, gallery, NO_OWN[:1])] == [0]
    dots = []
    for place in range(0, 60, 6):  # small squares on white, each at another position
        image = Image.new("RGB", (256, 256), "white")
        image.paste("black", (4 * place, 100, 4 * place + 12, 112))
        dots.append(jpeg(image))
    found = [(pair.query, pair.position) for pair in same_pixels(pictures(*dots), pictures(*dots), NO_OWN[:10])]
    assert found == [(n, n) for n in range(10)]


def test_copies_of_one_picture_are_counted_up_to_a_bound() -> None:
    (picture,) = draw_images(1)
    queries, gallery = pictures(picture, picture), pictures(*[picture] * (MAX_COPIES + 5))
    for find in (same_bytes, same_pixels):
        found = [(pair.query, pair.position) for pair in find(queries, gallery, np.array([3, MISSING]))]
        others = [n for n in range(MAX_COPIES + 1) if n != 3]
        assert found == [*((0, n) for n in others), *((1, n) for n in range(MAX_COPIES))]


@pytest.mark.parametrize("way", ["brighter", "cut", "another"])
def test_near_vectors_need_similar_fingerprints(drawings: list[Image.Image], way: str) -> None:
    change = {
        "brighter": lambda number: ImageEnhance.Brightness(drawings[number]).enhance(1.15),
        "cut": lambda number: drawings[number].crop((2, 2, 94, 78)),
        "another": lambda number: drawings[number - 1],
    }
    queries = pictures(*(jpeg(change[way](number)) for number in range(len(drawings))))
    gallery = pictures(*map(jpeg, drawings))
    found = [
        similar_pixels(DuplicatePair(number, number, "clip", 1.0), queries, gallery) for number in range(len(drawings))
    ]
    assert found == [way != "another"] * len(drawings)


def test_an_encoder_with_random_weights_detects_no_duplicates() -> None:
    """All its cosines are nearly 1, as those of CLIP with random weights are."""
    positions = np.tile(np.arange(MAX_COPIES + 1), (2, 1))
    scores = np.full(positions.shape, 0.9999, np.float32)
    scores[1, -1] = 0.5
    found = [(pair.query, pair.position) for pair in same_vectors(scores, positions, "clip", 0.999)]
    assert found == [(1, n) for n in range(MAX_COPIES)]


def test_without_pictures_there_are_no_duplicates() -> None:
    empty, single = pictures(), pictures(*draw_images(1))
    for queries, gallery in ((empty, single), (single, empty), (empty, empty)):
        own = NO_OWN[: len(queries.digests)]
        assert [*same_bytes(queries, gallery, own), *same_pixels(queries, gallery, own)] == []


# --- in the report ----------------------------------------------------------------------------------------------------


@pytest.fixture
def leaking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Two held-out images are copies of gallery images: ask00 as a file, ask01 only by mobilenet's vectors."""
    world = make_world(tmp_path)
    packed = worlds._packed

    def copied(row: tuple[str, str | None]) -> PackedImage:
        original = packed(("img003", world.gallery["img003"]) if row[0] == "ask00" else row)
        brighter = bytes(min(255, grey + 40) for grey in packed(("img005", row[1])).fingerprint)
        original = replace(original, image_id=row[0], label=row[1], label_name=row[1])
        return replace(original, fingerprint=brighter) if row[0] == "ask01" else original

    monkeypatch.setattr(worlds, "_packed", copied)
    world.vectors["mobilenet"]["queries"]["ask01"] = world.vectors["mobilenet"]["gallery"]["img005"]
    # as near, but of another picture
    world.vectors["clip"]["queries"]["ask02"] = world.vectors["clip"]["gallery"]["img006"]
    return world.write()


def test_duplicates_are_listed_counted_and_excluded_from_further_means(leaking: World, tmp_path: Path) -> None:
    metrics = leaking.evaluate(tmp_path / "out")
    reports = ReportPaths(tmp_path / "out")
    by_picture = [("ask00", "img003", "bytes"), ("ask00", "img003", "pixels")]
    of_encoder = {"mobilenet": [*by_picture, ("ask01", "img005", "mobilenet")], "clip": by_picture}
    for encoder, pairs in of_encoder.items():
        rows = read_duplicates(reports.evaluation(encoder).duplicates).to_pylist()
        assert [(row["query_id"], row["image_id"], row["found_by"]) for row in rows] == pairs
        assert [row["likeness"] for row in rows] == [1.0, 0.0, pytest.approx(1.0, abs=1e-6)][: len(pairs)]
    assert metrics["data"]["duplicates"] == {"bytes": 1, "pixels": 1, "mobilenet": 1, "clip": 0}
    for encoder, pairs in of_encoder.items():
        per_query = pq.read_table(reports.evaluation(encoder).per_query).to_pylist()
        without = {query_id for query_id, *_ in pairs}
        kept = [
            row["map_at_r"]
            for row in per_query
            if (row["task"], row["encoder"], row["search"]) == ("cbir", encoder, "exact")
            and row["query_id"] not in without
            and row["map_at_r"] is not None
        ]
        found = metrics["without_duplicates"][encoder]["map_at_r"]
        assert found == pytest.approx(sum(kept) / len(kept), abs=1e-12)
        assert found != metrics["cbir"][encoder]["map_at_r"]
    intervals = read_json(reports.evaluation("clip").intervals)["without_duplicates"]
    assert set(intervals["clip"]) == set(metrics["without_duplicates"]["clip"])


def test_the_depth_of_the_runs_changes_neither_duplicates_nor_votes(leaking: World, tmp_path: Path) -> None:
    whole = leaking.evaluate(tmp_path / "whole", params=replace(PARAMS, ks=[1, 5], ann_ks=[1]))
    short = leaking.evaluate(tmp_path / "short", params=replace(PARAMS, ks=[1, 5], ann_ks=[1], run_depth=5))
    for name in ("categories", "without_duplicates", "cbir"):
        assert short[name] == whole[name]
    assert short["data"]["duplicates"] == whole["data"]["duplicates"]
    for name in ("duplicates", "confusions"):
        for encoder in ("mobilenet", "clip"):
            folders = [ReportPaths(tmp_path / where).evaluation(encoder).root for where in ("whole", "short")]
            read = [(folder / f"{name}.parquet").read_bytes() for folder in folders]
            assert read[0] == read[1]


def test_without_duplicates_there_are_no_figures_without_them(tmp_path: Path) -> None:
    metrics = make_world(tmp_path).write().evaluate(tmp_path / "out")
    assert metrics["without_duplicates"] == {}
    assert metrics["data"]["duplicates"] == {"bytes": 0, "pixels": 0, "mobilenet": 0, "clip": 0}
