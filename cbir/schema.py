"""All groups of parameters at once: for `cbir compose`, and for `scan`, the first stage, which checks all of params.yaml.

Each other stage loads the groups that it declares (`cbir.core.params.load_params`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

from cbir.core.device import DeviceParams
from cbir.core.errors import ConfigError
from cbir.core.params import Parameters, build_group, leaf_keys, nearest_key
from cbir.datasets.params import DatasetParams, QueriesParams
from cbir.encoders.params import EncoderParams
from cbir.evaluation.params import EvaluateParams
from cbir.index.params import IndexParams
from cbir.maps.params import MapParams
from cbir.report.params import ReportParams


@dataclass
class Params(Parameters):
    """All groups, as Hydra composes them from `conf/`."""

    dataset: DatasetParams
    mobilenet: EncoderParams
    clip: EncoderParams
    index: IndexParams
    device: DeviceParams
    queries: QueriesParams
    evaluate: EvaluateParams
    map: MapParams
    report: ReportParams


GROUPS: Mapping[str, type[Parameters]] = {field.name: cast(type[Parameters], field.type) for field in fields(Params)}


def checked(values: Mapping[str, Any], where: str) -> Params:
    """Convert nested values to Params.

    Raises ConfigError in one line for an unknown group or key (naming the nearest), a wrong type, a missing value or an
    interpolation.
    """
    for name in values:
        if name not in GROUPS:
            raise ConfigError(f"{where}: unknown parameter '{name}'; {nearest_key(name, leaf_keys(Params))}")
    for name in GROUPS:
        value = values.get(name, "???")
        if value == "???":
            raise ConfigError(f"{where}: {name} has no value: add the override `{name}=...`")
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: {name}: expected keys with values, found {value!r}")
    groups: dict[str, Any] = {name: build_group(name, schema, values[name], where) for name, schema in GROUPS.items()}
    return Params(**groups)
