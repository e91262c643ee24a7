"""The provenance of a report's metrics: the git revision, and the parameters and files of dvc.lock."""

import hashlib
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from cbir.core.errors import DataError
from cbir.core.parsing import parse_yaml
from cbir.core.text import printable
from cbir.report.figures import counted

# the inputs of a run that git tracks, without its outputs
_INPUTS: Final = ("cbir", "stages", "conf", "dvc.yaml", "params.yaml")
_HASHED_BYTES: Final = 64 * 10**6  # larger files are not hashed: an index has a passport
_OWN_STAGE: Final = "report"  # while it runs, its entry in dvc.lock is that of the last run
_NAMED_FILES: Final = 10


class Output(NamedTuple):
    """A file or folder that a stage wrote, as in dvc.lock.  md5 : ends in ".dir" for a folder."""

    stage: str
    path: str
    md5: str
    size_bytes: int


@dataclass(frozen=True)
class Provenance:
    """Where metrics come from.

    revision : the git commit, None if it is unknown.  changed : the run's files that differ from the commit.
    doubt : why `revision` is unknown or, if it is known, why `changed` is.
    params, outputs : what the stages read and wrote.  differing : outputs that are missing or differ from dvc.lock.  All three
    leave out the stage report.
    """

    revision: str | None
    changed: tuple[str, ...]
    params: dict[str, Any]
    outputs: tuple[Output, ...]
    differing: tuple[str, ...]
    doubt: str = ""

    @property
    def git_description(self) -> str:
        """The commit and the files that differ from it."""
        if self.revision is None:
            return f"unknown ({self.doubt})"
        if self.doubt:
            return f"{self.revision}, with unknown uncommitted changes ({self.doubt})"
        if not self.changed:
            return self.revision
        names = ", ".join(printable(name) for name in self.changed[:_NAMED_FILES])
        more = len(self.changed) - _NAMED_FILES
        rest = f" and {counted(more, 'more file')}" if more > 0 else ""
        return f"{self.revision}, with uncommitted changes in {names}{rest}"

    @property
    def dvc_description(self) -> str:
        """Whether the files match dvc.lock."""
        if not self.outputs:
            return "dvc.lock is absent or empty"
        if self.differing:
            names = ", ".join(map(printable, self.differing))
            return f"missing, or different from dvc.lock: {names}; to update them, run dvc repro"
        return "all files match dvc.lock (for folders and large files, only their existence was checked)"


def read_provenance(root: Path, encoders: Collection[str]) -> Provenance:
    """Read the provenance of the run of these encoders in `root`.  Raises DataError if dvc.lock is not readable."""
    revision, doubt, changed = _read_git(root)
    params, outputs = read_lock(root / "dvc.lock", encoders)
    earlier = tuple(output for output in outputs if output.stage != _OWN_STAGE)
    return Provenance(
        revision,
        changed,
        {name: value for name, value in params.items() if not name.startswith(f"{_OWN_STAGE}.")},
        earlier,
        tuple(output.path for output in earlier if not matches_lock(root, output)),
        doubt,
    )


def _read_git(root: Path) -> tuple[str | None, str, tuple[str, ...]]:
    """Return commit, doubt and changed files."""
    try:
        revision = _git(root, "log", "-1", "--format=%H").strip()
        _git(root, "ls-files", "--error-unmatch", "dvc.yaml")  # fails if the commit is that of an enclosing repository
    except _GitError as error:
        return None, str(error), ()
    try:
        status = _git(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal", "--", *_INPUTS)
    except _GitError as error:
        return revision, str(error), ()
    return revision, "", tuple(entry[3:] for entry in status.split("\0") if entry)


class _GitError(Exception):
    """git failed; the message is the first line of its output."""


def _git(root: Path, *arguments: str) -> str:
    try:
        process = subprocess.run(
            ["git", "--no-optional-locks", "-c", "log.showSignature=false", "-C", str(root), *arguments],
            capture_output=True,
        )
    except OSError as error:
        raise _GitError(f"git: {error.strerror}") from error
    if process.returncode != 0:
        raise _GitError(process.stderr.decode("utf-8", "backslashreplace").strip().partition("\n")[0])
    return process.stdout.decode("utf-8", "backslashreplace")


def read_lock(path: Path, encoders: Collection[str]) -> tuple[dict[str, Any], tuple[Output, ...]]:
    """Return the parameters that the stages read, by name, and their outputs; both are empty if there is no dvc.lock.

    encoders : of the run; DVC keeps the stages of encoders that an earlier run had.
    Raises DataError if the file is not one that DVC writes.
    """
    if not path.is_file():
        return {}, ()
    try:
        stages = {
            name: stage
            for name, stage in (parse_yaml(path.read_text(encoding="utf-8")) or {}).get("stages", {}).items()
            if "@" not in name or name.partition("@")[2] in encoders
        }
        params: dict[str, Any] = {}
        for stage in stages.values():
            for values in stage.get("params", {}).values():
                params |= values
        outputs = tuple(
            _output(name, out) for name, stage in stages.items() for out in stage.get("outs", ()) if "md5" in out
        )
        return dict(sorted(params.items())), outputs
    except (yaml.YAMLError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not readable as a DVC lock file ({error}): resolve the merge, or delete it and run `dvc repro`"
        ) from error


def _output(stage: str, out: dict[str, Any]) -> Output:
    output = Output(stage, out["path"], out["md5"], out.get("size", 0))
    if not (isinstance(output.path, str) and isinstance(output.md5, str) and isinstance(output.size_bytes, int)):
        raise TypeError(f"expected path, md5 and size of an output of {stage}, found {out}")
    return output


def matches_lock(root: Path, output: Output) -> bool:
    """Return whether a file has the hash in dvc.lock; folders and large files only need to exist."""
    path = root / output.path
    if output.md5.endswith(".dir") or output.size_bytes > _HASHED_BYTES or not path.is_file():
        return path.exists()
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == output.md5
