"""`cbir doctor`: say what would stop a run, and what else is unusual, on one page."""

import argparse
import sys
from pathlib import Path

from cbir.core.text import printable

HELP = "check environment, parameters, disk, git and outputs; say what would stop `dvc repro`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --brief."""
    parser.add_argument("--brief", action="store_true", help="print only what would stop a run")


def run(options: argparse.Namespace) -> None:
    """Print a line for each subject; exit with status 1 if something would stop a run."""
    from cbir.runs.doctor import State, examine

    stops = 0
    for finding in examine(Path()):
        stops += finding.state is State.stops
        if not options.brief or finding.state is State.stops:
            print(f"{finding.state.value:5}  {finding.subject:10}  {printable(finding.text, None)}")
    if stops:
        print(f"{stops} of these would stop `dvc repro`" if stops > 1 else "this would stop `dvc repro`")
        sys.exit(1)
    if not options.brief:
        print("nothing here would stop `dvc repro`")
