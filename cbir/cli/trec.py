"""`cbir trec`: write runs and qrels in TREC's format."""

import argparse
from pathlib import Path
from shlex import quote

from cbir.artifacts.outputs import check_apart
from cbir.artifacts.paths import DataPaths, ReportPaths

HELP = "write the runs and qrels of the last `dvc repro` in TREC's format, for trec_eval"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --out."""
    parser.add_argument("--out", type=Path, default=ReportPaths().trec, help="folder to write into (%(default)s)")


def run(options: argparse.Namespace) -> None:
    """Write the files, list them, and print commands that evaluate one of them."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from cbir.export.trec import export  # takes a second

    check_apart("--out", options.out)
    files = export(DataPaths(), ReportPaths(), options.out)
    table = Table(box=box.SIMPLE)
    for head in ("file", "lines", "scores lowered to break ties"):
        table.add_column(head, justify="left" if head == "file" else "right", overflow="fold")
    for file in files:
        table.add_row(Text(str(file.path)), f"{file.lines:,}", "" if file.lowered is None else f"{file.lowered:,}")
    console = Console()
    console.print(table)
    run_path = files[-1].path
    qrels_path = run_path.with_name(f"{run_path.name.partition('_')[0]}.qrels")
    qrels, run = quote(str(qrels_path)), quote(str(run_path))
    for command in (f"trec_eval -c {qrels} {run}", f"cbir evaluate --qrels {qrels} --run {run}"):
        console.print(f"evaluate them: {command}", markup=False, highlight=False, soft_wrap=True)
