"""What all users of the server share: the gallery, opened once, and its thumbnails."""

from functools import cached_property, lru_cache
from pathlib import Path
from threading import BoundedSemaphore

import streamlit as st

from cbir.app.address import Choices
from cbir.artifacts.names import read_encoder_names
from cbir.artifacts.paths import DataPaths
from cbir.core.parallel import cores
from cbir.core.params import PARAMS_FILE
from cbir.core.text import printable
from cbir.search.query import QueryPart
from cbir.search.searcher import Searcher
from cbir.search.thumbnails import Thumbnail

_CACHED_THUMBNAILS = 2048
_THUMBNAIL_PX = 320

Fingerprint = tuple[tuple[str, int, int, int], ...]


class SharedGallery:
    """The gallery as all users share it: one Searcher, and the thumbnails shown most recently."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.thumbnail = lru_cache(_CACHED_THUMBNAILS)(self._thumbnail)
        self._decoding = BoundedSemaphore(cores())

    @cached_property
    def choices(self) -> Choices:
        """The values that the controls of the page offer."""
        return Choices.of(self.searcher.encoders, self.searcher.labels, self.searcher.size)

    def pack_upload(self, data: bytes, name: str) -> bytes:
        """Pack the bytes of an uploaded file as the gallery's images were packed.

        At most as many at a time as there are cores: a large photograph takes some hundred MB while it is decoded.
        name : of the file, for messages.  Raises DataError if the image cannot be decoded.
        """
        with self._decoding:
            return self.searcher.query_image(QueryPart(image=data, name=f"'{printable(name)}'")) or b""

    def _thumbnail(self, image_id: str) -> Thumbnail:
        return card_image(self.searcher.image_bytes(image_id))


def card_image(packed: bytes) -> Thumbnail:
    """An image as the page shows it."""
    return Thumbnail.of(packed, _THUMBNAIL_PX)


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
