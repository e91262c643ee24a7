"""Decode and check one image, and encode it for packing; report why an image cannot be decoded.

An image is decoded completely, rotated by its EXIF orientation, and converted to RGB (transparency over white, 16 bits
to 8).  Its number of pixels is limited before decoding, its shorter side after it (see `packed_size`).
"""

import hashlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from cbir.artifacts.images import FINGERPRINT_SIDE, PACKED_FORMATS
from cbir.core.errors import UndecodableImage
from cbir.datasets.image_size import packed_size

Image.MAX_IMAGE_PIXELS = None  # dataset.max_pixels is the limit instead, checked before decoding
# Only decoders that just parse bytes: others in Pillow start programs (EPS) or follow references.  JPEG includes MPO.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
_KEPT_MODES = ("RGB", "L")
_TURNED = (5, 6, 7, 8)  # orientations that exchange width and height
_LOSSY = ("JPEG", "MPO", "WEBP")

Change = Literal["kept", "converted", "reduced"]


@dataclass(frozen=True)
class EncodedImage:
    """An image ready for packing: encoded bytes that decode to its pixels, and its width and height in pixels.

    fingerprint : the mean grey of each of 16 x 16 fields, row by row, one byte each.
    change : "kept" where data are the original bytes, "reduced" where pixels are fewer, else "converted".
    """

    data: bytes
    width: int
    height: int
    fingerprint: bytes
    change: Change

    @property
    def sha256(self) -> str:
        """sha256 of the encoded bytes."""
        return hashlib.sha256(self.data).hexdigest()


def encode_for_packing(data: bytes, max_pixels: int, max_side_px: int) -> EncodedImage:
    """Decode the bytes of an image file completely and return the image as it will be packed.

    The bytes are kept where they already decode to the wanted pixels: an upright RGB or grey JPEG or PNG within the limits
    of `packed_size`.  Otherwise the image is encoded again, a lossless one as PNG, else as JPEG of quality 95, 4:4:4.

    Raises UndecodableImage with the reason for the quarantine.
    """
    image = _open(data, max_pixels)
    image_format = image.format or ""
    size = packed_size(*image.size, max_side_px)
    reduced = size != image.size
    try:
        if reduced:
            image.draft(None, (2 * size[0], 2 * size[1]))  # a JPEG of four times the size is decoded at half of it
        image.load()
        if not reduced and image_format in PACKED_FORMATS and _is_plain(image):
            return EncodedImage(data, *image.size, _fingerprint(image), "kept")
        turned = _orientation(image) in _TURNED
        pixels = _to_rgb(ImageOps.exif_transpose(image))
    except UndecodableImage:
        raise
    except Exception as error:  # each decoder raises other types: OSError, SyntaxError, struct.error, IndexError, ...
        raise UndecodableImage("damaged or truncated", f"{type(error).__name__}: {error}") from error
    if reduced:
        pixels = pixels.resize(size[::-1] if turned else size, Image.Resampling.LANCZOS)
    pixels.info = {}  # else Pillow writes the old colour profile and comment, which may be too long for a JPEG
    packed = BytesIO()
    if image_format in _LOSSY:
        pixels.save(packed, "JPEG", quality=95, subsampling=0)
    else:
        pixels.save(packed, "PNG")
    return EncodedImage(packed.getvalue(), *pixels.size, _fingerprint(pixels), "reduced" if reduced else "converted")


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """Decode the bytes of an image file completely: upright RGB, in its own size.

    Raises UndecodableImage as `encode_for_packing` does.
    """
    image = _open(data, max_pixels)
    try:
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))
    except UndecodableImage:
        raise
    except Exception as error:  # see encode_for_packing
        raise UndecodableImage("damaged or truncated", f"{type(error).__name__}: {error}") from error


def _is_plain(image: Image.Image) -> bool:
    """Whether the decoded image is RGB or grey, opaque and upright."""
    return _orientation(image) in (0, 1) and image.mode in _KEPT_MODES and "transparency" not in image.info


def _orientation(image: Image.Image) -> Any:
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _fingerprint(image: Image.Image) -> bytes:
    side = (FINGERPRINT_SIDE, FINGERPRINT_SIDE)
    return image.convert("L").resize(side, Image.Resampling.BOX).tobytes()


def _open(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise UndecodableImage("empty file")
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        detail = f"no whole header of {', '.join(FORMATS)}; begins with {data[:16]!r}"
        raise UndecodableImage("not an image", detail) from error
    except Exception as error:  # each format's parser raises other types for a damaged header
        raise UndecodableImage("damaged or truncated", f"{type(error).__name__}: {error}") from error
    width, height = image.size
    if width * height > max_pixels:
        raise UndecodableImage("too many pixels", f"{width} x {height} is more than dataset.max_pixels = {max_pixels}")
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):  # 32 bits: there is no telling which value is white
        raise UndecodableImage("unsupported pixel values", f"32 bits a pixel (mode {image.mode}), expected 8 or 16")
    if image.mode.startswith("I;16"):
        values: Any = np.asarray(image)
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")  # Pillow's own conversion clips at 255
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return image.convert("RGB")
