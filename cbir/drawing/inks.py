"""Colour, texture and light: what is painted onto the canvas of a drawing."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from cbir.drawing.attributes import BACKGROUND_RGB, COLOUR_RGB, COLOURS, SHAPES, Attributes
from cbir.drawing.outlines import Plane, Points, coverage, pose

Canvas = npt.NDArray[np.floating[Any]]  # (3, side_px, side_px) in [0, 255]; a colour, (3, 1, 1), broadcasts to one
DISTRACTOR_SCALE = (0.08, 0.11)  # in the units of SIZE_SCALE


def background_canvas(name: str, rng: np.random.Generator, side_px: int) -> Canvas:
    """Return a canvas of the named colour with a gradient, soft clouds and, in half of the images, soft lines."""
    cells = int(rng.integers(3, 8))
    clouds = Image.fromarray(rng.standard_normal((cells, cells), np.float32))
    uneven = rng.uniform(2, 8) * np.asarray(clouds.resize((side_px, side_px), Image.Resampling.BICUBIC))
    uneven += rng.uniform(0, 36) * _ramp(rng, side_px) / side_px
    if rng.random() < 0.5:
        period_px, width = rng.uniform(0.12, 0.4) * side_px, rng.uniform(0.08, 0.5)
        uneven += rng.uniform(-14, 14) * _stripes(_ramp(rng, side_px), period_px, width, rng)
    return _jitter(BACKGROUND_RGB[name], rng) + uneven


def object_ink(attributes: Attributes, mask: Plane, rng: np.random.Generator) -> Canvas:
    """Return the colour of the main object at each pixel: lit from one side, its texture in a darker shade of its hue.

    The rim has no texture, so that the shape can be seen even on black.
    """
    side_px = len(mask)
    light = 1 + rng.uniform(0, 0.25) * _ramp(rng, side_px) / side_px
    if attributes.texture != "plain":
        period_px = rng.uniform(*((0.065, 0.085) if attributes.size == "small" else (0.075, 0.12))) * side_px
        if attributes.texture == "striped":
            pattern = _stripes(_ramp(rng, side_px), period_px, 0.45, rng)
        else:
            pattern = _dots(period_px, rng, side_px)
        within = Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.MinFilter(3))
        light *= 1 - 0.55 * pattern * np.asarray(within, np.float32) / 255
    return light * _jitter(COLOUR_RGB[attributes.colour], rng)


def paint(canvas: Canvas, mask: Plane, ink: Canvas) -> None:
    """Blend the ink, a colour or an image, into the canvas by the mask, in [0, 1]."""
    canvas += mask * (ink - canvas)


def add_distractors(canvas: Canvas, attributes: Attributes, outline: Points, rng: np.random.Generator) -> None:
    """Paint up to 3 much smaller, muted objects of other shapes and colours beside the main object."""
    side_px = canvas.shape[-1]
    centre = (outline.min(0) + outline.max(0)) / 2
    radius_px = np.linalg.norm(outline - centre, axis=1).max()
    for _ in range(rng.integers(4)):
        shape = rng.choice([s for s in SHAPES if s != attributes.shape])
        colour = rng.choice([c for c in COLOURS if c != attributes.colour])
        small = pose(shape, DISTRACTOR_SCALE, rng, side_px)
        if np.linalg.norm(small - centre, axis=1).min() > radius_px:
            ink = 0.55 * _jitter(COLOUR_RGB[colour], rng) + 0.45 * _jitter(BACKGROUND_RGB[attributes.background], rng)
            paint(canvas, coverage(small, side_px), ink)


def occlude(canvas: Canvas, mask: Plane, outline: Points, background: str, rng: np.random.Generator) -> None:
    """Hide 4 to 12 % of the object behind a strip, or behind a round blob at its rim, in a shade of the background."""
    side_px = canvas.shape[-1]
    share = rng.uniform(0.04, 0.12)
    if rng.random() < 0.5:
        field, start = _ramp(rng, side_px), rng.uniform(0.1, 0.9 - share)
    else:
        y, x = np.indices(mask.shape)
        corner, along = rng.integers(len(outline)), rng.random()
        at_x, at_y = along * outline[corner] + (1 - along) * outline[corner - 1]
        field, start = np.hypot(x - at_x, y - at_y), 0.0
    low, high = np.quantile(field[mask > 0.5], [start, start + share])
    cover = (high - field + 0.5).clip(0, 1)
    if start > 0:  # a strip has two sides, a blob has one
        cover *= (field - low + 0.5).clip(0, 1)
    shade = _jitter(BACKGROUND_RGB[background], rng)
    paint(canvas, cover, shade + (30 if shade.mean() < 100 else -30))


def _jitter(rgb: tuple[int, int, int], rng: np.random.Generator) -> Canvas:
    """The colour, (3, 1, 1), a little lighter or darker and with a slight cast."""
    return (np.array(rgb) * rng.uniform(0.92, 1.06) + rng.normal(0, 3, 3)).astype(np.float32)[:, None, None]


def _ramp(rng: np.random.Generator, side_px: int) -> Plane:
    """Distance in pixels along a random direction, 0 at the centre of the image."""
    angle = rng.uniform(0, 2 * np.pi)
    along = np.arange(side_px, dtype=np.float32) - (side_px - 1) / 2
    return math.cos(angle) * along + math.sin(angle) * along[:, None]


def _stripes(ramp: Plane, period_px: float, width: float, rng: np.random.Generator) -> Plane:
    """1 on stripes across the ramp, 0 between them, with soft edges.  width : of a stripe, as a share of the period."""
    phase = (ramp / period_px + rng.random()) % 1
    return ((width / 2 - abs(phase - 0.5)) * period_px + 0.5).clip(0, 1)


def _dots(period_px: float, rng: np.random.Generator, side_px: int) -> Plane:
    """1 on the dots of a rotated square lattice, 0 between them, with soft edges."""
    u = _ramp(rng, side_px) / period_px
    v = np.rot90(u)  # the other direction of the lattice
    distance: Plane = np.hypot((u + rng.random()) % 1 - 0.5, (v + rng.random()) % 1 - 0.5)
    return ((0.33 - distance) * period_px + 0.5).clip(0, 1)
