"""Decode and check one image, and encode it for packing; report why an image cannot be decoded.

An image is decoded completely, rotated by its EXIF orientation, and converted to RGB (transparency over white, 16 bits
to 8).  Its number of pixels is limited before decoding, its shorter side after it (see `packed_size`); further limits stop
small files that cost gigabytes or minutes.  Metadata that stop the decoder are left out.
"""

import hashlib
import time
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, Literal

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from cbir.artifacts.images import FINGERPRINT_SIDE, PACKED_FORMATS
from cbir.core.errors import UndecodableImage
from cbir.datasets.image_bytes import format_of, jpeg_scans, other_format_of, without_metadata
from cbir.datasets.image_size import packed_size

Image.MAX_IMAGE_PIXELS = None  # dataset.max_pixels is the limit instead, checked before decoding
# Only decoders that just parse bytes: others in Pillow start programs (EPS) or follow references.  JPEG includes MPO.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
MAX_SIDE_PX: Final = 200_000  # Pillow needs memory for each row: 1.7 GB for 1 x 49,000,000 pixels
MAX_SCANS: Final = 500  # of a JPEG; encoders write about ten, and each one goes over all pixels
MAX_TILE_PX: Final = 4096  # of a TIFF whose image is smaller than that: a tile is allocated whole
MAX_DECODING_S: Final = 60.0  # of processor time
MAX_METADATA_BYTES: Final = 2**20  # more are not packed
_KEPT_MODES = ("RGB", "L")
_TURNED = (5, 6, 7, 8)  # orientations that exchange width and height
_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LOSSY = ("JPEG", "MPO", "WEBP")
_TILE_TAGS = (322, 323)  # width and height of a tile
_DAMAGED, _NO_IMAGE = "damaged or truncated", "not an image"

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


@dataclass(frozen=True)
class _Decoded:
    """A decoded image.  size : in pixels, before it was reduced.  data : its bytes, without metadata that are damaged."""

    image: Image.Image
    size: tuple[int, int]
    orientation: int
    data: bytes


def encode_for_packing(data: bytes, max_pixels: int, max_side_px: int) -> EncodedImage:
    """Decode the bytes of an image file completely and return the image as it will be packed.

    The bytes are kept where they already decode to the wanted pixels: an upright RGB or grey JPEG or PNG within the limits
    of `packed_size`; without their metadata if those are damaged or larger than MAX_METADATA_BYTES.  Otherwise the image is
    encoded again, a lossless one as PNG, else as JPEG of quality 95, 4:4:4.

    Raises UndecodableImage with the reason for the quarantine.
    """
    decoded = _decode(data, max_pixels, max_side_px)
    image, image_format = decoded.image, decoded.image.format or ""
    size = packed_size(*decoded.size, max_side_px)
    reduced = size != decoded.size
    try:
        if not reduced and image_format in PACKED_FORMATS and _is_plain(decoded):
            change: Change = "kept" if decoded.data is data else "converted"
            return EncodedImage(decoded.data, *image.size, _fingerprint(image), change)
        pixels = _upright_rgb(decoded)
    except UndecodableImage:
        raise
    except Exception as error:  # see _load
        raise UndecodableImage(_DAMAGED, f"{type(error).__name__}: {error}") from error
    if reduced:
        pixels = pixels.resize(size[::-1] if decoded.orientation in _TURNED else size, Image.Resampling.LANCZOS)
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
    try:
        return _upright_rgb(_decode(data, max_pixels))
    except UndecodableImage:
        raise
    except Exception as error:  # see _load
        raise UndecodableImage(_DAMAGED, f"{type(error).__name__}: {error}") from error


def _decode(data: bytes, max_pixels: int, max_side_px: int | None = None) -> _Decoded:
    """Decode an image; again without its metadata where they stop the decoder."""
    if not data:
        raise UndecodableImage("empty file")
    if len(data) > MAX_METADATA_BYTES:
        bare = without_metadata(data, keep_exif=True)
        if len(data) - len(bare) > MAX_METADATA_BYTES:
            data = bare
    try:
        return _load(data, max_pixels, max_side_px)
    except UndecodableImage as error:
        if error.reason not in (_DAMAGED, _NO_IMAGE):
            raise
        for keep_exif in (True, False):
            bare = without_metadata(data, keep_exif)
            if bare != data:
                try:
                    return _load(bare, max_pixels, max_side_px)
                except UndecodableImage:
                    continue
        raise


