"""The outlines of the shapes: closed polygons, placed in an image at a random position and angle."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Points = npt.NDArray[np.float64]  # a closed outline: (n, 2), x and y
Plane = npt.NDArray[np.floating[Any]]  # one value per pixel, (side_px, side_px)


def pose(shape: str, scale_range: tuple[float, float], rng: np.random.Generator, side_px: int) -> Points:
    """Return a shape's outline in pixels: rotated, slightly stretched, scaled and placed at random inside the image.

    scale_range : of the square root of the area, as a share of the side.
    """
    angle, stretch = rng.uniform(0, 2 * np.pi), rng.uniform(0.94, 1.06)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = rng.uniform(*scale_range) * side_px * np.array([(cos, sin), (-sin, cos)])
    points: Points = _outline(shape) * np.array([stretch, 1 / stretch]) @ turn
    margin_px = 0.02 * side_px
    shift: Points = rng.uniform(margin_px - points.min(0), side_px - margin_px - points.max(0))
    return points + shift


def coverage(outline: Points, side_px: int, oversampling: int = 3) -> Plane:
    """Return the share of each pixel that is inside the outline, (side_px, side_px) in [0, 1]."""
    fine = Image.new("L", (side_px * oversampling, side_px * oversampling))
    ImageDraw.Draw(fine).polygon([*map(tuple, (outline * oversampling).tolist())], fill=255)
    return np.asarray(fine.reduce(oversampling), np.float32) / 255


def _polar(*radii: float) -> Points:
    """Points at equal angles around the origin, at these distances."""
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)


def _ring() -> Points:
    """Once around the rim and back around the hole; the seam between them has no width."""
    rim = _polar(*[1.0] * 48)
    rim = np.concatenate([rim, rim[:1]])
    return np.concatenate([rim, 0.5 * rim[::-1]])


def _crescent() -> Points:
    """The unit disc without a disc of radius 0.85 at (0.5, 0): along the first circle and back along the second."""
    radius, x = 0.85, 0.5
    meet = (1 - radius**2 + x**2) / (2 * x)  # where the two circles cross
    height = np.sqrt(1 - meet**2)
    far, near = np.arctan2(height, meet), np.arctan2(height, meet - x)
    outer, inner = np.linspace(far, 2 * np.pi - far, 40), np.linspace(2 * np.pi - near, near, 30)
    return np.concatenate(
        [
            np.stack([np.cos(outer), np.sin(outer)], 1),
            np.stack([x + radius * np.cos(inner), radius * np.sin(inner)], 1),
        ]
    )


def _heart() -> Points:
    """The usual heart curve (Wolfram MathWorld, "Heart Curve", the sixth)."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([16 * np.sin(t) ** 3, 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)], 1)


_OUTLINES: dict[str, Callable[[], Points]] = {
    "circle": lambda: _polar(*[1] * 48),
    "square": lambda: _polar(*[1] * 4),
    "triangle": lambda: _polar(*[1] * 3),
    "star": lambda: _polar(*[1, 0.46] * 5),
    "heart": _heart,
    "cross": lambda: np.array([(-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1),
                               (1, 3), (-1, 3), (-1, 1), (-3, 1), (-3, -1), (-1, -1)], float),
    "ring": _ring,
    "crescent": _crescent,
    "arrow": lambda: np.array([(-5, -1.6), (0.5, -1.6), (0.5, -4.2), (5, 0), (0.5, 4.2), (0.5, 1.6), (-5, 1.6)], float),
    "bolt": lambda: np.array([(-1.2, 5), (2.8, 5), (1.9, 1.4), (4.2, 1.4),
                              (-1.6, -6), (-0.9, -1.6), (-3.4, -1.6)], float),
}  # fmt: skip


@cache
def _outline(shape: str) -> Points:
    """The shape's outline with area 1, so that a size means the same area for all shapes."""
    points = _OUTLINES[shape]()
    x, y = points.T
    area = abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2
    return points / math.sqrt(area)
