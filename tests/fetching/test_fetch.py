"""fetch against a real server: what arrives, what is asked again, what is left behind and what the user is told."""

import hashlib
import itertools
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from cbir.core.errors import ConfigError, FetchError
from cbir.core.progress import Counter, progress
from cbir.fetching import fetch as module
from cbir.fetching.fetch import fetch
from tests.support.server import Answer, FileServer, file_server  # noqa: F401  (the fixture `server`)

BODY = random.Random(0).randbytes(300_000)
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


def kept(tmp_path: Path) -> list[str]:
    """The suffixes of what lies in the cache, but for the lock, which is empty and stays."""
    files = [path for path in (tmp_path / "cache" / "partial").glob("*") if path.suffix != ".lock"]
    return sorted(path.suffix for path in files)


def nothing_left(out: Path, tmp_path: Path) -> bool:
    return not kept(tmp_path) and not any(path.is_file() for path in (tmp_path / "data").rglob("*"))


def one_line(caught: pytest.ExceptionInfo[Exception]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- what arrives


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
    assert kept(tmp_path) == []
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


def test_redirect_out_of_http_is_refused(server: FileServer, out: Path) -> None:
    url = server.put("/images.zip", Answer(status=302, headers={"Location": "ftp://127.0.0.1/x"}))
    with pytest.raises(FetchError, match="check the address"):
        quickly(url, out, sha256=sha256_of(BODY))
    assert len(server.hits) == 1


def test_body_labelled_gzip_is_stored_as_sent(server: FileServer, out: Path) -> None:
    url = server.put("/images.tar.gz", Answer(THOUSAND, headers={"Content-Encoding": "x-gzip"}))
    assert quickly(url, out, sha256=sha256_of(THOUSAND)).read_bytes() == THOUSAND


def test_older_file_is_replaced(server: FileServer, out: Path) -> None:
    out.parent.mkdir(parents=True)
    out.write_bytes(b"old")
    quickly(server.put("/images.zip", Answer(BODY)), out, sha256=sha256_of(BODY))
    assert out.read_bytes() == BODY


def test_cache_on_another_file_system(
    server: FileServer, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if source.parent != target.parent:
            raise OSError(18, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    quickly(server.put("/images.zip", Answer(BODY)), out, sha256=sha256_of(BODY))
    assert out.read_bytes() == BODY
    assert os.listdir(out.parent) == ["images.zip"]
    assert kept(tmp_path) == []


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


# ---- faults that pass, and resuming


def test_truncated_body_is_resumed_where_it_broke(server: FileServer, out: Path) -> None:
    url = server.put("/images.zip", Answer(BODY, stop_after=100_000, etag='"1"'), Answer(BODY, etag='"1"'))
    assert quickly(url, out, sha256=sha256_of(BODY)).read_bytes() == BODY
    first, second = server.hits
    assert (first.range, first.sent) == (None, 100_000)
    assert (second.range, second.if_range, second.status, second.sent) == ("bytes=100000-", '"1"', 206, 200_000)


def test_each_attempt_brings_the_rest_nearer(server: FileServer, out: Path) -> None:
    url = server.put("/images.zip", Answer(BODY, stop_after=100_000))
    assert quickly(url, out, sha256=sha256_of(BODY)).read_bytes() == BODY
    assert [hit.range for hit in server.hits] == [None, "bytes=100000-", "bytes=200000-"]


def test_reset_connection_is_resumed(server: FileServer, out: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = server.put("/images.zip", Answer(BODY, stop_after=100_000, reset=True), Answer(BODY))
    assert quickly(url, out, sha256=sha256_of(BODY)).read_bytes() == BODY
    assert "Connection reset by peer: expected 300000 bytes, got " in caplog.text
    came = len(BODY) - server.hits[1].sent
    assert 0 < came <= 100_000  # a reset drops what the client has not read yet
    assert server.hits[1].range == f"bytes={came}-"


def test_truncated_chunked_body_is_resumed(server: FileServer, out: Path) -> None:
    url = server.put("/images.zip", Answer(BODY, stop_after=100_000, chunked=True), Answer(BODY))
    assert quickly(url, out, sha256=sha256_of(BODY)).read_bytes() == BODY
    assert server.hits[1].range == "bytes=100000-"


def test_stalled_server_times_out_and_is_asked_again(
    server: FileServer, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_S", (1.0, 0.2))
    url = server.put("/images.zip", Answer(BODY, stall_s=1.0), Answer(BODY))
    assert quickly(url, out, sha256=sha256_of(BODY)).read_bytes() == BODY
    assert len(server.hits) == 2


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_passing_status_is_asked_again(server: FileServer, out: Path, status: int) -> None:
    url = server.put("/images.zip", Answer(status=status), Answer(status=status), Answer(BODY))
    assert quickly(url, out, sha256=sha256_of(BODY)).read_bytes() == BODY
    assert [hit.status for hit in server.hits] == [status, status, 200]


def test_fault_is_told_before_the_next_attempt(server: FileServer, out: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = server.put("/images.zip", Answer(status=503), Answer(BODY))
    quickly(url, out, sha256=sha256_of(BODY))
    (record,) = caplog.records
    assert record.getMessage() == f"{url}: the server answered 503 Service Unavailable; attempt 2 of 3 in 0.0 s"


def test_waits_double(server: FileServer, out: Path) -> None:
    url = server.put("/images.zip", Answer(status=503))
    with pytest.raises(FetchError):
        fetch(url, out, sha256=sha256_of(BODY), attempts=4, backoff_s=0.05)
    waits = [after.began - before.began for before, after in itertools.pairwise(server.hits)]
    assert all(wait >= least for wait, least in zip(waits, (0.05, 0.1, 0.2), strict=True)), waits


def test_status_that_stays_is_told_after_the_last_attempt(server: FileServer, out: Path, tmp_path: Path) -> None:
    url = server.put("/images.zip", Answer(status=503))
    with pytest.raises(FetchError) as caught:
        quickly(url, out, sha256=sha256_of(BODY))
    assert one_line(caught) == (
        f"{url}: the server answered 503 Service Unavailable (attempts made: 3); "
        "check the address or the network, then run `dvc repro` again"
    )
    assert len(server.hits) == 3
    assert nothing_left(out, tmp_path)


def test_not_found_is_final_at_once(server: FileServer, out: Path, tmp_path: Path) -> None:
    url = server.put("/images.zip", Answer(status=404))
    with pytest.raises(FetchError) as caught:
        quickly(url, out, sha256=sha256_of(BODY))
    assert one_line(caught) == f"{url}: the server answered 404 Not Found; check the address"
    assert len(server.hits) == 1
    assert nothing_left(out, tmp_path)


def test_closed_port(out: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/images.zip"
        with pytest.raises(FetchError) as caught:
            quickly(url, out, sha256=sha256_of(BODY))
    assert one_line(caught) == (
        f"{url}: Connection refused (attempts made: 3); check the address or the network, then run `dvc repro` again"
    )
    assert nothing_left(out, tmp_path)


def test_address_that_is_none(out: Path) -> None:
    with pytest.raises(FetchError, match=r"^http:///x: .*; check the address$"):
        quickly("http:///x", out, sha256=sha256_of(BODY))


def test_truncated_for_good_without_ranges_leaves_nothing(server: FileServer, out: Path, tmp_path: Path) -> None:
    url = server.put("/images.zip", Answer(THOUSAND, ranges=False, stop_after=600))
    with pytest.raises(FetchError) as caught:
        quickly(url, out, sha256=sha256_of(THOUSAND))
    assert "the body ended early: expected 1000 bytes, got 600 (attempts made: 3)" in one_line(caught)
    assert "kept" not in str(caught.value)
    assert [hit.status for hit in server.hits] == [200, 200, 200]
    assert nothing_left(out, tmp_path)


def test_truncated_for_good_with_ranges_keeps_what_came(server: FileServer, out: Path, tmp_path: Path) -> None:
    url = server.put("/images.zip", Answer(THOUSAND, stop_after=600))
    with pytest.raises(FetchError) as caught:
        quickly(url, out, attempts=1, sha256=sha256_of(THOUSAND))
    assert one_line(caught) == (
        f"{url}: the body ended early: expected 1000 bytes, got 600 (attempts made: 1); check the address or the "
        "network, then run `dvc repro` again; 600 bytes are kept and will be resumed"
    )
    assert not out.exists()
    assert kept(tmp_path) == [".json", ".part"]
    assert quickly(url, out, sha256=sha256_of(THOUSAND)).read_bytes() == THOUSAND
    assert server.hits[-1].range == "bytes=600-"
    assert kept(tmp_path) == []


def test_unreachable_server_does_not_cost_what_came(server: FileServer, out: Path, tmp_path: Path) -> None:
    url = server.put("/images.zip", Answer(THOUSAND, stop_after=600), Answer(status=503))
    with pytest.raises(FetchError, match=r"503 .*; 600 bytes are kept and will be resumed"):
        quickly(url, out, sha256=sha256_of(THOUSAND))
    assert kept(tmp_path) == [".json", ".part"]


@pytest.mark.parametrize("etag", ['"2"', 'W/"2"', None], ids=["strong", "weak", "no etag"])
def test_content_changed_between_attempts(server: FileServer, out: Path, etag: str | None) -> None:
    """A new ETag makes the server send all of it; without one, the hash finds the mixture out."""
    old = Answer(bytes(len(BODY)), stop_after=100_000, etag=etag and etag.replace("2", "1"))
    url = server.put("/images.zip", old, Answer(BODY, etag=etag))
    assert quickly(url, out, attempts=2, sha256=sha256_of(BODY)).read_bytes() == BODY
    asked = [(hit.if_range, hit.status) for hit in server.hits]
    guarded, unguarded = [(None, 200), ('"1"', 200)], [(None, 200), (None, 206), (None, 200)]
    assert asked == (guarded if etag == '"2"' else unguarded)


@pytest.mark.parametrize("length", [200_000, 50_000, 300_001], ids=["shorter", "shorter than the partial", "longer"])
def test_length_changed_between_attempts(
    server: FileServer, out: Path, caplog: pytest.LogCaptureFixture, length: int
) -> None:
    new = random.Random(1).randbytes(length)
    url = server.put("/images.zip", Answer(BODY, stop_after=100_000), Answer(new))
    assert quickly(url, out, attempts=2, sha256=sha256_of(new)).read_bytes() == new
    assert [hit.status for hit in server.hits] == [200, 416 if length < 100_000 else 206, 200]
    assert "fetching anew" not in caplog.text  # seen from the headers, not from the hash of a whole download


def test_bytes_that_the_server_disowns_are_not_kept(server: FileServer, out: Path, tmp_path: Path) -> None:
    url = server.put("/images.zip", Answer(THOUSAND, stop_after=600), Answer(b"short"), Answer(status=503))
    with pytest.raises(FetchError) as caught:
        quickly(url, out, attempts=2, sha256=sha256_of(THOUSAND))
    assert [hit.status for hit in server.hits] == [200, 416, 503]
    assert "kept" not in one_line(caught)
    assert nothing_left(out, tmp_path)


def test_part_that_nobody_asked_for_is_refused(server: FileServer, out: Path) -> None:
    url = server.put("/images.zip", Answer(THOUSAND, status=206, headers={"Content-Range": "bytes 0-999/2000"}))
    with pytest.raises(FetchError, match="the server answered 206 Partial Content; check the address"):
        quickly(url, out, sha256=sha256_of(THOUSAND))


def test_last_modified_guards_a_resume(server: FileServer, out: Path) -> None:
    day = {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    url = server.put("/images.zip", Answer(BODY, stop_after=100_000, headers=day), Answer(BODY, headers=day))
    quickly(url, out, sha256=sha256_of(BODY))
    assert (server.hits[1].if_range, server.hits[1].status) == (day["Last-Modified"], 206)


@pytest.mark.parametrize("told", ["bytes 0-299999/300000", "bytes 100000-150000/300000", "nonsense"])
def test_answer_that_continues_elsewhere_is_not_appended(server: FileServer, out: Path, told: str) -> None:
    url = server.put(
        "/images.zip", Answer(BODY, stop_after=100_000), Answer(BODY, content_range=told), Answer(BODY, ranges=False)
    )
    assert quickly(url, out, sha256=sha256_of(BODY)).read_bytes() == BODY
    assert [hit.range for hit in server.hits] == [None, "bytes=100000-", None]


def test_whole_partial_is_placed_without_asking(server: FileServer, out: Path, tmp_path: Path) -> None:
    """As after a kill between the last byte and the rename."""
    url = server.put("/images.zip", Answer(THOUSAND, stop_after=600))
    with pytest.raises(FetchError):
        quickly(url, out, attempts=1, sha256=sha256_of(THOUSAND))
    (partial,) = (tmp_path / "cache" / "partial").glob("*.part")
    partial.write_bytes(THOUSAND)
    assert quickly(url, out, sha256=sha256_of(THOUSAND)).read_bytes() == THOUSAND
    assert len(server.hits) == 1


@pytest.mark.parametrize("size", [600, 1000], ids=["part", "whole"])
def test_spoilt_partial_is_fetched_anew_once(server: FileServer, out: Path, tmp_path: Path, size: int) -> None:
    url = server.put("/images.zip", Answer(THOUSAND, stop_after=600), Answer(THOUSAND))
    with pytest.raises(FetchError):
        quickly(url, out, attempts=1, sha256=sha256_of(THOUSAND))
    (partial,) = (tmp_path / "cache" / "partial").glob("*.part")
    partial.write_bytes(bytes(size))
    assert quickly(url, out, attempts=1, sha256=sha256_of(THOUSAND)).read_bytes() == THOUSAND
    assert server.hits[-1].range is None


def test_torn_sidecar_does_not_stop_a_resume(server: FileServer, out: Path, tmp_path: Path) -> None:
    url = server.put("/images.zip", Answer(THOUSAND, stop_after=600, etag='"1"'))
    with pytest.raises(FetchError):
        quickly(url, out, attempts=1, sha256=sha256_of(THOUSAND))
    (sidecar,) = (tmp_path / "cache" / "partial").glob("*.json")
    sidecar.write_text("{")
    assert quickly(url, out, sha256=sha256_of(THOUSAND)).read_bytes() == THOUSAND
    assert (server.hits[-1].range, server.hits[-1].if_range) == ("bytes=600-", None)


def in_another_process(url: str, out: Path) -> "subprocess.Popen[bytes]":
    code = "import sys, pathlib, cbir.fetching.fetch as f; f.fetch(sys.argv[1], pathlib.Path(sys.argv[2]), sha256=sys.argv[3])"
    return subprocess.Popen([sys.executable, "-c", code, url, str(out), sha256_of(BODY)], cwd=Path(__file__).parents[2])


def wait_for_part(tmp_path: Path, size: int) -> None:
    deadline = time.monotonic() + 15
    while not any(path.stat().st_size >= size for path in (tmp_path / "cache").rglob("*.part")):
        assert time.monotonic() < deadline, "the other process does not download"
        time.sleep(0.01)


def test_killed_download_is_resumed(server: FileServer, out: Path, tmp_path: Path) -> None:
    url = server.put("/images.zip", Answer(BODY, etag='"1"', step=5000, pause_s=0.05))
    with in_another_process(url, out) as process:
        wait_for_part(tmp_path, 50_000)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    (partial,) = (tmp_path / "cache" / "partial").glob("*.part")
    came = partial.stat().st_size
    assert 50_000 <= came < len(BODY)
    assert partial.read_bytes() == BODY[:came]

    server.put("/images.zip", Answer(BODY, etag='"1"'))
    assert quickly(url, out, sha256=sha256_of(BODY)).read_bytes() == BODY
    last = server.hits[-1]
    assert (last.range, last.if_range, last.sent) == (f"bytes={came}-", '"1"', len(BODY) - came)
    assert kept(tmp_path) == []


def test_two_processes_take_turns(
    server: FileServer, out: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.put("/images.zip", Answer(BODY, step=15_000, pause_s=0.02))
    other = out.with_name("other.zip")
    with in_another_process(url, other) as process:
        wait_for_part(tmp_path, 1)
        quickly(url, out, sha256=sha256_of(BODY))
        assert process.wait() == 0
    assert out.read_bytes() == other.read_bytes() == BODY
    assert "another process is fetching it" in caplog.text
    first, second = server.hits
    assert first.sent == second.sent == len(BODY)
    assert second.began >= first.began + 0.02 * 19  # not before the first was through


# ---- hashes


@pytest.mark.parametrize(
    ("hashes", "told"),
    [
        ({"sha256": "0" * 64}, f"expected sha256 {'0' * 64}, got {sha256_of(THOUSAND)}"),
        ({"md5": "0" * 32}, f"expected md5 {'0' * 32}, got {hashlib.md5(THOUSAND).hexdigest()}"),
        ({"sha256_prefix": "0" * 8}, f"expected sha256 beginning with 00000000, got {sha256_of(THOUSAND)}"),
        (
            {"sha256": sha256_of(THOUSAND), "md5": "0" * 32},
            f"expected md5 {'0' * 32}, got {hashlib.md5(THOUSAND).hexdigest()}",
        ),
    ],
    ids=["sha256", "md5", "prefix", "one of two"],
)
def test_wrong_hash_leaves_nothing(
    server: FileServer, out: Path, tmp_path: Path, hashes: dict[str, Any], told: str
) -> None:
    url = server.put("/images.zip", Answer(THOUSAND))
    with pytest.raises(FetchError) as caught:
        quickly(url, out, **hashes)
    assert one_line(caught) == f"{url}: {told}; check the address, or the hash if this is the file you want"
    assert len(server.hits) == 1
    assert nothing_left(out, tmp_path)

    copied = tmp_path / "source.zip"
    copied.write_bytes(THOUSAND)
    with pytest.raises(FetchError) as caught:
        quickly(str(copied), out, **hashes)
    assert one_line(caught) == f"{copied}: {told}; check the path, or the hash if this is the file you want"
    assert nothing_left(out, tmp_path)


def test_wrong_hash_of_a_resumed_body_leaves_nothing(server: FileServer, out: Path, tmp_path: Path) -> None:
    url = server.put("/images.zip", Answer(THOUSAND, stop_after=600), Answer(THOUSAND))
    with pytest.raises(FetchError, match="expected sha256"):
        quickly(url, out, sha256="0" * 64)
    assert [hit.range for hit in server.hits] == [None, "bytes=600-", None]
    assert nothing_left(out, tmp_path)


@pytest.mark.parametrize(
    ("hashes", "told"),
    [
        ({"sha256": "abc"}, "sha256: expected 64 hexadecimal digits, got 'abc' (3 characters)"),
        ({"sha256": "g" * 64}, f"sha256: expected 64 hexadecimal digits, got '{'g' * 64}' (64 characters)"),
        ({"sha256": "0" * 64 + "\n"}, rf"sha256: expected 64 hexadecimal digits, got '{'0' * 64}\n' (65 characters)"),
        ({"md5": "0" * 64}, f"md5: expected 32 hexadecimal digits, got '{'0' * 64}' (64 characters)"),
        ({"md5": ""}, "md5: expected 32 hexadecimal digits, got '' (0 characters)"),
        (
            {"sha256_prefix": "1234567"},
            "sha256_prefix: expected 8 to 64 hexadecimal digits, got '1234567' (7 characters)",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_malformed_hash(server: FileServer, out: Path, hashes: dict[str, Any], told: str) -> None:
    url = server.put("/images.zip", Answer(BODY))
    with pytest.raises(ConfigError) as caught:
        quickly(url, out, **hashes)
    assert str(caught.value) == told
    assert server.hits == []


def test_network_without_hash(server: FileServer, out: Path, tmp_path: Path) -> None:
    url = server.put("/images.zip", Answer(BODY))
    with pytest.raises(ConfigError, match=r"give its sha256 or md5 \(`sha256sum FILE` prints it"):
        quickly(url, out)
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
def test_missing_file_and_folder(tmp_path: Path, out: Path, form: str) -> None:
    with pytest.raises(FetchError) as caught:
        quickly(form.format(tmp_path / "none.zip"), out)
    assert one_line(caught) == f"{tmp_path}/none.zip: expected a file, found nothing; check the path"
    with pytest.raises(FetchError) as caught:
        quickly(form.format(tmp_path), out)
    assert one_line(caught) == f"{tmp_path}: expected a file, found a folder; check the path"
    assert not out.exists()


@pytest.mark.parametrize("url", ["ftp://host/x.zip", "s3://bucket/x.zip", "s3:bucket", "hdfs:///x"])
def test_other_schemes(out: Path, url: str) -> None:
    with pytest.raises(FetchError) as caught:
        quickly(url, out)
    told = f"{url}: expected http://..., https://..., file:///... or a path, got {url.partition(':')[0]}:"
    assert one_line(caught) == told


def test_file_url_with_a_host(out: Path) -> None:
    with pytest.raises(FetchError, match=r"expected an absolute path, as in file:///data"):
        quickly("file://data/images.zip", out)


def test_out_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"a file where a folder is wanted")
    (tmp_path / "source.zip").write_bytes(BODY)
    with pytest.raises(
        FetchError, match=r"not brought to .*data/images.zip: .*; make room, check the rights, run again"
    ):
        quickly(str(tmp_path / "source.zip"), tmp_path / "data" / "images.zip")


# ---- where unfinished bodies lie


def test_partial_dir(server: FileServer, out: Path, tmp_path: Path) -> None:
    url = server.put("/images.zip", Answer(THOUSAND, stop_after=600))
    with pytest.raises(FetchError):
        fetch(url, out, sha256=sha256_of(THOUSAND), partial_dir=tmp_path / "mine", attempts=1)
    assert sorted(path.suffix for path in (tmp_path / "mine").iterdir()) == [".json", ".lock", ".part"]
    assert not (tmp_path / "cache").exists()


# ---- progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, as its only item; a test moves it."""
    now = [0.0]
    monkeypatch.setattr("cbir.core.progress.monotonic", lambda: now[0])
    return now


def test_lines_come_every_ten_seconds_and_at_the_end(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress(248_100_000, "fetch tiny-imagenet-200.zip", "B", done=8_100_000) as told:
        for _ in range(24):
            clock[0] += 1
            told.advance(10_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "fetch tiny-imagenet-200.zip: 108.1 of 248.1 MB, 10.0 MB/s, 14 s left",
        "fetch tiny-imagenet-200.zip: 208.1 of 248.1 MB, 10.0 MB/s, 4 s left",
        "fetch tiny-imagenet-200.zip: 248.1 of 248.1 MB, 10.0 MB/s, took 24 s",
    ]


@pytest.mark.parametrize(
    ("total", "unit", "done", "told"),
    [
        (None, "B", 2_500_000, "2.5 MB, 1.2 MB/s, 2 s so far"),
        (1000, "B", 600, "0.6 of 1.0 kB, 300.0 B/s, 2 s left"),
        (500, "B", 500, "500 of 500 B, 250.0 B/s, took 2 s"),
        (100_000, "images", 1000, "1,000 of 100,000 images, 500.0 img/s, 3 min 18 s left"),
        (5, "queries", 0, "0 of 5 queries, 0.0 queries/s"),
        (0, "B", 0, "0 of 0 B, 0.0 B/s, took 2 s"),
    ],
)
def test_words_of_progress(clock: list[float], total: int | None, unit: str, done: int, told: str) -> None:
    counter = Counter(total, unit, 0)
    counter.advance(done)
    clock[0] = 2.0
    assert str(counter) == told


def test_fetch_tells_plain_lines_in_a_log(server: FileServer, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quickly(server.put("/x", Answer(BODY)), out, sha256=sha256_of(BODY))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"fetch images\.zip: 300\.0 of 300\.0 kB, \d+\.\d [kM]?B/s, took 1 s\n", captured.err)


def test_bar_on_a_terminal() -> None:
    pty = pytest.importorskip("pty")
    code = "from cbir.core.progress import progress\nwith progress(4, 'a [bold] name', 'images') as p: p.advance(4)"
    main, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen([sys.executable, "-c", code], stderr=follower, env=environment) as process:
        os.close(follower)
        shown = b""
        try:
            while piece := os.read(main, 4096):
                shown += piece
        except OSError:  # how Linux tells that the other end is closed
            pass
        os.close(main)
    assert process.returncode == 0
    assert b"a [bold] name" in shown
    assert b"4 of 4 images" in shown
    assert "━".encode() in shown
