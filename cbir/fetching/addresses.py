"""Addresses of files on this machine and elsewhere."""

from pathlib import Path
from urllib.parse import unquote, urlparse

from cbir.core.errors import ConfigError


def local_path(url: str) -> Path | None:
    """Return the path that a plain path or a file: address names, None for an address on a network.

    Raises ConfigError for a file: address of another host, or without an absolute path, and for the home of an unknown user.

    >>> local_path("file:///photos/my%20cat.zip"), local_path("photos"), local_path("http://host/photos.zip")
    (PosixPath('/photos/my cat.zip'), PosixPath('photos'), None)
    """
    if url.startswith("file:"):
        address = urlparse(url)
        if address.netloc not in ("", "localhost") or not address.path.startswith("/"):
            raise ConfigError(f"{url}: expected an absolute path, as in file:///data/images.zip")
        return Path(unquote(address.path))
    if "://" in url:
        return None
    try:
        return Path(url).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{url}: expected a path, found ~ with no known user's name after it: write the whole path"
        ) from error
