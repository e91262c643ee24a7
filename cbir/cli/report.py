"""`cbir report --compare`: write a page of two runs side by side."""

import argparse
import re
from pathlib import Path

from cbir.artifacts.outputs import check_apart
from cbir.artifacts.paths import ReportPaths
from cbir.cli.arguments import RUN_HELP, add_resampling, check_resampling
from cbir.core.errors import ConfigError

HELP = "write a page of two runs side by side: settings, differences, classes, queries"
_FILE_NAME_CHARACTERS = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two runs and the page's path."""
    parser.add_argument(
        "--compare", nargs=2, required=True, metavar=("A", "B"), help=f"two runs, B against A; each is {RUN_HELP}"
    )
    parser.add_argument("--out", type=Path, help=f"file to write ({ReportPaths().comparisons}/A-B.html)")
    add_resampling(parser)


def run(options: argparse.Namespace) -> None:
    """Write the page and print its path."""
    from cbir.runs.comparison_page import title_of, write_comparison  # matplotlib takes a second

    check_resampling(options)
    base, run = options.compare
    if not (base and run):
        raise ConfigError("--compare: expected two runs, found an empty name: `cbir report --compare HEAD .`")
    name = re.sub(r"[^\w.]+", "-", f"{title_of(base)}-{title_of(run)}")[:_FILE_NAME_CHARACTERS].strip("-.")
    out = options.out or ReportPaths().comparisons / f"{name}.html"
    if out.suffix != ".html" or out.is_dir():
        raise ConfigError(f"--out: expected the name of a file that ends in .html, found {out}")
    check_apart("--out", out)
    out.parent.mkdir(parents=True, exist_ok=True)  # fails here rather than after the work
    run_folders = [Path(name) for name in (base, run) if Path(name).is_dir()]
    repositories = [Path(), *(path for folder in run_folders for path in (folder, folder.parent))]
    write_comparison(out, (base, run), repositories, options.resamples, options.seed)
    print(out)
