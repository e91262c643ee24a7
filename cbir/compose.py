"""Compose `conf/` and overrides into `params.yaml`; the command is `cbir compose`.

Overrides have Hydra's grammar (`index=hnsw`, `dataset.seed=1`).  `dvc exp run` composes `conf/` by itself, but `dvc repro` does
not.
"""

import re
import runpy
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError, InterpolationResolutionError, OmegaConfBaseException
from yaml import YAMLError

from cbir import starting_point
from cbir.artifacts.earlier_run import data_set_name, replaced_data_set, replacement_note
from cbir.artifacts.names import REAL_ENCODERS
from cbir.artifacts.paths import DataPaths
from cbir.core.device import check_device
from cbir.core.errors import ConfigError
from cbir.core.params import (
    ANY_NAME,
    CONF_DIR,
    PARAMS_FILE,
    first_line,
    in_one_line,
    leaf_keys,
    nearest_key,
)
from cbir.core.text import listed, nearest
from cbir.encoders.demo import is_demo
from cbir.fetching.addresses import check_address
from cbir.inputs import check_inputs
from cbir.schema import Params, checked

_NO_GROUPS = ("hydra_plugins", starting_point.FOLDER)  # folders of conf/
_MEANT = {"gpu": "cuda", "nvidia": "cuda", "apple": "mps"}  # what people write -> the option
_LISTED_GROUPS = ("encoders",)  # several of their options are selected, as in encoders=[a,b]
_FORMER_GROUPS = {  # before `encoders`: group -> option -> its name now
    "mobilenet": {"demo": "mobilenet_demo", "large": "mobilenet_v3_large", "small": "mobilenet_v3_small"},
    "clip": {
        "demo": "clip_demo",
        "vit_b_32": "clip_vit_b_32",
        "vit_b_16": "clip_vit_b_16",
        "vit_l_14": "clip_vit_l_14",
        "siglip_b_16": "siglip_b_16",
    },
}

_PATH_KEY = re.compile(
    r"dataset\.(url|query_folder|gallery_folder)|queries\.(path|qrels)"
    rf"|(encoders\.\w+|{'|'.join(_FORMER_GROUPS)})\.(architecture|weights|tokenizer)"
)


def register_schema() -> None:
    """Register the types of all parameters with Hydra, under the name that conf/config.yaml uses."""
    ConfigStore.instance().store(name="cbir_schema", node=Params)


def composed(overrides: Sequence[str] = (), conf_dir: Path = CONF_DIR, *, from_recorded: bool = False) -> str:
    """The text of `params.yaml` for the overrides.

    from_recorded : start from the last `cbir compose` (see `cbir.starting_point`): byte for byte what `dvc exp run -S` writes.

    Raises ConfigError in one line for an unknown group, option or key, a wrong type or a missing value, and for a path of
    the user's that lies in the pipeline's outputs.
    """
    check_overrides(overrides, conf_dir)
    register_schema()
    try:
        with initialize_config_dir(str(conf_dir.resolve()), version_base=None):
            anew = [starting_point.NONE] if starting_point.is_present(conf_dir) and not from_recorded else []
            config = compose("config", overrides=[*overrides, *anew])
            OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, overrides, conf_dir)) from error
    except YAMLError as error:
        raise ConfigError(f"{conf_dir}/ is not readable as YAML: {in_one_line(error)}") from error
    values = OmegaConf.to_container(config)
    check_inputs(checked(values, f"{conf_dir}/"))  # type: ignore[arg-type]
    return OmegaConf.to_yaml(config)


def quoted(override: str) -> str:
    """Quote the value of a path, which may contain characters that Hydra's grammar refuses: ~, =, commas, brackets, accents."""
    key, equals, value = override.partition("=")
    is_plain = value and value != "null" and value[0] not in "'\"" and value != "???"
    if _PATH_KEY.fullmatch(key.lstrip("+")) and is_plain:
        # Hydra treats a backslash as an escape only before a quote.
        escaped = re.sub(r'(\\*)("|$)', lambda match: match[1] * 2 + (r"\"" if match[2] else ""), value)
        return f'{key}{equals}"{escaped}"'
    return override


