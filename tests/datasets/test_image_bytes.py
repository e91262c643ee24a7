"""Metadata never cost a sound image, what cannot be decoded is told truthfully, and small files never cost gigabytes."""

import io
import random
import struct
import time
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cbir.core.errors import UndecodableImage
from cbir.datasets import decoding
from cbir.datasets.decoding import MAX_METADATA_BYTES, decode, encode_for_packing
from cbir.datasets.image_bytes import format_of, jpeg_scans, without_metadata

MAX_PIXELS = 100_000_000
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
NO_TIFF = b"nonsense, not a TIFF header"


def saved(kind, image=None, **options):
    file = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(file, kind, **options)
    return file.getvalue()


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunk(name, body, data=None):
    """A PNG with another chunk after its header."""
    data = data or saved("PNG")
    return data[:33] + chunk(name, body) + data[33:]


def with_segment(marker, body):
    """A JPEG with another segment after its start."""
    data = saved("JPEG")
    return data[:2] + bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body + data[2:]


def with_webp_chunk(name, body):
    """A WebP with a chunk of metadata."""
    data = bytearray(saved("WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0" + bytes(40)))
    place = data.index(b"EXIF")
    data[place:] = name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    data[4:8] = struct.pack("<I", len(data) - 8)
    return bytes(data)


def packed(data, max_pixels=MAX_PIXELS):
    return encode_for_packing(data, max_pixels, 512)


FAULTY = {
    "png exif": lambda: with_chunk(b"eXIf", NO_TIFF),
    "png exif twice prefixed": lambda: with_chunk(b"eXIf", b"Exif\0\0Exif\0\0MM\0*"),
    "png raw profile": lambda: with_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n4\nzzzz"),
    "png empty gamma": lambda: with_chunk(b"gAMA", b""),
    "png short size": lambda: with_chunk(b"pHYs", b"\0"),
    "png profile": lambda: with_chunk(b"iCCP", b"k"),
    "png large profile": lambda: with_chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(3 * 2**20))),
    "png large text": lambda: with_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(3 * 2**20))),
    "png animation": lambda: with_chunk(b"fcTL", b""),
    "png checksum of a text": lambda: with_chunk(b"tEXt", b"k\0v").replace(b"k\0v", b"k\0w"),
    "webp exif": lambda: with_webp_chunk(b"EXIF", NO_TIFF),
    "webp long exif": lambda: with_webp_chunk(b"EXIF", b"Exif\0\0" + bytes(200_000)),
    "jpeg exif": lambda: with_segment(0xE1, b"Exif\0\0" + NO_TIFF),
    "jpeg profile": lambda: with_segment(0xE2, b"ICC_PROFILE\0"),
    "jpeg adobe": lambda: with_segment(0xEE, b"Adobe\0"),
    "jpeg jfif": lambda: with_segment(0xE0, b"JFIF\0\1"),
    "jpeg frames": lambda: with_segment(0xE2, b"MPF\0II*\0" + NO_TIFF),
    "jpeg photoshop": lambda: with_segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", FAULTY)
