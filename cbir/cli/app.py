"""`cbir app`: search in a browser."""

import argparse
from pathlib import Path

from cbir.artifacts.paths import DataPaths

HELP = "search in a browser; needs `pip install .[app]`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the data and the server's address."""
    parser.add_argument("--data", type=Path, default=DataPaths().root, help="folder of the artifacts (%(default)s)")
    parser.add_argument("--port", type=int, default=8501, help="port to listen on (%(default)s)")
    parser.add_argument(
        "--address", default="127.0.0.1", help="address to listen on; the default serves this machine only"
    )
    parser.add_argument(
        "--host",
        dest="hosts",
        action="append",
        default=[],
        metavar="NAME",
        help="a name under which users reach the server; its addresses need none; may be repeated",
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")


def run(options: argparse.Namespace) -> None:
    """Serve the page until it is interrupted."""
    from cbir.app.serving import run

    run(options.data, options.port, options.address, options.hosts, not options.no_browser)
