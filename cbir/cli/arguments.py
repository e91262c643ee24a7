"""Arguments that several commands share."""

import argparse
from typing import Final

from cbir.core.errors import ConfigError

RUN_HELP: Final = "a git revision, a DVC experiment or a folder of reports (. is this folder)"
_LEAST: Final = {"resamples": 100, "seed": 0}


def add_resampling(parser: argparse.ArgumentParser) -> None:
    """Add --resamples and --seed."""
    parser.add_argument(
        "--resamples", type=int, default=10_000, help="resamples of the classes for intervals and p (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the resamples (%(default)s)")


def check_resampling(options: argparse.Namespace) -> None:
    """Raise ConfigError where --resamples or --seed is too small."""
    for name, least in _LEAST.items():
        value = getattr(options, name)
        if value < least:
            raise ConfigError(f"--{name}: expected at least {least}, found {value}")
