"""The state of files on this machine that a run reads but does not own: present or not, bytes, time of last change."""

from collections.abc import Sequence
from pathlib import Path

from cbir.artifacts.files import hash_ids, write_json
from cbir.datasets.files import Folder
from cbir.local_path import local_path


def write_local_state(out: Path, names: Sequence[str | None]) -> None:
    """Write the state of each name that is a path; names that are something else (null, a tag, an address) are left out."""
    write_json(out, {name: _state(path) for name in names if name and (path := local_path(name)) and path.exists()})


def _state(path: Path) -> str:
    if path.is_dir():
        return hash_ids(Folder(path).fingerprint())
    info = path.stat()
    return f"{info.st_size} bytes, changed {info.st_mtime_ns} ns"
