"""The drawing code of shapes, the embedded data set: small labelled and captioned photographs of nothing, from a seed.

One drawing is one main object (a shape with a colour, texture and size) on a background with a name, at a random place
and angle, among what makes photographs differ: light, noise, small distractors, partial occlusion, blur, JPEG.
The same seed gives the same bytes wherever numpy's and Pillow's (libjpeg's) versions are the same.
"""

import io
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Array = npt.NDArray[np.floating[Any]]  # an image, (3, side_px, side_px) in [0, 255], or one plane of it
Points = npt.NDArray[np.float64]  # a closed outline: (n, 2), x and y

_RGB = {  # hues that stay apart under _jitter, and saturated where every background is not
    "red": (218, 30, 36),
    "orange": (250, 125, 10),
    "yellow": (246, 216, 25),
    "green": (35, 160, 60),
    "cyan": (45, 205, 220),
    "blue": (35, 75, 215),
    "purple": (125, 45, 170),
    "pink": (250, 130, 195),
}
_BACKGROUND_RGB = {"white": (244, 244, 244), "grey": (132, 132, 132), "black": (26, 26, 26), "beige": (212, 184, 138)}
_SCALE = {"small": (0.23, 0.27), "large": (0.40, 0.47)}  # square root of the object's area, in sides of the image
_DISTRACTOR_SCALE = (0.08, 0.11)
_LEAST_SIDE_PX = 32  # below it, a small object's texture cannot be seen

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "crescent", "arrow", "bolt")
COLOURS = tuple(_RGB)
TEXTURES = ("plain", "striped", "dotted")
SIZES = tuple(_SCALE)
BACKGROUNDS = tuple(_BACKGROUND_RGB)
_VALID = {"shape": SHAPES, "colour": COLOURS, "texture": TEXTURES, "size": SIZES, "background": BACKGROUNDS}


@dataclass(frozen=True)
class Attributes:
    """What a drawing shows, in words.

    Raises ValueError for a word that is not in SHAPES, COLOURS, TEXTURES, SIZES or BACKGROUNDS.

    >>> star = Attributes("star", "red", "striped", "large", "grey")
    >>> star.label, star.caption
    ('red star', 'a large striped red star on a grey background')
    """

    shape: str
    colour: str
    texture: str
    size: str
    background: str

    def __post_init__(self) -> None:
        for field in fields(self):
            value, valid = getattr(self, field.name), _VALID[field.name]
            if value not in valid:
                raise ValueError(f"{field.name} must be one of {', '.join(valid)}; found {value!r}")

    @property
    def label(self) -> str:
        """Colour and shape: two drawings with the same label are relevant to each other."""
        return f"{self.colour} {self.shape}"

    @property
    def caption(self) -> str:
        """All five attributes in one sentence."""
        return f"a {self.size} {self.texture} {self.label} on a {self.background} background"


@dataclass(frozen=True)
class Drawing:
    """One image of a sample: its number and name in the split, what it shows, and its JPEG bytes; sizes in pixels."""

    index: int
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
    """Drawings `first` to `first + n - 1` of a split: square, their sides uniform in side_range_px, both ends included.

    The labels take turns, so that any 80 in a row are all different; the other attributes are drawn at random.
    Drawing i depends on seed, split, i, side_range_px and allowed alone, never on n, first or the drawings before it:
    disjoint ranges may be drawn in parallel.  Splits share no random stream.
    `allowed` holds combinations out: only attributes for which it is true are drawn, and a label without any
    loses its turn.
    Raises ValueError if seed, n or first is negative, a side is below 32 pixels, or nothing is allowed.
    """
    least_px, most_px = side_range_px
    if min(seed, n, first) < 0:
        raise ValueError(f"seed, n and first must not be negative; found {seed}, {n} and {first}")
    if not _LEAST_SIDE_PX <= least_px <= most_px:
        raise ValueError(f"side_range_px must be (least, most), both at least {_LEAST_SIDE_PX}; found {side_range_px}")
    turns = _turns(allowed)

    def drawings() -> Iterator[Drawing]:
        for index in range(first, first + n):
            rng = np.random.default_rng([seed, zlib.crc32(split.encode()), index])
            choices = turns[index % len(turns)]
            attributes = choices[rng.integers(len(choices))]
            side_px = int(rng.integers(least_px, most_px, endpoint=True))
            jpeg = encode_jpeg(draw(attributes, rng, side_px), quality=int(rng.integers(70, 95, endpoint=True)))
            yield Drawing(index, f"{split}-{index:06d}", attributes, jpeg, side_px, side_px)

    return drawings()


