"""Requests that the server of the page refuses: other names (DNS rebinding), other sites, frames."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbir.app.guard import Guard, checked_host
from cbir.core.errors import ConfigError

SERVED = "served"


def answer(hosts: list[str], origin: str | None = None, kind: str = "http", names: tuple[str, ...] = ()) -> str:
    """SERVED, or the text of the refusal, or "closed" for a WebSocket.  hosts : the Host headers of the request."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert not [value for name, value in scope["headers"] if name == b"origin"]
        await send({"type": "http.response.start", "headers": [(b"x-own", b"1")]})

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", host.encode("latin-1", "replace")) for host in hosts]
    headers += [] if origin is None else [(b"origin", origin.encode("latin-1", "replace"))]
    scope = {"type": kind, "method": "GET", "path": "/", "headers": headers}
    asyncio.run(Guard(app, names)(scope, None, send))  # type: ignore[arg-type]
    if sent[0]["type"] == "websocket.close":
        return "closed"
    named = dict(sent[0]["headers"])
    assert named[b"x-frame-options"] == b"DENY"
    assert named[b"content-security-policy"] == b"frame-ancestors 'none'"
    return SERVED if b"x-own" in named else sent[1]["body"].decode()


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.:8501",
        "127.0.0.1:8501",
        "[::1]:8501",
        "192.168.1.5",
        "photos.example:443",
        "Photos.Example.",
    ],
)
def test_localhost_addresses_and_named_hosts_are_served(host: str, kind: str) -> None:
    assert answer([host], kind=kind, names=("photos.example",)) == SERVED
    assert answer([host], f"https://{host}", kind, ("photos.example",)) == SERVED


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [""],
        ["localhost", "localhost"],
        ["evil.example"],
        ["localhost.evil.example"],
        ["photos.example.evil.example"],
        ["evil.example:8501"],
        ["localhost@evil.example"],
        ["evil.example@localhost"],
        ["localhost:port"],
        ["localhost:99999"],
        ["localhost/"],
        ["localhost#evil.example"],
        ["127.0.0.1.evil.example"],
        ["0x7f.1"],
        ["[::1"],
    ],
)
def test_other_hosts_are_refused(hosts: list[str], kind: str) -> None:
    assert answer(hosts, kind=kind, names=("photos.example",)) != SERVED


@given(st.text(st.characters(max_codepoint=0xFF), max_size=30))
def test_no_name_of_any_form_is_served_unnamed(host: str) -> None:
    assert answer([f"{host}.evil.example"]) != SERVED
    assert answer(["localhost"], f"http://{host}.evil.example") != SERVED


def test_the_refusal_names_the_command() -> None:
    assert "start it with `cbir app --host nas.local`" in answer(["nas.local:8501"])


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://localhost:3000", "http://[::1", "http://localhost:8501.evil.example"],
)
def test_pages_of_other_sites_are_refused(origin: str, kind: str) -> None:
    assert answer(["localhost:8501"], origin, kind, ("photos.example",)) != SERVED


def test_a_proxy_may_replace_the_host() -> None:
    assert answer(["127.0.0.1:8501"], "https://photos.example", "websocket", ("photos.example",)) == SERVED


@pytest.mark.parametrize(
    "host", ["http://photos.example", "photos.example:8501", "*", "*.example", "", "a b", "..", "a/b"]
)
def test_a_host_that_is_no_name_is_an_error(host: str) -> None:
    with pytest.raises(ConfigError, match=r"^--host: expected a name such as .*, without scheme and port"):
        checked_host(host)
