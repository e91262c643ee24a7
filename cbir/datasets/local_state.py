"""The state of files on this machine that a run reads but that are no output of a stage.

The state of a small file is the hash of its content; of a large file, its size and modification time; of a folder, and of
the images that belong to a query list, the sizes and modification times of all files; of an image folder, those of images.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from cbir.artifacts.outputs import check_outside
from cbir.core.files import hash_ids
from cbir.datasets.query_file import listed_image_path, read_query_file
from cbir.fetching.addresses import local_path
from cbir.fetching.folders import Folder, stamp

_HASHED_BYTES = 64 * 2**20  # hashing a larger file would slow down each `dvc repro`


def local_state(
    names: Sequence[str | None],
    aliases: Mapping[str, Path] | None = None,
    is_content: Callable[[str], bool] | None = None,
) -> dict[str, str]:
    """Return the state of each name that is an existing path; skip the others (null, a tag, a network address).

    aliases : name -> the path that it stands for.  Its state is stored under the name, which is the same on all machines.
    is_content : of a folder's files, those whose sizes and times count; all by default.
    Raises ConfigError when a link in a folder leads into an output of the pipeline.
    """
    paths = {name: (aliases or {}).get(name) or local_path(name) for name in names if name}
    return {name: _state(path, is_content) for name, path in paths.items() if path and path.exists()}


def images_state(query_list: str | None) -> dict[str, str]:
    """Return one state for all images that a query list names in its own folder; {} without a list or such images.

    Raises DataError when the list does not exist or is damaged, ConfigError when an image lies in an output of the pipeline.
    """
    if query_list is None:
        return {}
    path = Path(query_list).expanduser()
    images = [(str(row.image), image) for row in read_query_file(path).rows if (image := listed_image_path(path, row))]
    for folder in {image.parent for _, image in images}:
        check_outside(f"{path}, column image", folder)
    stamps = [stamp(name, image) for name, image in images]
    return {f"images of {query_list}": hash_ids(stamps)} if stamps else {}


def _state(path: Path, is_content: Callable[[str], bool] | None) -> str:
    if path.is_dir():
        folder = Folder(path)
        for linked in folder.linked:
            check_outside(f"{path}: a link in it", linked)
        return hash_ids(folder.fingerprint(is_content))
    info = path.stat()
    if info.st_size <= _HASHED_BYTES:  # a fresh clone or a copy changes a file's time, but not its content
        return sha256(path.read_bytes()).hexdigest()
    return f"{info.st_size} bytes, changed {info.st_mtime_ns} ns"
