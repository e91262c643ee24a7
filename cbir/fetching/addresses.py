"""Addresses of files on this machine and elsewhere."""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlparse

from cbir.core.errors import ConfigError
from cbir.core.secrets import ENVIRONMENT, without_secrets

_LEAST_SECRET_CHARACTERS = 4


def local_path(url: str) -> Path | None:
    """Return the path that a plain path or a file: address names, None for an address on a network.

    Raises ConfigError for a file: address of another host, or without an absolute path, and for the home of an unknown user.

    >>> local_path("file:///photos/my%20cat.zip"), local_path("photos"), local_path("http://host/photos.zip")
    (PosixPath('/photos/my cat.zip'), PosixPath('photos'), None)
    """
    if url.startswith("file:"):
        try:
            address = urlparse(url)
        except ValueError as error:  # of a host in brackets
            raise ConfigError(f"{url}: expected an absolute path, as in file:///data/images.zip") from error
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


def check_address(name: str, value: str) -> None:
    """Raise ConfigError for an address with a secret, because parameters are written into params.yaml, dvc.lock and reports.

    So does a text that cannot be an address, as http://[::1.  name : the parameter, for the message.
    """
    if "://" not in value:
        return
    try:
        urlparse(value)
    except ValueError as error:
        raise ConfigError(f"{name}: expected an address, found {without_secrets(value)} ({error})") from error
    value = re.sub(r"\s", "%20", value)
    public = without_secrets(value)
    if public != value:
        raise ConfigError(
            f"{name}: expected an address without a secret, found {public}: name an environment variable in its place "
            "('...?$QUERY' after `export QUERY=...`), or write user and password into ~/.netrc; see docs/your-images.md"
        )


def filled_in(url: str) -> str:
    """Return an address with the values of the environment variables that it names, as in `https://host/a.zip?$QUERY`.

    The result may hold secrets: nothing may show or store it.  A path on this machine stays as it is.
    Raises ConfigError if a variable is not set.
    """
    if local_path(url) is not None:
        return url

    def value(match: re.Match[str]) -> str:
        secret = os.environ.get(match[1])
        if not secret:
            raise ConfigError(
                f"{url}: expected the environment variable {match[1]}, found none: `export {match[1]}=...`, then run again"
            )
        return secret

    return ENVIRONMENT.sub(value, url)


def hidden(text: str, url: str) -> str:
    """Return a text about fetching `url` without the values of its environment variables and without other secrets."""
    for name in ENVIRONMENT.findall(url):
        value = os.environ.get(name, "")
        if len(value) >= _LEAST_SECRET_CHARACTERS:  # shorter ones stand in other words as well
            text = text.replace(value, f"${name}")
    return without_secrets(text)
