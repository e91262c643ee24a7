"""Typed parameters: the dataclasses of each package, checked against the groups of `params.yaml`.

Hydra composes `conf/` against these classes (see `cbir.compose`) into `params.yaml`.  A stage loads the groups that it
declares and no other, so a new field of one group runs no stage of another.  Defaults belong to the composition:
`params.yaml` holds every key.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, get_args, get_origin

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cbir.core.errors import ConfigError
from cbir.core.files import check_regular
from cbir.core.parsing import check_yaml
from cbir.core.text import nearest

PARAMS_FILE = Path("params.yaml")
CONF_DIR = Path("conf")
ANY_NAME: Final = "NAME"  # in dotted names of a schema: any key of a dictionary, as in encoders.NAME.weights


class Parameters:
    """Base of the parameter classes; a stage can read only the keys that it declares (see `load_params`)."""

    if not TYPE_CHECKING:

        def __getattribute__(self, name: str) -> Any:
            """Refuse a field that `load_params` removed: its default would still be found on the class."""
            values = object.__getattribute__(self, "__dict__")
            if name in getattr(type(self), "__dataclass_fields__", {}) and name not in values:
                raise AttributeError(
                    f"parameter '{name}' of {type(self).__name__} is not declared by this stage: "
                    "add it to the stage's PARAMS and to its params in dvc.yaml"
                )
            return object.__getattribute__(self, name)


P = TypeVar("P", bound=Parameters)


def load_params(
    group: str, schema: type[P], keys: Iterable[str], path: Path = PARAMS_FILE, *, whole_group: bool = True
) -> P:
    """Read a group of `params.yaml`, check it against its schema, and return the declared keys.

    group : "dataset", or "encoders.clip" for an entry of a dictionary.
    keys : dotted names with the group, of a leaf ("dataset.url") or of a whole part ("index.build"); names of other groups
    are ignored.  whole_group : whether the schema holds every key of the group; otherwise further keys are allowed.

    Raises ConfigError if the file or the group is absent, or if a key is unknown, missing, of the wrong type or out of
    range; AttributeError (a bug) when the stage reads a key that it did not declare.
    """
    values: Any = read_yaml(path)
    for name in group.split("."):
        values = values.get(name) if isinstance(values, Mapping) else None
    where = str(path)
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: {group}: expected keys with values, found {values!r}: run `cbir compose`")
    known = {field.name for field in fields(schema)}  # type: ignore[arg-type]
    if not whole_group:
        values = {name: value for name, value in values.items() if name in known}
    node = build_group(group, schema, values, where)
    _restrict(node, f"{group}.", frozenset(keys))
    return node


def build_group(group: str, schema: type[P], values: Mapping[str, Any], where: str) -> P:
    """Turn plain nested values into the parameters of one group.

    Raises ConfigError (one line) for an unknown key (naming the nearest), a wrong type, a value that is missing or out of
    range, an interpolation.
    """
    _check_keys(values, schema, f"{group}.", leaf_keys(schema, f"{group}."), where)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), values)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}: {group}.{error.full_key}: {first_line(error)}") from error
    absent = [key for key in leaf_keys(schema) if not _holds(values, key)]
    if absent:
        raise ConfigError(f"{where}: expected the parameter '{group}.{absent[0]}', found none: run `cbir compose`")
    try:
        return cast(P, OmegaConf.to_object(merged))
    except ConfigError as error:  # of a range; a group does not know its own name
        raise ConfigError(f"{where}: {group}.{error}") from error


def leaf_keys(schema: Any, prefix: str = "") -> list[str]:
    """The dotted names of all parameters of a schema, in order of definition; ANY_NAME stands for the keys of a dictionary."""
    keys: list[str] = []
    for field in fields(schema):
        name, kind = prefix + field.name, field.type
        if get_origin(kind) is dict:
            name, kind = f"{name}.{ANY_NAME}", get_args(kind)[1]
        keys += leaf_keys(kind, name + ".") if is_group(kind) else [name]
    return keys


def nearest_key(name: str, keys: Iterable[str], groups: Iterable[str] = ()) -> str:
    """A phrase that names the parameter nearest to `name`, or the group.

    keys : every dotted name.  groups : further groups.

    >>> keys = ["mobilenet.weights", "index.search.nprobe", "dataset.url"]
    >>> nearest_key("mobilenet.wieghts", keys), nearest_key("nprobe", keys), nearest_key("datset", keys)
    ('nearest: mobilenet.weights', 'nearest: index.search.nprobe', 'nearest: dataset')
    """
    keys, (group, dot, _) = list(keys), name.partition(".")
    same_ending = [key for key in keys if key.endswith(f".{name.rpartition('.')[2]}")]
    within = [key for key in keys if key.startswith(f"{group}.")]
    close = difflib.get_close_matches(name, same_ending or within, n=1, cutoff=0.0)
    if dot and not close:
        close = difflib.get_close_matches(name, keys, n=1)
    return f"nearest: {close[0]}" if close else nearest(group, {*(key.partition(".")[0] for key in keys), *groups})


def first_line(error: BaseException) -> str:
    """The first line of an exception's message."""
    return str(error).strip().partition("\n")[0]


