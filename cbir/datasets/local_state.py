"""The state of files on this machine that a run reads but does not own.

Of a small file its content, of a large one its size and the time of its last change, of a folder, and of the images beside a
query list, those of all files.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from cbir.core.files import hash_ids
from cbir.datasets.query_list import image_beside, read_query_file
from cbir.fetching.addresses import local_path
from cbir.fetching.archives import Folder, stamp

_HASHED_BYTES = 64 * 2**20  # hashing a larger file would slow down every `dvc repro`


def local_state(names: Sequence[str | None], own: Mapping[str, Path] | None = None) -> dict[str, str]:
    """The state of each name that is a path; names that are something else (null, a tag, an address) are left out.

    own : the paths that some names stand for; their states stand under these names, the same on every machine.
    """
    paths = {name: (own or {}).get(name) or local_path(name) for name in names if name}
    return {name: _state(path) for name, path in paths.items() if path and path.exists()}


def images_state(query_list: str | None) -> dict[str, str]:
    """The state of the images below a query list's own folder that it names, as one; empty without a list, or any image.

    Raises DataError for a list that is not there, or is damaged.
    """
    if query_list is None:
        return {}
    path = Path(query_list).expanduser()
    stamps = [stamp(str(row.image), image) for row in read_query_file(path) if (image := image_beside(path, row))]
    return {f"images of {query_list}": hash_ids(stamps)} if stamps else {}


def _state(path: Path) -> str:
    if path.is_dir():
        return hash_ids(Folder(path).fingerprint())
    info = path.stat()
    if info.st_size <= _HASHED_BYTES:  # a fresh clone or a copy changes the time of a file, not its content
        return sha256(path.read_bytes()).hexdigest()
    return f"{info.st_size} bytes, changed {info.st_mtime_ns} ns"
