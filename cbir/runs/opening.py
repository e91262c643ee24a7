"""Open a run by name: a folder of reports, a git revision or a DVC experiment."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import pyarrow as pa

from cbir.artifacts.evaluations import read_collection, read_per_query
from cbir.artifacts.names import read_encoder_names
from cbir.artifacts.paths import ReportPaths
from cbir.core.errors import ConfigError, DataError

LOCK = Path("dvc.lock")
_OF_ANOTHER_USER = "safe.directory"  # in git's message


@dataclass(frozen=True, eq=False)
class Run:
    """A run to compare.

    name : as the user gave it.  collection : rows and hash of each part (see `cbir.evaluation.collection.Collection`).
    per_query : every metric of each query.
    """

    name: str
    collection: dict[str, dict[str, Any]]
    per_query: pa.Table


@contextmanager
def open_reports(name: str, files: Callable[[str], Sequence[Path]]) -> Iterator[ReportPaths]:
    """The reports of a run, while the block runs; dvc.lock is beside their folder if the run has one.

    name : a folder, which is used as it is, or a git revision or DVC experiment of this repository, whose `files` are copied.
    files : encoder -> paths in the repository.
    Raises DataError when there is no run of that name, or its files are not in the cache.
    """
    folder = Path(name)
    if folder.is_dir():
        reports = folder / ReportPaths().root
        yield ReportPaths(reports if reports.is_dir() else folder)
        return
    with tempfile.TemporaryDirectory() as copies:
        _copy_files(name, files, Path(copies))
        yield ReportPaths(Path(copies) / ReportPaths().root)


def files_of_run(encoder: str) -> list[Path]:
    """The files of an encoder that `read_run` reads."""
    evaluation = ReportPaths().evaluation(encoder)
    return [evaluation.passport, evaluation.test_collection, evaluation.per_query]


def open_run(name: str) -> Run:
    """Open a run by its name.  Raises DataError as `open_reports` and `read_run` do."""
    with open_reports(name, files_of_run) as reports:
        return read_run(name, reports)


def read_run(name: str, reports: ReportPaths) -> Run:
    """Read a run from its reports.  Raises DataError when a file is absent, damaged or of another version."""
    return Run(name, read_collection(reports), read_per_query(reports))


def revision_of(name: str) -> str:
    """The commit of a git revision or DVC experiment."""
    from dvc.api import DVCFileSystem  # takes seconds, and only revisions need it

    return str(DVCFileSystem(rev=name).repo.get_rev())


def check_owner() -> None:
    """Raise ConfigError where git refuses the repository here because it belongs to another user, as in a container."""
    ended = subprocess.run(["git", "rev-parse", "--git-dir"], capture_output=True, text=True, check=False)
    if _OF_ANOTHER_USER in ended.stderr:
        raise ConfigError(
            "the repository belongs to another user, so git refuses it; if you trust its files: "
            f"`git config --global --add {_OF_ANOTHER_USER} {quote(str(Path.cwd()))}`"
        )


def _copy_files(name: str, files: Callable[[str], Sequence[Path]], out: Path) -> None:
    """Copy the files of each encoder of a git revision or DVC experiment, and its dvc.lock, to the same paths below `out`."""
    from dvc.api import DVCFileSystem  # takes seconds, and only revisions need it
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.scm import RevError, SCMError

    check_owner()
    try:
        revision = DVCFileSystem(rev=name)

        def copy(path: Path) -> None:
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            revision.get(str(path), str(out / path), recursive=True)

        names = ReportPaths().encoders
        copy(names)
        for encoder in read_encoder_names(out / names):
            for path in files(encoder):
                copy(path)
        if revision.exists(str(LOCK)):
            copy(LOCK)
    except RevError as error:
        raise DataError(
            f"{name}: neither a folder nor a git revision nor an experiment; `dvc exp show` and `git log` list them"
        ) from error
    except (NotDvcRepoError, SCMError) as error:
        raise DataError(
            f"{name}: expected a folder of reports, found none, and no repository here that could have it as a revision or an "
            "experiment: go to the repository's root, or name a folder"
        ) from error
    except (DvcException, OSError) as error:
        raise DataError(
            f"{name}: its reports are not in the cache ({error}); fetch them with `dvc pull`, or run it again"
        ) from error
