"""Where a report's figures come from: the git revision, and what dvc.lock says of parameters and files."""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from cbir.errors import DataError

_RUNS: Final = ("cbir", "stages", "conf", "dvc.yaml", "params.yaml")  # what makes a run, without what a run writes
_HASHED_BYTES: Final = 64 * 10**6  # a larger file is taken for what it was: an index has a passport
_OWN_STAGE: Final = "report"  # while it runs, dvc.lock holds what it wrote the last time


class Output(NamedTuple):
    """A file or folder that a stage wrote, as dvc.lock names it.  md5 : of a folder, DVC's, ending in ".dir"."""

    stage: str
    path: str
    md5: str
    size_bytes: int


@dataclass(frozen=True)
class Provenance:
    """revision : the git commit, None where there is none.  changed : files of the run that differ from it.

    params : those that the stages read.  outputs : what they wrote.  differing : files that are not the ones of dvc.lock.
    """

    revision: str | None
    changed: tuple[str, ...]
    params: dict[str, Any]
    outputs: tuple[Output, ...]
    differing: tuple[str, ...]


def read_provenance(root: Path) -> Provenance:
    """Of the repository in `root`; without git or dvc.lock, the empty fields say so.

    Raises DataError for a dvc.lock that cannot be read.
    """
    revision = _git(root, "rev-parse", "--verify", "HEAD").strip() or None
    status = (
        _git(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal", "--", *_RUNS)
        if revision
        else ""
    )
    params, outputs = read_lock(root / "dvc.lock")
    return Provenance(
        revision,
        tuple(entry[3:] for entry in status.split("\0") if entry),
        params,
        outputs,
        tuple(one.path for one in outputs if not _is_as_told(root, one)),
    )


def _git(root: Path, *arguments: str) -> str:
    """What git says; nothing where git or the repository is absent."""
    try:
        done = subprocess.run(["git", "--no-optional-locks", "-C", str(root), *arguments], capture_output=True)
    except FileNotFoundError:
        return ""
    return done.stdout.decode("utf-8", "backslashreplace") if done.returncode == 0 else ""


def read_lock(path: Path) -> tuple[dict[str, Any], tuple[Output, ...]]:
    """The parameters that the stages read, by name, and what they wrote; nothing where there is no dvc.lock."""
    if not path.is_file():
        return {}, ()
    try:
        stages = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("stages", {})
        params: dict[str, Any] = {}
        for stage in stages.values():
            for named in stage.get("params", {}).values():
                params |= named
        outputs = [
            Output(name, out["path"], out["md5"], out.get("size", 0))
            for name, stage in stages.items()
            for out in stage.get("outs", ())
            if "md5" in out
        ]
    except (yaml.YAMLError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not readable as DVC's ({error}): settle the merge, or delete it and run `dvc repro`"
        ) from error
    return dict(sorted(params.items())), tuple(outputs)


def _is_as_told(root: Path, one: Output) -> bool:
    """Whether the file is the one that DVC knows; folders, large files and the report itself are not looked at."""
    path = root / one.path
    if one.stage == _OWN_STAGE or one.md5.endswith(".dir") or one.size_bytes > _HASHED_BYTES or not path.is_file():
        return True
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == one.md5
