"""fetch against a real server: the bytes, the requests, the files that are left and the messages."""

import gzip
import hashlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from cbir.core.errors import ConfigError, FetchError
from cbir.fetching import sources
from cbir.fetching.fetch import FileTooLargeError, fetch
from tests.support.imports import ROOT
from tests.support.server import Answer, FileServer, file_server  # noqa: F401  (the fixture `server`)

BODY = random.Random(0).randbytes(3_000_000)
HALF = len(BODY) // 2  # more than the client buffers, so that a part of it is written before the break is seen
THOUSAND = BODY[:1000]


def sha256_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CBIR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "data" / "raw" / "images.zip"


def quickly(url: str, out: Path, attempts: int = 3, **hashes: Any) -> Path:
    return fetch(url, out, attempts=attempts, backoff_s=0.01, **hashes)


def partial_files(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache").rglob("*.part"))


def nothing_left(out: Path, tmp_path: Path) -> bool:
    return not partial_files(tmp_path) and not any(path.is_file() for path in (tmp_path / "data").rglob("*"))


def make_partial(server: FileServer, out: Path, tmp_path: Path, content: bytes) -> str:
    """Leave `content` as the unfinished download of a file whose right bytes are THOUSAND; return its address."""
    url = server.put("/images.zip", Answer(THOUSAND, stop_after=600))
    with pytest.raises(FetchError):
        quickly(url, out, attempts=1, sha256=sha256_of(THOUSAND))
    (partial,) = partial_files(tmp_path)
    partial.write_bytes(content)
    server.hits.clear()
    return url


def ranges(server: FileServer) -> list[str | None]:
    return [hit.range for hit in server.hits]


def start_of(requested: str | None) -> int:
    """The first byte of a Range header."""
    assert requested is not None
    return int(requested.removeprefix("bytes=").removesuffix("-"))


def one_line(caught: pytest.ExceptionInfo[Exception]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- whole files


@pytest.mark.parametrize(
    "hashes",
    [
        {"sha256": sha256_of(BODY)},
        {"sha256": sha256_of(BODY).upper()},
        {"md5": hashlib.md5(BODY).hexdigest()},
        {"sha256_prefix": sha256_of(BODY)[:8]},
        {"sha256": sha256_of(BODY), "md5": hashlib.md5(BODY).hexdigest(), "sha256_prefix": sha256_of(BODY)[:20]},
    ],
    ids=lambda hashes: "+".join(hashes),
)
def test_right_bytes_arrive_and_nothing_else_stays(
    server: FileServer, out: Path, tmp_path: Path, hashes: dict[str, Any]
) -> None:
    url = server.put("/images.zip", Answer(BODY))
    assert quickly(url, out, **hashes) == out
    assert out.read_bytes() == BODY
    assert os.listdir(out.parent) == ["images.zip"]
    assert partial_files(tmp_path) == []
    (hit,) = server.hits
    assert (hit.range, hit.accept_encoding) == (None, "identity")


def test_chunked_body_of_unknown_length(server: FileServer, out: Path) -> None:
    url = server.put("/images.zip", Answer(BODY, chunked=True))
    assert quickly(url, out, sha256=sha256_of(BODY)).read_bytes() == BODY


def test_empty_body(server: FileServer, out: Path) -> None:
    url = server.put("/empty", Answer(b""))
    assert quickly(url, out, sha256=sha256_of(b"")).read_bytes() == b""


def test_redirect_is_followed(server: FileServer, out: Path) -> None:
    target = server.put("/real.zip", Answer(BODY))
    url = server.put("/images.zip", Answer(status=302, headers={"Location": target}))
    assert quickly(url, out, sha256=sha256_of(BODY)).read_bytes() == BODY
    assert [hit.path for hit in server.hits] == ["/images.zip", "/real.zip"]


def test_body_labelled_gzip_is_stored_as_sent(server: FileServer, out: Path) -> None:
    url = server.put("/images.tar.gz", Answer(THOUSAND, headers={"Content-Encoding": "gzip"}))
    assert quickly(url, out, sha256=sha256_of(THOUSAND)).read_bytes() == THOUSAND


def test_older_file_is_replaced(server: FileServer, out: Path) -> None:
    out.parent.mkdir(parents=True)
    out.write_bytes(b"old")
    quickly(server.put("/images.zip", Answer(BODY)), out, sha256=sha256_of(BODY))
    assert out.read_bytes() == BODY


def test_failure_leaves_older_file(server: FileServer, out: Path) -> None:
    out.parent.mkdir(parents=True)
    out.write_bytes(b"old")
    with pytest.raises(FetchError):
        quickly(server.put("/images.zip", Answer(BODY)), out, sha256="0" * 64)
    assert out.read_bytes() == b"old"
    assert os.listdir(out.parent) == ["images.zip"]


def test_cache_on_another_file_system(
    server: FileServer, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.rename

    def rename(source: Path, target: Path) -> None:
        if Path(source).parent != Path(target).parent:
            raise OSError(18, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    quickly(server.put("/images.zip", Answer(BODY)), out, sha256=sha256_of(BODY))
    assert out.read_bytes() == BODY
    assert os.listdir(out.parent) == ["images.zip"]
    assert partial_files(tmp_path) == []


def test_memory_does_not_hold_the_body(server: FileServer, out: Path) -> None:
    piece, pieces = b"\xa5" * (1 << 16), 1 << 10
    whole = hashlib.sha256()
    for _ in range(pieces):
        whole.update(piece)
    body = Answer(lambda: itertools.repeat(piece, pieces), length=len(piece) * pieces)
    url = server.put("/large", body)
    tracemalloc.start()
    try:
        quickly(url, out, sha256=whole.hexdigest())
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert out.stat().st_size == 64 << 20
    assert peak_bytes < 8 << 20


def test_progress_is_printed_to_stderr(server: FileServer, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quickly(server.put("/x", Answer(BODY)), out, sha256=sha256_of(BODY))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fetch images.zip: 100% 3.00M/3.00M [")
    assert captured.err.count("\n") == 1


# ---- faults that may pass


def test_truncated_body_is_resumed(server: FileServer, out: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = server.put("/images.zip", Answer(BODY, stop_after=HALF), Answer(BODY))
    assert quickly(url, out, sha256=sha256_of(BODY)).read_bytes() == BODY
    assert "the body ended early; attempt 2 of 3" in caplog.text
    first, second = server.hits
    assert (first.range, first.sent, second.status) == (None, HALF, 206)
    assert 0 < start_of(second.range) <= HALF
    assert second.sent == len(BODY) - start_of(second.range)


def test_each_attempt_continues_the_one_before(server: FileServer, out: Path) -> None:
    url = server.put("/images.zip", Answer(BODY, stop_after=HALF - 1))
    assert quickly(url, out, attempts=20, sha256=sha256_of(BODY)).read_bytes() == BODY
    assert server.hits[0].range is None
    starts = [start_of(hit.range) for hit in server.hits[1:]]
    assert len(starts) >= 2
    assert starts == sorted(set(starts))


@pytest.mark.parametrize("fault", [{"reset": True}, {"chunked": True}], ids=["reset", "chunked"])
def test_broken_connection_is_resumed(server: FileServer, out: Path, fault: dict[str, bool]) -> None:
    url = server.put("/images.zip", Answer(BODY, stop_after=HALF, **fault), Answer(BODY))
    assert quickly(url, out, sha256=sha256_of(BODY)).read_bytes() == BODY
    assert len(server.hits) == 2
    assert 0 < start_of(server.hits[1].range) <= HALF


def test_stalled_server_times_out_and_is_retried(
    server: FileServer, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.put("/images.zip", Answer(BODY, stall_s=1.0), Answer(BODY))
    assert quickly(url, out, sha256=sha256_of(BODY), attempts=20, silence_s=0.2).read_bytes() == BODY
    assert len(server.hits) >= 2
    assert "the server does not answer; attempt 2 of 20" in caplog.text


def test_server_that_sends_byte_by_byte_is_left(server: FileServer, out: Path) -> None:
    url = server.put("/images.zip", Answer(BODY, step=1, pause_s=0.02))
    # on a busy machine, a byte may take longer than the silence
    with pytest.raises(
        FetchError, match=r"the server (sends less than 1,000 bytes a second|does not answer) \(attempts: 1"
    ):
        quickly(url, out, sha256=sha256_of(BODY), attempts=1, silence_s=0.5)
    assert server.hits[0].sent < 1000


@pytest.mark.parametrize(
    ("arrivals", "is_slow"),
    [
        ([(59, 1), (119, 1)], True),
        ([(30, 59_000), (61, 1)], True),
        ([(30, 61_000), (61, 1)], False),
        ([(1, 10**9), (61, 1), (122, 1)], True),  # a fast start excuses no later period
        ([(59, 1), (600, 0)], False),  # the end of the body
    ],
)
def test_the_rate_is_measured_by_periods(
    monkeypatch: pytest.MonkeyPatch, arrivals: list[tuple[float, int]], is_slow: bool
) -> None:
    clock = [0.0]
    monkeypatch.setattr(sources, "monotonic", lambda: clock[0])
    pace, slow = sources.Pace(60.0), False
    for clock[0], count in arrivals:
        try:
            pace.check(count)
        except sources.SlowSourceError:
            slow = True
    assert slow == is_slow


def test_headers_that_never_end_are_left(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_CONNECT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=drip_headers, args=(listening,), daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/images.zip"
        with pytest.raises(FetchError, match=r"the server does not answer \(attempts: 1\)"):
            quickly(url, out, sha256=sha256_of(BODY), attempts=1, silence_s=0.2)


def drip_headers(listening: socket.socket) -> None:
    """Answer one request with a byte of a header every few milliseconds."""
    connection, _ = listening.accept()
    with connection, suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"x")
            time.sleep(0.02)


# ---- bounds


def endless() -> Iterator[bytes]:
    return itertools.repeat(bytes(1 << 16))


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (Answer(endless, length=1, chunked=True), r"3,\d\d\d,\d\d\d, and no end"),
        (Answer(endless, length=10**15), "1,000,000,000,000,000, as the server says"),
        (Answer(BODY + b"x"), "3,000,001, as the server says"),
        (Answer(endless, length=1, chunked=True, headers={"Content-Encoding": "gzip"}), "and no end"),
    ],
    ids=["endless", "large", "a byte more", "encoded"],
)
def test_a_body_of_too_many_bytes_is_refused(
    server: FileServer, out: Path, tmp_path: Path, answer: Answer, found: str
) -> None:
    url = server.put("/images.zip", answer)
    with pytest.raises(FileTooLargeError, match=rf"^{url}: expected at most 3,000,000 bytes, found .*{found}: check"):
        quickly(url, out, sha256=sha256_of(BODY), max_bytes=len(BODY))
    assert len(server.hits) == 1
    assert nothing_left(out, tmp_path)


def test_a_body_of_the_most_bytes_is_fetched(server: FileServer, out: Path) -> None:
    url = server.put("/images.zip", Answer(BODY, stop_after=HALF), Answer(BODY))
    assert quickly(url, out, sha256=sha256_of(BODY), max_bytes=len(BODY)).read_bytes() == BODY


def test_a_file_on_this_machine_may_be_larger(tmp_path: Path, out: Path) -> None:
    (tmp_path / "source.zip").write_bytes(BODY)
    assert quickly(str(tmp_path / "source.zip"), out, max_bytes=1).read_bytes() == BODY


@pytest.mark.parametrize("declared", [len(BODY) - 1, len(BODY) + 1])
def test_a_wrong_content_length_is_noticed(server: FileServer, out: Path, tmp_path: Path, declared: int) -> None:
    url = server.put("/images.zip", Answer(lambda: [BODY], length=declared, ranges=False))
    with pytest.raises(FetchError, match=r"expected sha256|the server does not answer"):
        quickly(url, out, sha256=sha256_of(BODY), attempts=1, max_bytes=2 * len(BODY), silence_s=0.5)
    assert not out.exists()


def test_a_compressed_bomb_is_not_unpacked(server: FileServer, out: Path) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    url = server.put("/images.zip", Answer(bomb, headers={"Content-Encoding": "gzip"}))
    assert quickly(url, out, sha256=sha256_of(bomb), max_bytes=len(bomb)).stat().st_size == len(bomb)


def test_other_file_systems_have_the_same_bound(out: Path) -> None:
    fsspec.filesystem("memory").pipe("/large.zip", BODY)
    with pytest.raises(FileTooLargeError, match="found 3,000,000, as the server says"):
        quickly("memory://large.zip", out, sha256=sha256_of(BODY), max_bytes=1000)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("file:///etc/hostname", "the server leads to file:///etc/hostname, expected a web address"),
        ("data:,x", "the server leads to data:,x, expected a web address"),
        ("s3://bucket/x", "the server leads to s3://bucket/x, expected a web address"),
        ("http://[::1", r"expected a web address, found http://\[::1"),
        ("http://host:port/", "expected a web address, found http://host:port/"),
        ("http://x..y/", "expected a web address, found one whose host has no valid name"),
        ("/images.zip", "the server leads from one address to the next and never to a file"),
    ],
)
def test_redirect_to_no_file_of_the_web(
    server: FileServer, out: Path, tmp_path: Path, target: str, reason: str
) -> None:
    url = server.put("/images.zip", Answer(status=302, headers={"Location": target}))
    with pytest.raises(FetchError, match=rf"^{url}: {reason}: check the address$"):
        quickly(url, out, sha256=sha256_of(BODY))
    assert nothing_left(out, tmp_path)


@pytest.mark.parametrize("url", ["http://[::1", "https://[x]/a.zip", "file://[::1/a.zip"])
def test_text_that_is_no_address(out: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="expected an a"):
        quickly(url, out, sha256=sha256_of(BODY))


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_passing_status_is_retried(server: FileServer, out: Path, status: int) -> None:
    url = server.put("/images.zip", Answer(status=status), Answer(status=status), Answer(BODY))
    assert quickly(url, out, sha256=sha256_of(BODY)).read_bytes() == BODY
    assert [hit.status for hit in server.hits] == [status, status, 200]


def test_fault_is_logged_before_next_attempt(server: FileServer, out: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = server.put("/images.zip", Answer(status=503), Answer(BODY))
    quickly(url, out, sha256=sha256_of(BODY))
    (record,) = (record for record in caplog.records if record.name.startswith("cbir"))
    assert record.getMessage() == f"{url}: the server answered 503 Service Unavailable; attempt 2 of 3 in 0.0 s"


def test_waits_double(server: FileServer, out: Path) -> None:
    url = server.put("/images.zip", Answer(status=503))
    with pytest.raises(FetchError):
        fetch(url, out, sha256=sha256_of(BODY), attempts=4, backoff_s=0.05)
    waits = [after.began - before.began for before, after in itertools.pairwise(server.hits)]
    assert all(wait >= least for wait, least in zip(waits, (0.05, 0.1, 0.2), strict=True)), waits


def test_lasting_status_fails_after_last_attempt(server: FileServer, out: Path, tmp_path: Path) -> None:
    url = server.put("/images.zip", Answer(status=503))
    with pytest.raises(FetchError) as caught:
        quickly(url, out, sha256=sha256_of(BODY))
    assert one_line(caught) == (
        f"{url}: the server answered 503 Service Unavailable (attempts: 3): "
        "check the address and the network, then run `dvc repro`"
    )
    assert len(server.hits) == 3
    assert nothing_left(out, tmp_path)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, "expected a file, found nothing: check the address"),
        (410, "the server answered 410 Gone: check the address"),
        (401, "the server answered 401 Unauthorized: check the address, and the password in ~/.netrc or the secret"),
        (403, "the server answered 403 Forbidden: check the address, and the password in ~/.netrc or the secret"),
    ],
)
def test_other_status_is_final(server: FileServer, out: Path, tmp_path: Path, status: int, reason: str) -> None:
    url = server.put("/images.zip", Answer(status=status))
    with pytest.raises(FetchError) as caught:
        quickly(url, out, sha256=sha256_of(BODY))
    assert one_line(caught).startswith(f"{url}: {reason}")
    assert len(server.hits) == 1
    assert nothing_left(out, tmp_path)


def test_closed_port(out: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/images.zip"
        with pytest.raises(FetchError) as caught:
            quickly(url, out, sha256=sha256_of(BODY))
    message = one_line(caught)
    assert message.startswith(f"{url}: cannot connect: ")
    assert message.endswith(" (attempts: 3): check the address and the network, then run `dvc repro`")
    assert nothing_left(out, tmp_path)


def test_address_without_a_host(out: Path) -> None:
    with pytest.raises(FetchError, match=r"^http:///x: expected a web address, found http:///x: check the address$"):
        quickly("http:///x", out, sha256=sha256_of(BODY))


# ---- unfinished downloads


def test_unfinished_download_is_kept_for_next_run(server: FileServer, out: Path, tmp_path: Path) -> None:
    url = server.put("/images.zip", Answer(BODY, stop_after=HALF))
    with pytest.raises(FetchError) as caught:
        quickly(url, out, attempts=1, sha256=sha256_of(BODY))
    (partial,) = partial_files(tmp_path)
    size = partial.stat().st_size
    assert 0 < size <= HALF
    assert one_line(caught) == (
        f"{url}: the body ended early (attempts: 1); {size} bytes are kept and the next run resumes them: "
        "check the address and the network, then run `dvc repro`"
    )
    assert not out.exists()

    server.put("/images.zip", Answer(BODY))
    assert quickly(url, out, sha256=sha256_of(BODY)).read_bytes() == BODY
    assert server.hits[-1].range == f"bytes={size}-"
    assert partial_files(tmp_path) == []


def test_unreachable_server_does_not_cost_the_partial(server: FileServer, out: Path, tmp_path: Path) -> None:
    url = make_partial(server, out, tmp_path, THOUSAND[:600])
    server.put("/images.zip", Answer(status=503))
    with pytest.raises(FetchError, match=r"503 .*; 600 bytes are kept"):
        quickly(url, out, sha256=sha256_of(THOUSAND))
    assert [path.read_bytes() for path in partial_files(tmp_path)] == [THOUSAND[:600]]


def test_server_without_ranges_sends_it_all_again(server: FileServer, out: Path, tmp_path: Path) -> None:
    url = make_partial(server, out, tmp_path, THOUSAND[:600])
    server.put("/images.zip", Answer(THOUSAND, ranges=False))
    assert quickly(url, out, sha256=sha256_of(THOUSAND)).read_bytes() == THOUSAND
    assert [(hit.range, hit.status) for hit in server.hits] == [("bytes=600-", 200)]


@pytest.mark.parametrize("size", [600, 1000], ids=["part", "whole"])
def test_partial_of_other_content_is_fetched_anew(server: FileServer, out: Path, tmp_path: Path, size: int) -> None:
    url = make_partial(server, out, tmp_path, bytes(size))
    server.put("/images.zip", Answer(THOUSAND))
    assert quickly(url, out, attempts=1, sha256=sha256_of(THOUSAND)).read_bytes() == THOUSAND
    assert ranges(server) == [f"bytes={size}-", None]


@pytest.mark.parametrize("length", [2_000_000, 100_000, 3_000_001], ids=["shorter", "shorter than partial", "longer"])
def test_content_changed_between_attempts(server: FileServer, out: Path, length: int) -> None:
    new = random.Random(1).randbytes(length)
    url = server.put("/images.zip", Answer(BODY, stop_after=HALF), Answer(new))
    assert quickly(url, out, attempts=2, sha256=sha256_of(new)).read_bytes() == new
    assert [hit.status for hit in server.hits] == [200, 416 if length == 100_000 else 206, 200]


def test_wrong_bytes_are_not_kept(server: FileServer, out: Path, tmp_path: Path) -> None:
    url = make_partial(server, out, tmp_path, bytes(600))
    server.put("/images.zip", Answer(b"short"), Answer(status=503))
    with pytest.raises(FetchError) as caught:
        quickly(url, out, attempts=1, sha256=sha256_of(THOUSAND))
    assert [hit.status for hit in server.hits] == [416, 503]
    assert "kept" not in one_line(caught)
    assert nothing_left(out, tmp_path)


def test_unrequested_part_is_refused(server: FileServer, out: Path, tmp_path: Path) -> None:
    part = Answer(THOUSAND, status=206, headers={"Content-Range": "bytes 0-999/2000"})
    with pytest.raises(FetchError, match="expected sha256"):
        quickly(server.put("/images.zip", part), out, sha256=sha256_of(BODY[:2000]))
    assert nothing_left(out, tmp_path)


@pytest.mark.parametrize("content_range", ["bytes 0-999/1000", "bytes 60-999/1000", "nonsense"])
def test_part_from_elsewhere_is_not_appended(server: FileServer, out: Path, tmp_path: Path, content_range: str) -> None:
    url = make_partial(server, out, tmp_path, THOUSAND[:600])
    server.put("/images.zip", Answer(THOUSAND, content_range=content_range), Answer(THOUSAND))
    assert quickly(url, out, attempts=1, sha256=sha256_of(THOUSAND)).read_bytes() == THOUSAND
    assert ranges(server) == ["bytes=600-", None]


def test_whole_partial_needs_no_further_bytes(server: FileServer, out: Path, tmp_path: Path) -> None:
    """As after a kill between the last byte and the rename."""
    url = make_partial(server, out, tmp_path, THOUSAND)
    assert quickly(url, out, sha256=sha256_of(THOUSAND)).read_bytes() == THOUSAND
    assert [(hit.status, hit.sent) for hit in server.hits] == [(416, 0)]


def test_partial_dir(server: FileServer, out: Path, tmp_path: Path) -> None:
    url = server.put("/images.zip", Answer(THOUSAND, stop_after=600))
    with pytest.raises(FetchError):
        fetch(url, out, sha256=sha256_of(THOUSAND), partial_dir=tmp_path / "partial", attempts=1)
    assert sorted(path.suffix for path in (tmp_path / "partial").iterdir()) == [".lock", ".part"]
    assert not (tmp_path / "cache").exists()


# ---- other processes and full disks


def in_another_process(url: str, out: Path, before: str = "") -> "subprocess.Popen[str]":
    code = (
        f"import sys, pathlib, cbir.fetching.fetch as f\n{before}\n"
        "f.fetch(sys.argv[1], pathlib.Path(sys.argv[2]), sha256=sys.argv[3])"
    )
    command = [sys.executable, "-c", code, url, str(out), sha256_of(BODY)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def wait_for_partial(tmp_path: Path, size: int) -> None:
    deadline = time.monotonic() + 600
    while not any(path.stat().st_size >= size for path in partial_files(tmp_path)):
        assert time.monotonic() < deadline, "the other process does not download"
        time.sleep(0.01)


def test_killed_download_is_resumed(server: FileServer, out: Path, tmp_path: Path) -> None:
    url = server.put("/images.zip", Answer(BODY, step=50_000, pause_s=0.05))
    with in_another_process(url, out) as process:
        wait_for_partial(tmp_path, 500_000)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    (partial,) = partial_files(tmp_path)
    size = partial.stat().st_size
    assert 500_000 <= size < len(BODY)
    assert partial.read_bytes() == BODY[:size]

    server.put("/images.zip", Answer(BODY))
    assert quickly(url, out, sha256=sha256_of(BODY)).read_bytes() == BODY
    last = server.hits[-1]
    assert (last.range, last.sent) == (f"bytes={size}-", len(BODY) - size)
    assert partial_files(tmp_path) == []


def test_two_processes_take_turns(
    server: FileServer, out: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.put("/images.zip", Answer(BODY, step=150_000, pause_s=0.05))
    other = out.with_name("other.zip")
    with in_another_process(url, other) as process:
        wait_for_partial(tmp_path, 1)
        quickly(url, out, sha256=sha256_of(BODY))
        assert process.wait() == 0
    assert out.read_bytes() == other.read_bytes() == BODY
    assert "another process is fetching it" in caplog.text
    first, second = server.hits
    assert first.sent == second.sent == len(BODY)
    assert second.began >= first.began + 0.05 * 19  # not before the first had ended


def test_full_disk_keeps_what_was_written(server: FileServer, out: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the full disk."""
    url = server.put("/images.zip", Answer(BODY))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))"
    with in_another_process(url, out, limit) as process:
        message = process.communicate()[1].splitlines()[-1]
    assert message.startswith(f"cbir.core.errors.FetchError: {url}: expected to write {out}, found [Errno 27] File too")
    assert message.endswith(": make room or check the permissions, then run again")
    assert os.listdir(out.parent) == []
    assert [path.stat().st_size for path in partial_files(tmp_path)] == [1_000_000]


def test_a_body_larger_than_the_free_disk_is_not_begun(
    server: FileServer, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2_000_000))
    url = server.put("/images.zip", Answer(BODY, stop_after=1_500_000), Answer(BODY))
    with pytest.raises(
        FetchError, match=r"found 2,000,000 bytes free on the disk of .*, where 3,000,000 are needed: make"
    ):
        quickly(url, out, sha256=sha256_of(BODY))
    assert sum(path.stat().st_size for path in partial_files(tmp_path)) == 0


# ---- hashes


@pytest.mark.parametrize(
    ("hashes", "difference"),
    [
        ({"sha256": "0" * 64}, f"expected sha256 {'0' * 64}, found {sha256_of(THOUSAND)}"),
        ({"md5": "0" * 32}, f"expected md5 {'0' * 32}, found {hashlib.md5(THOUSAND).hexdigest()}"),
        ({"sha256_prefix": "0" * 8}, f"expected sha256 beginning with 00000000, found {sha256_of(THOUSAND)}"),
        (
            {"sha256": sha256_of(THOUSAND), "md5": "0" * 32},
            f"expected md5 {'0' * 32}, found {hashlib.md5(THOUSAND).hexdigest()}",
        ),
    ],
    ids=["sha256", "md5", "prefix", "one of two"],
)
@pytest.mark.parametrize("place", ["network", "disk"])
def test_wrong_hash_leaves_nothing(
    server: FileServer, out: Path, tmp_path: Path, hashes: dict[str, Any], difference: str, place: str
) -> None:
    source = tmp_path / "source.zip"
    source.write_bytes(THOUSAND)
    url = server.put("/images.zip", Answer(THOUSAND)) if place == "network" else str(source)
    with pytest.raises(FetchError) as caught:
        quickly(url, out, **hashes)
    assert one_line(caught) == f"{url}: {difference}: check the address, or the hash if this is the file that you want"
    assert len(server.hits) == (place == "network")
    assert nothing_left(out, tmp_path)


def test_resumed_body_of_wrong_hash_leaves_nothing(server: FileServer, out: Path, tmp_path: Path) -> None:
    url = server.put("/images.zip", Answer(BODY, stop_after=HALF))
    with pytest.raises(FetchError, match="expected sha256"):
        quickly(url, out, attempts=20, sha256="0" * 64)
    assert ranges(server).count(None) == 2  # resumed, and once more from the beginning
    assert nothing_left(out, tmp_path)


@pytest.mark.parametrize(
    ("hashes", "message"),
    [
        ({"sha256": "abc"}, "sha256: expected 64 hexadecimal digits, found 'abc' (3 characters)"),
        ({"sha256": "g" * 64}, f"sha256: expected 64 hexadecimal digits, found '{'g' * 64}' (64 characters)"),
        ({"sha256": "0" * 64 + "\n"}, rf"sha256: expected 64 hexadecimal digits, found '{'0' * 64}\n' (65 characters)"),
        ({"md5": "0" * 64}, f"md5: expected 32 hexadecimal digits, found '{'0' * 64}' (64 characters)"),
        ({"md5": ""}, "md5: expected 32 hexadecimal digits, found '' (0 characters)"),
        (
            {"sha256_prefix": "1234567"},
            "sha256_prefix: expected 8 to 64 hexadecimal digits, found '1234567' (7 characters)",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_malformed_hash(server: FileServer, out: Path, hashes: dict[str, Any], message: str) -> None:
    url = server.put("/images.zip", Answer(BODY))
    with pytest.raises(ConfigError) as caught:
        quickly(url, out, **hashes)
    assert str(caught.value) == message
    assert server.hits == []


@pytest.mark.parametrize("url", ["http://{}/images.zip", "s3://bucket/images.zip", "memory://images.zip"])
def test_network_without_hash(server: FileServer, out: Path, tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match=r"add its sha256 or md5 \(`sha256sum FILE` prints it"):
        quickly(url.format(f"127.0.0.1:{server.server_port}"), out)
    assert server.hits == []
    assert not (tmp_path / "data").exists()


# ---- from the disk


@pytest.mark.parametrize("form", ["path", "file://", "file://localhost", "file:"])
def test_copy_from_the_disk(tmp_path: Path, out: Path, form: str) -> None:
    source = tmp_path / "my images #1.zip"
    source.write_bytes(BODY)
    url = str(source) if form == "path" else form + str(source).replace(" ", "%20").replace("#", "%23")
    assert quickly(url, out) == out
    assert out.read_bytes() == source.read_bytes() == BODY
    quickly(url, out, sha256=sha256_of(BODY))
    assert os.listdir(out.parent) == ["images.zip"]


def test_relative_path(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("source.zip").write_bytes(BODY)
    assert quickly("source.zip", out).read_bytes() == BODY


@pytest.mark.parametrize("form", ["{}", "file://{}"])
@pytest.mark.parametrize(("name", "kind"), [("none.zip", "nothing"), ("", "a folder")])
def test_missing_file_or_folder(tmp_path: Path, out: Path, form: str, name: str, kind: str) -> None:
    url = form.format(tmp_path / name)
    with pytest.raises(FetchError) as caught:
        quickly(url, out)
    assert one_line(caught) == f"{url}: expected a file, found {kind}: check the address"
    assert not out.exists()


@pytest.mark.parametrize("url", ["file://data/images.zip", "file:data/images.zip"])
def test_relative_file_address_is_refused(out: Path, url: str) -> None:
    with pytest.raises(ConfigError, match=r"expected an absolute path, as in file:///data"):
        quickly(url, out)


def test_out_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"a file in place of a folder")
    (tmp_path / "source.zip").write_bytes(BODY)
    with pytest.raises(FetchError, match=r"expected to write .*data/images.zip, found .*: make room or check"):
        quickly(str(tmp_path / "source.zip"), tmp_path / "data" / "images.zip")


# ---- other file systems


class _BreakingFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """Files in memory whose first reader loses the connection after 1000 bytes."""

    protocol = "breaking"
    starts: ClassVar[list[int]] = []

    def _open(self, path: str, **_: Any) -> MemoryFile:
        file = MemoryFile(self, path, BODY)
        first, starts = not self.starts, self.starts

        def read(n: int) -> bytes:
            starts.append(file.tell())
            if first and file.tell() >= 1000:
                raise ConnectionResetError("connection lost")
            return bytes(MemoryFile.read(file, 1000 if first else n))

        file.read = read
        return file


def test_any_file_system_of_fsspec(out: Path) -> None:
    fsspec.filesystem("memory").pipe("/folder/images.zip", BODY)
    assert quickly("memory://folder/images.zip", out, sha256=sha256_of(BODY)).read_bytes() == BODY
    with pytest.raises(FetchError, match=r"^memory://none\.zip: expected a file, found nothing: check the address$"):
        quickly("memory://none.zip", out, sha256=sha256_of(BODY))


def test_other_file_systems_are_resumed(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    fsspec.register_implementation("breaking", _BreakingFileSystem)
    assert quickly("breaking://images.zip", out, sha256=sha256_of(BODY)).read_bytes() == BODY
    assert _BreakingFileSystem.starts[:3] == [0, 1000, 1000]
    assert "connection lost; attempt 2 of 3" in caplog.text


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_missing_package_is_named(out: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(FetchError) as caught:
        quickly(f"{scheme}://bucket/x.zip", out, sha256=sha256_of(BODY))
    assert one_line(caught) == (
        f"{scheme}://bucket/x.zip: expected the package for {scheme}:// addresses, found none: `pip install {package}`"
    )


def test_unknown_scheme(out: Path) -> None:
    with pytest.raises(FetchError, match=r"^nosuch://x\.zip: Protocol not known: nosuch: check the address$"):
        quickly("nosuch://x.zip", out, sha256=sha256_of(BODY))
