"""What the read-only views of a folder and of an archive share."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cbir.artifacts.left_out import LeftOut

MAX_FILE_BYTES = 256 * 2**20  # larger than any image file; stops a zip bomb before it fills the memory


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
