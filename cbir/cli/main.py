"""The command `cbir`: what people do beside running the pipeline."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from shlex import quote
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cbir.artifacts.names import ENCODERS
from cbir.core.errors import ConfigError, DataError, one_line_errors
from cbir.core.files import replacing
from cbir.fetching.cache import KINDS, cache_folder, kept_files, prune
from cbir.search import arguments as search_arguments

if TYPE_CHECKING:
    from cbir.runs.sweep import Outcome

DATA, REPORTS = Path("data"), Path("reports")
_GB = 1e9
_MAX_GB, _MAX_DAYS = 20.0, 90.0
_DAY_S = 86_400
_MOST_K = 10**9
_RUN_LINE = "lines of 'query_id Q0 image_id rank score tag'"
_QRELS_LINE = "lines of 'query_id 0 image_id relevance'"
_PIPE_COLUMNS = 180
_SHOWN_FILES = 5
_FILE_NAME_CHARACTERS = 100


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; a user's mistake is told in one line."""
    parser = argparse.ArgumentParser(prog="cbir", description="Image retrieval: what people do beside `dvc repro`.")
    commands = parser.add_subparsers(required=True, metavar="command")

    compose = commands.add_parser("compose", help="compose conf/ and overrides into params.yaml", add_help=False)
    compose.add_argument("arguments", nargs=argparse.REMAINDER)
    compose.set_defaults(run=_compose)

    find = commands.add_parser("search", help="the gallery images nearest to a text, an image, or several of them")
    search_arguments.add_arguments(find, DATA)
    find.set_defaults(run=_search)

    cache = commands.add_parser("cache", help="show, or prune, the cache of embedded shards and downloads")
    cache.add_argument("--prune", action="store_true", help="delete what the two limits below do not allow")
    cache.add_argument(
        "--max-gb", type=float, help=f"with --prune: keep what was used last, up to so much ({_MAX_GB:g})"
    )
    cache.add_argument("--max-days", type=float, help=f"with --prune: and was used in so many days ({_MAX_DAYS:g})")
    cache.set_defaults(run=_cache)

    drift = commands.add_parser("drift", help="how far vectors move under other batch sizes, backends and precisions")
    drift.add_argument("encoder", choices=ENCODERS)
    drift.add_argument("--images", type=int, default=200, help="so many query images (%(default)s)")
    drift.add_argument("--seed", type=int, default=0, help="of their choice (%(default)s)")
    drift.add_argument("--json", action="store_true", help="figures for a program")
    drift.set_defaults(run=_drift)

    compare = commands.add_parser(
        "compare",
        help="runs against the first of them: git revisions, DVC experiments, folders of reports (. is yours)",
    )
    compare.add_argument("runs", nargs="+", metavar="run")
    compare.add_argument("--metrics", nargs="+", help="names of metrics.json; by default the headline ones")
    compare.add_argument("--resamples", type=int, default=10_000, help="draws of classes (%(default)s)")
    compare.add_argument("--seed", type=int, default=0, help="of the draws (%(default)s)")
    compare.add_argument("--json", action="store_true", help="figures for a program")
    compare.add_argument("--markdown", action="store_true", help="tables for a web page")
    compare.set_defaults(run=_compare)

    report = commands.add_parser("report", help="a page of two runs side by side: differences, classes, queries")
    report.add_argument(
        "--compare",
        nargs=2,
        required=True,
        metavar=("A", "B"),
        help="runs: git revisions, DVC experiments, folders of reports (. is yours); B against A",
    )
    report.add_argument("--out", type=Path, help=f"file to write ({REPORTS}/comparisons/A-B.html)")
    report.add_argument("--resamples", type=int, default=10_000, help="draws of classes (%(default)s)")
    report.add_argument("--seed", type=int, default=0, help="of the draws (%(default)s)")
    report.set_defaults(run=_report)

    trec = commands.add_parser(
        "trec", help="write the runs and judgements of the last `dvc repro` as trec_eval reads them"
    )
    trec.add_argument("--out", type=Path, default=REPORTS / "trec", help="folder to write into (%(default)s)")
    trec.set_defaults(run=_trec)

    evaluate = commands.add_parser(
        "evaluate", help="the metrics of somebody else's run, both files as trec_eval reads them"
    )
    evaluate.add_argument("--run", dest="run_file", type=Path, required=True, metavar="FILE", help=_RUN_LINE)
    evaluate.add_argument("--qrels", type=Path, required=True, metavar="FILE", help=_QRELS_LINE)
    evaluate.add_argument(
        "--ks", nargs="+", type=int, default=[1, 5, 10], metavar="K", help="of precision@k and so on (1 5 10)"
    )
    evaluate.add_argument("--resamples", type=int, default=2000, help="draws of queries (%(default)s)")
    evaluate.add_argument("--seed", type=int, default=0, help="of the draws (%(default)s)")
    form = evaluate.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="figures for a program")
    form.add_argument("--markdown", action="store_true", help="tables for a web page")
    evaluate.set_defaults(run=_evaluate)

    export = commands.add_parser("export", help="embeddings, ids and categories as NPY files, for notebooks")
    export.add_argument(
        "form",
        choices=["npy"],
        help="numpy.load reads them, without pickles; each id takes 4 bytes times the length of the longest",
    )
    export.add_argument("--encoder", choices=ENCODERS, help="of this one only (both)")
    export.add_argument(
        "--out",
        type=Path,
        default=Path("exports"),
        help="folder to write into; an earlier export in it goes (%(default)s)",
    )
    export.set_defaults(run=_export)

    sweep = commands.add_parser(
        "sweep",
        help="every combination of some choices, each a DVC experiment, in one table: index=flat,hnsw clip=demo",
    )
    sweep.add_argument("overrides", nargs="+", metavar="override", help="Hydra's grammar: a=x,y a=range(1,4) a=glob(*)")
    sweep.add_argument("--name", help="of the table's files in reports/sweeps/; by default made of what varies")
    sweep.add_argument("--metrics", nargs="+", help="names of metrics.json; by default the headline ones")
    sweep.add_argument("--objective", help="value of metrics.json for hydra/sweeper=..., e.g. cbir.clip.map_at_r")
    sweep.set_defaults(run=_sweep)

    app = commands.add_parser("app", help="search in the browser; needs `pip install .[app]`")
    app.add_argument("--data", type=Path, default=DATA, help="the artifacts' folder (%(default)s)")
    app.add_argument("--port", type=int, default=8501, help="(%(default)s)")
    app.add_argument("--address", default="127.0.0.1", help="to listen at: this machine only (%(default)s)")
    app.add_argument("--allow-urls", action="store_true", help="let users have images fetched from public addresses")
    app.add_argument("--no-browser", action="store_true", help="open none")
    app.set_defaults(run=_app)

    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["compose"]:  # its options may come first, which argparse.REMAINDER does not take
        with one_line_errors():
            _compose(argparse.Namespace(arguments=arguments[1:]))
        return
    options, left = parser.parse_known_args(arguments)
    if left and (not hasattr(options, "words") or any(word.startswith("-") for word in left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if left:  # argparse takes no words after an option that stands among them
        options.words += left
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name may hold what a terminal's encoding has not
            stream.reconfigure(errors="backslashreplace")
    run: Callable[[argparse.Namespace], None] = options.run
    with one_line_errors():
        run(options)


def _compose(options: argparse.Namespace) -> None:
    from cbir.compose import main as compose  # Hydra takes a while

    compose(options.arguments)


def _search(options: argparse.Namespace) -> None:
    from cbir.search.command import run  # faiss takes a while

    run(options, options.data.parent / REPORTS)


def _cache(options: argparse.Namespace) -> None:
    folder = cache_folder()
    for name in ("max_gb", "max_days"):
        value = getattr(options, name)
        if value is not None and not options.prune:
            raise ConfigError(
                f"--{name.replace('_', '-')} is a limit of --prune: add --prune to delete what is beyond it"
            )
        if value is not None and not value >= 0:
            raise ConfigError(f"--{name.replace('_', '-')}: expected a number >= 0, found {value:g}")
    if options.prune:
        max_gb = _MAX_GB if options.max_gb is None else options.max_gb
        max_days = _MAX_DAYS if options.max_days is None else options.max_days
        gone = prune(folder, max_gb * _GB, max_days * _DAY_S)
        print(f"deleted {len(gone):,} files, {sum(kept.size_bytes for kept in gone) / _GB:.3f} GB")
    files = list(kept_files(folder))
    table = Table(title=str(folder))
    for head in ("", "files", "GB"):
        table.add_column(head, justify="left" if not head else "right")
    for kind, meaning in KINDS.items():
        sizes = [kept.size_bytes for kept in files if kept.kind == kind]
        table.add_row(f"{kind}: {meaning}", f"{len(sizes):,}", f"{sum(sizes) / _GB:.3f}")
    Console().print(table)


def _compare(options: argparse.Namespace) -> None:
    from cbir.runs.compare import METRICS, compare, open_run  # scipy takes a while
    from cbir.runs.comparison_tables import as_markdown, print_tables

    _check_draws(options)
    found = compare(
        [open_run(name) for name in options.runs], options.metrics or METRICS, options.resamples, options.seed
    )
    if options.json:
        print(json.dumps([one.to_json() for one in found], indent=2, ensure_ascii=False))
    elif options.markdown:
        print(as_markdown(found))
    else:
        print_tables(found, Console())


def _report(options: argparse.Namespace) -> None:
    from cbir.runs.comparison_page import title_of, write_comparison  # matplotlib takes a while

    _check_draws(options)
    base, run = options.compare
    if not (base and run):
        raise ConfigError("--compare: expected two runs, found an empty name: `cbir report --compare HEAD .`")
    named = re.sub(r"[^\w.]+", "-", f"{title_of(base)}-{title_of(run)}")[:_FILE_NAME_CHARACTERS].strip("-.")
    out = options.out or REPORTS / "comparisons" / f"{named}.html"
    if out.suffix != ".html" or out.is_dir():
        raise ConfigError(f"--out: expected the name of a file that ends in .html, found {out}")
    out.parent.mkdir(parents=True, exist_ok=True)  # or fail now, not after the work
    at_hand = [Path(name) for name in (base, run) if Path(name).is_dir()]
    folders = [Path(), *(folder for one in at_hand for folder in (one, one.parent))]
    write_comparison(out, (base, run), folders, options.resamples, options.seed)
    print(out)


def _check_draws(options: argparse.Namespace) -> None:
    for name, least in (("resamples", 100), ("seed", 0)):
        if getattr(options, name) < least:
            raise ConfigError(f"--{name}: expected at least {least}, found {getattr(options, name)}")


def _trec(options: argparse.Namespace) -> None:
    from cbir.export.trec import export  # faiss takes a while

    written = export(DATA, REPORTS, options.out)
    table = Table(box=box.SIMPLE)
    for head in ("file", "lines", "scores lowered to break ties"):
        table.add_column(head, justify="left" if head == "file" else "right", overflow="fold")
    for one in written:
        table.add_row(Text(str(one.path)), f"{one.lines:,}", "" if one.lowered is None else f"{one.lowered:,}")
    console = Console()
    console.print(table)
    run = written[-1].path
    qrels = run.with_name(f"{run.name.partition('_')[0]}.qrels")
    for command in (
        f"trec_eval -c {quote(str(qrels))} {quote(str(run))}",
        f"cbir evaluate --qrels {quote(str(qrels))} --run {quote(str(run))}",
    ):
        console.print(f"evaluate them: {command}", markup=False, highlight=False, soft_wrap=True)


def _export(options: argparse.Namespace) -> None:
    from cbir.export.npy import export_npy

    table = Table(box=box.SIMPLE)
    for head in ("file", "shape", "type"):
        table.add_column(head, justify="right" if head == "shape" else "left", overflow="fold")
    for one in export_npy(DATA, options.out, [options.encoder] if options.encoder else ENCODERS):
        table.add_row(Text(str(one.path)), " x ".join(f"{side:,}" for side in one.shape), str(one.dtype))
    Console().print(table)


def _evaluate(options: argparse.Namespace) -> None:
    from cbir.evaluation.trec import evaluate_run
    from cbir.evaluation.trec_tables import as_markdown, print_table

    _check_draws(options)
    if not all(1 <= k <= _MOST_K for k in options.ks):
        raise ConfigError(f"--ks: expected numbers from 1 to {_MOST_K:,}, found {' '.join(map(str, options.ks))}")
    found = evaluate_run(options.run_file, options.qrels, sorted(set(options.ks)), options.resamples, options.seed)
    if options.json:
        print(json.dumps(found.to_json(), indent=2))
    elif options.markdown:
        print(as_markdown(found))
    else:
        print_table(found, Console())


def _sweep(options: argparse.Namespace) -> None:
    from cbir.runs.experiments import Bench
    from cbir.runs.sweep import Sweep, slug, sweep_name
    from cbir.runs.sweep_table import check_metrics

    out = REPORTS / "sweeps" / (slug([options.name]) if options.name else sweep_name(options.overrides))
    with Bench() as bench:
        _check_writable(out)
        if bench.changed:
            more = f" and {len(bench.changed) - _SHOWN_FILES} more" if len(bench.changed) > _SHOWN_FILES else ""
            print(f"note: uncommitted changes are part of every job: {', '.join(bench.changed[:_SHOWN_FILES])}{more}")
        sweep = Sweep(bench, out, options.objective)
        try:
            sweep.run(options.overrides)
        except KeyboardInterrupt:
            print("\nthe same command goes on from here")
            raise
        finally:
            if sweep.outcomes:
                _tell_sweep(sweep.outcomes, out, options.metrics)
    failed = [one for one in sweep.outcomes if one.error is not None]
    if failed:
        raise DataError(f"{len(failed)} of {len(sweep.outcomes)} jobs failed, see above; the others stand")
    check_metrics(sweep.outcomes, options.metrics or ())


def _table_files(out: Path) -> tuple[Path, Path]:
    return out.with_name(f"{out.name}.md"), out.with_name(f"{out.name}.csv")


def _check_writable(out: Path) -> None:
    """Raise ConfigError now, not after hours of jobs, where the table or what the jobs print cannot be written."""
    expected = f"{out.parent}: expected a folder to write the table into"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise ConfigError(f"{expected}: {error.strerror}; move it away, or make it writable") from error
    for path in (out, *_table_files(out)):
        if path.exists() and path.is_dir() != (path == out):
            found = "a folder" if path.is_dir() else "a file"
            raise ConfigError(f"{expected}, found {found} at {path}: move it away, or give another --name")


def _tell_sweep(outcomes: Sequence["Outcome"], out: Path, metrics: Sequence[str] | None) -> None:
    from cbir.runs.sweep_table import METRICS, as_csv, as_markdown, print_table, tabulate

    table = tabulate(outcomes, metrics or METRICS)
    if table.lines:
        print_table(table, Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS))
        markdown, values = _table_files(out)
        for path, text in ((markdown, as_markdown(table)), (values, as_csv(table))):
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        print(f"table  {markdown}  {values}")
    for one in outcomes:
        if one.error is not None:
            print(f"failed: {' '.join(one.job.overrides)}: {one.error}")
            print(f"    all that it said: {out / one.job.name}.log; to repeat it: {one.job.command}")


def _drift(options: argparse.Namespace) -> None:
    from cbir.encoders.drift import FailedWay, measure_drift  # torch takes seconds

    if options.images < 1:
        raise ConfigError(f"--images: expected at least 1, found {options.images}")
    found = measure_drift(DATA, options.encoder, options.images, options.seed)
    if options.json:
        print(json.dumps([asdict(one) for one in found], indent=2))
        return
    print(f"{options.encoder}, at most {options.images} images embedded anew, against the stored vectors:")
    heads = ("cosine least", "mean", "largest change", "top-10 kept", "precision @10", "change")
    widths = [max(7, *map(len, head.split())) for head in heads]
    for line in (0, 1):
        words = [head.split()[line] if line < len(head.split()) else "" for head in heads]
        print(_drift_line("way, images a batch" if line else "", words, widths))
    for one in found:
        if isinstance(one, FailedWay):
            print(f"{one.way}: {one.failed}", flush=True)
            continue
        precision = ["-", "-"]
        if one.precision_at_10 is not None and one.precision_change is not None:
            precision = [f"{one.precision_at_10:.3f}", f"{one.precision_change:+.3f}"]
        cosines = [f"{one.cosine_least:.5f}", f"{one.cosine_mean:.5f}"]
        cells = [*cosines, f"{one.largest_difference:.0e}", f"{one.top10_overlap:.1%}", *precision]
        print(_drift_line(one.way, cells, widths), flush=True)  # as it comes: each takes seconds


def _drift_line(way: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join([f"{way:<23}", *(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))]).rstrip()


def _app(options: argparse.Namespace) -> None:
    from cbir.app.serving import run

    run(options.data, options.port, options.address, options.allow_urls, not options.no_browser)
