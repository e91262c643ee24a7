"""`cbir sweep`: run every combination of some overrides, each as a DVC experiment, and compare them in one table."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from cbir.artifacts.paths import ReportPaths
from cbir.core.errors import ConfigError, DataError
from cbir.core.files import replacing

if TYPE_CHECKING:
    from cbir.runs.sweep import Outcome

HELP = "run every combination of some overrides, each as a DVC experiment, and compare them in one table"
_MAX_FILES = 5  # named in the note about uncommitted changes
_PIPE_COLUMNS = 180


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the overrides and the options of the table."""
    parser.add_argument(
        "overrides",
        nargs="+",
        metavar="override",
        help="a Hydra override, with all its values: index=flat,hnsw a.b=range(1,4) index=glob(ivf*)",
    )
    parser.add_argument("--name", help=f"name of the table's files in {ReportPaths().sweeps}/ (default: what varies)")
    parser.add_argument("--metrics", nargs="+", help="names of metrics (default: the main ones)")
    parser.add_argument(
        "--objective",
        help="the mean that hydra/sweeper=... optimises: task, encoder and metric, as in cbir.clip_demo.map_at_r",
    )


def run(options: argparse.Namespace) -> None:
    """Run the jobs, then print and write their table, also after an interrupt.

    Raises DataError where jobs failed.
    """
    from cbir.runs.experiments import ExperimentRunner
    from cbir.runs.sweep import Sweep, slug, sweep_name
    from cbir.runs.sweep_table import check_metrics

    out = ReportPaths().sweeps / (slug([options.name]) if options.name else sweep_name(options.overrides))
    with ExperimentRunner() as runner:
        check_writable(out)
        if runner.changed:
            rest = len(runner.changed) - _MAX_FILES
            more = f" and {rest} more" if rest > 0 else ""
            names = ", ".join(runner.changed[:_MAX_FILES])
            print(f"note: uncommitted changes are part of every job: {names}{more}")
        sweep = Sweep(runner, out, options.objective)
        try:
            sweep.run(options.overrides)
        except KeyboardInterrupt:
            print("\nrun the same command again to continue")
            raise
        finally:
            if sweep.outcomes:
                _print_outcomes(sweep.outcomes, out, options.metrics)
    n_failed = sum(outcome.error is not None for outcome in sweep.outcomes)
    if n_failed:
        raise DataError(
            f"{n_failed} of {len(sweep.outcomes)} jobs failed, see above; the results of the others are kept"
        )
    check_metrics(sweep.outcomes, options.metrics or ())


def check_writable(out: Path) -> None:
    """Raise ConfigError where the table or the logs of a sweep could not be written: now, not after hours of jobs."""
    expected = f"{out.parent}: expected a folder to write the table into"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise ConfigError(f"{expected}: {error.strerror}; move it away, or make it writable") from error
    for path in (out, *_table_paths(out)):
        if path.exists() and path.is_dir() != (path == out):
            kind = "a folder" if path.is_dir() else "a file"
            raise ConfigError(f"{expected}, found {kind} at {path}: move it away, or give another --name")


def _table_paths(out: Path) -> tuple[Path, Path]:
    return out.with_name(f"{out.name}.md"), out.with_name(f"{out.name}.csv")


def _print_outcomes(outcomes: Sequence["Outcome"], out: Path, metrics: Sequence[str] | None) -> None:
    from rich.console import Console

    from cbir.runs.sweep_table import TABLE_METRICS, as_csv, as_markdown, print_table, tabulate

    table = tabulate(outcomes, metrics or TABLE_METRICS)
    if table.rows:
        print_table(table, Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS))
        markdown, values = _table_paths(out)
        for path, text in ((markdown, as_markdown(table)), (values, as_csv(table))):
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        print(f"table  {markdown}  {values}")
    for outcome in outcomes:
        if outcome.error is not None:
            print(f"failed: {' '.join(outcome.job.overrides)}: {outcome.error}")
            print(f"    full output: {out / outcome.job.name}.log; to repeat it: {outcome.job.command}")
