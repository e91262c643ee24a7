"""Fetch one file from the network or the disk: whole and with the expected hash, or not at all.

fsspec reads the file.  An unfinished download is kept in the cache folder, because DVC empties out_path's folder before each
run; the next attempt or run resumes it.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from cbir.core.errors import ConfigError, FetchError
from cbir.core.files import replacing
from cbir.core.progress import progress
from cbir.fetching.addresses import check_address, filled_in, local_path
from cbir.fetching.cache import cache_folder
from cbir.fetching.sources import Pace, PassingFault, open_source, translated_faults

_CHUNK_BYTES = 1 << 18
_LONGEST_BACKOFF_S = 60.0
_HASH_DIGITS = {"sha256": (64, 64), "md5": (32, 32), "sha256_prefix": (8, 64)}

_log = logging.getLogger(__name__)


class FileTooLargeError(FetchError):
    """A file from the network has more bytes than expected."""


def fetch(
    url: str,
    out_path: Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    sha256_prefix: str | None = None,
    partial_dir: Path | None = None,
    max_bytes: int | None = None,
    silence_s: float = 60.0,
    attempts: int = 5,
    backoff_s: float = 1.0,
) -> Path:
    """Fetch url to out_path and return out_path; a failure leaves out_path as it was.

    url : a path, file:///, http(s)://, s3://, gs://, hf:// or another address that fsspec reads; `$NAME` in an address stands
    for the environment variable NAME.
    sha256, md5 : hexadecimal; a file from the network needs at least one hash.
    sha256_prefix : the first 8 or more digits, as in the file names of torch's weights.
    partial_dir : folder for unfinished downloads, `partial/` in the cache folder by default.
    max_bytes : the most bytes that a file from the network may have.
    silence_s : the longest wait for an answer or for the next bytes; also the time over which the rate is measured that is too
    low to go on, 1 kB/s.
    attempts : number of attempts against faults that may pass.  backoff_s : seconds before the second, doubled each time.

    Raises ConfigError if a hash is malformed or missing, if the address holds a secret, or if a variable is not set; FetchError
    if the file cannot be read or written, or has another hash; FileTooLargeError if it has more bytes than `max_bytes`.
    """
    hashes = _check_hashes(sha256=sha256, md5=md5, sha256_prefix=sha256_prefix)
    source = local_path(url)
    check_address("address", url)
    filled_in(url)  # a variable that is not set ends the run before anything is written
    if source is None and not hashes:
        raise ConfigError(
            f"{url}: expected a hash for a file from the network, found none: add its sha256 or md5 "
            "(`sha256sum FILE` prints it for a copy that you trust)"
        )
    try:
        out_path.parent.mkdir(parents=True, exist_ok=True)
        if source is not None:
            with replacing(out_path) as temporary:
                _download(_Source(url, None, silence_s), temporary, hashes, f"copy {source.name}", attempts, backoff_s)
            return out_path
        folder = partial_dir or cache_folder() / "partial"
        folder.mkdir(parents=True, exist_ok=True)
        key = hashlib.sha256(json.dumps([url, hashes], sort_keys=True).encode()).hexdigest()[:32]
        part = folder / f"{key}.part"
        with _locked(part.with_suffix(".lock"), url):
            _download(_Source(url, max_bytes, silence_s), part, hashes, f"fetch {out_path.name}", attempts, backoff_s)
            with replacing(out_path) as temporary:
                shutil.move(part, temporary)  # copies it if the cache is on another file system
    except OSError as error:  # of the local disk; `translated_faults` handles those of the source
        raise FetchError(
            f"{url}: expected to write {out_path}, found {error}: make room or check the permissions, then run again"
        ) from error
    return out_path


def _check_hashes(**hashes: str | None) -> dict[str, str]:
    """Return the given hashes in lower case.  Raises ConfigError for one that is malformed."""
    given = {name: value.lower() for name, value in hashes.items() if value is not None}
    for name, value in given.items():
        shortest, longest = _HASH_DIGITS[name]
        if not re.fullmatch(f"[0-9a-f]{{{shortest},{longest}}}", value):
            digits = longest if shortest == longest else f"{shortest} to {longest}"
            raise ConfigError(
                f"{name}: expected {digits} hexadecimal digits, found {value!r} ({len(value)} characters)"
            )
    return given


def _hash_difference(path: Path, hashes: dict[str, str]) -> str:
    """Return "expected sha256 X, found Y" for the first hash that differs, "" if all agree."""
    for name, expected in hashes.items():
        algorithm, _, is_prefix = name.partition("_")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, partial(hashlib.new, algorithm, usedforsecurity=False)).hexdigest()
        if not digest.startswith(expected):
            return f"expected {algorithm}{' beginning with' if is_prefix else ''} {expected}, found {digest}"
    return ""


@contextmanager
def _locked(path: Path, url: str) -> Iterator[None]:
    """Let one process at a time write a partial file; the system releases the lock of a process that is killed."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.warning("%s: another process is fetching it, waiting for the lock %s", url, path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class _Source:
    """See `fetch`."""

    url: str
    max_bytes: int | None
    silence_s: float


