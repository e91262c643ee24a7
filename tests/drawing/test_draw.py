"""Drawings: the same bytes each time, balanced labels, and pixels that agree with the captions."""

import hashlib
import io
from collections import Counter
from dataclasses import astuple
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from cbir.drawing.attributes import (
    BACKGROUND_RGB,
    BACKGROUNDS,
    COLOUR_RGB,
    COLOURS,
    SHAPES,
    SIZES,
    TEXTURES,
    Attributes,
)
from cbir.drawing.draw import draw, draw_with_mask, encode_jpeg, sample

STAR = Attributes("star", "red", "striped", "large", "grey")
ALL_LABELS = {f"{colour} {shape}" for colour in COLOURS for shape in SHAPES}


@pytest.fixture(scope="module")
def gallery():
    return list(sample(7, "gallery", 240))


@pytest.fixture(scope="module")
def scenes(gallery):
    """(attributes, pixels after a coarse JPEG, mask of the main object) of 240 drawings."""
    out = []
    for d in gallery:
        image, mask = draw_with_mask(d.attributes, np.random.default_rng(d.number), d.width)
        pixels = np.asarray(Image.open(io.BytesIO(encode_jpeg(image, quality=70))), float)
        out.append((d.attributes, pixels, mask))
    return out


def test_same_seed_same_bytes(gallery):
    assert list(sample(7, "gallery", 40)) == gallery[:40]


def test_a_drawing_depends_neither_on_n_nor_on_earlier_drawings(gallery):
    assert list(sample(7, "gallery", 3, first=137)) == gallery[137:140]


def test_no_two_drawings_are_the_same_image(gallery):
    others = [*sample(7, "queries", 80), *sample(7, "train", 40), *sample(8, "gallery", 40)]
    assert len({hashlib.sha256(d.jpeg).hexdigest() for d in gallery + others}) == 400


def test_labels_are_balanced_and_every_value_occurs(gallery):
    assert Counter(d.attributes.label for d in gallery) == dict.fromkeys(ALL_LABELS, 3)
    seen = [set(values) for values in zip(*(astuple(d.attributes) for d in gallery), strict=True)]
    assert seen == [set(SHAPES), set(COLOURS), set(TEXTURES), set(SIZES), set(BACKGROUNDS)]


def test_ten_drawings_show_all_shapes_and_colours(gallery):
    for start in range(0, 240, 10):
        ten = [d.attributes for d in gallery[start : start + 10]]
        assert {a.shape for a in ten} == set(SHAPES)
        assert {a.colour for a in ten} == set(COLOURS)


def test_jpeg_is_rgb_of_the_stated_size(gallery):
    for d in gallery:
        image = Image.open(io.BytesIO(d.jpeg))
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (d.width, d.height))
    assert {d.width for d in gallery} == set(range(96, 129))
    assert [d.name for d in gallery[:2]] == ["gallery-000000", "gallery-000001"]


def test_held_out_combinations_are_never_drawn():
    def allowed(a):
        return a.label != "red star" and not (a.shape == "ring" and a.texture == "striped")

    drawings = list(sample(7, "train", 158, allowed=allowed))
    assert all(allowed(d.attributes) for d in drawings)
    assert Counter(d.attributes.label for d in drawings) == dict.fromkeys(ALL_LABELS - {"red star"}, 2)
    assert list(sample(7, "train", 2, first=100, allowed=allowed)) == drawings[100:102]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": -1}, "must not be negative; found 0, -1 and 0"),
        ({"first": -1}, "must not be negative; found 0, 1 and -1"),
        ({"seed": -1}, "must not be negative; found -1, 1 and 0"),
        ({"side_range_px": (128, 96)}, r"both at least 32; found \(128, 96\)"),
        ({"side_range_px": (8, 96)}, r"both at least 32; found \(8, 96\)"),
        ({"allowed": lambda a: False}, "allowed refuses all 1920 combinations"),
    ],
)
def test_sample_refuses_invalid_arguments_at_the_call(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample(**{"seed": 0, "split": "train", "n": 1, **arguments})


def test_mean_colour_of_the_object_is_nearest_to_its_name(scenes):
    """Nearest in direction: textures are darker shades of the same colour, so brightness is ignored."""

    def direction(rgb):
        return rgb / np.linalg.norm(rgb, axis=-1, keepdims=True)

    named = direction(np.array([COLOUR_RGB[c] for c in COLOURS], float))
    means = np.array([(pixels * mask[..., None]).sum((0, 1)) / mask.sum() for _, pixels, mask in scenes])
    nearest = (direction(means) @ named.T).argmax(1)
    assert np.mean([COLOURS[i] == a.colour for i, (a, _, _) in zip(nearest, scenes, strict=True)]) >= 0.97


def test_sizes_are_separate_bands_of_area(scenes):
    area = {size: [mask.mean() for a, _, mask in scenes if a.size == size] for size in SIZES}
    assert max(area["small"]) < 0.08
    assert min(area["large"]) > 2 * max(area["small"])


def test_background_is_nearest_to_its_name(scenes):
    """The median pixel outside the object, which ignores distractors and lines."""
    named = np.array([BACKGROUND_RGB[b] for b in BACKGROUNDS], float)
    for attributes, pixels, mask in scenes:
        outside = np.median(pixels[mask == 0], axis=0)
        assert BACKGROUNDS[np.linalg.norm(named - outside, axis=1).argmin()] == attributes.background


def test_texture_shows_as_contrast_within_the_object(scenes):
    """At 64 pixels, the input size of the encoders; in the brightest channel of the object, without its rim."""
    spread = {texture: [] for texture in TEXTURES}
    for attributes, pixels, mask in scenes:
        channel = int(np.argmax(COLOUR_RGB[attributes.colour]))
        plane = Image.fromarray(pixels[..., channel].astype(np.uint8)).resize((64, 64), Image.Resampling.BILINEAR)
        inside = Image.fromarray((mask * 255).astype(np.uint8)).resize((64, 64), Image.Resampling.BILINEAR)
        values = np.asarray(plane, float)[np.asarray(inside) > 250]
        spread[attributes.texture].append(np.std(values) / np.mean(values))
    assert np.median(spread["plain"]) < 0.1
    assert np.quantile(spread["striped"], 0.03) > 0.1
    assert np.quantile(spread["dotted"], 0.03) > 0.1


def test_draw_follows_the_generator():
    first, again, other = (draw(STAR, np.random.default_rng(seed), side_px=64) for seed in (1, 1, 2))
    assert (first.mode, first.size) == ("RGB", (64, 64))
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_draw_refuses_a_side_too_small_to_see():
    with pytest.raises(ValueError, match="side_px must be at least 32; found 31"):
        draw(STAR, np.random.default_rng(0), side_px=31)


def test_jpeg_bytes_depend_on_pixels_and_quality_alone():
    image = draw(STAR, np.random.default_rng(0), side_px=64)
    assert encode_jpeg(image, 80) == encode_jpeg(image.copy(), 80)
    assert len(encode_jpeg(image, 70)) < len(encode_jpeg(image, 95))


@pytest.mark.parametrize("quality", [0, 96])
def test_jpeg_quality_out_of_range_is_refused(quality):
    with pytest.raises(ValueError, match=f"between 1 and 95; found {quality}"):
        encode_jpeg(Image.new("RGB", (8, 8)), quality)


def test_sample_is_lazy():
    assert len(list(islice(sample(0, "train", 10**9), 2))) == 2
