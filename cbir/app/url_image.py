"""Fetch an image from an address that a user pasted, without becoming that user's way into this machine's network.

Only http and https, only addresses of the public internet (of every redirect, too), no proxies, bounded in bytes and time.
"""

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from time import monotonic
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from cbir.core.errors import FetchError

_MOST_REDIRECTS = 3
_CONNECT_S, _READ_S, _WHOLE_S = 5.0, 10.0, 30.0
_CHUNK_BYTES = 1 << 16
_NAT64, _LOCAL_NAT64 = ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48")  # RFC 6052, RFC 8215
_REDIRECTS = (301, 302, 303, 307, 308)

Allowed = Callable[[str], bool]


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet.

    >>> [is_public(one) for one in ("1.1.1.1", "127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1")]
    [True, False, False, False, False, False]
    """
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        if ip in _LOCAL_NAT64:
            return False
        # These forms lead to an IPv4 address, which counts.
        nat64 = IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None
        ip = ip.ipv4_mapped or nat64 or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or ip
    return ip.is_global and not ip.is_multicast


def fetch_image(url: str, *, max_bytes: int, allowed: Allowed = is_public, whole_s: float = _WHOLE_S) -> bytes:
    """The body at an address, unopened.

    max_bytes : the most that is read.  allowed : which IP addresses may be asked; whole_s : seconds for the body, in all.
    Raises FetchError when the address is refused, cannot be reached, or answers with anything but such a body.
    """
    until = monotonic() + whole_s
    with requests.Session() as session:
        session.trust_env = False  # behind a proxy the peer would be the proxy, and the check below void
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Adapter(allowed))
        for _ in range(_MOST_REDIRECTS + 1):
            response = _get(session, url)
            with response:
                if response.status_code not in _REDIRECTS:
                    return _body(response, max_bytes, until)
                url = urljoin(url, response.headers.get("Location", ""))
    raise FetchError(f"the address redirects more than {_MOST_REDIRECTS} times: give the last one")


def _get(session: requests.Session, url: str) -> requests.Response:
    try:
        scheme, host = urlsplit(url).scheme.lower(), urlsplit(url).hostname
    except ValueError:
        scheme, host = "", None
    if scheme not in ("http", "https") or not host:
        raise FetchError("expected the address of an image, http://... or https://...")
    try:
        return session.get(
            url,
            headers={"Accept-Encoding": "identity", "Accept": "image/*"},
            allow_redirects=False,
            stream=True,
            timeout=(_CONNECT_S, _READ_S),
        )
    except (requests.RequestException, urllib3.exceptions.HTTPError, UnicodeError) as error:
        # No more than this: which inner port answers, and how, is nothing to tell.
        raise FetchError(f"{host} cannot be reached: check the address") from error


def _body(response: requests.Response, max_bytes: int, until: float) -> bytes:
    if response.status_code != 200:
        raise FetchError(f"the server answered {response.status_code}: check the address")
    body = bytearray()
    try:
        # Of the raw body: what a server calls compressed is not unpacked, so nothing grows.
        while chunk := response.raw.read1(_CHUNK_BYTES):
            body += chunk
            if len(body) > max_bytes:
                raise FetchError(
                    f"the image is larger than {max_bytes >> 20} MB: fetch it yourself and make it smaller"
                )
            if monotonic() > until:
                raise FetchError("the server takes too long: fetch the image yourself and upload it")
    except urllib3.exceptions.HTTPError as error:
        raise FetchError("the connection broke: try again") from error
    return bytes(body)


class _Checked:
    """A connection that looks whom it is talking to before it says anything."""

    allowed: Allowed
    host: str
    port: int

    def _new_conn(self) -> socket.socket:
        try:
            found = socket.getaddrinfo(self.host.strip("[]"), self.port, type=socket.SOCK_STREAM)
        except OSError:
            found = []  # urllib3 will find the same, and say it in its own way
        for *_, place in found:
            self._check(str(place[0]))
        connected: socket.socket = super()._new_conn()  # type: ignore[misc]
        try:
            self._check(str(connected.getpeername()[0]))  # the name may have been answered otherwise this time
        except BaseException:
            connected.close()
            raise
        return connected

    def _check(self, address: str) -> None:
        if not self.allowed(address):
            raise FetchError(f"{self.host} is not on the public internet: upload the image instead")


class _Adapter(HTTPAdapter):
    def __init__(self, allowed: Allowed) -> None:
        self._allowed = staticmethod(allowed)
        super().__init__(max_retries=0)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """As requests does it, with connections of ours."""
        super().init_poolmanager(*arguments, **options)
        http = type("_Http", (_Checked, HTTPConnection), {"allowed": self._allowed})
        https = type("_Https", (_Checked, HTTPSConnection), {"allowed": self._allowed})
        self.poolmanager.pool_classes_by_scheme = {
            "http": type("_HttpPool", (HTTPConnectionPool,), {"ConnectionCls": http}),
            "https": type("_HttpsPool", (HTTPSConnectionPool,), {"ConnectionCls": https}),
        }