def _download(source: _Source, path: Path, hashes: dict[str, str], label: str, attempts: int, backoff_s: float) -> None:
    """Complete the file at `path`, with retries; fetch it anew once if its hash differs after it was resumed."""
    url = source.url

    def warn(state: RetryCallState) -> None:
        fault, attempt = state.outcome and state.outcome.exception(), state.attempt_number + 1
        _log.warning("%s: %s; attempt %d of %d in %.1f s", url, fault, attempt, attempts, state.upcoming_sleep)

    retrying = Retrying(
        retry=retry_if_exception_type(PassingFault),
        stop=stop_after_attempt(attempts),
        wait=wait_exponential(multiplier=backoff_s, max=_LONGEST_BACKOFF_S),
        before_sleep=warn,
        reraise=True,
    )
    for may_repeat in (True, False):
        try:
            resumed = retrying(_append, source, path, label)
        except PassingFault as fault:
            kept = f"; {size} bytes are kept and the next run resumes them" if (size := _size(path)) else ""
            raise FetchError(
                f"{url}: {fault} (attempts: {attempts}){kept}: check the address and the network, then run `dvc repro`"
            ) from fault
        if not (difference := _hash_difference(path, hashes)):
            return
        path.unlink()
        if not (resumed and may_repeat):
            raise FetchError(f"{url}: {difference}: check the address, or the hash if this is the file that you want")
        _log.warning("%s: %s; the resumed bytes may come from an older file, fetching it anew", url, difference)


def _append(source: _Source, path: Path, label: str) -> bool:
    """Append to `path` the bytes that it lacks, and return whether it held some before.

    Raises PassingFault or FetchError if the source cannot be read, OSError if `path` cannot be written.
    """
    url, size = source.url, _size(path)
    with translated_faults(url):
        file, start, total = open_source(url, size, source.silence_s)
    with file, path.open("ab" if start else "wb") as sink, progress(total, label, "B", done=start) as bar:
        _check_size(source, total or 0, path, "as the server says")
        _check_room(path, (total or start) - start)
        pace = Pace(source.silence_s)
        while True:
            with translated_faults(url):
                chunk = file.read(_CHUNK_BYTES)
                pace.check(len(chunk))
            if not chunk:
                return start > 0
            sink.write(chunk)
            bar.advance(len(chunk))
            _check_size(source, bar.done, path, "and no end")


def _check_room(path: Path, missing_bytes: int) -> None:
    """Raise OSError if the disk of an unfinished file has no room for its rest, before an hour of download shows it."""
    free_bytes = shutil.disk_usage(path.parent).free
    if missing_bytes > free_bytes:
        raise OSError(f"{free_bytes:,} bytes free on the disk of {path.parent}, where {missing_bytes:,} are needed")


def _check_size(source: _Source, size: int, path: Path, detail: str) -> None:
    """Delete an unfinished file and raise FileTooLargeError if it has, or will have, too many bytes."""
    if source.max_bytes is not None and size > source.max_bytes:
        path.unlink(missing_ok=True)
        raise FileTooLargeError(
            f"{source.url}: expected at most {source.max_bytes:,} bytes, found {size:,}, {detail}: check the address"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
