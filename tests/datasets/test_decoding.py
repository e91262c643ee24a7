"""encode_for_packing: each image is packed upright, in RGB and within the limits, or is refused with a reason."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageFile, ImageSequence, JpegImagePlugin

from cbir.core.errors import UndecodableImage
from cbir.datasets.decoding import EncodedImage, encode_for_packing

MAX_PIXELS = 1_000_000
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def noise(height=24, width=32, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def smooth(height=48, width=64):
    """A picture that JPEG hardly changes, with four different corners."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y * 255 // height, x * 255 // width, (x + y) * 255 // (height + width)], 2).astype(np.uint8)


def saved(image, kind, **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def oriented(value):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return exif


def packed(data, max_pixels=MAX_PIXELS, max_side_px=512) -> EncodedImage:
    return encode_for_packing(data, max_pixels, max_side_px)


def pixels(encoded):
    """RGB of the packed bytes, as later stages decode them; checks the recorded size."""
    image = Image.open(io.BytesIO(encoded.data), formats=("JPEG", "PNG"))
    assert (encoded.width, encoded.height) == image.size
    return np.asarray(image.convert("RGB"))


def opened(data):
    return Image.open(io.BytesIO(data))


def png(width, height, *chunks, bits=8, colour=2):
    """A PNG file from single chunks, so that its header can declare any size."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


# --- bytes that are kept --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("exif", [None, oriented(1), oriented(0)])
def test_upright_rgb_and_grey_jpeg_and_png_keep_their_bytes(kind, channels, exif):
    data = saved(noise(channels=channels), kind, **({"exif": exif} if exif else {}))
    encoded = packed(data)
    assert encoded.data == data
    assert (encoded.width, encoded.height) == (32, 24)
    assert np.array_equal(pixels(encoded), np.asarray(opened(data).convert("RGB")))


def test_a_progressive_jpeg_keeps_its_bytes():
    data = saved(smooth(), "JPEG", progressive=True)
    assert packed(data).data == data


def test_a_shorter_side_at_the_limit_is_kept():
    data = saved(smooth(48, 64), "PNG")
    assert (packed(data, max_side_px=48).data, packed(data, max_side_px=48).change) == (data, "kept")
    reduced = packed(data, max_side_px=47)
    assert (reduced.width, reduced.height, reduced.change) == (60, 45, "reduced")


def test_pixels_at_the_limit_are_kept_more_are_refused():
    data = saved(noise(24, 32), "PNG")
    assert packed(data, max_pixels=24 * 32).data == data
    with pytest.raises(UndecodableImage, match=r"too many pixels: 32 x 24 is more than dataset.max_pixels = 767"):
        packed(data, max_pixels=24 * 32 - 1)


def test_the_hash_is_that_of_the_packed_bytes():
    assert (
        EncodedImage(b"abc", 1, 1, bytes(256), "kept").sha256
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_the_same_bytes_are_packed_the_same_way_twice():
    data = saved(noise(channels=4), "PNG")
    assert packed(data, max_side_px=20) == packed(data, max_side_px=20)


# --- orientation ----------------------------------------------------------------------------------------------------

STORED = {  # EXIF 2.32, tag 0x0112: how a file stores an upright picture under each orientation
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_lossless_image_is_turned_upright_to_the_pixel(orientation, kind):
    upright = noise()
    data = saved(np.ascontiguousarray(STORED[orientation](upright)), kind, exif=oriented(orientation))
    encoded = packed(data)
    assert np.array_equal(pixels(encoded), upright)
    assert opened(encoded.data).getexif().get(ExifTags.Base.Orientation, 1) == 1  # else a viewer would rotate it again


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_a_lossy_image_is_turned_upright(orientation, kind):
    upright = smooth()
    data = saved(np.ascontiguousarray(STORED[orientation](upright)), kind, exif=oriented(orientation), quality=95)
    assert np.abs(pixels(packed(data)).astype(int) - upright).mean() < 4


def test_orientation_is_applied_before_the_size_is_bounded():
    for orientation, size in ((1, (40, 20)), (6, (20, 40))):
        encoded = packed(saved(smooth(40, 80), "JPEG", exif=oriented(orientation)), max_side_px=20)
        assert (encoded.width, encoded.height) == size


def test_an_unknown_orientation_is_ignored():
    assert np.array_equal(pixels(packed(saved(noise(), "PNG", exif=oriented(9)))), noise())


def test_an_image_with_damaged_exif_is_kept():
    data = saved(noise(), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert packed(data).data == data


# --- modes and formats ----------------------------------------------------------------------------------------------


def test_cmyk_becomes_rgb():
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # no cyan, all magenta, all yellow: red
    for kind in ("JPEG", "TIFF"):
        assert np.abs(pixels(packed(saved(cmyk, kind))).astype(int) - (255, 0, 0)).max() <= 4


@pytest.mark.parametrize("channels", [2, 4])
def test_transparency_becomes_white(channels):
    """Half opaque grey 100 over white is 177.5; an invisible pixel has no colour."""
    values = np.full((1, 3, channels), 100, np.uint8)
    values[0, :, -1] = (255, 128, 0)
    rgb = pixels(packed(saved(values, "PNG")))
    assert rgb[0, :, 0].tolist() == [100, pytest.approx(177, abs=1), 255]
    assert np.array_equal(rgb[..., 0], rgb[..., 1])


def test_a_transparent_palette_colour_becomes_white():
    image = Image.new("P", (3, 1))
    image.putpalette([*BLACK, 10, 20, 30, 200, 0, 0])
    image.putdata([0, 1, 2])
    for kind in ("PNG", "GIF"):
        assert pixels(packed(saved(image, kind, transparency=1)))[0].tolist() == [[0, 0, 0], [*WHITE], [200, 0, 0]]


def test_the_transparent_colour_of_a_png_becomes_white():
    rgb = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    assert pixels(packed(saved(rgb, "PNG", transparency=(1, 2, 3))))[0].tolist() == [[*WHITE], [4, 5, 6]]
    grey = np.array([[1, 4]], np.uint8)
    assert pixels(packed(saved(grey, "PNG", transparency=1)))[0].tolist() == [[*WHITE], [4, 4, 4]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_one_bit_becomes_black_and_white(kind):
    bits = noise(channels=1) > 127
    expected = np.repeat((bits * 255)[..., None], 3, axis=2)
    assert np.array_equal(pixels(packed(saved(Image.fromarray(bits), kind))), expected)


def test_a_palette_image_keeps_its_colours():
    image = Image.fromarray(noise()).quantize(256)
    for kind in ("PNG", "GIF", "BMP", "TIFF"):
        assert np.array_equal(pixels(packed(saved(image, kind))), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(kind):
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    assert pixels(packed(saved(values, kind)))[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_sixteen_bits_a_channel_are_scaled_not_clipped():
    row = struct.pack(">B6H", 0, 0, 255, 256, 32768, 65535, 4660)
    data = png(2, 1, (b"IDAT", zlib.compress(row)), bits=16)
    assert pixels(packed(data)).tolist() == [[[0, 0, 1], [128, 255, 18]]]


@pytest.mark.parametrize("values", [np.full((2, 2), 200, np.int32), np.full((2, 2), 0.5, np.float32)])
def test_32_bit_pixels_are_refused_because_their_white_is_unknown(values):
    with pytest.raises(UndecodableImage, match="unsupported pixel values: 32 bits a pixel"):
        packed(saved(values, "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_frame_of_an_animation_is_packed(kind):
    frames = [Image.new("RGB", (16, 12), colour) for colour in ("red", "lime", "blue")]
    options = {} if kind != "WEBP" else {"lossless": True}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert len(list(ImageSequence.Iterator(opened(data)))) == 3
    assert np.abs(pixels(packed(data)).astype(int) - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize(
    ("kind", "options"),
    [("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "tiff_deflate"})],
)
def test_lossless_formats_become_png_without_loss(kind, options):
    encoded = packed(saved(noise(), kind, **options))
    assert opened(encoded.data).format == "PNG"
    assert np.array_equal(pixels(encoded), noise())


def test_webp_becomes_a_nearly_identical_jpeg():
    data = saved(smooth(), "WEBP", quality=90)
    encoded = packed(data)
    assert opened(encoded.data).format == "JPEG"
    assert JpegImagePlugin.get_sampling(opened(encoded.data)) == 0  # 4:4:4
    assert np.abs(pixels(encoded).astype(int) - np.asarray(opened(data).convert("RGB"))).mean() < 1.5


def test_old_comments_and_profiles_are_not_packed():
    """A comment of a GIF may be longer than a JPEG allows, and then Pillow refuses to write it."""
    assert packed(saved(noise(), "GIF", comment=b"x" * 100_000), max_side_px=15).height == 15
    encoded = packed(saved(Image.new("CMYK", (8, 8)), "TIFF", icc_profile=bytes(500_000)))
    assert "icc_profile" not in opened(encoded.data).info


# --- shrinking ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(300, 600, (100, 200)), (600, 300, (200, 100)), (2, 400, (2, 400))]
)
def test_shrinking_keeps_the_aspect(height, width, expected):
    for kind in ("JPEG", "PNG"):
        encoded = packed(saved(smooth(height, width), kind), max_side_px=100)
        assert (encoded.height, encoded.width) == expected
        assert pixels(encoded).shape == (*expected, 3)


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_reduced_image_looks_as_before(kind, orientation):
    """A JPEG of this size is decoded at an eighth of it; near a square, its rounded sides may be equal."""
    upright = smooth(801, 802)
    stored = np.ascontiguousarray(STORED[orientation](upright))
    encoded = packed(saved(stored, kind, exif=oriented(orientation), quality=95), max_side_px=50)
    assert (encoded.width, encoded.height) == (51, 50)
    assert np.abs(pixels(encoded).astype(int) - smooth(50, 51)).mean() < 4


@pytest.mark.parametrize(("kind", "reduced"), [("PNG", "PNG"), ("BMP", "PNG"), ("TIFF", "PNG"), ("JPEG", "JPEG")])
def test_a_lossless_image_stays_lossless_when_reduced(kind, reduced):
    encoded = packed(saved(noise(100, 100), kind), max_side_px=50)
    assert (opened(encoded.data).format, encoded.change) == (reduced, "reduced")


def test_the_longest_side_of_a_jpeg_is_packed():
    """libjpeg reads and writes at most 65,500 pixels."""
    encoded = packed(saved(Image.new("L", (65_500, 1)), "JPEG", exif=oriented(6)))
    assert (encoded.width, encoded.height, encoded.change) == (1, 65_500, "converted")


def test_nothing_is_enlarged():
    assert packed(saved(noise(1, 1), "BMP"), max_side_px=512).width == 1


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"a text named .jpg\n" * 50, b"<!DOCTYPE html><html>", b"\0" * 1000, b"\xff", b"GIF"])
def test_a_file_that_is_no_image_shows_its_first_bytes(data):
    with pytest.raises(
        UndecodableImage, match=r"not an image: no whole header of JPEG, PNG, GIF, .*; begins with b'"
    ) as caught:
        packed(data)
    assert repr(data[:16]) in caught.value.detail


def test_a_file_of_zero_bytes_is_called_empty():
    with pytest.raises(UndecodableImage, match=r"^empty file$"):
        packed(b"")


@pytest.mark.parametrize("kind", ["EPS", "PDF", "PPM", "TGA", "ICO", "JPEG2000", "SGI", "PCX"])
def test_formats_that_only_pillow_supports_are_refused(kind):
    """EPS would start ghostscript; the others are parsers that no picture collection needs."""
    with pytest.raises(UndecodableImage, match=r"^(not an image|unsupported format: .*, expected JPEG, PNG)"):
        packed(saved(noise(), kind))


def test_an_eps_starts_no_program(monkeypatch):
    monkeypatch.setattr("subprocess.Popen.__init__", lambda *a, **k: pytest.fail("a program was started"))
    with pytest.raises(UndecodableImage, match="unsupported format: PostScript"):
        packed(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_file_is_refused(kind, share):
    data = saved(noise(64, 64), kind)
    with pytest.raises(UndecodableImage, match="damaged or truncated"):
        packed(data[: int(len(data) * share)])


def test_a_jpeg_without_its_last_rows_is_refused():
    data = saved(noise(200, 200), "JPEG", quality=90)
    with pytest.raises(UndecodableImage, match="damaged or truncated: OSError: image file is truncated"):
        packed(data[:-200])


def test_a_png_whose_pixels_are_damaged_is_refused():
    rows = bytearray(zlib.compress(b"".join(b"\0" + bytes(row) for row in noise(24, 96, 1))))
    rows[len(rows) // 2] ^= 0xFF
    with pytest.raises(UndecodableImage, match="damaged or truncated"):
        packed(png(32, 24, (b"IDAT", bytes(rows[:-8]))))


@pytest.mark.parametrize(
    ("width", "height"), [(100_000, 100_000), (1001, 1000), (1_000_001, 1), (2**31 - 1, 2**31 - 1)]
)
def test_a_bomb_is_refused_before_anything_is_decoded(monkeypatch, width, height):
    """Pillow allocates the pixels in load(), which must not be called."""
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoding has started"))
    body = zlib.compress(bytes(1000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UndecodableImage, match="too many pixels"):
            packed(png(width, height, (b"IDAT", body)))


@pytest.mark.parametrize("height", [1700, 3600])  # below and above Pillow's own limit
def test_a_bomb_is_refused_by_max_pixels_not_by_pillow(height):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UndecodableImage, match=rf"100000 x {height} is more than dataset.max_pixels = 1000000"):
            packed(png(100_000, height, (b"IDAT", zlib.compress(bytes(1000)))))


def test_an_image_beyond_the_limit_of_pillow_is_packed():
    body = io.BytesIO()
    Image.new("L", (200_000, 1000)).save(body, "PNG")
    assert encode_for_packing(body.getvalue(), 200_000_000, 512).height == 181  # 5 / 8 of the limit at an aspect of 64


def test_a_text_chunk_that_unpacks_to_gigabytes_is_left_out():
    bomb = zlib.compress(bytes(200 * 2**20), 9)
    pixels = (b"IDAT", zlib.compress(bytes(25 * 8)))
    encoded = packed(png(8, 8, *[(b"zTXt", b"k\0\0" + bomb)] * 2, pixels))
    assert (encoded.data, encoded.change) == (png(8, 8, pixels), "converted")


# --- any bytes -----------------------------------------------------------------------------------------------------

_ZOO = {
    "jpeg": saved(noise(), "JPEG", exif=oriented(6), comment=b"hello"),
    "cmyk jpeg": saved(Image.fromarray(noise(channels=3)).convert("CMYK"), "JPEG"),
    "png": saved(noise(), "PNG", exif=oriented(3)),
    "palette png": saved(Image.fromarray(noise()).quantize(16), "PNG", transparency=2),
    "16 bit png": saved(noise(channels=1).astype(np.uint16) * 257, "PNG"),
    "rgba png": saved(noise(channels=4), "PNG"),
    "gif": saved(noise(), "GIF", comment=b"hello"),
    "webp": saved(noise(), "WEBP"),
    "tiff": saved(noise(), "TIFF"),
    "bmp": saved(noise(), "BMP"),
}


def outcome(data, max_side_px):
    """The packed image, checked, or the reason; any other exception fails the test."""
    try:
        encoded = packed(data, max_side_px=max_side_px)
    except UndecodableImage as error:
        return str(error)
    assert pixels(encoded).shape == (encoded.height, encoded.width, 3)
    assert min(encoded.width, encoded.height) <= max_side_px
    return encoded


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=400), magic=st.sampled_from([b"", *(body[:12] for body in _ZOO.values())]))
def test_random_bytes_are_an_image_or_undecodable(data, magic):
    outcome(magic + data, 20)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=600, deadline=None)
@given(
    name=st.sampled_from(sorted(_ZOO)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    in_header=st.booleans(),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
    max_side_px=st.sampled_from([9, 512]),
)
def test_a_damaged_image_has_the_same_outcome_twice(name, changes, in_header, keep, max_side_px):
    data = bytearray(_ZOO[name])
    reach = min(len(data), 120) if in_header else len(data)
    for where, value in changes:
        data[int(where * reach)] = value
    damaged = bytes(data[: int(keep * len(data))])
    assert outcome(damaged, max_side_px) == outcome(damaged, max_side_px)  # a reason contains no address of an object
