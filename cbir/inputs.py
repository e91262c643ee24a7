"""The user's files that a run reads: none may lie where the pipeline writes.

DVC empties an output before its stage runs.  `cbir compose` and the stage `scan`, which runs before any other, refuse such
paths, and files in the outputs that no stage has written.
"""

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from cbir.artifacts.left_out import reason_of
from cbir.artifacts.outputs import check_apart
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.core.errors import ConfigError, DataError
from cbir.core.text import listed
from cbir.datasets.prompt_sets import user_files
from cbir.fetching.addresses import local_path
from cbir.fetching.archives import ARCHIVE, FOLDER
from cbir.schema import Params


def check_inputs(params: Params) -> None:
    """Raise ConfigError if a path of the parameters is empty, a device or pipe, or lies in, is or contains an output."""
    for name, value in _paths(params):
        if not value.strip():
            raise ConfigError(
                f"{name}: expected a path or a name, found an empty one (a shell variable that is not set?): give a value"
            )
        path = local_path(value)
        if path is not None:
            check_apart(name, path)
            if path.exists() and not path.is_file() and not path.is_dir():  # to read a device or a pipe may never end
                raise ConfigError(f"{name}: expected a file or a folder, found a device or a pipe, {path}: give a file")


def check_outputs(data: DataPaths, reports: ReportPaths) -> None:
    """Raise DataError if a folder that DVC empties holds files that no stage has written."""
    own_names = {
        data.raw: (ARCHIVE, FOLDER),
        data.images("gallery"): ("part-*.parquet",),
        data.images("queries"): ("part-*.parquet",),
        data.queries: (data.query_list.name, data.qrels.name, data.prompts.name),
    }
    for folder, patterns in own_names.items():
        _refuse_others(folder, patterns, folder.iterdir() if folder.is_dir() else ())
    own_kinds = {
        data.all_embeddings: ("*.npy", "*.parquet", "*.json"),
        data.all_indexes: ("*.faiss", "*.json"),
        reports.all_evaluations: ("*.parquet", "*.json"),
        reports.plots: ("*.png", "*.json"),
    }
    for parent, patterns in own_kinds.items():
        for folder in (path for path in sorted(parent.glob("*")) if path.is_dir()):  # of an encoder, or the galleries
            _refuse_others(folder, patterns, (path for path in folder.rglob("*") if not path.is_dir()))


def _refuse_others(folder: Path, patterns: Sequence[str], paths: Iterable[Path]) -> None:
    """Raise DataError for paths in a folder whose names fit none of the patterns; hidden ones are no user's."""
    names = sorted(path.relative_to(folder).as_posix() for path in paths)
    others = [
        name
        for name in names
        if all(reason_of(part) is None for part in name.split("/"))
        and not any(fnmatch(name, pattern) for pattern in patterns)
    ]
    if others:
        raise DataError(
            f"{folder}: expected only {listed(patterns)}, found {listed(others, 4)}, which the run would delete: move your "
            "files out of it, then run again"
        )


def _paths(params: Params) -> Iterator[tuple[str, str]]:
    """Each value that may be the path of a user's file, with its parameter."""
    named = {
        "dataset.url": params.dataset.url,
        "queries.path": params.queries.path,
        "queries.qrels": params.queries.qrels,
    }
    for name, encoder in params.encoders.items():
        for key in ("architecture", "weights", "tokenizer"):
            named[f"encoders.{name}.{key}"] = getattr(encoder, key)
    yield from ((name, value) for name, value in named.items() if value is not None)
    yield from (("queries.prompt_sets", value) for value in user_files(params.queries.prompt_sets))
