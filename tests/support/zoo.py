"""A zoo of images that are damaged, unusual or hostile: `python -m tests.support.zoo FOLDER` writes it and lists the outcomes.

Each member can be embedded, or goes to quarantine with a reason that a user understands (`OUTCOMES`).
"""

import io
import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

EMBEDS = None


def photo(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    """A smooth image from a seed, the base of most members."""
    rng = np.random.default_rng([seed, width, height])
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """The image encoded in a format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def declared_png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A 1-bit PNG whose header declares a size, which the compressed `rows` need not have."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def bomb() -> bytes:
    """30,000 x 30,000 black and white pixels in about 110 kB."""
    return declared_png(30_000, 30_000, bytes(30_000 * (1 + 30_000 // 8)))


def rotated(orientation: int) -> bytes:
    """A JPEG with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(photo(), "JPEG", exif=exif)


def animated(kind: str) -> bytes:
    """Three frames of different colours."""
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "green", "blue")]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)


def transparent_palette() -> bytes:
    """A palette image with one transparent colour."""
    return saved(photo().convert("P", palette=Image.Palette.ADAPTIVE, colors=16), "PNG", transparency=0)


def without_last_row() -> bytes:
    """A PNG with complete chunks whose compressed rows end before the last row does."""
    rng = np.random.default_rng(0)
    rows = b"".join(b"\0" + rng.bytes(60 * 3) for _ in range(40))
    whole = saved(photo(), "PNG")
    body = zlib.compress(rows)[:-100]
    data = struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    return whole[: whole.index(b"IDAT") - 4] + data + b"\0\0\0\0IEND\xaeB`\x82"


_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
_GREY_16 = Image.fromarray((np.arange(60 * 40).reshape(40, 60) * 27).astype(np.uint16))

# name -> the function that returns its bytes, and the reason for its quarantine (None: it can be embedded)
FILES: dict[str, tuple[Callable[[], bytes], str | None]] = {
    "truncated.jpg": (lambda: saved(photo(300, 200), "JPEG")[:-2000], "damaged or truncated"),
    "truncated.png": (lambda: saved(photo(300, 200), "PNG")[:-2000], "damaged or truncated"),
    "zero bytes.jpg": (lambda: b"", "empty file"),
    "text.jpg": (lambda: b"I am no image at all.\n" * 20, "not an image"),
    "a jpeg.png": (lambda: saved(photo(seed=1), "JPEG"), EMBEDS),
    "cmyk.jpg": (lambda: saved(photo(seed=2).convert("CMYK"), "JPEG"), EMBEDS),
    "16 bit.png": (lambda: saved(_GREY_16, "PNG"), EMBEDS),
    "1 bit.png": (lambda: saved(photo(seed=3).convert("1"), "PNG"), EMBEDS),
    "palette, transparent.png": (transparent_palette, EMBEDS),
    "animated.gif": (lambda: animated("GIF"), EMBEDS),
    "animated.webp": (lambda: animated("WEBP"), EMBEDS),
    **{f"orientation {n}.jpg": (lambda n=n: rotated(n), EMBEDS) for n in range(1, 9)},  # type: ignore[misc]
    "1x1.png": (lambda: saved(photo(1, 1), "PNG"), EMBEDS),
    "1x20000.png": (lambda: saved(photo(1, 20_000), "PNG"), EMBEDS),
    "20000x1.jpg": (lambda: saved(photo(20_000, 1), "JPEG"), EMBEDS),
    "bomb.png": (bomb, "too many pixels"),
    "huge declared size.png": (lambda: declared_png(2**31 - 1, 2**31 - 1), "too many pixels"),
    "large declared size.png": (lambda: declared_png(9_000, 9_000), "damaged or truncated"),
    "icc profile.jpg": (lambda: saved(photo(seed=4), "JPEG", icc_profile=_PROFILE), EMBEDS),
    "icc profile.png": (lambda: saved(photo(seed=5), "PNG", icc_profile=_PROFILE), EMBEDS),
    "broken icc profile.jpg": (lambda: saved(photo(seed=6), "JPEG", icc_profile=b"no profile" * 9), EMBEDS),
    "grey.jpg": (lambda: saved(photo(seed=7).convert("L"), "JPEG"), EMBEDS),
    "fails on its last row.png": (without_last_row, "damaged or truncated"),
    "ünïcødé 東京 😀 <b>&amp;.jpg": (lambda: saved(photo(seed=8), "JPEG"), EMBEDS),
    f"{'long ' * 48}.jpg": (lambda: saved(photo(seed=9), "JPEG"), EMBEDS),
    "duplicate one.jpg": (lambda: saved(photo(seed=10), "JPEG"), EMBEDS),
    "duplicate two.jpg": (lambda: saved(photo(seed=10), "JPEG"), EMBEDS),
}

LINKS = {"dangling link.jpg": "nowhere.jpg", "circular link.jpg": "circular link.jpg"}
UNREADABLE = "unreadable.jpg"  # except for root, who may read all files

OUTCOMES: dict[str, str | None] = {
    **{name: outcome for name, (_, outcome) in FILES.items()},
    "dangling link.jpg": "dangling link",
    "circular link.jpg": "unreadable file",
    UNREADABLE: EMBEDS if hasattr(os, "geteuid") and os.geteuid() == 0 else "unreadable file",
    "a folder.jpg/inside.png": EMBEDS,
}


def write_zoo(folder: Path) -> None:
    """Write all members into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (make, _) in FILES.items():
        (folder / name).write_bytes(make())
    for name, target in LINKS.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
    (folder / UNREADABLE).unlink(missing_ok=True)
    (folder / UNREADABLE).write_bytes(saved(photo(seed=11), "JPEG"))
    (folder / UNREADABLE).chmod(0)
    (folder / "a folder.jpg").mkdir(exist_ok=True)
    (folder / "a folder.jpg" / "inside.png").write_bytes(saved(photo(seed=12), "PNG"))


if __name__ == "__main__":
    write_zoo(Path(sys.argv[1]))
    for member, reason in OUTCOMES.items():
        print(f"{member}: {reason or 'can be embedded'}")
