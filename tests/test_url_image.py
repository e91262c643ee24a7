"""Images from pasted addresses, from a real server on the loopback, which only these tests allow."""

import socket
import threading
from functools import partial
from typing import Any

import pytest

from cbir.app.url_image import fetch_image, is_public
from cbir.errors import FetchError
from tests.server import Answer, FileServer, file_server  # noqa: F401  (the fixture `server`)

BODY = b"\xff\xd8 not much of an image"
fetch_here = partial(fetch_image, max_bytes=10_000, allowed=lambda address: True)


@pytest.mark.parametrize("answer", [Answer(BODY), Answer(BODY, chunked=True), Answer(BODY, etag="x")])
def test_the_body_comes_as_it_is(server: FileServer, answer: Answer) -> None:
    assert fetch_here(server.put("/a.jpg", answer)) == BODY


PRIVATE = """127.0.0.1 127.8.8.8 0.0.0.0 10.0.0.1 172.16.3.4 192.168.1.1 169.254.169.254 100.64.0.1 224.0.0.1
    255.255.255.255 ::1 :: fe80::1 fc00::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 2002:7f00:1:: 64:ff9b:1::1
    64:ff9b::10.0.0.1"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_what_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"]
)
def test_what_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "[::1]"])
def test_no_spelling_of_the_loopback_is_asked(server: FileServer, host: str) -> None:
    server.put("/a.jpg", Answer(BODY))
    with pytest.raises(FetchError, match=r"not on the public internet|cannot be reached"):
        fetch_image(f"http://{host}:{server.server_port}/a.jpg", max_bytes=10_000)
    assert server.hits == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_answer_to_the_second_question_for_the_name_is_checked_too(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """A name that is public when it is looked up first, and leads here when it is connected to."""
    asked: list[str] = []

    def lie(host: str, port: int, *arguments: Any, **options: Any) -> list[Any]:
        asked.append(host)
        address = "1.1.1.1" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, server.server_port))]

    monkeypatch.setattr(socket, "getaddrinfo", lie)
    with pytest.raises(FetchError, match=r"rebound\.example is not on the public internet"):
        fetch_image(f"{scheme}://rebound.example/a.jpg", max_bytes=10_000)
    assert len(asked) == 2
    assert server.hits == []


def test_no_proxy_of_the_environment_is_used(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.server_port}")
    with pytest.raises(FetchError, match="not on the public internet"):
        fetch_image("http://10.0.0.1/a.jpg", max_bytes=10_000)
    assert server.hits == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(server: FileServer, status: int) -> None:
    server.put("/b.jpg", Answer(BODY))
    assert fetch_here(server.put("/a.jpg", Answer(status=status, headers={"Location": "/b.jpg"}))) == BODY


def test_a_redirect_to_where_nobody_may_go_is_refused(server: FileServer) -> None:
    """The first address may be asked, the second may not."""
    server.put("/b.jpg", Answer(BODY))
    url = server.put("/a.jpg", Answer(status=302, headers={"Location": f"http://127.0.0.2:{server.server_port}/b.jpg"}))
    with pytest.raises(FetchError, match=r"127\.0\.0\.2 is not on the public internet"):
        fetch_image(url, max_bytes=10_000, allowed=lambda address: address == "127.0.0.1")
    assert [hit.path for hit in server.hits] == ["/a.jpg"]


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://host/a.jpg", "gopher://x", ""])
def test_a_redirect_to_something_else_is_refused(server: FileServer, location: str) -> None:
    with pytest.raises(FetchError, match=r"expected the address|redirects more than"):
        fetch_here(server.put("/a.jpg", Answer(status=302, headers={"Location": location})))


def test_a_chain_of_redirects_ends(server: FileServer) -> None:
    with pytest.raises(FetchError, match="redirects more than 3 times"):
        fetch_here(server.put("/a.jpg", Answer(status=302, headers={"Location": "/a.jpg"})))
    assert len(server.hits) == 4


@pytest.mark.parametrize(
    "url", ["", "cat.jpg", "file:///etc/passwd", "ftp://host/a.jpg", "http://", "http://[::1", "data:,x"]
)
def test_what_is_no_address_of_the_web_is_refused(url: str) -> None:
    with pytest.raises(FetchError, match="expected the address of an image"):
        fetch_here(url)


@pytest.mark.parametrize(
    "url", ["http://no.such.invalid/a.jpg", "http://\u0000/a.jpg", f"http://{'a' * 300}.com/", "http://a..b/"]
)
def test_a_host_that_is_not_there_is_told(url: str) -> None:
    with pytest.raises(FetchError, match="cannot be reached"):
        fetch_here(url)


def test_an_error_of_the_server_is_told(server: FileServer) -> None:
    with pytest.raises(FetchError, match="the server answered 404"):
        fetch_here(server.put("/a.jpg", Answer(status=404)))


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_is_too_large_is_left(server: FileServer, chunked: bool) -> None:
    endless = Answer(lambda: (bytes(1000) for _ in range(100_000)), length=100_000_000, chunked=chunked)
    with pytest.raises(FetchError, match="larger than"):
        fetch_here(server.put("/a.jpg", endless))


def test_a_body_that_drips_is_left(server: FileServer) -> None:
    url = server.put("/a.jpg", Answer(bytes(5000), step=10, pause_s=0.05))
    with pytest.raises(FetchError, match="takes too long"):
        fetch_here(url, whole_s=0.5)


def test_a_body_that_breaks_off_is_told(server: FileServer) -> None:
    with pytest.raises(FetchError, match="the connection broke"):
        fetch_here(server.put("/a.jpg", Answer(bytes(5000), chunked=True, stop_after=100)))


def test_what_speaks_no_http_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connected, _ = listening.accept()
            with connected:
                connected.sendall(b"220 mail ready\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(FetchError, match="cannot be reached"):
            fetch_here(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        thread.join()


def test_nothing_is_unpacked_on_the_way(server: FileServer) -> None:
    url = server.put("/a.jpg", Answer(BODY, headers={"Content-Encoding": "gzip"}))
    assert fetch_here(url) == BODY
    assert server.hits[0].accept_encoding == "identity"
