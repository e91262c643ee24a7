"""`cbir compose [override ...]`: compose `conf/` and the overrides into `params.yaml`.

The grammar of the overrides is Hydra's (`index=hnsw`, `dataset.seed=1`).  `dvc repro` never composes `conf/`, only
`dvc exp run` does: this command is for everybody else, and `--check` tells whether params.yaml still is the composition.
This module is the only one that knows every group; a stage knows those that it declares.
"""

import re
import runpy
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cbir.artifacts.names import ENCODERS, REAL_ENCODERS
from cbir.core.device import DeviceParams
from cbir.core.errors import ConfigError
from cbir.core.params import (
    CONF_DIR,
    PARAMS_FILE,
    Parameters,
    build_group,
    first_line,
    in_one_line,
    leaf_keys,
    nearest,
    nearest_key,
)
from cbir.datasets.params import DatasetParams, QueriesParams
from cbir.encoders.params import EncoderParams
from cbir.evaluation.params import EvaluateParams
from cbir.index.params import IndexParams
from cbir.maps.params import MapParams
from cbir.report.params import ReportParams

PATHS = ("dataset.url", "dataset.query_folder", "queries.path", "queries.qrels")


@dataclass
class Params(Parameters):
    """All groups, as composed by Hydra from `conf/`."""

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


def register_schema() -> None:
    """Tell Hydra the types of all parameters, under the name that conf/config.yaml uses."""
    ConfigStore.instance().store(name="cbir_schema", node=Params)


def checked(values: Mapping[str, Any], where: str) -> Params:
    """Turn plain nested values into Params.

    Raises ConfigError (one line) for an unknown group or key (naming the nearest), a wrong type, a missing value, an
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


def composed(overrides: Sequence[str] = (), conf_dir: Path = CONF_DIR) -> str:
    """The text of `params.yaml` for the overrides, byte for byte what `dvc exp run -S` writes.

    Raises ConfigError in one line: an unknown group, option or key, a wrong type, a missing value.
    """
    check_overrides(overrides, conf_dir)
    register_schema()
    try:
        with initialize_config_dir(str(conf_dir.resolve()), version_base=None):
            config = compose("config", overrides=list(overrides))
            OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explained(error, overrides, conf_dir)) from error
    except YAMLError as error:
        raise ConfigError(f"{conf_dir}/ is not readable as YAML: {in_one_line(error)}") from error
    values = OmegaConf.to_container(config)
    checked(values, f"{conf_dir}/")  # type: ignore[arg-type]
    return OmegaConf.to_yaml(config)


def quoted(override: str) -> str:
    """Quote the value of a path that somebody typed, which Hydra's grammar would refuse for a ~, a comma or an accent."""
    key, equals, value = override.partition("=")
    plain = value and value != "null" and value[0] not in "'\"" and value != "???"
    if key in PATHS and plain:
        # a backslash means something to Hydra before a quote only
        escaped = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + (r"\"" if found[2] else ""), value)
        return f'{key}{equals}"{escaped}"'
    return override


def write_params(overrides: Sequence[str] = ()) -> None:
    """Compose params.yaml and say what changed.

    Raises ConfigError as `composed` does.
    """
    text = composed([quoted(override) for override in overrides])
    state = "unchanged" if text == _params_text() else f"written, from {CONF_DIR}/ and these overrides alone"
    PARAMS_FILE.write_text(text, encoding="utf-8")
    print(f"{PARAMS_FILE} is {state}: run `dvc repro`")
    if demo := _demo_encoders_on_other_images(text):
        print(
            f"note: the demo weights of {' and '.join(demo)} know drawn shapes only, not the images of this data set; "
            f"for real encoders {REAL_ENCODERS}"
        )


def check_params(overrides: Sequence[str] = ()) -> None:
    """Compare params.yaml with the composition.

    Raises ConfigError naming the first line that differs, or as `composed` does.
    """
    text, present = composed([quoted(override) for override in overrides]), _params_text()
    if present != text:
        line = _first_difference(present or "", text)
        command = shlex.join(["cbir", "compose", *overrides])
        raise ConfigError(f"{PARAMS_FILE} is not what {CONF_DIR}/ composes to: {line}; run `{command}`")
    print(f"{PARAMS_FILE} is the composition of {CONF_DIR}/")


