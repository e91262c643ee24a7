"""Draw the images of shapes, the embedded data set: small labelled and captioned drawings from a seed.

A drawing is one main object (a shape with a colour, texture and size) on a named background, at a random position and
angle, with the variations of photographs: light, noise, small distractors, partial occlusion, blur, JPEG compression.
The same seed gives the same bytes as long as the versions of numpy and Pillow (libjpeg) are the same.
"""

import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from PIL import Image, ImageFilter

from cbir.drawing.attributes import BACKGROUNDS, COLOURS, SHAPES, SIZE_SCALE, SIZES, TEXTURES, Attributes
from cbir.drawing.inks import add_distractors, background_canvas, object_ink, occlude, paint
from cbir.drawing.outlines import Plane, coverage, pose

_LEAST_SIDE_PX = 32  # on smaller images, the texture of a small object cannot be seen


@dataclass(frozen=True)
class Drawing:
    """One drawing of a split: its number and name there, its attributes and JPEG bytes; sizes in pixels."""

    number: int
    name: str
    attributes: Attributes
    jpeg: bytes
    width: int
    height: int


def sample(
    seed: int,
    split: str,
    n: int,
    side_range_px: tuple[int, int] = (96, 128),
    *,
    first: int = 0,
    allowed: Callable[[Attributes], bool] | None = None,
) -> Iterator[Drawing]:
    """Yield the drawings `first` to `first + n - 1` of a split; they are square, with sides uniform in side_range_px.

    The labels take turns, so that any 80 consecutive drawings have different labels; the other attributes are random.
    Drawing i depends only on seed, split, i, side_range_px and allowed, not on n, first or the drawings before it, so
    disjoint ranges can be drawn in parallel.  Splits share no random stream.
    allowed : returns whether a combination of attributes may be drawn; labels without an allowed one are skipped.
    Raises ValueError, at the call, if seed, n or first is negative, a side is below 32 pixels, or nothing is allowed.
    """
    least_px, most_px = side_range_px
    if min(seed, n, first) < 0:
        raise ValueError(f"seed, n and first must not be negative; found {seed}, {n} and {first}")
    if not _LEAST_SIDE_PX <= least_px <= most_px:
        raise ValueError(f"side_range_px must be (least, most), both at least {_LEAST_SIDE_PX}; found {side_range_px}")
    turns = _turns(allowed)

    def drawings() -> Iterator[Drawing]:
        for number in range(first, first + n):
            rng = np.random.default_rng([seed, zlib.crc32(split.encode()), number])
            choices = turns[number % len(turns)]
            attributes = choices[rng.integers(len(choices))]
            side_px = int(rng.integers(least_px, most_px, endpoint=True))
            jpeg = encode_jpeg(draw(attributes, rng, side_px), quality=int(rng.integers(70, 95, endpoint=True)))
            yield Drawing(number, f"{split}-{number:06d}", attributes, jpeg, side_px, side_px)

    return drawings()


def draw(attributes: Attributes, rng: np.random.Generator, side_px: int) -> Image.Image:
    """Return an RGB image, side_px x side_px, of the object that `attributes` describe; `rng` decides everything else.

    Raises ValueError unless side_px >= 32.
    """
    return draw_with_mask(attributes, rng, side_px)[0]


def draw_with_mask(attributes: Attributes, rng: np.random.Generator, side_px: int) -> tuple[Image.Image, Plane]:
    """Return the image of `draw`, and the share of each pixel that the main object covers before occlusion, in [0, 1]."""
    if side_px < _LEAST_SIDE_PX:
        raise ValueError(f"side_px must be at least {_LEAST_SIDE_PX}; found {side_px}")
    canvas = background_canvas(attributes.background, rng, side_px)
    outline = pose(attributes.shape, SIZE_SCALE[attributes.size], rng, side_px)
    mask = coverage(outline, side_px)
    add_distractors(canvas, attributes, outline, rng)
    shadow = coverage(outline + rng.uniform(-0.025, 0.025, 2) * side_px, side_px, oversampling=1)
    canvas *= 1 - rng.uniform(0.1, 0.35) * shadow
    paint(canvas, mask, object_ink(attributes, mask, rng))
    if rng.random() < 0.3:
        occlude(canvas, mask, outline, attributes.background, rng)
    canvas *= rng.uniform(0.94, 1.06)
    canvas += rng.uniform(1, 6) * rng.standard_normal((side_px, side_px), np.float32)
    image = Image.fromarray(canvas.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.003, 0.008) * side_px))
    return image, mask


def encode_jpeg(image: Image.Image, quality: int) -> bytes:
    """Encode the image as JPEG without metadata: the same pixels and quality give the same bytes.

    Raises ValueError unless 1 <= quality <= 95 (above 95 files grow without better images, says Pillow's documentation).
    """
    if not 1 <= quality <= 95:
        raise ValueError(f"quality must be between 1 and 95; found {quality}")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _turns(allowed: Callable[[Attributes], bool] | None) -> list[list[Attributes]]:
    """The allowed attributes of each label, the labels in an order that varies colour and shape.

    Any 10 consecutive labels have 10 shapes and 8 colours, so a small sample shows the whole range.
    """
    labels = [(SHAPES[i % len(SHAPES)], COLOURS[(i + i // len(SHAPES)) % len(COLOURS)])
              for i in range(len(SHAPES) * len(COLOURS))]  # fmt: skip
    by_label = [[Attributes(*label, *rest) for rest in product(TEXTURES, SIZES, BACKGROUNDS)] for label in labels]
    turns = [kept for choices in by_label if (kept := [a for a in choices if allowed is None or allowed(a)])]
    if not turns:
        raise ValueError(f"allowed refuses all {sum(map(len, by_label))} combinations of attributes: nothing to draw")
    return turns
