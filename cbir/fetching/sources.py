"""Open a file at any address that fsspec reads, and sort its exceptions into faults that may pass and those that do not."""

import asyncio
import io
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from time import monotonic
from typing import IO

import aiohttp
import certifi
import fsspec
from fsspec.registry import known_implementations

from cbir.core.errors import FetchError
from cbir.fetching.addresses import filled_in, hidden, local_path

_CONNECT_S = 10.0  # longest wait for a connection
_LEAST_BYTES_PER_S = 1000
_PASSING_STATUSES = {408, 429}  # and all from 500


class SlowSourceError(TimeoutError):
    """A server sends too slowly to go on."""


class PassingFault(Exception):
    """A fault that another attempt may not meet."""


class Pace:
    """Measures the rate of a download, over periods of `silence_s` seconds."""

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._began, self._bytes = monotonic(), 0

    def check(self, n: int) -> None:
        """Count n more bytes.  Raises PassingFault where a period brought less than 1 kB/s: a server may send byte by byte."""
        self._bytes += n
        period_s = monotonic() - self._began
        if period_s < self._silence_s:
            return
        if n and self._bytes < _LEAST_BYTES_PER_S * period_s:
            raise SlowSourceError(f"the server sends less than {_LEAST_BYTES_PER_S:,} bytes a second")
        self._began, self._bytes = monotonic(), 0


def open_source(url: str, start: int, silence_s: float) -> tuple[IO[bytes], int, int | None]:
    """Open a file at byte `start`, or at 0 where that is impossible; return it with its position and its size, if known.

    silence_s : the longest wait for an answer, and for the next bytes.
    """
    if (path := local_path(url)) is not None:
        return path.open("rb"), 0, path.stat().st_size
    url = filled_in(url)
    if re.match("https?:", url):
        return _open_http(url, start, silence_s)
    file_system, name = fsspec.url_to_fs(url)
    source = file_system.open(name)
    source.seek(start)
    return source, start, getattr(source, "size", None)


def _open_http(url: str, start: int, silence_s: float) -> tuple[IO[bytes], int, int | None]:
    async def answer(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        async with asyncio.timeout(_CONNECT_S + silence_s):  # a server may send its headers byte by byte
            return await send(request)

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=silence_s)
    # auto_decompress would unpack a .tar.gz that a server labels as encoded; trust_env: proxies and ~/.netrc
    own = fsspec.config.conf.get("http", {}) | fsspec.config.conf.get("https", {})
    client = own.get("client_kwargs", {}) | {
        "timeout": timeout,
        "auto_decompress": False,
        "trust_env": True,
        "middlewares": (answer,),
    }
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
        return _open_http(url, 0, silence_s)
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
        case SlowSourceError():
            return str(error)
        case TimeoutError():
            return "the server does not answer"
        case aiohttp.TooManyRedirects():
            return "the server leads from one address to the next and never to a file"
        case aiohttp.NonHttpUrlRedirectClientError():
            return f"the server leads to {error}, expected a web address"
        case aiohttp.ClientResponseError():
            return f"the server answered {error.status} {error.message}"
        case aiohttp.ClientPayloadError():
            return "the body ended early"
        case aiohttp.ClientConnectorError():
            return f"cannot connect: {error.os_error}"
        case aiohttp.InvalidURL():
            return f"expected a web address, found {error.url}"
        case UnicodeError():
            return "expected a web address, found one whose host has no valid name"
    return " ".join(str(error).split()) or type(error).__name__
