"""Outlines are inside the image, and have the area that their size says."""

import numpy as np
import pytest

from cbir.drawing.attributes import SHAPES, SIZE_SCALE
from cbir.drawing.outlines import coverage, pose


@pytest.mark.parametrize("shape", SHAPES)
def test_the_largest_object_is_inside_at_any_angle(shape):
    largest = SIZE_SCALE["large"][1]
    for seed in range(200):
        outline = pose(shape, (largest, largest), np.random.default_rng(seed), side_px=100)
        assert outline.min() >= 0
        assert outline.max() <= 100


@pytest.mark.parametrize("shape", SHAPES)
def test_size_means_the_same_area_for_each_shape(shape):
    outline = pose(shape, (0.4, 0.4), np.random.default_rng(0), side_px=200)
    assert coverage(outline, 200).mean() == pytest.approx(0.16, rel=0.04)