def draw(attributes: Attributes, rng: np.random.Generator, side_px: int) -> Image.Image:
    """One RGB image, side_px x side_px, of the object that `attributes` describes; all else is up to `rng`.

    Raises ValueError unless side_px >= 32.
    """
    return _draw_with_mask(attributes, rng, side_px)[0]


def encode_jpeg(image: Image.Image, quality: int) -> bytes:
    """The image as JPEG bytes, without metadata: the same pixels and quality give the same bytes.

    Raises ValueError unless 1 <= quality <= 95 (Pillow's advice: above 95 the file grows and the image does not).
    """
    if not 1 <= quality <= 95:
        raise ValueError(f"quality must be between 1 and 95; found {quality}")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _turns(allowed: Callable[[Attributes], bool] | None) -> list[list[Attributes]]:
    """The allowed attributes of each label, the labels in an order that mixes both of its words.

    Any 10 labels in a row have 10 shapes and 8 colours: a small sample shows the whole range.
    """
    labels = [(SHAPES[i % len(SHAPES)], COLOURS[(i + i // len(SHAPES)) % len(COLOURS)])
              for i in range(len(SHAPES) * len(COLOURS))]  # fmt: skip
    every = [[Attributes(*label, *rest) for rest in product(TEXTURES, SIZES, BACKGROUNDS)] for label in labels]
    turns = [kept for choices in every if (kept := [a for a in choices if allowed is None or allowed(a)])]
    if not turns:
        raise ValueError(f"allowed refuses all {sum(map(len, every))} combinations of attributes: nothing to draw")
    return turns


def _draw_with_mask(attributes: Attributes, rng: np.random.Generator, side_px: int) -> tuple[Image.Image, Array]:
    """The image, and the share of each pixel that the main object takes, in [0, 1], as if nothing occluded it."""
    if side_px < _LEAST_SIDE_PX:
        raise ValueError(f"side_px must be at least {_LEAST_SIDE_PX}; found {side_px}")
    canvas = _background(attributes.background, rng, side_px)
    outline = _pose(attributes.shape, _SCALE[attributes.size], rng, side_px)
    mask = _mask(outline, side_px)
    _add_distractors(canvas, attributes, outline, rng)
    shadow = _mask(outline + rng.uniform(-0.025, 0.025, 2) * side_px, side_px, oversampling=1)
    canvas *= 1 - rng.uniform(0.1, 0.35) * shadow
    _paint(canvas, mask, _ink(attributes, mask, rng))
    if rng.random() < 0.3:
        _occlude(canvas, mask, outline, attributes.background, rng)
    canvas *= rng.uniform(0.94, 1.06)
    canvas += rng.uniform(1, 6) * rng.standard_normal((side_px, side_px), np.float32)
    image = Image.fromarray(canvas.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.003, 0.008) * side_px))
    return image, mask


# --- outlines -------------------------------------------------------------------------------------------------------


def _polar(*radii: float) -> Points:
    """Points at equal angles around the origin, at these distances."""
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)


def _ring() -> Points:
    """Around the rim and back around the hole; the cut between them has no width."""
    rim = _polar(*[1.0] * 48)
    rim = np.concatenate([rim, rim[:1]])
    return np.concatenate([rim, 0.5 * rim[::-1]])


def _crescent() -> Points:
    """The unit disc less a disc of radius 0.85 at (0.5, 0): around the one and back along the other."""
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
    """The shape's outline with area 1, so that a size means an area whatever the shape."""
    points = _OUTLINES[shape]()
    x, y = points.T
    area = abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2
    return points / math.sqrt(area)


def _pose(shape: str, scale_range: tuple[float, float], rng: np.random.Generator, side_px: int) -> Points:
    """The outline in pixels: turned, slightly stretched, scaled and set somewhere inside the image."""
    angle, stretch = rng.uniform(0, 2 * np.pi), rng.uniform(0.94, 1.06)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = rng.uniform(*scale_range) * side_px * np.array([(cos, sin), (-sin, cos)])
    points: Points = _outline(shape) * np.array([stretch, 1 / stretch]) @ turn
    margin_px = 0.02 * side_px
    shift: Points = rng.uniform(margin_px - points.min(0), side_px - margin_px - points.max(0))
    return points + shift


def _mask(outline: Points, side_px: int, oversampling: int = 3) -> Array:
    """The share of each pixel within the outline, in [0, 1]."""
    fine = Image.new("L", (side_px * oversampling, side_px * oversampling))
    ImageDraw.Draw(fine).polygon([*map(tuple, (outline * oversampling).tolist())], fill=255)
    return np.asarray(fine.reduce(oversampling), np.float32) / 255


