"""The folder of a model: on this machine, or fetched from the Hugging Face hub at a commit."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import snapshot_download

from cbir.core.errors import ConfigError, FetchError
from cbir.core.params import first_line

PRETRAINED = "pretrained"  # in `<encoder>.weights`: those in the folder
_HUB_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


class ModelFolder(NamedTuple):
    """path : the folder.  pinned : `name@commit` on the hub, null for a folder of this machine."""

    path: Path
    pinned: str | None


def model_folder(key: str, name: str, files: Sequence[str]) -> ModelFolder:
    """Return the folder `name`, or fetch `org/name` or `org/name@revision` from the hub into its client's cache.

    key : the parameter that holds the name, for messages.  files : patterns of the files to fetch.
    Raises ConfigError when it is neither, FetchError when it cannot be fetched.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return ModelFolder(folder, None)
    match = _HUB_NAME.fullmatch(name)
    if match is None:
        raise ConfigError(
            f"{key}: expected a folder, or a name on the hub: org/name or org/name@revision; found {name!r}"
        )
    try:
        path = Path(snapshot_download(match["repository"], revision=match["revision"], allow_patterns=list(files)))
    except Exception as error:  # the hub's client raises errors of its own kinds, and plain OSError
        raise FetchError(
            f"{key}: {name!r} is no folder here and cannot be fetched from the hub: {first_line(error)}; check the name and "
            f"the network, then run `dvc repro` again, or name a folder with its files: {key}=/path"
        ) from error
    return ModelFolder(path, f"{match['repository']}@{path.name}")
