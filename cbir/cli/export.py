"""`cbir export`: write embeddings, ids and categories as NPY files."""

import argparse
from pathlib import Path

from cbir.artifacts.names import check_encoder, read_encoder_names
from cbir.artifacts.outputs import check_apart
from cbir.artifacts.paths import DataPaths

HELP = "write embeddings, ids and categories as NPY files, for notebooks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the format, the encoder and the folder."""
    parser.add_argument(
        "form",
        choices=["npy"],
        help="for numpy.load, without pickles; each id takes 4 bytes for each character of the longest id",
    )
    parser.add_argument("--encoder", metavar="NAME", help="write only this encoder's embeddings (default: all)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("exports"),
        help="folder to write into; files of an earlier export in it are deleted (%(default)s)",
    )


def run(options: argparse.Namespace) -> None:
    """Write the files and list them."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from cbir.export.npy import export_npy

    check_apart("--out", options.out)
    encoders = read_encoder_names(DataPaths().encoders)
    if options.encoder is not None:
        check_encoder(options.encoder, encoders)
        encoders = [options.encoder]
    table = Table(box=box.SIMPLE)
    for head in ("file", "shape", "type"):
        table.add_column(head, justify="right" if head == "shape" else "left", overflow="fold")
    for array in export_npy(DataPaths(), options.out, encoders):
        table.add_row(Text(str(array.path)), " x ".join(f"{side:,}" for side in array.shape), str(array.dtype))
    Console().print(table)
