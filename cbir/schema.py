"""All groups of parameters at once: for `cbir compose`, and for `scan`, the first stage, which checks all of params.yaml.

Each other stage loads the groups that it declares (`cbir.core.params.load_params`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, cast, get_args, get_origin

from cbir.artifacts.names import check_encoder_name
from cbir.core.device import DeviceParams
from cbir.core.errors import ConfigError
from cbir.core.params import Parameters, build_group, leaf_keys, nearest_key
from cbir.datasets.params import DatasetParams, QueriesParams
from cbir.encoders.params import EncoderParams
from cbir.evaluation.params import EvaluateParams
from cbir.fetching.addresses import check_address
from cbir.index.params import IndexParams
from cbir.maps.params import MapParams
from cbir.report.params import ReportParams


@dataclass
class Params(Parameters):
    """All groups, as Hydra composes them from `conf/`.

    encoders : name -> parameters, in the order of the selection.
    """

    dataset: DatasetParams
    encoders: dict[str, EncoderParams]
    index: IndexParams
    device: DeviceParams
    queries: QueriesParams
    evaluate: EvaluateParams
    map: MapParams
    report: ReportParams


GROUPS = tuple(field.name for field in fields(Params))


def checked(values: Mapping[str, Any], where: str) -> Params:
    """Convert nested values to Params.

    Raises ConfigError in one line for an unknown group or key (naming the nearest), a wrong type, a missing value, an
    interpolation, or an address with a secret.
    """
    for name, value in _texts("", values):
        check_address(name, value)
    for name in values:
        if name not in GROUPS:
            raise ConfigError(f"{where}: unknown parameter '{name}'; {nearest_key(name, leaf_keys(Params))}")
    for name in GROUPS:
        value = values.get(name, "???")
        if value == "???":
            raise ConfigError(f"{where}: {name} has no value: add the override `{name}=...`")
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: {name}: expected keys with values, found {value!r}")
    groups: dict[str, Any] = {}
    for field in fields(Params):
        if get_origin(field.type) is dict:
            groups[field.name] = _entries(field.name, get_args(field.type)[1], values[field.name], where)
        else:
            groups[field.name] = build_group(field.name, cast(type[Parameters], field.type), values[field.name], where)
    return Params(**groups)


def _entries(name: str, schema: type[Parameters], values: Mapping[str, Any], where: str) -> dict[str, Parameters]:
    """Build each entry of a dictionary."""
    if not values:
        raise ConfigError(f"{where}: {name}: expected at least one, found none: add the override `{name}=[...]`")
    entries = {}
    for key, value in values.items():
        check_encoder_name(key)
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: {name}.{key}: expected keys with values, found {value!r}")
        entries[key] = build_group(f"{name}.{key}", schema, value, where)
    return entries


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Each text among nested values, with its dotted name."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _texts(f"{name}.{key}".lstrip("."), entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(name, entry)
