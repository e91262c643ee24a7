"""Fetch one file from the network or the disk: whole and with the promised hash, or not at all.

A body on its way lies outside out_path's folder, because DVC empties that folder before each run, and is resumed there.
"""

import errno
import hashlib
import http.client
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial as bind
from pathlib import Path
from typing import Self
from urllib.parse import unquote

import requests
import urllib3.exceptions
from filelock import FileLock, Timeout
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from cbir.core.errors import ConfigError, FetchError
from cbir.core.progress import progress
from cbir.fetching.cache import cache_folder

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = (10.0, 60.0)  # to connect; between two arrivals of bytes
_LONGEST_WAIT_S = 60.0
_HASH_DIGITS = {"sha256": (64, 64), "md5": (32, 32), "sha256_prefix": (8, 64)}
_PASSING_STATUSES = {408, 429}  # besides every 5xx

_log = logging.getLogger(__name__)


def fetch(
    url: str,
    out_path: Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    sha256_prefix: str | None = None,
    partial_dir: Path | None = None,
    attempts: int = 5,
    backoff_s: float = 1.0,
) -> Path:
    """Fetch url to out_path and return out_path; a failure leaves out_path as it was.

    url : http(s)://, file:/// or a path.  sha256, md5 : hexadecimal; from the network at least one hash is required.
    sha256_prefix : its first 8 or more digits, as in the file names of torch's weights.
    partial_dir : where the body waits until it is whole, partial/ of the cache folder by default; a later call resumes it.
    attempts : tries in all against faults that pass; backoff_s : seconds before the second, doubled before each next.
    Raises ConfigError if a hash is malformed or missing; FetchError if the file cannot be had or its hash is wrong.
    """
    promised = _promises(sha256=sha256, md5=md5, sha256_prefix=sha256_prefix)
    try:
        match _scheme(url):
            case "http" | "https" if not promised:
                raise ConfigError(
                    f"{url}: a file from the network needs a hash, none is given; give its sha256 or md5 "
                    "(`sha256sum FILE` prints it for a copy that you trust)"
                )
            case "http" | "https":
                partial = _Partial.of(url, promised, partial_dir or cache_folder() / "partial")
                _download(url, partial, out_path, promised, attempts, backoff_s)
            case "file":
                _copy(_path_of(url), out_path, promised)
            case "":
                _copy(Path(url).expanduser(), out_path, promised)
            case other:
                raise FetchError(f"{url}: expected http://..., https://..., file:///... or a path, got {other}:")
    except OSError as error:  # a full disk, a missing right
        raise FetchError(
            f"{url}: not brought to {out_path}: {error}; make room, check the rights, run again"
        ) from error
    return out_path


def _scheme(url: str) -> str:
    # Two letters at least: C:\images.zip is a path.
    found = re.match(r"([a-z][a-z0-9+.-]+):", url, re.IGNORECASE)
    return found[1].lower() if found else ""


def _path_of(file_url: str) -> Path:
    absolute = re.fullmatch(r"file:(?://(?:localhost)?(?=/)|(?!//))(/.*)", file_url, re.IGNORECASE | re.DOTALL)
    if not absolute:
        raise FetchError(f"{file_url}: expected an absolute path, as in file:///data/images.zip")
    return Path(unquote(absolute[1]))


# ---- hashes


def _promises(**hashes: str | None) -> dict[str, str]:
    """The hashes that are given, by name and in lower case; ConfigError where one cannot be a hash."""
    promised = {name: value.lower() for name, value in hashes.items() if value is not None}
    for name, value in promised.items():
        shortest, longest = _HASH_DIGITS[name]
        if not re.fullmatch(f"[0-9a-f]{{{shortest},{longest}}}", value):
            digits = longest if shortest == longest else f"{shortest} to {longest}"
            raise ConfigError(f"{name}: expected {digits} hexadecimal digits, got {value!r} ({len(value)} characters)")
    return promised


class _Hashes:
    """The hashes of the bytes seen so far, held against the promised ones."""

    def __init__(self, promised: dict[str, str]) -> None:
        self._promised = promised
        algorithms = {name.removesuffix("_prefix") for name in promised}
        self._seen = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}

    def update(self, chunk: bytes) -> None:
        for seen in self._seen.values():
            seen.update(chunk)

    def broken(self) -> str:
        """The first promise not kept, as "expected sha256 X, got Y"; empty if all are kept."""
        for name, value in self._promised.items():
            algorithm = name.removesuffix("_prefix")
            got = self._seen[algorithm].hexdigest()
            if not got.startswith(value):
                beginning = " beginning with" if name.endswith("_prefix") else ""
                return f"expected {algorithm}{beginning} {value}, got {got}"
        return ""