def write_params(overrides: Sequence[str] = ()) -> None:
    """Compose params.yaml and what experiments start from, and say what changed.

    Raises ConfigError as `composed` does, and for a device that this machine does not have.
    """
    text = composed([quoted(override) for override in overrides])
    values, defaults = yaml.safe_load(text), yaml.safe_load(composed())
    check_device(values["device"]["name"])
    state = "unchanged" if text == _params_text() else f"written, from {CONF_DIR}/ and these overrides alone"
    PARAMS_FILE.write_text(text, encoding="utf-8")
    starting_point.write_starting_point(values, defaults, CONF_DIR)
    print(f"{PARAMS_FILE} is {state}: run `dvc repro`")
    reader, url = values["dataset"]["reader"], values["dataset"]["url"]
    if earlier := replaced_data_set(DataPaths(), reader, url):
        print(replacement_note(earlier, data_set_name(reader, url)))
    if demo := _demo_encoders_on_other_images(text):
        print(
            f"note: the demo weights of {listed(demo)} were trained on drawn shapes only, not on images like "
            f"those of this data set; for real encoders {REAL_ENCODERS}"
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


def _params_text() -> str | None:
    return PARAMS_FILE.read_text(encoding="utf-8") if PARAMS_FILE.exists() else None


def _demo_encoders_on_other_images(text: str) -> list[str]:
    """The encoders whose demo weights do not fit the data set, because its images are not drawn."""
    values: Any = OmegaConf.create(text)
    is_drawn = values.dataset.draw_gallery_images is not None
    return [name for name, encoder in values.encoders.items() if not is_drawn and is_demo(encoder.weights)]


def _first_difference(text: str, expected: str) -> str:
    old, new = text.splitlines(), expected.splitlines()
    for number in range(max(len(old), len(new))):
        pair = [lines[number].strip() if number < len(lines) else "nothing" for lines in (new, old)]
        if pair[0] != pair[1]:
            return f"line {number + 1}: expected '{pair[0]}', found '{pair[1]}'"
    return "only white space differs"


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides with Hydra's grammar.  Raises ConfigError for text that is not an override, or that holds a secret."""
    parser, parsed = OverridesParser.create(), []
    for text in overrides:
        check_address(*text.partition("=")[::2])  # Hydra writes the overrides of a sweep into a file
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            raise ConfigError(
                f"override '{text}' is not key=value or group=option: {first_line(error)}; quote a value with special "
                "characters, as in 'dataset.url=\"my photos\"'"
            ) from error
    return parsed


def check_overrides(overrides: Sequence[str], conf_dir: Path = CONF_DIR) -> None:
    """Raise ConfigError for a value that is not an option of its group: Hydra accepts some, and fails on others unclearly."""
    options, parsed = _options(conf_dir), parse_overrides(overrides)
    _check_former(parsed)
    for text, override in zip(overrides, parsed, strict=True):
        name, value = override.key_or_group, override.value()
        if not name:
            raise ConfigError(f"override '{text}': expected key=value or group=option, found no name before the =")
        if name in _LISTED_GROUPS and not override.is_delete() and not isinstance(value, dict):
            _check_selection(name, text.partition("=")[2], value, options[name], conf_dir)
            continue
        _check_entry(text, override, options, conf_dir)
        # a mapping sets several keys of the group
        if name not in options or override.is_delete() or isinstance(value, dict) or value in options[name]:
            continue
        given = text.partition("=")[2]
        hint = f"nearest: {_MEANT[given]}" if _MEANT.get(given) in options[name] else nearest(given, options[name])
        raise ConfigError(f"{name} has no option '{given}'; {hint} (files of {conf_dir}/{name}/)")


def _check_entry(text: str, override: Override, options: Mapping[str, Sequence[str]], conf_dir: Path) -> None:
    """Raise ConfigError for an override that adds an entry without a file to a group: Hydra cannot add one of a typed group."""
    group, _, key = override.key_or_group.partition(".")
    entry = key.partition(".")[0]
    if (
        group in _LISTED_GROUPS
        and (override.is_add() or override.is_force_add())
        and entry
        and entry not in options[group]
    ):
        raise ConfigError(
            f"override '{text}': an entry of {group} is a file: write {conf_dir}/{group}/{entry}.yaml, then add {entry} to "
            f"{group}=[...]"
        )


def _check_selection(group: str, text: str, value: Any, options: Sequence[str], conf_dir: Path) -> None:
    """Raise ConfigError unless the value, `text` parsed, selects options of a group, each once: [a,b] or a."""
    names = value if isinstance(value, list) else [value if isinstance(value, str) else text]
    for name in names:
        if name not in options:
            is_sweep = name == text and "," in text
            hint = f"several are a list: use {group}=[{text}]" if is_sweep else nearest(str(name), options)
            raise ConfigError(f"{group} has no option '{name}'; {hint} (files of {conf_dir}/{group}/)")
        if names.count(name) > 1:
            raise ConfigError(f"{group}: expected each option once, found {name} {names.count(name)} times")
    if not names:
        raise ConfigError(f"{group}: expected at least one option, as {group}=[{options[0]}], found []")


def _check_former(overrides: Sequence[Override]) -> None:
    """Raise ConfigError for overrides of a group that `encoders` replaced, naming the overrides that replace them."""
    former = [override for override in overrides if override.key_or_group.partition(".")[0] in _FORMER_GROUPS]
    if not former:
        return
    chosen = {group: options["demo"] for group, options in _FORMER_GROUPS.items()}
    for override in former:
        group, _, key = override.key_or_group.partition(".")
        if not key:
            chosen[group] = _FORMER_GROUPS[group].get(str(override.value()), "NAME")
    selection = f"'encoders=[{','.join(chosen.values())}]'"
    keys = [
        f"encoders.{chosen[group]}.{key}={override.get_value_element_as_str()}"
        for override in former
        for group, _, key in [override.key_or_group.partition(".")]
        if key
    ]
    given = " ".join(str(override.input_line) for override in former)
    raise ConfigError(f"{given}: the encoders are a list now: use {' '.join([selection, *keys])}")


def _options(conf_dir: Path) -> dict[str, list[str]]:
    """Group -> its options, which are the files in its folder."""
    if not conf_dir.is_dir():
        raise ConfigError(f"{conf_dir}/ is not here: run this in the repository's root")
    folders = [path for path in conf_dir.iterdir() if path.is_dir() and path.name not in _NO_GROUPS]
    return {path.name: sorted(file.stem for file in path.glob("*.yaml")) for path in folders}


def explain(error: BaseException, overrides: Sequence[str], conf_dir: Path) -> str:
    """Hydra's error in one line that names the key and the nearest valid one."""
    groups = _options(conf_dir)
    for override in overrides:
        name = override.partition("=")[0].lstrip("+~").partition("@")[0]
        may_be_key = not name.startswith("hydra") and name not in groups
        if may_be_key and not _is_known(name) and name in str(error):
            return f"unknown parameter '{name}'; {_nearest_parameter(name, groups)}"
    cause = error.__cause__ or error
    full_key = re.search(r"full_key: (\S+)", str(cause))
    if full_key is None:
        absent = re.search(r"Could not load '(\w+)/([^']*)'", str(cause))
        hint = f"; {nearest(absent[2], groups[absent[1]])}" if absent and absent[1] in groups else ""
        if isinstance(cause, InterpolationResolutionError | InterpolationKeyError):
            hint = (
                "; parameters cannot refer to others; in an address, an environment variable is $NAME, without braces"
            )
        return in_one_line(cause) + hint
    key = full_key.group(1)
    group, _, name = key.partition(".")
    if group in _LISTED_GROUPS and "not in struct" in str(cause):
        return f"{key}: '{name}' is not selected: add it to {group}=[...]; {nearest(name, groups[group])}"
    hint = "" if _is_known(re.sub(r"\[.*", "", key)) else f"; {_nearest_parameter(key)}"
    return f"{key}: {in_one_line(cause)}{hint}"


def _nearest_parameter(name: str, groups: Iterable[str] = ()) -> str:
    """A phrase that names the parameter nearest to `name`."""
    given = name.split(".")
    return nearest_key(name, leaf_keys(Params), groups).replace(
        f".{ANY_NAME}.", f".{given[1] if given[1:] else ANY_NAME}."
    )


def _is_known(name: str) -> bool:
    """Whether a dotted name is a parameter or contains parameters; an encoder may have any name."""
    parts = name.split(".")
    if parts[0] in _LISTED_GROUPS and len(parts) > 1:
        parts[1] = ANY_NAME
    name = ".".join(parts)
    return any(f"{key}.".startswith(f"{name}.") for key in leaf_keys(Params))


if __name__ == "__main__":  # `python -m cbir.compose` is `cbir compose`
    sys.argv.insert(1, "compose")
    runpy.run_module("cbir", run_name="__main__")
