"""What all users of the server share: the gallery, opened once, and its thumbnails."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from io import BytesIO
from pathlib import Path

import streamlit as st
from PIL import Image

from cbir.app.address import Choices
from cbir.artifacts.names import read_encoder_names
from cbir.artifacts.paths import DataPaths
from cbir.core.params import PARAMS_FILE
from cbir.search.searcher import Searcher

_CACHED_THUMBNAILS = 2048
_THUMBNAIL_PX = 320

Fingerprint = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class CardImage:
    """An encoded image that is small enough to send by the dozen.  kind : "jpeg" or "png".  width : in pixels."""

    data: bytes
    kind: str
    width: int

    @classmethod
    def of(cls, data: bytes) -> "CardImage":
        """Shrink an image that the pipeline packed: an upright RGB or grey JPEG or PNG."""
        image = Image.open(BytesIO(data), formats=("JPEG", "PNG"))
        kind = str(image.format).lower()
        if max(image.size) <= _THUMBNAIL_PX:
            return cls(data, kind, image.width)
        image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
        image.info = {}  # else Pillow writes the old comment, which may be longer than a JPEG allows
        small = BytesIO()
        image.save(small, "JPEG", quality=85)
        return cls(small.getvalue(), "jpeg", image.width)


class SharedGallery:
    """The gallery as all users share it: one Searcher, and the thumbnails shown most recently."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.thumbnail = lru_cache(_CACHED_THUMBNAILS)(self._thumbnail)

    @cached_property
    def choices(self) -> Choices:
        """The values that the controls of the page offer."""
        return Choices.of(self.searcher.encoders, self.searcher.labels, self.searcher.size)

    def _thumbnail(self, image_id: str) -> CardImage:
        return CardImage.of(self.searcher.image_bytes(image_id))


def files_fingerprint(data: Path) -> Fingerprint:
    """Names, times and sizes of files that change whenever the pipeline runs again."""
    paths = DataPaths(data)
    names = read_encoder_names(paths.encoders) if paths.encoders.is_file() else []
    files = [data.parent / PARAMS_FILE, paths.summary, paths.encoders, *map(paths.index_passport, names)]
    stats = [(str(path), path.stat()) for path in files if path.exists()]
    return tuple((name, stat.st_mtime_ns, stat.st_size, stat.st_ino) for name, stat in stats)


@st.cache_resource(max_entries=1, show_spinner="Opening the gallery")
def open_shared_gallery(data: Path, version: Fingerprint) -> SharedGallery:
    """Open the gallery in `data`; later calls with the same version return the same object.

    Raises the errors of Searcher.open.
    """
    return SharedGallery(Searcher.open(data))
