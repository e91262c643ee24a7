"""`cbir search`: search the gallery from a terminal."""

import argparse

from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.search import arguments

HELP = "show the gallery images most similar to a text, an image, or a combination of several"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the parts of a query and the options of a search."""
    arguments.add_arguments(parser, DataPaths().root)


def run(options: argparse.Namespace) -> None:
    """Search and print the results."""
    from cbir.search.command import run  # faiss takes seconds

    run(options, options.data.parent / ReportPaths().root)
