"""`cbir compare`: compare runs with the first of them, metric by metric."""

import argparse
import json

from cbir.cli.arguments import RUN_HELP, add_resampling, check_resampling

HELP = "compare runs with the first of them: differences with intervals and paired tests"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the runs and the options of the tables."""
    parser.add_argument("runs", nargs="+", metavar="run", help=RUN_HELP)
    parser.add_argument("--metrics", nargs="+", help="names of metrics in metrics.json (default: the main ones)")
    add_resampling(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")


def run(options: argparse.Namespace) -> None:
    """Print the comparisons."""
    from rich.console import Console

    from cbir.runs.compare import COMPARED_METRICS, compare  # scipy takes a second
    from cbir.runs.comparison_tables import as_markdown, print_tables
    from cbir.runs.opening import open_run

    check_resampling(options)
    runs = [open_run(name) for name in options.runs]
    comparisons = compare(runs, options.metrics or COMPARED_METRICS, options.resamples, options.seed)
    if options.json:
        print(json.dumps([comparison.to_json() for comparison in comparisons], indent=2, ensure_ascii=False))
    elif options.markdown:
        print(as_markdown(comparisons))
    else:
        print_tables(comparisons, Console())
