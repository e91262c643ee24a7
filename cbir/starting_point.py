"""`conf/mine/`: what `cbir compose` composed last, from which `dvc exp run -S` and `cbir sweep` start.

Both compose `conf/` with Hydra, whose list of defaults (conf/config.yaml) chooses these files where they are present.  An
override of a group, as `index=hnsw`, replaces the file of that group alone.  git ignores the folder: it belongs to one clone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from omegaconf import OmegaConf

from cbir.core.files import replacing
from cbir.schema import GROUPS

FOLDER: Final = "mine"
NONE: Final = "mine=none"  # the override that composes without it
_CHOICES: Final = "choices"
_HEADER = "# @package {}\n# written by `cbir compose`, which deletes it as well\n"


def is_present(conf_dir: Path) -> bool:
    """Whether Hydra composes from the files of this module."""
    return _file(conf_dir, _CHOICES).exists()


def write_starting_point(values: Mapping[str, Any], defaults: Mapping[str, Any], conf_dir: Path) -> None:
    """Write the groups that differ from the defaults, each whole, and delete those of an earlier composition.

    values, defaults : group -> its parameters.
    """
    groups = [group for group in GROUPS if values[group] != defaults[group]]
    _file(conf_dir, _CHOICES).unlink(missing_ok=True)  # first: without it, the others are not read
    for group in GROUPS:
        _file(conf_dir, group).unlink(missing_ok=True)
    for group in groups:
        _write(conf_dir, group, group, values[group])
    if groups:
        choices = [{f"override /{group}": _choice(group, values[group])} for group in groups]
        _write(conf_dir, _CHOICES, "_global_", {"defaults": choices})


def _choice(group: str, values: Mapping[str, Any]) -> str | list[str]:
    option = f"../{FOLDER}/{group}"
    return [option] if group == "encoders" else option


def _file(conf_dir: Path, name: str) -> Path:
    return conf_dir / FOLDER / f"{name}.yaml"


def _write(conf_dir: Path, name: str, package: str, values: Mapping[str, Any]) -> None:
    path = _file(conf_dir, name)
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(
            _HEADER.format(package) + OmegaConf.to_yaml(OmegaConf.create(dict(values))), encoding="utf-8"
        )
