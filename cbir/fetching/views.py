"""What the read-only views of a folder and of an archive share."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Protocol

from cbir.artifacts.left_out import LeftOut

IMAGE_SUFFIXES = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp")
# of images that are not decoded
OTHER_IMAGE_SUFFIXES = (
    ".ai", ".arw", ".avif", ".cr2", ".cr3", ".dng", ".eps", ".heic", ".heics", ".heif", ".hif", ".ico", ".jp2", ".jxl",
    ".nef", ".orf", ".pdf", ".pgm", ".ppm", ".psd", ".raf", ".raw", ".rw2", ".svg", ".tga",
)  # fmt: skip
MAX_FILE_BYTES = 256 * 2**20  # larger than any image file; stops a zip bomb before it fills the memory


def is_image(name: str) -> bool:
    """Whether a file has the name of an image that is decoded.

    >>> is_image("cats/1.JPG"), is_image("cats/notes.txt")
    (True, False)
    """
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


class Files(Protocol):
    """A view of files.  root : the folder or archive, for messages.  names : sorted relative paths with `/`."""

    root: str
    names: list[str]

    def read(self, name: str) -> bytes:
        """Return the bytes of a file.  Raises UndecodableImage if they cannot be read."""
        ...

    def path(self, name: str) -> Path | None:
        """Return the path of a file, None in an archive."""
        ...

    def left_out(self, is_image: Callable[[str], bool]) -> list[LeftOut]:
        """The folders that the view leaves out, sorted; hidden folders and those of software only if they hold images."""
        ...