def _load(data: bytes, max_pixels: int, max_side_px: int | None) -> _Decoded:
    image = _open(data, max_pixels)
    size = image.size
    try:
        if max_side_px is not None and (wanted := packed_size(*size, max_side_px)) != size:
            image.draft(None, (2 * wanted[0], 2 * wanted[1]))  # a JPEG of four times the size is decoded at half of it
        image.load()
    except UndecodableImage:
        raise
    except Exception as error:  # each decoder raises other types: OSError, SyntaxError, struct.error, IndexError, ...
        raise UndecodableImage(_DAMAGED, f"{type(error).__name__}: {error}") from error
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # of a PNG or WebP; Pillow forgives a JPEG the same damage, and viewers show all of them
        data, orientation = without_metadata(data, keep_exif=False), 1
    return _Decoded(image, size, orientation, data)


class _Timed(BytesIO):
    """The bytes of an image; decoders that read them block by block are stopped when they take too long."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._end_s = time.thread_time() + MAX_DECODING_S

    def read(self, size: int | None = -1, /) -> bytes:
        if time.thread_time() > self._end_s:
            raise UndecodableImage("takes too long", f"more than {MAX_DECODING_S:g} s of processor time")
        return super().read(size)


def _is_plain(decoded: _Decoded) -> bool:
    """Whether the decoded image is RGB or grey, opaque and upright."""
    image = decoded.image
    return decoded.orientation in (0, 1) and image.mode in _KEPT_MODES and "transparency" not in image.info


def _upright_rgb(decoded: _Decoded) -> Image.Image:
    method = _TRANSPOSED.get(decoded.orientation)
    return _to_rgb(decoded.image if method is None else decoded.image.transpose(method))


def _fingerprint(image: Image.Image) -> bytes:
    side = (FINGERPRINT_SIDE, FINGERPRINT_SIDE)
    return image.convert("L").resize(side, Image.Resampling.BOX).tobytes()


def _open(data: bytes, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(_Timed(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise _unidentified(data) from error
    except UndecodableImage:
        raise
    except Exception as error:  # each format's parser raises other types for a damaged header
        raise UndecodableImage(_DAMAGED, f"{type(error).__name__}: {error}") from error
    width, height = image.size
    if width * height > max_pixels:
        raise UndecodableImage("too many pixels", f"{width} x {height} is more than dataset.max_pixels = {max_pixels}")
    if max(image.size) > MAX_SIDE_PX:
        raise UndecodableImage("too long a side", f"{width} x {height} pixels, expected at most {MAX_SIDE_PX} a side")
    if image.format in ("JPEG", "MPO") and (scans := jpeg_scans(data)) > MAX_SCANS:
        raise UndecodableImage("too many scans", f"a JPEG of {scans} scans, expected at most {MAX_SCANS}")
    if image.format == "TIFF":
        _check_tiles(image)
    return image


def _unidentified(data: bytes) -> UndecodableImage:
    """The reason why no decoder takes the bytes."""
    if name := format_of(data):
        return UndecodableImage(_DAMAGED, f"a {name} whose header is damaged or not whole")
    if name := other_format_of(data):
        return UndecodableImage("unsupported format", f"{name}, expected {', '.join(FORMATS)}")
    return UndecodableImage(_NO_IMAGE, f"no whole header of {', '.join(FORMATS)}; begins with {data[:16]!r}")


def _check_tiles(image: Any) -> None:
    """Raise UndecodableImage for tiles of a TIFF that are much larger than the image."""
    for tag, side in zip(_TILE_TAGS, image.size, strict=True):
        tile = image.tag_v2.get(tag, 0)
        if not isinstance(tile, int) or tile > max(side + 16, MAX_TILE_PX):
            raise UndecodableImage("too large a tile", f"{tile} pixels a side in an image of {image.size}")


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