def in_one_line(error: BaseException) -> str:
    """An exception of YAML, OmegaConf or Hydra as one line, without the details meant for developers."""
    lines = [line.strip() for line in str(error).partition("Config search path:")[0].splitlines()]
    hidden = ("full_key:", "object_type=", "reference_type=")
    return " ".join(line for line in lines if line and not line.startswith(hidden))


def is_group(kind: Any) -> bool:
    """Whether the type of a field is a part with fields of its own."""
    return isinstance(kind, type) and is_dataclass(kind) and not issubclass(kind, Enum)


def at_least(least: float, node: Parameters, *names: str, part: str = "") -> None:
    """Raise ConfigError where a field is below `least`; null is allowed.  part : "build." of a nested part."""
    for name in names:
        value = getattr(node, name)
        if value is not None and value < least:
            raise ConfigError(f"{part}{name}: expected a number >= {least}, found {value}")


def at_most(most: float, node: Parameters, *names: str, part: str = "") -> None:
    """Raise ConfigError where a field is above `most`; null is allowed.  part : "search." of a nested part."""
    for name in names:
        value = getattr(node, name)
        if value is not None and value > most:
            raise ConfigError(f"{part}{name}: expected at most {most}, found {value}")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping of groups.  Raises ConfigError when the file is absent, damaged or holds something else."""
    check_regular(path)
    try:
        check_yaml(text := path.read_text(encoding="utf-8"))
        loaded = OmegaConf.to_container(OmegaConf.load(StringIO(text)))
    except FileNotFoundError:
        raise ConfigError(f"{path} is not here: run `cbir compose` in the repository's root") from None
    except Exception as error:  # yaml's and omegaconf's parse errors share no base class
        raise ConfigError(f"{path} is not readable as YAML: {in_one_line(error)}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: expected a mapping of groups, found {type(loaded).__name__}")
    return cast(dict[str, Any], loaded)


def _holds(values: Mapping[str, Any], key: str) -> bool:
    name, _, rest = key.partition(".")
    return name in values and (not rest or _holds(values[name], rest))


def _check_keys(values: Mapping[str, Any], node: Any, prefix: str, keys: Iterable[str], where: str) -> None:
    known = {field.name: field.type for field in fields(node)}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"{where}: unknown parameter '{prefix}{name}'; {nearest_key(f'{prefix}{name}', keys)}")
        if value == "???":  # where the schema has a default, a merge would silently take it
            raise ConfigError(f"{where}: {prefix}{name} has no value: add the override `{prefix}{name}=...`")
        if is_group(known[name]):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where}: {prefix}{name}: expected keys with values, found {value!r}")
            _check_keys(value, known[name], f"{prefix}{name}.", keys, where)
        elif get_origin(known[name]) is list and not isinstance(value, list):
            raise ConfigError(f"{where}: {prefix}{name}: expected a list, as [a, b], found {value!r}")
        elif "${" in str(value):
            raise ConfigError(
                f"{where}: {prefix}{name}: expected a plain value, found {value!r}: DVC would not see it change"
            )


def _restrict(node: Parameters, prefix: str, keys: frozenset[str]) -> None:
    for field in fields(node):  # type: ignore[arg-type]
        name = prefix + field.name
        if name in keys or prefix.removesuffix(".") in keys:
            continue
        if any(key.startswith(name + ".") for key in keys):
            _restrict(getattr(node, field.name), name + ".", keys)
        else:
            delattr(node, field.name)
