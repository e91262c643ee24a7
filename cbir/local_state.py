"""The state of files on this machine that a run reads but does not own.

Of a small file its content, of a large one its size and the time of its last change, of a folder those of all its files.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from cbir.artifacts.files import hash_ids, write_json
from cbir.datasets.files import Folder
from cbir.local_path import local_path

_HASHED_BYTES = 64 * 2**20  # hashing a larger file would slow down every `dvc repro`


def write_local_state(out: Path, names: Sequence[str | None], own: Mapping[str, Path] | None = None) -> None:
    """Write what `local_state` finds."""
    write_json(out, local_state(names, own))


def local_state(names: Sequence[str | None], own: Mapping[str, Path] | None = None) -> dict[str, str]:
    """The state of each name that is a path; names that are something else (null, a tag, an address) are left out.

    own : the paths that some names stand for; their states stand under these names, the same on every machine.
    """
    paths = {name: (own or {}).get(name) or local_path(name) for name in names if name}
    return {name: _state(path) for name, path in paths.items() if path and path.exists()}


def _state(path: Path) -> str:
    if path.is_dir():
        return hash_ids(Folder(path).fingerprint())
    info = path.stat()
    if info.st_size <= _HASHED_BYTES:  # a fresh clone or a copy changes the time of a file, not its content
        return sha256(path.read_bytes()).hexdigest()
    return f"{info.st_size} bytes, changed {info.st_mtime_ns} ns"
