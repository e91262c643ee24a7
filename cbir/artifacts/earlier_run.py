"""The data set of the results in `data/`, which a run of another one replaces."""

from pathlib import Path

from cbir.artifacts.paths import DataPaths
from cbir.core.errors import DataError
from cbir.core.files import read_json

_FOLDER = "folder.json"  # in data/raw/, where the data set is a folder


def data_set_name(reader: str, url: str | None) -> str:
    """A data set as people know it: its reader, and its address if it has one."""
    return reader if url is None else f"{reader} {url}"


def replaced_data_set(data: DataPaths, reader: str, url: str | None) -> str | None:
    """The data set whose results are in `data/`, if a run of `reader` and `url` replaces them by those of another."""
    try:  # without seals: it may be the run of an earlier version
        earlier_reader = read_json(data.summary, sealed=False)["dataset"]
        folder = data.raw / _FOLDER
        earlier_url = read_json(folder, sealed=False)["folder"] if folder.exists() else None
    except (DataError, KeyError, OSError):
        return None
    folder_now = url if url is not None and Path(url).expanduser().is_dir() else None
    is_same = (earlier_reader, earlier_url) == (reader, folder_now)
    return None if is_same else data_set_name(earlier_reader, earlier_url)


def replacement_note(earlier: str, now: str) -> str:
    """What to tell before the results of a data set are replaced."""
    return (
        f"note: data/ and reports/ hold the results of {earlier}, which a run replaces by those of {now}; DVC's cache keeps "
        "them: compose that data set again, then `dvc repro`"
    )
