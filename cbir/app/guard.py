"""What the server refuses: requests that another web site makes through a user's browser.

The server has no log-in: whoever reaches it may search.  A web site elsewhere cannot reach it, but a visitor's browser can.
The site's name may come to mean this machine (DNS rebinding); the browser then sends that name as Host.  A page of the site
may open a WebSocket; the browser then sends the site as Origin.  Or it may show the search page in a frame, under its own.
"""

import re
from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cbir.core.errors import ConfigError
from cbir.core.text import printable

_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_MAX_QUOTED_CHARACTERS = 100
_HEADERS = (  # of each answer; Streamlit sets none of them
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # the page's address holds the search
)


class Guard:
    """ASGI middleware that refuses requests to other hosts and from other sites, for pages, files and WebSockets alike.

    hosts : the names under which users reach the server; localhost and addresses are always valid, because no name server
    decides what they mean.  A proxy may replace the host of a request, but not its origin, which may be any of `hosts`.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app, self._hosts = app, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it with status 403."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        refusal = self._refusal(_values(scope, b"host"), _values(scope, b"origin"))
        if refusal is None:
            # Streamlit would compare the origin with this machine's address in the internet, and ask another host for it
            headers = [(name, value) for name, value in scope["headers"] if name != b"origin"]
            await self._app({**scope, "headers": headers}, receive, send_protected)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await PlainTextResponse(f"{refusal}\n", status_code=403)(scope, receive, send_protected)

    def _refusal(self, hosts: list[str], origins: list[str]) -> str | None:
        """Why a request with these headers is refused; None if it is served."""
        host = _name(hosts[0]) if len(hosts) == 1 else None
        if host is None:
            return "expected a request with one Host, the name or the address of this server"
        if host not in ("localhost", *self._hosts) and not _is_address(host):
            name = printable(host, _MAX_QUOTED_CHARACTERS)
            return f"this server does not answer to the name {name}: start it with `cbir app --host {name}`"
        for origin in origins:
            site = origin.partition("://")[2]
            if site.lower() != hosts[0].lower() and _name(site) not in self._hosts:
                return f"this server does not answer to pages of {printable(origin, _MAX_QUOTED_CHARACTERS)}"
        return None


def checked_host(host: str) -> str:
    """The name of a host as browsers send it: in lower case and ASCII.  Raises ConfigError for anything but a name.

    >>> checked_host("Bücher.example")
    'xn--bcher-kva.example'
    """
    try:
        name = host.encode("idna").decode().lower().rstrip(".")
    except UnicodeError:
        name = ""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--host: expected a name such as photos.example.org, without scheme and port, found {host!r}"
        )
    return name


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for header, value in scope["headers"] if header == name]


def _name(host: str) -> str | None:
    """The name or address in the Host of a request; None if it is malformed."""
    try:
        parsed = urlsplit(f"//{host}")
        name, _ = parsed.hostname, parsed.port  # which raises for what is no number
    except ValueError:
        return None
    return name.rstrip(".") if name is not None and parsed.netloc == host and "@" not in host else None


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
