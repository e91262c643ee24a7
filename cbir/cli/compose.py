"""`cbir compose`: compose conf/ and overrides into params.yaml."""

import argparse

HELP = "compose conf/ and overrides into params.yaml, which the stages read"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the overrides and --check."""
    parser.add_argument("overrides", nargs="*", metavar="override", help="a Hydra override, e.g. index=hnsw")
    parser.add_argument("--check", action="store_true", help="compare params.yaml with the composition; write nothing")


def run(options: argparse.Namespace) -> None:
    """Write params.yaml, or check it."""
    from cbir.compose import check_params, write_params  # Hydra takes a tenth of a second

    if options.check:
        check_params(options.overrides)
    else:
        write_params(options.overrides)