def main(arguments: Sequence[str]) -> None:
    """Write params.yaml, or compare it (`--check`)."""
    overrides = [argument for argument in arguments if argument != "--check"]
    (check_params if "--check" in arguments else write_params)(overrides)


def _params_text() -> str | None:
    return PARAMS_FILE.read_text(encoding="utf-8") if PARAMS_FILE.exists() else None


def _demo_encoders_on_other_images(text: str) -> list[str]:
    values: Any = OmegaConf.create(text)
    drawn = values.dataset.draw_gallery_images is not None
    return [name for name in ENCODERS if not drawn and values[name].weights == "demo"]


def _first_difference(found: str, expected: str) -> str:
    old, new = found.splitlines(), expected.splitlines()
    for number in range(max(len(old), len(new))):
        pair = [lines[number].strip() if number < len(lines) else "nothing" for lines in (new, old)]
        if pair[0] != pair[1]:
            return f"line {number + 1}: expected '{pair[0]}', found '{pair[1]}'"
    return "only white space differs"


def parsed(overrides: Sequence[str]) -> list[Override]:
    """What Hydra reads in the overrides.  Raises ConfigError for what is none."""
    parser, found = OverridesParser.create(), []
    for text in overrides:
        try:
            found.append(parser.parse_override(text))
        except HydraException as error:
            raise ConfigError(
                f"override '{text}' is not key=value or group=option: {first_line(error)}; quote a value with special "
                "characters, as in 'dataset.url=\"my photos\"'"
            ) from error
    return found


def check_overrides(overrides: Sequence[str], conf_dir: Path = CONF_DIR) -> None:
    """Refuse what Hydra meets with an exception of another kind, or takes although it is not one option of a group."""
    options = _options(conf_dir)
    for text, override in zip(overrides, parsed(overrides), strict=True):
        name, value = override.key_or_group, override.value()
        # a mapping is no option but sets several keys at once
        if name not in options or override.is_delete() or isinstance(value, dict) or value in options[name]:
            continue
        shown = text.partition("=")[2]
        raise ConfigError(
            f"{name} has no option '{shown}'; {nearest(shown, options[name])} (files of {conf_dir}/{name}/)"
        )


def _options(conf_dir: Path) -> dict[str, list[str]]:
    """The options of each group: the files in its folder."""
    if not conf_dir.is_dir():
        raise ConfigError(f"{conf_dir}/ is not here: run this in the repository's root")
    folders = [path for path in conf_dir.iterdir() if path.is_dir() and path.name != "hydra_plugins"]
    return {path.name: [file.stem for file in path.glob("*.yaml")] for path in folders}


def explained(error: BaseException, overrides: Sequence[str], conf_dir: Path) -> str:
    """One line from Hydra's several, naming the key and the nearest valid one."""
    groups = _options(conf_dir)
    for override in overrides:
        name = override.partition("=")[0].lstrip("+~").partition("@")[0]
        ours = not name.startswith("hydra") and name not in groups
        if ours and not _is_known(name) and name in str(error):
            return f"unknown parameter '{name}'; {nearest_key(name, leaf_keys(Params), groups)}"
    cause = error.__cause__ or error
    full_key = re.search(r"full_key: (\S+)", str(cause))
    if full_key is None:
        return in_one_line(cause)
    key = full_key.group(1)
    hint = "" if _is_known(re.sub(r"\[.*", "", key)) else f"; {nearest_key(key, leaf_keys(Params))}"
    return f"{key}: {in_one_line(cause)}{hint}"


def _is_known(name: str) -> bool:
    """Whether it is a parameter or a part that holds some."""
    return any(f"{key}.".startswith(f"{name}.") for key in leaf_keys(Params))


if __name__ == "__main__":  # `python -m cbir.compose` is `cbir compose`
    sys.argv.insert(1, "compose")
    runpy.run_module("cbir", run_name="__main__")
