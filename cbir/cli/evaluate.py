"""`cbir evaluate`: compute the metrics of any run in TREC's format."""

import argparse
import json
from pathlib import Path

from cbir.artifacts.outputs import check_outside
from cbir.cli.arguments import check_resampling
from cbir.core.errors import ConfigError

HELP = "compute the metrics of any run and qrels in TREC's format"
_MOST_K = 10**9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two files and the options of the metrics."""
    parser.add_argument(
        "--run",
        dest="run_file",
        type=Path,
        required=True,
        metavar="FILE",
        help="lines of 'query_id Q0 image_id rank score tag'",
    )
    parser.add_argument(
        "--qrels", type=Path, required=True, metavar="FILE", help="lines of 'query_id 0 image_id relevance'"
    )
    parser.add_argument(
        "--ks", nargs="+", type=int, default=[1, 5, 10], metavar="K", help="k of precision@k and so on (1 5 10)"
    )
    parser.add_argument("--resamples", type=int, default=2000, help="resamples of the queries (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the resamples (%(default)s)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print a Markdown table")


def run(options: argparse.Namespace) -> None:
    """Print the metrics with their intervals."""
    from rich.console import Console

    from cbir.evaluation.trec import evaluate_run  # scipy takes a second
    from cbir.evaluation.trec_tables import as_markdown, print_table

    check_outside("--run", options.run_file)
    check_outside("--qrels", options.qrels)
    check_resampling(options)
    if not all(1 <= k <= _MOST_K for k in options.ks):
        raise ConfigError(f"--ks: expected numbers from 1 to {_MOST_K:,}, found {' '.join(map(str, options.ks))}")
    evaluated = evaluate_run(options.run_file, options.qrels, sorted(set(options.ks)), options.resamples, options.seed)
    if options.json:
        print(json.dumps(evaluated.to_json(), indent=2))
    elif options.markdown:
        print(as_markdown(evaluated))
    else:
        print_table(evaluated, Console())
