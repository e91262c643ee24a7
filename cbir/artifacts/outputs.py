"""Where the pipeline writes, and whether a path lies there: DVC empties an output before its stage runs, without a word."""

import os
from collections.abc import Iterator
from pathlib import Path

from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.core.errors import ConfigError

_REPOSITORY = (
    Path(".dvc"),
    Path(".dvc_state"),
    Path(".git"),
)  # DVC's cache and git's objects are deleted as they see fit


def outputs() -> list[Path]:
    """The files and folders that belong to the pipeline, relative to the repository's root."""
    data, reports = DataPaths(), ReportPaths()
    return [
        data.encoders, data.local("").parent, data.raw, data.packing, data.all_weights, data.all_images, data.queries,
        data.all_embeddings, data.all_indexes, data.all_maps, data.timings,
        reports.encoders, reports.all_headlines, reports.all_evaluations, reports.all_latencies,
        reports.all_verifications, reports.plots, reports.html, reports.markdown, reports.comparison,
        *_REPOSITORY,
    ]  # fmt: skip


def check_apart(name: str, path: Path) -> None:
    """Raise ConfigError if a user's file or folder lies in an output of the pipeline, is one, or contains one.

    name : what the path was given as, such as "dataset.url".  Links are followed, and paths compared as given as well: a link
    in an output is deleted with it.
    """
    check_outside(name, path)
    own = _names(path)
    for output in outputs():
        if own & _lineage(output):
            raise ConfigError(
                f"{name}: expected a path apart from the pipeline's outputs, found {path}, which contains {output}: "
                "give your files a folder of their own"
            )


def check_outside(name: str, path: Path) -> None:
    """Raise ConfigError if a path lies in an output of the pipeline, or is one; see `check_apart`."""
    lineage = _lineage(path)
    for output in outputs():
        if _names(output) & lineage:
            raise ConfigError(
                f"{name}: expected a path outside the pipeline's outputs, found {path}, in {output}, which a run empties: "
                "keep your files elsewhere"
            )


def check_places(root: Path) -> None:
    """Raise ConfigError where DVC would fail for the place of the repository or of its outputs, without saying why.

    root : of the repository.
    """
    place = str(root.absolute())
    if "{" in place or "}" in place:
        raise ConfigError(f"{place}: expected a path without braces, which DVC takes for a template: rename the folder")
    for output in (DataPaths().root, ReportPaths().root):
        folder = root / output
        if not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(root)):
            raise ConfigError(
                f"{output}/: expected a folder in the repository, found a link to {os.path.realpath(folder)}, where DVC "
                f"refuses to write: make it a folder again, and move DVC's cache instead, with "
                "`dvc cache dir --local /disk/cache`"
            )


def _lineage(path: Path) -> set[object]:
    """The names of a path and of all folders around it, seen with and without its links."""
    places = (Path(os.path.abspath(path)), Path(os.path.realpath(path)))
    return {name for place in places for part in (place, *place.parents) for name in _names(part)}


def _names(path: Path) -> set[object]:
    """What identifies a path: as given, without links, and the file itself, which may be mounted at several places."""
    return set(_each_name(path))


def _each_name(path: Path) -> Iterator[object]:
    yield os.path.abspath(path)
    yield os.path.realpath(path)
    try:
        info = path.stat()
    except OSError:
        return
    yield info.st_dev, info.st_ino
