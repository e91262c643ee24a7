"""Find damaged outputs of the pipeline, and delete them with their damaged copies in DVC's cache.

DVC links outputs to its cache and trusts both by size and time: it brings damaged bytes back, also after `dvc repro --force`.
After a repair, `dvc repro` takes intact copies from the cache and runs the stages of the others.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cbir.core.errors import DataError
from cbir.core.parsing import parse_json, parse_yaml
from cbir.core.progress import progress

LOCK = "dvc.lock"


@dataclass(frozen=True)
class Recorded:
    """A file that dvc.lock records.  md5 : of its bytes.  cached : where DVC's cache has its copy, unless it has none."""

    path: Path
    md5: str
    cached: Path


@dataclass(frozen=True)
class Damaged:
    """A file that was deleted because its bytes are not those that dvc.lock records.  expected, actual : md5."""

    path: Path
    expected: str
    actual: str


def repair(root: Path) -> tuple[int, list[Damaged]]:
    """Delete each output, and each copy of one in DVC's cache, whose bytes are not those that dvc.lock records.

    Outputs that are not in DVC's cache, such as the report, are left alone: `dvc repro` notices their changes.
    root : of the repository.  Returns the number of files that were checked, and the deleted ones.
    Raises DataError when there is no dvc.lock, or DVC cannot open the repository.
    """
    files = [file for file in _recorded(root) if file.cached.is_file()]
    damaged: list[Damaged] = []
    known: dict[tuple[int, int], str] = {}  # a link of the cache is read once
    with progress(len(files), "check", "files") as bar:
        for file in files:
            damaged += [deleted for path in (file.path, file.cached) if (deleted := _delete(path, file.md5, known))]
            bar.advance(1)
    return len(files), damaged


def _recorded(root: Path) -> Iterator[Recorded]:
    """The files of all outputs that dvc.lock records; a list of a folder's files is one as well, without a path of its own."""
    cache = dvc_cache_folder(root)
    try:
        stages = parse_yaml((root / LOCK).read_text(encoding="utf-8"))["stages"]
        outs = [(root / out["path"], str(out["md5"])) for stage in stages.values() for out in stage.get("outs", ())]
    except FileNotFoundError:
        raise DataError(f"{root / LOCK} is not here: go to the root of the repository, then run `dvc repro`") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{root / LOCK}: expected the file that DVC writes ({error}): run `git checkout {LOCK}`"
        ) from error
    for path, md5 in outs:
        cached = cache / md5[:2] / md5[2:]
        if not md5.endswith(".dir"):
            yield Recorded(path, md5, cached)
            continue
        yield Recorded(cached, md5.removesuffix(".dir"), cached)
        for entry in _entries(cached):
            yield Recorded(path / entry["relpath"], entry["md5"], cache / entry["md5"][:2] / entry["md5"][2:])


def _entries(listing: Path) -> list[dict[str, str]]:
    """The files that a list of DVC's cache names; none where it is absent or damaged."""
    try:
        return [
            {"relpath": str(entry["relpath"]), "md5": str(entry["md5"])} for entry in parse_json(listing.read_bytes())
        ]
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return []


def dvc_cache_folder(root: Path) -> Path:
    """The folder of DVC's cache of the repository.  Raises DataError when DVC cannot open it."""
    from dvc.exceptions import DvcException  # takes a second
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            return Path(repo.cache.local.path)
    except DvcException as error:
        raise DataError(f"{root}: DVC cannot open it ({error}): go to the root of the repository") from error


def _delete(path: Path, md5: str, known: dict[tuple[int, int], str]) -> Damaged | None:
    """Delete the file if it is there and damaged.  known : (device, inode) -> md5 of the files that were read."""
    if not path.is_file():
        return None
    stat = path.stat()
    if (inode := (stat.st_dev, stat.st_ino)) not in known:
        with path.open("rb") as file:
            known[inode] = hashlib.file_digest(file, "md5").hexdigest()
    if known[inode] == md5:
        return None
    path.unlink()
    return Damaged(path, md5, known[inode])
