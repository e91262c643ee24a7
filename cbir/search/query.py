"""A query: its parts, and the vector that they add up to."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cbir.artifacts.vectors import Vectors
from cbir.core.errors import ConfigError, DataError, UndecodableImage
from cbir.fetching.folders import read_file

# of the greatest length that the weighted sum can have; a shorter sum has no meaningful direction
_SMALLEST_SHARE = 1e-3

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")  # others, as CMYK, become RGB

Floats = npt.NDArray[np.float64]
ImageInput = str | Path | bytes | Image.Image | npt.NDArray[np.uint8]


@dataclass(frozen=True)
class QueryPart:
    """One part of a query: a text, the bytes of an image file, or the image_id of a gallery image.

    weight : the results move away from a part with a negative weight.  name : what messages call the image.
    """

    text: str | None = None
    image: bytes | None = None
    image_id: str | None = None
    weight: float = 1.0
    name: str = "the image"

    def __post_init__(self) -> None:
        for name, kind in (("text", str), ("image", bytes), ("image_id", str)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ConfigError(f"{name}: expected {kind.__name__}, found {type(value).__name__}")
        if isinstance(self.weight, bool) or not isinstance(self.weight, int | float | np.number):
            raise ConfigError(f"weight: expected a number, found {type(self.weight).__name__}")
        if [self.text, self.image, self.image_id].count(None) != 2:
            raise ConfigError("a part of a query: expected one of a text, an image and the id of a gallery image")
        if self.text is not None and not self.text.strip():
            raise ConfigError("expected words to search for, found an empty text")

    @property
    def kind(self) -> str:
        """What the part is: "text", "image", or "like" for a gallery image."""
        return "like" if self.image_id is not None else "image" if self.text is None else "text"


def relative_weights(parts: Sequence[QueryPart]) -> Floats:
    """The weights of the parts, (n,) float64, scaled so that the largest is 1 or -1.

    Raises ConfigError if there are no parts, a weight is not finite, or all weights are 0.
    """
    if not parts:
        raise ConfigError("expected a text, an image or the id of a gallery image to search for, found none")
    weights = np.array([part.weight for part in parts], np.float64)
    if not np.isfinite(weights).all() or not weights.any():
        raise ConfigError("weights: expected finite numbers, at least one of them not 0")
    scaled: Floats = weights / np.abs(weights).max()
    return scaled


def weighted_sum(rows: Vectors, weights: Floats) -> Vectors:
    """The weighted sum of unit vectors, scaled to unit length.

    rows : (n, dim) float32.  weights : (n,).  Returns (dim,) float32.
    Raises ConfigError if the rows cancel each other out.
    """
    total = weights @ rows.astype(np.float64)
    length = float(np.linalg.norm(total))
    if length < _SMALLEST_SHARE * np.abs(weights).sum():
        raise ConfigError("the parts of the query cancel each other out: change them or their weights")
    unit: Vectors = (total / length).astype(np.float32)
    return unit


def read_query_image(path: Path) -> bytes:
    """Read the bytes of an image file.  Raises DataError if the file cannot be read."""
    try:
        return read_file(path)
    except UndecodableImage as error:
        raise DataError(f"{path}: expected an image file, found: {error}") from error


def image_part(image: ImageInput, name: str = "the image") -> QueryPart:
    """The part of a query for an image.

    image : the path or the bytes of an image file, a PIL image, or its pixels: an array of uint8 and shape (height, width),
    (height, width, 3) or (height, width, 4).  name : what messages call an image that is no file.
    Raises ConfigError for anything else, DataError if the file cannot be read.
    """
    if isinstance(image, str | Path):
        return QueryPart(image=read_query_image(Path(image)), name=str(image))
    if isinstance(image, bytes):
        return QueryPart(image=image, name=name)
    if isinstance(image, np.ndarray):
        is_image = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))
        if image.dtype != np.uint8 or not is_image or not image.size:
            raise ConfigError(
                f"{name}: expected pixels of uint8 and shape (height, width), (height, width, 3) or (height, width, 4), "
                f"found {image.dtype} of shape {image.shape}"
            )
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise ConfigError(
            f"{name}: expected a path, the bytes of a file, a PIL image or an array, found {type(image).__name__}"
        )
    file = BytesIO()
    (image if image.mode in _PNG_MODES else image.convert("RGB")).save(file, "PNG")
    return QueryPart(image=file.getvalue(), name=name)


def text_parts(texts: Any) -> list[QueryPart]:
    """A part for each of several texts.  Raises ConfigError for anything but an iterable of texts, such as a single text."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise ConfigError(f"texts: expected a list of them, found one {type(texts).__name__}")
    return [QueryPart(text=text) for text in texts]


def image_parts(images: Any) -> list[QueryPart]:
    """A part for each of several images, as `image_part` takes them.  Raises ConfigError also for a single image."""
    is_single = isinstance(images, np.ndarray) and images.ndim < 4  # its rows would pass for grey images
    if is_single or isinstance(images, str | bytes) or not isinstance(images, Iterable):
        raise ConfigError(f"images: expected a list of them, found one {type(images).__name__}")
    return [image_part(image, f"images[{number}]") for number, image in enumerate(images)]


def checked_parts(parts: Any) -> list[QueryPart]:
    """The parts of a query.  Raises ConfigError for anything but an iterable of QueryPart."""
    if not isinstance(parts, Iterable):
        raise ConfigError(f"a query: expected a list of QueryPart, found {type(parts).__name__}")
    checked = list(parts)
    for part in checked:
        if not isinstance(part, QueryPart):
            raise ConfigError(f"a query: expected a list of QueryPart, found {type(part).__name__} in it")
    return checked