# ---- from the disk


def _copy(source: Path, out_path: Path, promised: dict[str, str]) -> None:
    if not source.is_file():
        found = "a folder" if source.is_dir() else "something else" if source.exists() else "nothing"
        raise FetchError(f"{source.absolute()}: expected a file, found {found}; check the path")
    hashes, told = _Hashes(promised), progress(source.stat().st_size, f"copy {source.name}", "B")
    out_path.parent.mkdir(parents=True, exist_ok=True)
    with _beside(out_path) as temporary:
        with source.open("rb") as body, temporary.open("wb") as sink, told as bar:
            for chunk in _chunks(body.read):
                sink.write(chunk)
                hashes.update(chunk)
                bar.advance(len(chunk))
        if broken := hashes.broken():
            raise FetchError(f"{source.absolute()}: {broken}; check the path, or the hash if this is the file you want")


@contextmanager
def _beside(out_path: Path) -> Iterator[Path]:
    """A temporary name in out_path's folder, renamed to out_path if the block ends well and removed if not."""
    temporary = out_path.with_name(f".{out_path.name}.{secrets.token_hex(4)}")
    try:
        yield temporary
        os.replace(temporary, out_path)
    finally:
        temporary.unlink(missing_ok=True)


def _chunks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while chunk := read(_CHUNK_BYTES):
        yield chunk


# ---- from the network


class _Fault(Exception):
    """A fault that may pass: asking again is worth it."""


@dataclass(frozen=True)
class _Answer:
    """What the server said of the whole body when its first byte came; the sidecar keeps it for the next run."""

    total: int | None = None
    validator: str | None = None
    resumable: bool = False

    @classmethod
    def of(cls, response: requests.Response) -> Self:
        headers = response.headers
        etag, length = headers.get("ETag"), headers.get("Content-Length")
        return cls(
            total=int(length) if length and length.isdecimal() else None,
            # RFC 9110, 13.1.5: a weak ETag never fits If-Range.
            validator=etag if etag and not etag.startswith("W/") else headers.get("Last-Modified"),
            resumable=headers.get("Accept-Ranges", "").lower() == "bytes",
        )


