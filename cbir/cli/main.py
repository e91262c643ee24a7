"""The command `cbir`: chooses one of its commands and turns a user's mistake into one line.

The module of a command holds its arguments and runs it.  It imports what it needs when it runs, so that `cbir --help` is fast.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path

from cbir.cli import (
    app,
    cache,
    compare,
    compose,
    doctor,
    drift,
    evaluate,
    export,
    repair,
    report,
    search,
    sweep,
    trec,
    verify,
)
from cbir.core.errors import ConfigError, one_line_errors
from cbir.core.text import nearest

_COMMANDS = {
    "compose": compose,
    "search": search,
    "app": app,
    "compare": compare,
    "report": report,
    "sweep": sweep,
    "drift": drift,
    "verify": verify,
    "trec": trec,
    "evaluate": evaluate,
    "export": export,
    "repair": repair,
    "cache": cache,
    "doctor": doctor,
}
_IN_ROOT = (
    "compose",
    "sweep",
    "drift",
    "verify",
    "trec",
    "export",
    "repair",
    "doctor",
)  # those that read the repository


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command."""
    with one_line_errors():  # from the first moment: an interrupt is one line as well
        _run(list(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: list[str]) -> None:
    if arguments and not arguments[0].startswith("-") and arguments[0] not in _COMMANDS:
        raise ConfigError(f"cbir has no command '{arguments[0]}'; {nearest(arguments[0], _COMMANDS)}")
    parser = argparse.ArgumentParser(
        prog="cbir", description="Image retrieval: everything except the pipeline, which `dvc repro` runs."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version, and exit")
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, command in _COMMANDS.items():
        subparser = commands.add_parser(name, help=command.HELP)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run, parser=subparser)
    options, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(options, "words") or any(word.startswith("-") for word in rest)):
        options.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:  # argparse takes only the words before the first option
        options.words += rest
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name may contain what the terminal's encoding cannot show
            stream.reconfigure(errors="backslashreplace")
    if arguments[0] in _IN_ROOT:
        _check_root(arguments[0])
    if root := _root_above():
        # DVC takes the folder of its state, a relative path in .dvc/config, from here
        os.environ.setdefault("DVC_SITE_CACHE_DIR", str(root / ".dvc_state"))
    run: Callable[[argparse.Namespace], None] = options.run
    run(options)


def _check_root(command: str) -> None:
    """Raise ConfigError in a folder that has none of what the repository's root has."""
    here = Path.cwd()
    if any((here / name).exists() for name in ("dvc.yaml", "conf", "data")):
        return
    root = _root_above()
    remedy = "go to the root of the repository" if root is None else f"`cd {shlex.quote(str(root))}`"
    raise ConfigError(
        f"cbir {command}: expected the root of the repository, found {here}, without a dvc.yaml: {remedy}"
    )


def _root_above() -> Path | None:
    """The repository's root, where this folder lies within it."""
    return next((folder for folder in Path.cwd().parents if (folder / "dvc.yaml").exists()), None)


class _Version(argparse.Action):
    """Print the version of the package, or of the working tree where it is not installed."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"cbir {version('cbir')}")
        except PackageNotFoundError:
            print("cbir, not installed: the modules of this folder")
        parser.exit()
