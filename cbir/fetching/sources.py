"""Open a file at any address that fsspec reads, and sort its exceptions into faults that may pass and those that do not."""

import io
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import IO

import aiohttp
import certifi
import fsspec
from fsspec.registry import known_implementations

from cbir.core.errors import FetchError
from cbir.fetching.addresses import filled_in, hidden, local_path

_CONNECT_S, _SILENCE_S = 10.0, 60.0  # longest wait for a connection, and for the next bytes
_PASSING_STATUSES = {408, 429}  # and all from 500


class PassingFault(Exception):
    """A fault that another attempt may not meet."""


def open_source(url: str, start: int) -> tuple[IO[bytes], int, int | None]:
    """Open a file at byte `start`, or at 0 where that is impossible; return it with its position and its size, if known."""
    if (path := local_path(url)) is not None:
        return path.open("rb"), 0, path.stat().st_size
    url = filled_in(url)
    if re.match("https?:", url):
        return _open_http(url, start)
    file_system, name = fsspec.url_to_fs(url)
    source = file_system.open(name)
    source.seek(start)
    return source, start, getattr(source, "size", None)


def _open_http(url: str, start: int) -> tuple[IO[bytes], int, int | None]:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
    # auto_decompress would unpack a .tar.gz that a server labels as encoded; trust_env: proxies and ~/.netrc
    own = fsspec.config.conf.get("http", {}) | fsspec.config.conf.get("https", {})
    client = own.get("client_kwargs", {}) | {"timeout": timeout, "auto_decompress": False, "trust_env": True}
    file_system = fsspec.filesystem("http", skip_instance_cache=True, ssl=_certificates(), client_kwargs=client)
    headers = own.get("headers", {}) | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        # block_size=0 opens a stream.  Without a size, which a stream ignores, fsspec would send a HEAD request first and
        # report each failure of it as a missing file.
        source = file_system.open(url, block_size=0, size=1, headers=headers)
    except aiohttp.ClientResponseError as error:
        if start and error.status == 416:  # the file ends at `start` or before
            return io.BytesIO(), start, start
        raise
    response = source.r
    if response.status != 206:
        start = 0
    elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        source.close()
        return _open_http(url, 0)
    length = response.headers.get("Content-Length", "")
    return source, start, start + int(length) if length.isdecimal() else None


@cache
def _certificates() -> ssl.SSLContext:
    """Trust the system's certificates, which some builds of Python do not find, and those that requests would use."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where()
    context = ssl.create_default_context()
    context.load_verify_locations(**{"capath" if os.path.isdir(bundle) else "cafile": bundle})
    return context


@contextmanager
def translated_faults(url: str) -> Iterator[None]:
    """Turn each exception of the block into a PassingFault or a FetchError."""
    try:
        yield
    except Exception as error:  # file systems share no base class of errors
        reason, passing, remedy = hidden(_reason(error), url), _may_pass(error), "check the address"
        if isinstance(error, ImportError):
            scheme = url.partition(":")[0]
            package = known_implementations[scheme]["class"].partition(".")[0]
            reason, remedy = f"expected the package for {scheme}:// addresses, found none", f"`pip install {package}`"
        if isinstance(error, aiohttp.ClientResponseError) and error.status in (401, 403):
            remedy = (
                "check the address, and the password in ~/.netrc or the secret in the address (docs/your-images.md)"
            )
        if passing:
            raise PassingFault(reason) from error
        raise FetchError(f"{url}: {reason}: {remedy}") from error


def _may_pass(error: Exception) -> bool:
    if isinstance(error, aiohttp.ClientResponseError):
        return error.status >= 500 or error.status in _PASSING_STATUSES
    return isinstance(
        error, TimeoutError | ConnectionError | aiohttp.ClientConnectionError | aiohttp.ClientPayloadError
    )


def _reason(error: Exception) -> str:
    match error:
        case FileNotFoundError():
            return "expected a file, found nothing"
        case IsADirectoryError():
            return "expected a file, found a folder"
        case TimeoutError():
            return "the server does not answer"
        case aiohttp.ClientResponseError():
            return f"the server answered {error.status} {error.message}"
        case aiohttp.ClientPayloadError():
            return "the body ended early"
        case aiohttp.ClientConnectorError():
            return f"cannot connect: {error.os_error}"
        case aiohttp.InvalidURL():
            return f"expected a web address, found {error.url}"
    return " ".join(str(error).split()) or type(error).__name__
