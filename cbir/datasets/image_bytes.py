"""The structure of image files, read without decoding them: their format, their metadata, the scans of a JPEG.

Metadata (EXIF, colour profiles, comments, texts, animation) say nothing about the pixels, but damaged or large ones stop a
decoder.  Sources: PNG (W3C, 3rd edition), ITU-T T.81 (JPEG), RFC 9649 (WebP).
"""

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

_SIGNATURES: Final = {  # format -> how its files begin
    "JPEG": b"\xff\xd8\xff",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "GIF": b"GIF8",
    "WEBP": b"RIFF....WEBP",
    "BMP": b"BM",
    "TIFF": b"II*\0",
    "TIFF ": b"MM\0*",
}
_OTHER_SIGNATURES: Final = {  # formats that are not decoded
    "HEIF or HEIC": (b"....ftypheic", b"....ftypheix", b"....ftyphevc", b"....ftypmif1", b"....ftypmsf1"),
    "AVIF": (b"....ftypavif", b"....ftypavis"),
    "JPEG XL": (b"\xff\x0a", b"\0\0\0\x0cJXL "),
    "JPEG 2000": (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    "Photoshop": (b"8BPS",),
    "PDF": (b"%PDF",),
    "PostScript": (b"%!PS",),
}
_PIXELS_PNG: Final = (b"tRNS",)  # the ancillary chunks that change pixels; critical ones begin with a capital letter
_PIXELS_WEBP: Final = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
_SOS, _FIRST_APP, _LAST_APP, _COMMENT = 0xDA, 0xE0, 0xEF, 0xFE


def format_of(data: bytes) -> str | None:
    """Return the format that decoders of this project read and that the bytes begin as, None if there is none.

    >>> format_of(b"GIF89a...")
    'GIF'
    """
    return next((name.strip() for name, start in _SIGNATURES.items() if _begins(data, start)), None)


def other_format_of(data: bytes) -> str | None:
    """Return the image format that the bytes begin as, of those that this project does not decode.

    >>> other_format_of(b"\\0\\0\\0\\x18ftypheic")
    'HEIF or HEIC'
    """
    return next(
        (name for name, starts in _OTHER_SIGNATURES.items() if any(_begins(data, start) for start in starts)), None
    )


def jpeg_scans(data: bytes) -> int:
    """Return the number of scans of a JPEG, or more if its metadata hold others.

    In the coded pixels a byte 0xFF is followed by zero or by a restart marker, so a scan's marker cannot be part of them.
    """
    return data.count(bytes((0xFF, _SOS)))


def without_metadata(data: bytes, keep_exif: bool) -> bytes:
    """Return a JPEG, PNG or WebP without its metadata, except for the EXIF orientation if wanted; other bytes as they are.

    The coded pixels stay byte for byte, with the segments that change colours.
    """
    strip = {"JPEG": _bare_jpeg, "PNG": _bare_png, "WEBP": _bare_webp}.get(format_of(data) or "")
    return data if strip is None else b"".join(strip(data, keep_exif))


def _begins(data: bytes, start: bytes) -> bool:
    """Whether the data begin so; a dot stands for any byte."""
    return len(data) >= len(start) and all(
        wanted in (byte, ord(".")) for wanted, byte in zip(start, data, strict=False)
    )


def _bare_png(data: bytes, keep_exif: bool) -> Iterator[bytes]:
    yield data[:8]
    place = 8
    while place + 8 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        kind, end = data[place + 4 : place + 8], place + 12 + size
        if kind[:1].isupper() or kind in _PIXELS_PNG or (keep_exif and kind == b"eXIf"):
            yield data[place:end]
        if kind == b"IEND":
            return
        place = end


def _bare_jpeg(data: bytes, keep_exif: bool) -> Iterator[bytes]:
    yield data[:2]
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        if marker == _SOS:
            break
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        body = data[place + 4 : end]
        is_metadata = _FIRST_APP <= marker <= _LAST_APP or marker == _COMMENT
        changes_colours = body.startswith(b"Adobe") and len(body) >= 12
        if not is_metadata or changes_colours or (keep_exif and body.startswith((b"JFIF\0", b"Exif\0\0"))):
            yield data[place:end]
        place = end
    yield data[place:]


def _bare_webp(data: bytes, keep_exif: bool) -> Iterator[bytes]:
    chunks = []
    places = [12]
    while places[-1] + 8 <= len(data):
        size = int.from_bytes(data[places[-1] + 4 : places[-1] + 8], "little")
        places.append(places[-1] + 8 + size + size % 2)
    for place, end in pairwise(places):
        kind = data[place : place + 4]
        if kind == b"VP8X":
            flags = data[place + 8] & (
                0b0001_1010 if keep_exif else 0b0001_0010
            )  # alpha, EXIF and animation of ICC, XMP
            chunks.append(data[place : place + 8] + bytes([flags]) + data[place + 9 : end])
        elif kind in _PIXELS_WEBP or (keep_exif and kind == b"EXIF"):
            chunks.append(data[place:end])
    yield b"RIFF" + struct.pack("<I", 4 + sum(map(len, chunks))) + b"WEBP"
    yield from chunks
