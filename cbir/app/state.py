"""What the server holds for all its users: the settings it was started with, and the gallery, opened once."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from io import BytesIO
from pathlib import Path

import streamlit as st
from PIL import Image

from cbir.app.address import Offer
from cbir.app.serving import DATA, REPORTS, URLS
from cbir.search.searcher import Searcher

_KEPT_THUMBNAILS = 2048
_THUMBNAIL_PX = 320
_WATCHED = ("params.yaml", "data/images/summary.json", "data/index/*/passport.json")

Fingerprint = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Settings:
    """How the server was started.  urls : whether images may be fetched from pasted addresses."""

    data: Path
    reports: Path
    urls: bool

    @classmethod
    def read(cls) -> "Settings":
        data = Path(os.environ.get(DATA, "data"))
        return cls(data, Path(os.environ.get(REPORTS, data.parent / "reports")), os.environ.get(URLS) == "1")


@dataclass(frozen=True)
class CardImage:
    """An encoded image, small enough to send by the dozen, and its width in pixels."""

    data: bytes
    kind: str
    width: int

    @classmethod
    def of(cls, data: bytes) -> "CardImage":
        """data : an image as the pipeline packs it, an upright RGB or grey JPEG or PNG."""
        image = Image.open(BytesIO(data), formats=("JPEG", "PNG"))
        kind = str(image.format).lower()
        if max(image.size) <= _THUMBNAIL_PX:
            return cls(data, kind, image.width)
        image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
        image.info = {}  # or Pillow writes the old comment, which may be longer than a JPEG allows
        small = BytesIO()
        image.save(small, "JPEG", quality=85)
        return cls(small.getvalue(), "jpeg", image.width)


class GalleryView:
    """The one Searcher of the server, and the thumbnails that it showed last."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.thumbnail = lru_cache(_KEPT_THUMBNAILS)(self._thumbnail)

    @cached_property
    def offer(self) -> Offer:
        return Offer.of(self.searcher.encoders, self.searcher.labels, self.searcher.size)

    def _thumbnail(self, image_id: str) -> CardImage:
        return CardImage.of(self.searcher.image_bytes(image_id))


def fingerprint(data: Path) -> Fingerprint:
    """What changes when the pipeline has run again."""
    found: Sequence[Path] = [
        path for pattern in _WATCHED for path in sorted(data.parent.glob(pattern.replace("data", data.name, 1)))
    ]
    stats = [(str(path), path.stat()) for path in found]
    return tuple((name, stat.st_mtime_ns, stat.st_size, stat.st_ino) for name, stat in stats)


@st.cache_resource(max_entries=1, show_spinner="Opening the gallery")
def open_gallery(data: Path, made: Fingerprint) -> GalleryView:
    """The gallery in `data` as it was made; opened by whoever comes first, for all.

    Raises what Searcher.open raises.
    """
    return GalleryView(Searcher.open(data))
