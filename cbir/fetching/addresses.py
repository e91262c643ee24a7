"""Which addresses name a file on this machine."""

from pathlib import Path
from urllib.parse import unquote, urlparse


def local_path(url: str) -> Path | None:
    """The path that a plain path or a file: address names; None for an address on a network.

    >>> local_path("file:///photos/my%20cat.zip"), local_path("photos"), local_path("http://host/photos.zip")
    (PosixPath('/photos/my cat.zip'), PosixPath('photos'), None)
    """
    if url.startswith("file:"):
        return Path(unquote(urlparse(url).path))
    return None if "://" in url else Path(url).expanduser()
