"""Atomic writes: every artifact is written under a temporary name and renamed.  JSON, and hashes of lists."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cbir.core.errors import DataError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place when the block ends well, delete it otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.writing")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def fresh_folder(folder: Path) -> None:
    """Make the folder, empty: DVC has removed an earlier run's files, but a stage may be run by hand."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write indented JSON in the order given: the same value gives the same bytes."""
    with replacing(path) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.  Raises DataError when the file is absent or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is not here: run `dvc repro`") from None
    except ValueError as error:
        raise DataError(f"{path} is not readable as JSON ({error}): run `dvc repro --force`") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def hash_ids(ids: Iterable[str]) -> str:
    """sha256 over ids in order."""
    digest = hashlib.sha256()
    add_ids(digest, ids)
    return digest.hexdigest()


def add_ids(digest: "hashlib._Hash", ids: Iterable[str]) -> None:
    """Go on with a hash as `hash_ids` makes it."""
    for image_id in ids:
        digest.update(image_id.encode() + b"\0")
