"""The size of packed images: no larger than the encoders of the run need, and of such an aspect that they see the same crop.

An encoder resizes the shorter side and crops a square from the middle, so the limit holds for the shorter side: a panorama
of 10,000 x 400 pixels whose longer side were reduced to 512 would have 20 rows left.
"""

from collections.abc import Iterable, Mapping
from math import ceil, isqrt

_ROOM = (
    2  # packed side over the encoder's: the crop of a photo then differs by half a grey level (benchmarks/README.md)
)
_STEP_PX = 256  # so that encoders of 224 to 256 px, or of 378 and 384, need the same packed images
_LEAST_PX = 512
_MAX_SQUARES = 25  # pixels of a packed image over the square of the limit
_LEAST_SHARE = 7 / 8  # of the limit, in the search for an aspect


def derived_max_side_px(resize_px: Iterable[int]) -> int:
    """The limit of the shorter side for encoders that resize images to `resize_px`: twice the largest, in steps of 256.

    >>> derived_max_side_px([224, 232]), derived_max_side_px([224, 384]), derived_max_side_px([518])
    (512, 768, 1280)
    """
    needed_px = _ROOM * max(resize_px, default=0)
    return max(_LEAST_PX, _STEP_PX * ceil(needed_px / _STEP_PX))


def starved_encoders(max_side_px: int, resize_px: Mapping[str, int]) -> list[str]:
    """A line for each encoder that would have to enlarge reduced images.  resize_px : encoder -> its shorter side."""
    return [
        f"dataset.max_side_px = {max_side_px} is less than the {side} px to which {name} resizes images: "
        "its results are not those of the original images; null derives the limit from the encoders"
        for name, side in resize_px.items()
        if max_side_px < side
    ]


def packed_size(width: int, height: int, max_side_px: int) -> tuple[int, int]:
    """The width and height of an image as packed: the same when it is within the limits.

    The limits: max_side_px for the shorter side, and 25 max_side_px^2 pixels, which is less only where the longer side is
    more than 25 times the shorter.  Up to 64 times, above which encoders crop the middle, the shorter side is at least 5/8
    of the limit.

    Encoders round the longer side of the resized image down (`int(resize_px * long / short)` in torchvision), so a packed
    image of a slightly smaller aspect would shift their crop by a pixel.  Of the sizes from 7/8 of the limit up to it, the
    aspect nearest to the image's from above is taken; that of most photos (4:3, 3:2, 16:9) is met exactly.
    """
    short, long = sorted((width, height))
    limit = max(1, min(max_side_px, isqrt(_MAX_SQUARES * max_side_px**2 * short // long)))
    if short <= limit:
        return width, height
    # ceil(long * side / short) / side exceeds long / short by (-long * side % short) / (short * side)
    sides = range(ceil(_LEAST_SHARE * limit), limit + 1)
    side = min(sides, key=lambda side: (-long * side % short / side, -side))
    other = -(-long * side // short)
    return (side, other) if width <= height else (other, side)
