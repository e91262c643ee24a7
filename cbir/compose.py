"""`python -m cbir.compose [override ...]`: compose `conf/` and the overrides into `params.yaml`.

The grammar of the overrides is Hydra's (`index=hnsw`, `dataset.seed=1`).  `dvc repro` never composes `conf/`, only
`dvc exp run` does: this command is for everybody else, and `--check` tells whether params.yaml still is the
composition.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cbir.config import PARAMS_FILE, Params, checked, first_line, leaf_keys, nearest
from cbir.errors import ConfigError, told_in_one_line

CONF_DIR = Path("conf")


def composed(overrides: Sequence[str] = (), conf_dir: Path = CONF_DIR) -> str:
    """The text of `params.yaml` for the overrides, byte for byte what `dvc exp run -S` writes.

    Raises ConfigError in one line: an unknown group, option or key, a wrong type, a missing value.
    """
    ConfigStore.instance().store(name="cbir_schema", node=Params)
    try:
        with initialize_config_dir(str(conf_dir.resolve()), version_base=None):
            config = compose("config", overrides=list(overrides))
            OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error, overrides, conf_dir)) from error
    values = OmegaConf.to_container(config)
    checked(values, f"{conf_dir}/")  # type: ignore[arg-type]
    return OmegaConf.to_yaml(config)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write params.yaml, or compare it (`--check`)."""
    parser = argparse.ArgumentParser(prog="python -m cbir.compose", description="Compose conf/ into params.yaml.")
    parser.add_argument("overrides", nargs="*", metavar="override", help="Hydra override, e.g. index=hnsw")
    parser.add_argument("--check", action="store_true", help="compare params.yaml instead of writing it")
    options = parser.parse_args(arguments)
    text = composed(options.overrides)
    found = PARAMS_FILE.read_text(encoding="utf-8") if PARAMS_FILE.exists() else None
    if not options.check:
        PARAMS_FILE.write_text(text, encoding="utf-8")
        print(f"{PARAMS_FILE} is {'unchanged' if found == text else 'written'}: run `dvc repro`")
    elif found != text:
        line = _first_difference(found or "", text)
        command = " ".join(["python -m cbir.compose", *options.overrides])
        raise ConfigError(f"{PARAMS_FILE} is not what {CONF_DIR}/ composes to: {line}; run `{command}`")
    else:
        print(f"{PARAMS_FILE} is the composition of {CONF_DIR}/")


def _first_difference(found: str, expected: str) -> str:
    old, new = found.splitlines(), expected.splitlines()
    for number in range(max(len(old), len(new))):
        pair = [lines[number].strip() if number < len(lines) else "nothing" for lines in (new, old)]
        if pair[0] != pair[1]:
            return f"line {number + 1}: expected '{pair[0]}', found '{pair[1]}'"
    return "only white space differs"


def _explain(error: BaseException, overrides: Sequence[str], conf_dir: Path) -> str:
    """One line from Hydra's several, naming the key and the nearest valid one."""
    groups = {path.name: path for path in conf_dir.iterdir() if path.is_dir() and path.name != "hydra_plugins"}
    options = {name: [file.stem for file in path.glob("*.yaml")] for name, path in groups.items()}
    for override in overrides:
        key, _, value = override.partition("=")
        name = key.lstrip("+~").partition("@")[0]
        if name in groups and value and value not in (*options[name], "null"):
            return f"{name} has no option '{value}'; {nearest(value, options[name])} (files of {conf_dir}/{name}/)"
        if name not in groups and name not in leaf_keys() and name in str(error):
            valid = leaf_keys() if "." in name else [*groups]
            return f"unknown parameter '{name}'; {nearest(name, valid)}"
    cause = error.__cause__ or error
    full_key = re.search(r"full_key: (\S+)", str(cause))
    return f"{full_key.group(1)}: {first_line(cause)}" if full_key else first_line(cause)


if __name__ == "__main__":
    sys.argv[0] = "python -m cbir.compose"
    with told_in_one_line():
        main()
