"""Where a report's figures come from: the git revision, and what dvc.lock says of parameters and files."""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from cbir.core.errors import DataError
from cbir.core.text import printable

_RUNS: Final = ("cbir", "stages", "conf", "dvc.yaml", "params.yaml")  # what makes a run, without what a run writes
_HASHED_BYTES: Final = 64 * 10**6  # a larger file is taken for what it was: an index has a passport
_OWN_STAGE: Final = "report"  # while it runs, dvc.lock holds what it read and wrote the last time
_NAMED_FILES: Final = 10


class Output(NamedTuple):
    """A file or folder that a stage wrote, as dvc.lock names it.  md5 : of a folder, DVC's, ending in ".dir"."""

    stage: str
    path: str
    md5: str
    size_bytes: int


@dataclass(frozen=True)
class Provenance:
    """revision : the git commit, None where it is unknown, and `doubt` says why.

    changed : files of the run that differ from the commit; with a commit, `doubt` says why they are unknown.
    params : those that the stages read.  outputs : what they wrote.  differing : files that are absent, or not the ones of
    dvc.lock.  All three without the stage report itself.
    """

    revision: str | None
    changed: tuple[str, ...]
    params: dict[str, Any]
    outputs: tuple[Output, ...]
    differing: tuple[str, ...]
    doubt: str = ""

    @property
    def git_told(self) -> str:
        """The commit and what differs from it, in words."""
        if self.revision is None:
            return f"unknown ({self.doubt})"
        if self.doubt:
            return f"{self.revision}, whether with changes is unknown ({self.doubt})"
        if not self.changed:
            return self.revision
        names = ", ".join(printable(name) for name in self.changed[:_NAMED_FILES])
        more = len(self.changed) - _NAMED_FILES
        rest = f" and {more} more {'file' if more == 1 else 'files'}" if more > 0 else ""
        return f"{self.revision}, with uncommitted changes in {names}{rest}"

    @property
    def dvc_told(self) -> str:
        """Whether the files are those of dvc.lock, in words."""
        if not self.outputs:
            return "there is no dvc.lock, or it is empty"
        if self.differing:
            names = ", ".join(map(printable, self.differing))
            return f"absent, or other files than dvc.lock names: {names}; dvc repro brings them together"
        return "the files are those of dvc.lock (of folders and large files, that they are there)"


def read_provenance(root: Path) -> Provenance:
    """Of the repository in `root`.  Raises DataError for a dvc.lock that cannot be read."""
    revision, doubt, changed = _read_git(root)
    params, outputs = read_lock(root / "dvc.lock")
    earlier = tuple(one for one in outputs if one.stage != _OWN_STAGE)
    return Provenance(
        revision,
        changed,
        {name: value for name, value in params.items() if not name.startswith(f"{_OWN_STAGE}.")},
        earlier,
        tuple(one.path for one in earlier if not is_as_told(root, one)),
        doubt,
    )


def _read_git(root: Path) -> tuple[str | None, str, tuple[str, ...]]:
    """Commit, doubt and changed files."""
    try:
        revision = _git(root, "log", "-1", "--format=%H").strip()
        _git(root, "ls-files", "--error-unmatch", "dvc.yaml")  # else the commit is one of a repository around us
    except _GitError as error:
        return None, str(error), ()
    try:
        status = _git(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal", "--", *_RUNS)
    except _GitError as error:
        return revision, str(error), ()
    return revision, "", tuple(entry[3:] for entry in status.split("\0") if entry)


class _GitError(Exception):
    """git did not answer; the message is its first line."""


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-c", "log.showSignature=false", "-C", str(root), *arguments],
            capture_output=True,
        )
    except OSError as error:
        raise _GitError(f"git: {error.strerror}") from error
    if done.returncode != 0:
        raise _GitError(done.stderr.decode("utf-8", "backslashreplace").strip().partition("\n")[0])
    return done.stdout.decode("utf-8", "backslashreplace")


def read_lock(path: Path) -> tuple[dict[str, Any], tuple[Output, ...]]:
    """The parameters that the stages read, by name, and what they wrote; nothing where there is no dvc.lock.

    Raises DataError for a file that is not DVC's.
    """
    if not path.is_file():
        return {}, ()
    try:
        stages = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("stages", {})
        params: dict[str, Any] = {}
        for stage in stages.values():
            for named in stage.get("params", {}).values():
                params |= named
        outputs = tuple(
            _output(name, out) for name, stage in stages.items() for out in stage.get("outs", ()) if "md5" in out
        )
        return dict(sorted(params.items())), outputs
    except (yaml.YAMLError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not readable as DVC's ({error}): settle the merge, or delete it and run `dvc repro`"
        ) from error


def _output(stage: str, out: dict[str, Any]) -> Output:
    found = Output(stage, out["path"], out["md5"], out.get("size", 0))
    if not (isinstance(found.path, str) and isinstance(found.md5, str) and isinstance(found.size_bytes, int)):
        raise TypeError(f"expected path, md5 and size of an output of {stage}, found {out}")
    return found


def is_as_told(root: Path, one: Output) -> bool:
    """Whether the file is the one that DVC knows; of folders and large files, whether it is there."""
    path = root / one.path
    if one.md5.endswith(".dir") or one.size_bytes > _HASHED_BYTES or not path.is_file():
        return path.exists()
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == one.md5
