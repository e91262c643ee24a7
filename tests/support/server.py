"""An HTTP server on 127.0.0.1 that sends prescribed answers and faults.

from tests.support.server import Answer, FileServer, file_server  # noqa: F401  (the fixture `server`)

def test_one_fault_then_the_body(server: FileServer) -> None:
    url = server.put("/images.zip", Answer(status=503), Answer(b"body"))
    ...
    assert [hit.status for hit in server.hits] == [503, 200]
"""

import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Answer:
    """The server's answer to one request."""

    body: bytes | Callable[[], Iterable[bytes]] = (
        b""  # a callable yields a body too large for memory, of `length` bytes
    )
    length: int | None = None  # of the body; needed for a callable
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True  # False: neither offered nor served
    content_range: str | None = None  # sent in place of the right one
    authorization: str | None = None  # the header without which the answer is 401
    chunked: bool = False  # no Content-Length
    stop_after: int | None = None  # bytes of this answer, after which the connection is closed
    reset: bool = False  # closed with a reset
    stall_s: float = 0.0  # before the first byte of the body
    pause_s: float = 0.0  # after each `step` bytes
    step: int = 1 << 16


@dataclass
class Hit:
    """A request, and the answer to it."""

    path: str
    range: str | None
    accept_encoding: str | None
    status: int = 0
    sent: int = 0
    began: float = 0.0
    ended: float = 0.0


class FileServer(ThreadingHTTPServer):
    """Answers by path: each request to a path takes its next answer; the last answer stays."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hits: list[Hit] = []
        self._answers: dict[str, list[Answer]] = {}

    def put(self, path: str, *answers: Answer) -> str:
        """Set the answers at `path`, replace older ones, and return the address."""
        self._answers[path] = list(answers)
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client may disconnect at any time
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def next_answer(self, path: str) -> Answer:
        answers = self._answers.get(path, [Answer(status=404)])
        return answers.pop(0) if len(answers) > 1 else answers[0]


class _Handler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        answer = self.server.next_answer(self.path)
        header = self.headers.get
        hit = Hit(self.path, header("Range"), header("Accept-Encoding"), began=time.monotonic())
        self.server.hits.append(hit)
        if answer.authorization not in (None, header("Authorization")):
            answer = Answer(status=401)
        with suppress(ConnectionError):  # the client may be killed in the middle
            self._send(answer, hit)
        hit.ended = time.monotonic()

    def _send(self, answer: Answer, hit: Hit) -> None:
        length = len(answer.body) if isinstance(answer.body, bytes) else answer.length or 0
        start = self._start(answer, hit)
        headers = dict(answer.headers)
        hit.status = answer.status
        if start is not None and start >= length:
            hit.status, start, length, headers["Content-Range"] = 416, 0, 0, f"bytes */{length}"
        elif start is not None:
            hit.status = 206
            headers["Content-Range"] = answer.content_range or f"bytes {start}-{length - 1}/{length}"
        if answer.ranges:
            headers["Accept-Ranges"] = "bytes"
        headers |= (
            {"Transfer-Encoding": "chunked"} if answer.chunked else {"Content-Length": str(length - (start or 0))}
        )
        self.send_response(hit.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if length:
            time.sleep(answer.stall_s)
            self._send_body(answer, hit, start or 0)

    @staticmethod
    def _start(answer: Answer, hit: Hit) -> int | None:
        """Return the first byte requested, None for the whole body."""
        requested = re.fullmatch(r"bytes=(\d+)-", hit.range or "")
        supported = answer.ranges and answer.status == 200 and isinstance(answer.body, bytes)
        return int(requested[1]) if requested and supported else None

    def _send_body(self, answer: Answer, hit: Hit, start: int) -> None:
        body = answer.body
        pieces = (
            [body[i : i + answer.step] for i in range(start, len(body), answer.step)]
            if isinstance(body, bytes)
            else body()
        )
        for piece in pieces:
            room = len(piece) if answer.stop_after is None else min(len(piece), answer.stop_after - hit.sent)
            out = piece[:room]
            hit.sent += room  # before the write, because a test may look as soon as the last byte has arrived
            self.wfile.write(b"%x\r\n%s\r\n" % (len(out), out) if answer.chunked and out else out)
            if hit.sent == answer.stop_after:
                return self._cut(answer.reset)
            time.sleep(answer.pause_s)
        if answer.chunked:
            self.wfile.write(b"0\r\n\r\n")
        return None

    def _cut(self, reset: bool) -> None:
        self.close_connection = True
        if reset:  # closing with a linger time of 0 is a reset; wait until the client has read the bytes before it
            time.sleep(0.1)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()  # it keeps the socket open
            self.connection.close()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(name="server")
def file_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A FileServer that runs in a thread during one test."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FileServer() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()
