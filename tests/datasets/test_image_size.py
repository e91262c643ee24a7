"""packed_size and derived_max_side_px: a packed image gives an encoder the pixels that the original would."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cbir.datasets.decoding import encode_for_packing
from cbir.datasets.image_size import derived_max_side_px, packed_size, starved_encoders
from cbir.encoders.preprocessing import Preprocessing
from tests.datasets.test_decoding import opened, saved

SIDES = st.integers(1, 12_000)
LIMITS = st.sampled_from([512, 768, 1024, 1280])


def resized_long_px(width, height, resize_px):
    """The longer side after torchvision's resize of the shorter side (`torchvision.transforms.functional.resize`)."""
    return int(resize_px * max(width, height) / min(width, height))


@given(width=SIDES, height=SIDES, limit=LIMITS)
@example(width=10_000, height=400, limit=512)  # a panorama: 20 rows would be left if the longer side became 512
def test_shorter_side_and_pixels_are_within_the_limits(width, height, limit):
    packed = packed_size(width, height, limit)
    short, long = sorted(packed)
    assert short <= limit
    assert short * long <= 25 * limit**2 + short  # the longer side is rounded up
    assert (packed[0] <= packed[1]) == (width <= height)
    if min(width, height) <= limit and width * height <= 25 * limit**2:
        assert packed == (width, height)
    else:
        assert short < min(width, height)


@given(width=SIDES, height=SIDES, limit=LIMITS)
def test_an_encoder_of_half_the_limit_never_enlarges(width, height, limit):
    if max(width, height) <= 64 * min(width, height):  # else encoders crop the middle
        assert min(packed_size(width, height, limit)) >= min(width, height, limit // 2)


@given(short=st.integers(513, 4000), ratio=st.sampled_from([(1, 1), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1)]))
def test_the_aspect_of_photos_is_kept_exactly(short, ratio):
    width, height = (short // ratio[1] * side for side in ratio)
    packed = packed_size(width, height, 512)
    assert packed[0] * ratio[1] == packed[1] * ratio[0]


@given(width=st.integers(513, 6000), height=st.integers(513, 6000))
def test_a_packed_aspect_is_never_below_the_images(width, height):
    packed = packed_size(width, height, 512)
    assert max(packed) * min(width, height) >= min(packed) * max(width, height)


def test_resized_images_have_the_size_of_the_resized_originals():
    """Of 2,000 sizes 18 differ by a pixel; of those reduced to 512 in the usual way, 195 do."""
    rng, differ, usual = np.random.default_rng(0), 0, 0
    sizes = rng.integers(600, 5000, (2000, 2)).tolist()
    for width, height in sizes:
        expected, factor = resized_long_px(width, height, 232), 512 / min(width, height)
        differ += resized_long_px(*packed_size(width, height, 512), 232) != expected
        usual += resized_long_px(round(width * factor), round(height * factor), 232) != expected
    assert differ < 25 < 150 < usual


@pytest.mark.parametrize(("width", "height"), [(1280, 876), (1500, 1000), (1327, 900), (700, 1400)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_reduced_image_gives_the_encoder_the_same_input(width, height, kind):
    """A crop shifted by one pixel would change edges by more than 100 levels."""
    y, x = np.mgrid[0:height, 0:width]
    rings = 128 + 100 * np.sign(np.sin(np.hypot(x - width / 2, y - height / 3) / 20))
    data = saved(np.stack([rings, rings[::-1], rings[:, ::-1]], 2).astype(np.uint8), kind, quality=95)
    prepare = Preprocessing(232, 224, "shortest", "bicubic", (0.5,) * 3, (0.5,) * 3)
    encoded = encode_for_packing(data, 10**8, 512)
    assert encoded.change == "reduced"
    original, packed = (prepare.prepare(opened(body).convert("RGB")).astype(int) for body in (data, encoded.data))
    assert np.abs(original - packed).max() <= 25
    assert np.abs(original - packed).mean() < 1.5


@pytest.mark.parametrize(
    ("resize_px", "limit"),
    [([], 512), ([224], 512), ([232, 224], 512), ([256], 512), ([257], 768), ([384, 224], 768), ([518], 1280)],
)
def test_the_limit_is_twice_the_largest_encoder_in_steps(resize_px, limit):
    assert derived_max_side_px(resize_px) == limit


def test_an_encoder_larger_than_the_limit_is_named():
    lines = starved_encoders(300, {"small": 224, "equal": 300, "large": 301})
    assert len(lines) == 1
    assert lines[0].startswith("dataset.max_side_px = 300 is less than the 301 px to which large resizes images: ")
