"""Addresses of files on this machine and elsewhere."""

from pathlib import Path
from urllib.parse import unquote, urlparse

from cbir.core.errors import ConfigError


def local_path(url: str) -> Path | None:
    """Return the path that a plain path or a file: address names, None for an address on a network.

    Raises ConfigError for a file: address of another host, or without an absolute path.

    >>> local_path("file:///photos/my%20cat.zip"), local_path("photos"), local_path("http://host/photos.zip")
    (PosixPath('/photos/my cat.zip'), PosixPath('photos'), None)
    """
    if url.startswith("file:"):
        address = urlparse(url)
        if address.netloc not in ("", "localhost") or not address.path.startswith("/"):
            raise ConfigError(f"{url}: expected an absolute path, as in file:///data/images.zip")
        return Path(unquote(address.path))
    return None if "://" in url else Path(url).expanduser()
