"""The user's cache folder, shared by all projects: files that can be fetched or computed again."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from cbir.core.errors import ConfigError

WRITING = ".writing"  # suffix of a file that is not yet whole
_WRITING_FOR_S = 3600.0  # younger files with this suffix may belong to a process that still runs
CACHE_KINDS = {"vectors": "embedded shards and their index", "partial": "unfinished downloads"}


def cache_folder() -> Path:
    """Return $CBIR_CACHE, or else `cbir` in the user's cache folder ($XDG_CACHE_HOME or ~/.cache on Linux).

    Raises ConfigError if $CBIR_CACHE is a relative path, because DVC runs experiments in other working folders, and if a user
    without a home has not set it.
    """
    value = os.environ.get("CBIR_CACHE")
    try:
        folder = Path(value).expanduser() if value else platformdirs.user_cache_path("cbir", appauthor=False)
    except RuntimeError as error:
        raise ConfigError(
            f"CBIR_CACHE: expected an absolute path, found {value or 'nothing, and no home folder'}; set CBIR_CACHE=/path"
        ) from error
    if not folder.is_absolute():
        raise ConfigError(f"CBIR_CACHE: expected an absolute path, found {value!r}; set CBIR_CACHE={folder.resolve()}")
    return folder


@dataclass(frozen=True)
class CachedFile:
    """A file in the cache.  used_at : when it was last written or read, in seconds since 1970."""

    path: Path
    kind: str
    size_bytes: int
    used_at: float


def kept_files(folder: Path) -> Iterator[CachedFile]:
    """Yield each file in the cache, except those that disappear meanwhile."""
    for kind in CACHE_KINDS:
        for path in sorted((folder / kind).rglob("*")):
            try:
                info = path.lstat()
            except FileNotFoundError:
                continue
            if not path.is_dir():
                yield CachedFile(path, kind, info.st_size, info.st_mtime)


def prune(folder: Path, max_bytes: float, max_age_s: float) -> list[CachedFile]:
    """Delete files unused for `max_age_s`, then the least recently used until `max_bytes` are left; return them.

    Files that a process may be writing stay.
    """
    now = time.time()
    kept_bytes, deleted = 0, []
    for file in sorted(kept_files(folder), key=lambda file: file.used_at, reverse=True):
        age_s = now - file.used_at
        if file.path.suffix == WRITING and age_s < _WRITING_FOR_S:
            continue
        kept_bytes += file.size_bytes
        if age_s > max_age_s or kept_bytes > max_bytes:
            file.path.unlink(missing_ok=True)
            deleted.append(file)
    return deleted
