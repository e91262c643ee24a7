"""What an encoder costs: the speed of embedding, and the sizes of its vectors, index and weights."""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from cbir.artifacts.comparison import EncoderCost
from cbir.core.errors import REPAIR, DataError

MIN_TIMED_IMAGES: Final = 100  # the speed of fewer is that of starting


def encoder_cost(
    index_passport: Mapping[str, Any], build: Mapping[str, Any], timing: Mapping[str, Any], weights: Path
) -> EncoderCost:
    """Return the cost of an encoder.

    index_passport, build : passport.json and build.json of its index.  weights : the folder of its weights; it need not exist.
    timing : the figures of its stage embed, {} if there are none; for a speed they have "images", "images_from_cache" and
    "images_s", the seconds for all images (see `images_per_s`).
    Raises DataError when a file of weights is damaged.
    """
    vectors, machine = index_passport["vectors"], timing.get("machine")
    sizes = [_size(path) for path in sorted(weights.glob("*.safetensors"))]
    return EncoderCost(
        dim=vectors["dim"],
        index_bytes=build["index_bytes"],
        bytes_per_vector=build["bytes_per_vector"],
        weights_bytes=sum(n_bytes for n_bytes, _ in sizes) if sizes else None,
        parameters=sum(parameters for _, parameters in sizes) if sizes else None,
        images_per_s=images_per_s(
            timing.get("images", 0), timing.get("images_from_cache", 0), timing.get("images_s", 0.0)
        ),
        machine=None
        if machine is None or vectors["device"] is None  # made elsewhere
        else f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, {vectors['device']}",
    )


def images_per_s(images: int, images_from_cache: int, seconds: float) -> float | None:
    """Return the images embedded in a second; None when fewer than MIN_TIMED_IMAGES did not come from the cache.

    >>> images_per_s(4800, 4000, 4.0)
    200.0
    """
    embedded = images - images_from_cache
    return embedded / seconds if embedded >= MIN_TIMED_IMAGES and seconds > 0 else None


def _size(path: Path) -> tuple[int, int]:
    """The bytes of a file of weights, and its number of floating-point values: parameters, and statistics of batch norm."""
    try:
        with safe_open(path, framework="np") as file:
            tensors = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118 - it is no mapping
            values = sum(prod(tensor.get_shape()) for tensor in tensors if "F" in tensor.get_dtype())
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is not readable as safetensors ({error}): {REPAIR}") from error
    return path.stat().st_size, values
