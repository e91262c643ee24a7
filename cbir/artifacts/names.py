"""The names of tasks, searches and encoders in artifacts."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from cbir.core.errors import ConfigError, DataError
from cbir.core.files import read_json, write_json
from cbir.core.text import nearest

TASKS: Final = ("cbir", "tbir")  # image query -> similar images, text query -> images
SEARCHES: Final = ("index", "exact")
MODALITIES: Final = {"cbir": "image", "tbir": "text"}  # the modality of the task's queries
REAL_ENCODERS: Final = (
    "add `'encoders=[mobilenet_v3_large,clip_vit_b_32]'` to your `cbir compose ...`, then `make repro`"
)
_ENCODER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def check_encoder_name(name: object) -> None:
    """Raise ConfigError unless `name` can be part of paths, of dotted keys and of the names of DVC's stages."""
    if not isinstance(name, str) or not _ENCODER_NAME.fullmatch(name):
        raise ConfigError(
            f"encoders: expected a name of at most 64 letters, digits, _ and -, the first a letter or digit, "
            f"found {name!r}"
        )


def encoder_argument(arguments: Sequence[str], params: Path | None = None) -> str:
    """Return the encoder named on a stage's command line.  Raises ConfigError unless params.yaml has it."""
    from cbir.core.params import (
        PARAMS_FILE,
        read_yaml,
    )  # imports OmegaConf, which the help of all commands does without

    params = params or PARAMS_FILE
    names = read_yaml(params).get("encoders") or {}
    if len(arguments) != 2:
        raise ConfigError(f"expected the name of an encoder, found {' '.join(arguments[1:]) or 'none'}")
    if arguments[1] not in names:
        raise ConfigError(f"{params}: encoders has no {arguments[1]!r}; {nearest(arguments[1], names)}")
    return arguments[1]


def write_encoder_names(path: Path, names: Iterable[str]) -> None:
    """Write the names of the run's encoders, in order."""
    write_json(path, {"encoders": list(names)})


def read_encoder_names(path: Path) -> list[str]:
    """Read the names of the run's encoders.  Raises DataError if the file is absent, damaged or of another version."""
    names = read_json(path).get("encoders")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: expected the names of the encoders, found {names!r}: run `dvc repro`")
    return names


def check_encoder(name: str, names: Iterable[str]) -> None:
    """Raise ConfigError unless `name` is one of the run's encoders."""
    names = list(names)
    if name not in names:
        raise ConfigError(f"encoder: the run has no {name!r}; {nearest(name, names)}")
