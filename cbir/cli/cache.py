"""`cbir cache`: show the size of the user's cache, or shrink it; and the size of DVC's cache."""

import argparse
from pathlib import Path

from cbir.core.errors import ConfigError

HELP = "show the sizes of the caches: of embedded shards and downloads, which it can shrink, and DVC's"
_GB = 1e9
_MAX_GB, _MAX_DAYS = 20.0, 90.0
_DAY_S = 86_400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --prune and its limits."""
    parser.add_argument("--prune", action="store_true", help="delete files beyond the two limits")
    parser.add_argument(
        "--max-gb",
        type=float,
        help=f"with --prune: keep the most recently used files, up to this size in GB ({_MAX_GB:g})",
    )
    parser.add_argument(
        "--max-days", type=float, help=f"with --prune: keep files used within this many days ({_MAX_DAYS:g})"
    )


def run(options: argparse.Namespace) -> None:
    """Print a table of the cache's files, after deleting those beyond the limits with --prune, and the size of DVC's cache."""
    from rich.console import Console
    from rich.table import Table

    from cbir.fetching.cache import CACHE_KINDS, cache_folder, kept_files, prune
    from cbir.runs.repair import dvc_cache_folder

    _check_limits(options)
    folder = cache_folder()
    if options.prune:
        max_gb = _MAX_GB if options.max_gb is None else options.max_gb
        max_days = _MAX_DAYS if options.max_days is None else options.max_days
        deleted = prune(folder, max_gb * _GB, max_days * _DAY_S)
        print(f"deleted {len(deleted):,} files, {sum(file.size_bytes for file in deleted) / _GB:.3f} GB")
    files = list(kept_files(folder))
    table = Table(title=str(folder))
    for head in ("", "files", "GB"):
        table.add_column(head, justify="left" if not head else "right")
    for kind, meaning in CACHE_KINDS.items():
        sizes = [file.size_bytes for file in files if file.kind == kind]
        table.add_row(f"{kind}: {meaning}", f"{len(sizes):,}", f"{sum(sizes) / _GB:.3f}")
    Console().print(table)
    if Path(".dvc").is_dir():
        dvc_cache = dvc_cache_folder(Path())
        print(
            f"DVC's cache, {dvc_cache}: {_bytes_below(dvc_cache) / _GB:.3f} GB of outputs of this and earlier runs; "
            "`dvc gc --workspace --all-commits --all-experiments` deletes what neither the working folder nor a commit nor an "
            "experiment uses"
        )


def _bytes_below(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _check_limits(options: argparse.Namespace) -> None:
    for name in ("max_gb", "max_days"):
        value, option = getattr(options, name), f"--{name.replace('_', '-')}"
        if value is not None and not options.prune:
            raise ConfigError(f"{option} is a limit of --prune: add --prune to delete what is beyond it")
        if value is not None and not value >= 0:
            raise ConfigError(f"{option}: expected a number >= 0, found {value:g}")
