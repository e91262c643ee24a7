"""`cbir repair`: delete damaged outputs of the pipeline, so that `dvc repro` makes them anew."""

import argparse
from pathlib import Path

HELP = "delete outputs of the pipeline that are damaged, also in DVC's cache; `dvc repro` then makes them anew"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(options: argparse.Namespace) -> None:
    """Check all outputs that dvc.lock records, and print those that were deleted."""
    from cbir.runs.repair import repair

    checked, damaged = repair(Path())
    for file in damaged:
        print(f"deleted {file.path}: expected md5 {file.expected}, found {file.actual}")
    print(
        f"{checked:,} files checked, {f'{len(damaged):,} deleted: run `dvc repro`' if damaged else 'none is damaged'}"
    )