class _Partial:
    """A body that has come in part, with its sidecar and its lock."""

    def __init__(self, path: Path) -> None:
        self.path, self._sidecar, self.lock = path, path.with_suffix(".json"), path.with_suffix(".lock")

    @classmethod
    def of(cls, url: str, promised: dict[str, str], folder: Path) -> Self:
        key = json.dumps([url, promised], sort_keys=True).encode()
        return cls(folder / f"{hashlib.sha256(key).hexdigest()[:32]}.part")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def answer(self) -> _Answer:
        try:
            return _Answer(**json.loads(self._sidecar.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):  # torn by a power cut: the hash still tells right from wrong
            return _Answer()

    @answer.setter
    def answer(self, answer: _Answer) -> None:
        with _beside(self._sidecar) as temporary:
            temporary.write_text(json.dumps(asdict(answer)))

    def restart(self, answer: _Answer) -> None:
        # Emptied before the new sidecar is written: a kill in between must not pair old bytes with a new ETag.
        self.path.write_bytes(b"")
        self.answer = answer

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._sidecar.unlink(missing_ok=True)


def _download(
    url: str, partial: _Partial, out_path: Path, promised: dict[str, str], attempts: int, backoff_s: float
) -> None:
    for folder in (partial.path.parent, out_path.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with _alone(partial.lock, url), requests.Session() as session:
        receive = bind(_receive, session, url, partial, promised, f"fetch {out_path.name}")
        broken, resumed = _persist(receive, url, partial, attempts, backoff_s)
        if broken and resumed:
            _log.warning("%s: %s; the resumed bytes may be of an older file, fetching anew", url, broken)
            partial.discard()
            broken, _ = _persist(receive, url, partial, attempts, backoff_s)
        if broken:
            partial.discard()
            raise FetchError(f"{url}: {broken}; check the address, or the hash if this is the file you want")
        _place(partial.path, out_path)
        partial.discard()


@contextmanager
def _alone(lock_path: Path, url: str) -> Iterator[None]:
    """Let one process at a time write a partial; the system frees the lock of one that is killed."""
    lock = FileLock(lock_path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.warning("%s: another process is fetching it, waiting for that (%s)", url, lock_path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _persist(
    receive: Callable[[], tuple[str, bool]], url: str, partial: _Partial, attempts: int, backoff_s: float
) -> tuple[str, bool]:
    """receive(), asked again after each fault that may pass, at most attempts times."""

    def tell(state: RetryCallState) -> None:
        fault, attempt = state.outcome and state.outcome.exception(), state.attempt_number + 1
        _log.warning("%s: %s; attempt %d of %d in %.1f s", url, fault, attempt, attempts, state.upcoming_sleep)

    retrying = Retrying(
        retry=retry_if_exception_type(_Fault),
        stop=stop_after_attempt(attempts),
        wait=wait_exponential(multiplier=backoff_s, max=_LONGEST_WAIT_S),
        before_sleep=tell,
        reraise=True,
    )
    try:
        return retrying(receive)
    except _Fault as fault:
        kept = partial.size if partial.answer.resumable else 0
        if not kept:
            partial.discard()
        raise FetchError(
            f"{url}: {fault} (attempts made: {attempts}); check the address or the network, then run `dvc repro` again"
            + (f"; {kept} bytes are kept and will be resumed" if kept else "")
        ) from fault


def _receive(
    session: requests.Session, url: str, partial: _Partial, promised: dict[str, str], label: str
) -> tuple[str, bool]:
    """Bring the partial to its full length, from where it stands.

    Returns the promise that its bytes break ("" if none), and whether some of them came by an earlier request.
    Raises _Fault if the body ends early, FetchError if asking again cannot help.
    """
    hashes = _Hashes(promised)
    if partial.size and partial.size == partial.answer.total:  # killed between the last byte and the rename
        _feed(hashes, partial.path)
        return hashes.broken(), True
    fault = ""
    with _ask(session, url, partial) as response:
        if response.status_code == 200:
            partial.restart(_Answer.of(response))
        start, total = partial.size, partial.answer.total
        _feed(hashes, partial.path)
        try:
            with partial.path.open("ab") as sink, progress(total, label, "B", start) as bar:
                # read1 hands over what has come, so nothing is lost with a broken connection. Of the raw body, not of
                # iter_content: some servers label a .tar.gz as encoding and would have it unpacked on the way.
                for chunk in _chunks(response.raw.read1):
                    sink.write(chunk)
                    hashes.update(chunk)
                    bar.advance(len(chunk))
        except urllib3.exceptions.HTTPError as error:
            fault = _reason(error)
    if fault or (total is not None and partial.size < total):
        expected = "more" if total is None else total
        raise _Fault(f"{fault or 'the body ended early'}: expected {expected} bytes, got {partial.size}")
    return hashes.broken(), start > 0


def _feed(hashes: _Hashes, path: Path) -> None:
    with path.open("rb") as body:
        for chunk in _chunks(body.read):
            hashes.update(chunk)


def _ask(session: requests.Session, url: str, partial: _Partial) -> requests.Response:
    """Ask for the bytes that the partial lacks: the answer is a 206 that continues it, or a 200 with the whole body."""
    if start := partial.size:
        headers = {"Range": f"bytes={start}-"}
        if partial.answer.validator:
            headers["If-Range"] = partial.answer.validator
        response = _get(session, url, headers)
        if response.status_code == 200:
            return response
        known, told = partial.answer.total, _rest_from(response, start)
        if told and known in (None, told):
            partial.answer = replace(partial.answer, total=told, resumable=True)
            return response
        response.close()  # 416, or bytes of another place or another file
        partial.discard()
    return _get(session, url, {})


def _rest_from(response: requests.Response, start: int) -> int | None:
    """The length of the whole body if the answer holds all of it from byte start on, else None."""
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", "").strip())
    if response.status_code != 206 or not found:
        return None
    first, last, total = map(int, found.groups())
    return total if (first, last) == (start, total - 1) else None


def _get(session: requests.Session, url: str, range_headers: dict[str, str]) -> requests.Response:
    headers = {"Accept-Encoding": "identity"} | range_headers
    try:
        response = session.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S)
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise _Fault(_reason(error)) from error
    except requests.RequestException as error:
        raise FetchError(f"{url}: {_reason(error)}; check the address") from error
    status = response.status_code
    if status == 200 or (range_headers and status in {206, 416}):
        return response
    response.close()
    told = f"the server answered {status} {response.reason}"
    if status >= 500 or status in _PASSING_STATUSES:
        raise _Fault(told)
    raise FetchError(f"{url}: {told}; check the address")


def _reason(error: BaseException) -> str:
    """What went wrong, without the wrappings of requests and urllib3, on one line."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    if isinstance(error, http.client.IncompleteRead):
        return "the body ended early"
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(told.split()) or type(error).__name__


def _place(path: Path, out_path: Path) -> None:
    try:
        os.replace(path, out_path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with _beside(out_path) as temporary:  # the cache lies on another file system
            shutil.copyfile(path, temporary)
