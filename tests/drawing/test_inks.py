"""Occlusion and distractors leave the main object recognizable."""

import numpy as np
import pytest

from cbir.drawing.attributes import SHAPES, SIZE_SCALE, SIZES
from cbir.drawing.inks import DISTRACTOR_SCALE, occlude
from cbir.drawing.outlines import coverage, pose


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", SIZES)
def test_occlusion_hides_at_most_a_fifth(shape, size):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        outline = pose(shape, SIZE_SCALE[size], rng, side_px=96)
        mask = coverage(outline, 96)
        canvas = np.full((3, 96, 96), -1000, np.float32)
        occlude(canvas, mask, outline, "white", rng)
        hidden = (canvas[0] + 1000) / (canvas[0].max() + 1000)
        assert 0.01 < (hidden * mask).sum() / mask.sum() < 0.2


def test_distractors_are_much_smaller_than_a_small_object():
    assert DISTRACTOR_SCALE[1] < SIZE_SCALE["small"][0] / 2