def test_sound_pixels_are_used_whatever_their_metadata(name):
    data = FAULTY[name]()
    kind = name.split()[0].upper()
    assert np.array_equal(decode(data, MAX_PIXELS), Image.open(io.BytesIO(saved(kind))).convert("RGB"))
    encoded = packed(data)
    image = Image.open(io.BytesIO(encoded.data))  # what is packed holds no metadata that raise
    image.load()
    image.getexif()
    assert image.size == (32, 24)
    assert packed(data) == encoded


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_orientation_survives_other_damaged_metadata(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(kind, exif=exif)
    if kind == "PNG":
        data = with_chunk(b"gAMA", b"", data)
    elif kind == "JPEG":
        data = data[:2] + b"\xff\xe2\0\x0eICC_PROFILE\0" + data[2:]
    assert without_metadata(data, keep_exif=True).count(b"MM\0*") + data.count(b"II*\0") == 1
    assert decode(data, MAX_PIXELS).size == (24, 32)


def test_transparency_is_no_metadata():
    image = Image.fromarray(PIXELS).quantize(16)
    data = with_chunk(b"gAMA", b"", saved("PNG", image, transparency=3))
    assert np.array_equal(decode(data, MAX_PIXELS), decode(saved("PNG", image, transparency=3), MAX_PIXELS))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_large_metadata_are_not_packed(kind):
    text = random.Random(0).randbytes(60_000)
    data = saved(kind)
    comment = b"\xff\xfe" + struct.pack(">H", 60_002) + text
    for _ in range(1 + MAX_METADATA_BYTES // len(text)):
        data = with_chunk(b"prVt", text, data) if kind == "PNG" else data[:2] + comment + data[2:]
    encoded = packed(data)
    assert (len(encoded.data) <= len(saved(kind)), encoded.change) == (True, "converted")
    assert np.array_equal(decode(encoded.data, MAX_PIXELS), decode(saved(kind), MAX_PIXELS))


STARTS = [saved(kind)[:size] for kind in ("PNG", "JPEG", "WEBP") for size in (12, 50, 400)]


@given(data=st.binary(max_size=300), start=st.sampled_from(STARTS))
def test_metadata_of_any_bytes_can_be_left_out(data, start):
    for keep_exif in (True, False):
        bare = without_metadata(start + data, keep_exif)
        assert len(bare) <= len(start + data) + 8
        assert without_metadata(bare, keep_exif) == bare


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            saved("PNG").replace(b"IHDR\0", b"IHDR\1"),
            "damaged or truncated: a PNG whose header is damaged or not whole",
        ),
        (b"\xff\xd8\xff\xfe\0\x04ab\xff\xd9", "damaged or truncated: a JPEG whose header is damaged or not whole"),
        (saved("WEBP")[:20], "damaged or truncated: .*"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported format: HEIF or HEIC, expected JPEG, PNG, .*"),
        (b"\0\0\0\x20ftypavif", "unsupported format: AVIF, .*"),
        (b"8BPS\0\1", "unsupported format: Photoshop, .*"),
        (b"<svg>", "not an image: .*begins with b'<svg>'"),
    ],
)
def test_what_cannot_be_decoded_is_told_truthfully(data, message):
    with pytest.raises(UndecodableImage, match=f"^{message}$"):
        packed(data)


def test_formats_are_known_by_their_first_bytes():
    for kind in decoding.FORMATS:
        assert format_of(saved(kind)) == kind
    assert format_of(b"RIFF1234WAVE") is None


# --- cost


def raw_png(width, height):
    rows = zlib.compressobj(9)
    body = rows.compress(bytes((1 + width) * height)) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def tiled_tiff(side, tile):
    """A TIFF whose single tile is declared to have that side."""
    entries = [
        (256, side),
        (257, side),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, tile),
        (323, tile),
        (324, 8),
        (325, 1),
    ]
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<I", 16) + b"tile1234" + struct.pack("<H", len(entries)) + fields + bytes(4)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda: raw_png(1, 1_000_000), "too long a side"),
        (lambda: raw_png(1_000_000, 1), "too long a side"),
        (lambda: tiled_tiff(64, 40_000), "too large a tile"),
        (lambda: saved("JPEG") + b"\xff\xda\0\x06\1\1\0\0\0\0" * 501, "too many scans"),
    ],
)
def test_small_files_that_cost_gigabytes_or_minutes_are_refused(data, reason):
    begun = time.thread_time()
    with pytest.raises(UndecodableImage, match=f"^{reason}: .*expected at most|^{reason}: "):
        packed(data())
    assert time.thread_time() - begun < 1


def test_images_within_the_limits_are_decoded():
    assert packed(raw_png(1, 200_000)).height > 512
    progressive = saved("JPEG", progressive=True)
    assert (jpeg_scans(progressive) > 1, packed(progressive).data) == (True, progressive)
    tiff = saved("TIFF", compression="tiff_lzw")
    assert packed(tiff).change == "converted"


def test_decoding_ends_after_its_processor_time(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_DECODING_S", 0.0)
    with pytest.raises(UndecodableImage, match="takes too long: more than 0 s of processor time"):
        packed(saved("JPEG"))
