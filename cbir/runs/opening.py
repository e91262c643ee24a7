"""Open a run by name: a folder of reports, a git revision or a DVC experiment."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from cbir.artifacts.paths import ReportPaths
from cbir.artifacts.runs import read_open_table
from cbir.core.errors import DataError
from cbir.core.files import read_json

LOCK = Path("dvc.lock")
RUN_FILES = (ReportPaths().test_collection, ReportPaths().per_query)
_COLUMNS = ("query_id", "task", "encoder", "search", "subset", "label")


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
def open_reports(name: str, files: Sequence[Path]) -> Iterator[ReportPaths]:
    """The reports of a run, while the block runs; dvc.lock is beside their folder if the run has one.

    name : a folder, which is used as it is, or a git revision or DVC experiment of this repository, whose `files` are copied.
    files : paths in the repository.
    Raises DataError when there is no run of that name, or its files are not in the cache.
    """
    folder = Path(name)
    if folder.is_dir():
        reports = folder / ReportPaths().root
        yield ReportPaths(reports if reports.is_dir() else folder)
        return
    with tempfile.TemporaryDirectory() as copies:
        _copy_files(name, files, Path(copies), optional=[LOCK])
        yield ReportPaths(Path(copies) / ReportPaths().root)


def open_run(name: str) -> Run:
    """Open a run by its name.  Raises DataError as `open_reports` and `read_run` do."""
    with open_reports(name, RUN_FILES) as reports:
        return read_run(name, reports)


def read_run(name: str, reports: ReportPaths) -> Run:
    """Read a run from its reports.  Raises DataError when a file is absent, damaged or of another version."""
    collection = read_json(reports.test_collection)
    table = read_open_table(reports.per_query)
    if not is_identity(collection.get("gallery")):
        raise DataError(
            f"{reports.test_collection}: expected the gallery's rows and hash, found {collection.get('gallery')!r}: "
            "run `dvc repro --force evaluate`"
        )
    missing = [column for column in _COLUMNS if column not in table.column_names]
    if missing:
        raise DataError(
            f"{reports.per_query}: expected a column '{missing[0]}', found {', '.join(table.column_names)}: "
            "run `dvc repro --force evaluate`"
        )
    return Run(name, collection, table)


def is_identity(value: Any) -> bool:
    """Whether a value identifies a part of a test collection, by rows and hash."""
    return isinstance(value, dict) and isinstance(value.get("rows"), int)


def revision_of(name: str) -> str:
    """The commit of a git revision or DVC experiment."""
    from dvc.api import DVCFileSystem  # takes seconds, and only revisions need it

    return str(DVCFileSystem(rev=name).repo.get_rev())


def _copy_files(name: str, paths: Sequence[Path], out: Path, optional: Sequence[Path]) -> None:
    """Copy files or folders of a git revision or DVC experiment to the same paths below `out`.

    optional : further paths, copied where they exist.
    """
    from dvc.api import DVCFileSystem  # takes seconds, and only revisions need it
    from dvc.exceptions import DvcException
    from dvc.scm import RevError

    try:
        revision = DVCFileSystem(rev=name)
        for path in (*paths, *(path for path in optional if revision.exists(str(path)))):
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            revision.get(str(path), str(out / path), recursive=True)
    except RevError as error:
        raise DataError(
            f"{name}: neither a folder nor a git revision nor an experiment; `dvc exp show` and `git log` list them"
        ) from error
    except (DvcException, OSError) as error:
        raise DataError(
            f"{name}: its reports are not in the cache ({error}); fetch them with `dvc pull`, or run it again"
        ) from error
