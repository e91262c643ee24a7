"""Packed images of random bytes."""

import random
from collections.abc import Iterator
from hashlib import sha256

from cbir.artifacts.images import PackedImage


def packed_images(count: int, size: int = 10) -> Iterator[PackedImage]:
    """Yield images of `size` random bytes, the same in each call."""
    for number in range(count):
        body = random.Random(number).randbytes(size)
        yield PackedImage(
            f"{number:05d}",
            "cats",
            None,
            f"n° {number}",
            f"cats/{number}.jpg",
            sha256(body).hexdigest(),
            3,
            4,
            bytes(256),
            body,
        )
