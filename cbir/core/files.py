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

from cbir.core.errors import REPAIR, DataError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block ends without an exception.

    Otherwise the temporary file is deleted and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.writing")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def fresh_folder(folder: Path) -> None:
    """Create an empty folder; DVC deletes an earlier run's files, but a stage may also be run by hand."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write indented JSON with the keys in the given order, so that equal values give equal bytes."""
    with replacing(path) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.  Raises DataError if the file is missing, damaged or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is not here: run `dvc repro`") from None
    except ValueError as error:
        raise DataError(f"{path} is not readable as JSON ({error}): {REPAIR}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


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