# --- inks and light -------------------------------------------------------------------------------------------------


def _paint(canvas: Array, mask: Array, ink: Array) -> None:
    """Lay the ink, one colour or an image, over the canvas where the mask is."""
    canvas += mask * (ink - canvas)


def _jitter(rgb: tuple[int, int, int], rng: np.random.Generator) -> Array:
    """The colour, (3, 1, 1), a little lighter or darker and with a slight cast."""
    return (np.array(rgb) * rng.uniform(0.92, 1.06) + rng.normal(0, 3, 3)).astype(np.float32)[:, None, None]


def _ramp(rng: np.random.Generator, side_px: int) -> Array:
    """Distance in pixels along a random direction, 0 at the image's centre."""
    angle = rng.uniform(0, 2 * np.pi)
    along = np.arange(side_px, dtype=np.float32) - (side_px - 1) / 2
    return math.cos(angle) * along + math.sin(angle) * along[:, None]


def _stripes(ramp: Array, period_px: float, width: float, rng: np.random.Generator) -> Array:
    """1 on stripes across the ramp, 0 between them, with soft edges; `width` is the stripes' share of the period."""
    phase = (ramp / period_px + rng.random()) % 1
    return ((width / 2 - abs(phase - 0.5)) * period_px + 0.5).clip(0, 1)


def _dots(period_px: float, rng: np.random.Generator, side_px: int) -> Array:
    """1 on dots of a turned square lattice, 0 between them, with soft edges."""
    u = _ramp(rng, side_px) / period_px
    v = np.rot90(u)  # a ramp turned by 90 degrees is the lattice's other direction
    distance: Array = np.hypot((u + rng.random()) % 1 - 0.5, (v + rng.random()) % 1 - 0.5)
    return ((0.33 - distance) * period_px + 0.5).clip(0, 1)


def _ink(attributes: Attributes, mask: Array, rng: np.random.Generator) -> Array:
    """The main object's colour at every pixel: its texture in a darker shade of the same hue, lit from one side.

    The rim stays plain, so that the texture never eats the shape, not even on black.
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
    return light * _jitter(_RGB[attributes.colour], rng)


def _background(name: str, rng: np.random.Generator, side_px: int) -> Array:
    """A canvas of the named colour, uneven: a gradient, soft clouds and, in half of the images, soft lines."""
    cells = int(rng.integers(3, 8))
    clouds = Image.fromarray(rng.standard_normal((cells, cells), np.float32))
    uneven = rng.uniform(2, 8) * np.asarray(clouds.resize((side_px, side_px), Image.Resampling.BICUBIC))
    uneven += rng.uniform(0, 36) * _ramp(rng, side_px) / side_px
    if rng.random() < 0.5:
        period_px, width = rng.uniform(0.12, 0.4) * side_px, rng.uniform(0.08, 0.5)
        uneven += rng.uniform(-14, 14) * _stripes(_ramp(rng, side_px), period_px, width, rng)
    return _jitter(_BACKGROUND_RGB[name], rng) + uneven


def _add_distractors(canvas: Array, attributes: Attributes, outline: Points, rng: np.random.Generator) -> None:
    """Paint 0 to 3 much smaller, muted objects of other shapes and colours where the main object is not."""
    side_px = canvas.shape[-1]
    centre = (outline.min(0) + outline.max(0)) / 2
    radius_px = np.linalg.norm(outline - centre, axis=1).max()
    for _ in range(rng.integers(4)):
        shape = rng.choice([s for s in SHAPES if s != attributes.shape])
        colour = rng.choice([c for c in COLOURS if c != attributes.colour])
        small = _pose(shape, _DISTRACTOR_SCALE, rng, side_px)
        if np.linalg.norm(small - centre, axis=1).min() > radius_px:
            ink = 0.55 * _jitter(_RGB[colour], rng) + 0.45 * _jitter(_BACKGROUND_RGB[attributes.background], rng)
            _paint(canvas, _mask(small, side_px), ink)


def _occlude(canvas: Array, mask: Array, outline: Points, background: str, rng: np.random.Generator) -> None:
    """Hide 4 to 12 % of the object behind a strip or, at its rim, a round blob in a shade of the background."""
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
    shade = _jitter(_BACKGROUND_RGB[background], rng)
    _paint(canvas, cover, shade + (30 if shade.mean() < 100 else -30))
