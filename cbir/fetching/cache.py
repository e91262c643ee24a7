"""The user's cache folder: what can be fetched or computed again, outside DVC's outputs, shared by all projects."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cbir.core.errors import ConfigError

WRITING = ".writing"  # ends the name of a file that is not whole yet
_WRITTEN_WITHIN_S = 3600.0
KINDS = {"vectors": "embedded shards", "partial": "unfinished downloads"}


def cache_folder() -> Path:
    """$CBIR_CACHE, else cbir/ in the user's own cache folder.

    Raises ConfigError when it is not absolute: DVC runs experiments in other folders, where a relative one is another one.
    """
    if own := os.environ.get("CBIR_CACHE"):
        folder = Path(own).expanduser()
        if not folder.is_absolute():
            raise ConfigError(
                f"CBIR_CACHE: expected an absolute path, found {own!r}; set CBIR_CACHE={folder.resolve()}"
            )
        return folder
    users = Path(os.environ.get("XDG_CACHE_HOME", ""))  # a relative one is to be ignored, says the XDG specification
    return (users if users.is_absolute() else Path.home() / ".cache") / "cbir"


@dataclass(frozen=True)
class Kept:
    """A file of the cache.  used_at : seconds since 1970, when it was last written or read."""

    path: Path
    kind: str
    size_bytes: int
    used_at: float


def kept_files(folder: Path) -> Iterator[Kept]:
    """Every file of the cache; one that goes away meanwhile is left out."""
    for kind in KINDS:
        for path in sorted((folder / kind).rglob("*")):
            try:
                found = path.lstat()
            except FileNotFoundError:
                continue
            if not path.is_dir():
                yield Kept(path, kind, found.st_size, found.st_mtime)


def prune(folder: Path, max_bytes: float, max_age_s: float) -> list[Kept]:
    """Delete what was not used for `max_age_s`, then what was used longest ago until `max_bytes` are left; return it.

    What a run is writing at this time stays.
    """
    files = sorted(kept_files(folder), key=lambda kept: kept.used_at, reverse=True)
    now = time.time()
    held, gone, oldest = 0, [], now - max_age_s
    for kept in files:
        if kept.path.suffix == WRITING and now - kept.used_at < _WRITTEN_WITHIN_S:
            continue
        held += kept.size_bytes
        if kept.used_at < oldest or held > max_bytes:
            kept.path.unlink(missing_ok=True)
            gone.append(kept)
    return gone
