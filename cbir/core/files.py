"""Atomic writes, JSON files and hashes of ids."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from cbir.core.errors import REPAIR, DataError, disk_errors

SEAL = "cbir.seal"  # key of the hash in a JSON file that cbir writes


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block ends without an exception.

    Otherwise the temporary file is deleted and `path` stays as it was.  Raises OSError naming the path where a library that
    writes reports a full disk in words of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.writing")
    try:
        with disk_errors(path):
            yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None and error.filename is None and str(path) not in str(error):  # as NumPy's: "9 written"
            raise OSError(f"{path}: cannot be written whole ({error}): make room, then run again") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def fresh_folder(folder: Path) -> None:
    """Create an empty folder; DVC deletes an earlier run's files, but a stage may also be run by hand."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def write_json(path: Path, value: Mapping[str, Any], *, sealed: bool = True) -> None:
    """Write indented JSON with the keys in the given order, so that equal values give equal bytes.

    sealed : add the hash of the value, which `read_json` checks; False for a file that other programs read as well.
    """
    written = {**value, SEAL: _seal_of(json.loads(json.dumps(value)))} if sealed else value
    with replacing(path) as temporary:
        text = json.dumps(written, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, *, sealed: bool = True) -> dict[str, Any]:
    """Read a JSON object.

    sealed : whether `write_json` sealed it.
    Raises DataError if the file is missing or damaged, holds something else, or is not as it was written.
    """
    check_regular(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise DataError(f"{path} is not here: run `dvc repro`") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not readable as JSON ({error}): {REPAIR}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(value).__name__}: {REPAIR}")
    if sealed and (seal := value.pop(SEAL, None)) != _seal_of(value):
        what = "none: another version or another program wrote it" if seal is None else "other values"
        raise DataError(f"{path}: expected the values that its seal, `{SEAL}`, was made of, found {what}: {REPAIR}")
    return value


def _seal_of(value: Mapping[str, Any]) -> str:
    """The hash of a JSON object, whatever the order of its keys and its white space."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def check_regular(path: Path) -> None:
    """Raise DataError if there is a device, a pipe or a folder at `path`: to read a device or a pipe may never end."""
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: expected a file, found {'a folder' if path.is_dir() else 'a device or a pipe'}")


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unchanged_file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, which are read once in a process unless size or time of the file change."""
    stat = path.stat()
    return _file_sha256(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _file_sha256(path: Path, size: int, mtime_ns: int) -> str:
    return file_sha256(path)


def hash_ids(ids: Iterable[str]) -> str:
    """Return the sha256 of ids in their order."""
    digest = hashlib.sha256()
    add_ids(digest, ids)
    return digest.hexdigest()


def add_ids(digest: "hashlib._Hash", ids: Iterable[str]) -> None:
    """Add ids to a hash, as `hash_ids` does."""
    for name in ids:
        digest.update(name.encode() + b"\0")
