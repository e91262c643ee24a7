"""What a run needs of this machine and this folder, checked before it begins."""

import getpass
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cbir.artifacts.earlier_run import data_set_name
from cbir.artifacts.outputs import check_places
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.compose import composed
from cbir.core.device import check_device, gpus
from cbir.core.errors import CbirError, DataError
from cbir.core.files import read_json
from cbir.core.machine import processor
from cbir.core.parallel import cores
from cbir.core.params import CONF_DIR, PARAMS_FILE, read_yaml
from cbir.core.secrets import without_secrets
from cbir.core.text import listed
from cbir.datasets.prompt_sets import user_files
from cbir.encoders.demo import is_demo
from cbir.fetching.addresses import filled_in, local_path
from cbir.fetching.cache import cache_folder, kept_files
from cbir.inputs import check_inputs, check_outputs
from cbir.schema import Params, checked

_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)[ \\]*(;.*)?")
_PINS = Path("requirements.txt")
_STATE = Path(".dvc_state/repo")  # core.site_cache_dir in .dvc/config
_GB = 1e9
_LEAST_GB = 1.0  # of free disk, below which a note says so
_LISTED = 4


class State(Enum):
    """Whether something is as it should be, unusual, or in the way of a run."""

    fine = "ok"
    note = "note"
    stops = "STOPS"


@dataclass(frozen=True)
class Finding:
    """What was found about a subject, with the remedy where one is needed."""

    subject: str
    state: State
    text: str


def examine(root: Path) -> Iterator[Finding]:
    """Examine a repository; the process must be in it.

    Parameters that cannot be read are one finding, and those that depend on them are left out.
    """
    for subject, check in _CHECKS.items():
        yield from _findings(subject, check, root)
    params: list[Params] = []

    def read(_: Path) -> Iterator[tuple[State, str]]:
        params.append(_read_params())
        yield _compared_with_conf()

    yield from _findings("parameters", read, root)
    for subject, check_params in _CHECKS_OF_PARAMS.items() if params else ():
        yield from _findings(subject, lambda _, check=check_params: check(params[0]), root)  # type: ignore[misc]


def _findings(subject: str, check: Callable[[Path], Iterator[tuple[State, str]]], root: Path) -> Iterator[Finding]:
    try:
        yield from (Finding(subject, state, without_secrets(text)) for state, text in check(root))
    except CbirError as error:
        yield Finding(subject, State.stops, without_secrets(str(error)))
    except OSError as error:
        yield Finding(subject, State.note, without_secrets(f"cannot be examined: {error}"))


# ---- the machine


def _python(_: Path) -> Iterator[tuple[State, str]]:
    yield State.fine, f"{sys.version.split()[0]} in {sys.prefix}"
    first = shutil.which("python")
    if first is None or Path(first).parent.resolve() != Path(sys.executable).parent.resolve():
        where = "which is not on the PATH" if first is None else f"which is {first}, of another environment"
        yield (
            State.stops,
            f"the stages run `python`, {where}: `source {sys.prefix}/bin/activate`, or `make repro`, which needs no activation",
        )


def _packages(root: Path) -> Iterator[tuple[State, str]]:
    """Compare what is installed with the pins; a pin with a marker may be meant for another system."""
    pins: dict[str, set[str]] = {}
    optional = set()
    for line in (root / _PINS).read_text(encoding="utf-8").splitlines():
        if match := _PIN.match(line):
            pins.setdefault(match[1], set()).add(match[2])
            optional |= {match[1]} if match[3] else set()
    installed = {name: _version(name) for name in pins}
    absent = sorted(name for name in pins if installed[name] is None and name not in optional)
    other = [
        f"{name} {present} (pinned: {' or '.join(sorted(pins[name]))})"
        for name, present in sorted(installed.items())
        if present is not None and present.partition("+")[0] not in {pin.partition("+")[0] for pin in pins[name]}
    ]
    if absent:
        yield (
            State.stops,
            f"{len(absent)} of {len(pins)} pinned packages are absent: {listed(absent, _LISTED)}: `make setup`",
        )
    if other:
        yield (
            State.note,
            f"{len(other)} of {len(pins)} packages have other versions than {_PINS}: {listed(other, _LISTED)}; results may "
            "differ in the last digits: `make setup` installs the pins",
        )
    if not (absent or other):
        yield State.fine, f"{len(pins)}, as pinned in {_PINS}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(root: Path) -> Iterator[tuple[State, str]]:
    """DVC needs a git repository that git itself accepts; experiments need a name as well."""
    if shutil.which("git") is None:
        yield State.stops, "git is not installed, or not on the PATH"
        return
    ended = _run_git(root, "rev-parse", "--show-toplevel")
    if ended.returncode:
        reason = ended.stderr.strip().partition("\n")[0]
        remedy = "`git clone` the repository anew, or `git init && git add . && git commit -m start`"
        if "dubious ownership" in ended.stderr:
            remedy = f"`git config --global --add safe.directory {root.resolve()}`"
        yield State.stops, f"{reason}: {remedy}"
        return
    changed = len(_run_git(root, "status", "--porcelain", "--untracked-files=no").stdout.splitlines())
    yield (
        State.fine,
        f"{_run_git(root, 'log', '-1', '--format=%h %s').stdout.strip() or 'no commit'}; {changed} files changed",
    )
    if _run_git(root, "var", "GIT_COMMITTER_IDENT").returncode:
        yield (
            State.note,
            "git does not know you, so `cbir sweep` and `dvc exp run` would fail: `git config --global user.name NAME` and "
            "`git config --global user.email ADDRESS`",
        )


def _run_git(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)


def _user(_: Path) -> Iterator[tuple[State, str]]:
    try:
        yield State.fine, getpass.getuser()
    except (KeyError, OSError):  # Python 3.13 raises OSError
        yield State.stops, f"the user id {os.getuid()} has no name, without which DVC does not start: `export USER=me`"


def _place(root: Path) -> Iterator[tuple[State, str]]:
    check_places(root)
    yield State.fine, str(root.resolve())
    state = root / _STATE
    if state.exists() and stat.S_IMODE(state.stat().st_mode) & stat.S_IWOTH:
        yield (
            State.note,
            f"{_STATE} is writable for all users; DVC loads pickles from it: `chmod -R o-w {_STATE.parent}`",
        )


def _disk(root: Path) -> Iterator[tuple[State, str]]:
    """Free space where a run writes; each disk once."""
    folders = {"here": root, "cache": _nearest_folder(cache_folder()), "temporary files": Path(_temporary())}
    disks: dict[int, list[str]] = {}
    for name, folder in folders.items():
        disks.setdefault(folder.stat().st_dev, []).append(name)
    for names in disks.values():
        free_gb = shutil.disk_usage(folders[names[0]]).free / _GB
        text = f"{free_gb:,.1f} GB free ({listed(names)})"
        yield (State.fine, text) if free_gb >= _LEAST_GB else (State.note, f"{text}: make room before a larger run")


def _temporary() -> str:
    import tempfile

    return tempfile.gettempdir()


def _cache(_: Path) -> Iterator[tuple[State, str]]:
    folder = cache_folder()
    sizes = [file.size_bytes for file in kept_files(folder)]
    text = f"{folder}: {len(sizes):,} files, {sum(sizes) / _GB:.2f} GB"
    if os.access(_nearest_folder(folder), os.W_OK):
        yield State.fine, text
    else:
        yield State.note, f"{text}; it cannot be written, so a killed run starts over: set CBIR_CACHE to another folder"


def _nearest_folder(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())


def _outputs(_: Path) -> Iterator[tuple[State, str]]:
    data, reports = DataPaths(), ReportPaths()
    check_outputs(data, reports)
    if not data.summary.exists():
        yield State.fine, "none: no run has been finished here"
        return
    try:
        summary = read_json(data.summary)
    except DataError as error:
        yield State.note, str(error)
        return
    report = f"{reports.html}" if reports.html.exists() else "no report"
    yield State.fine, f"images of {summary.get('dataset', 'an unknown data set')}; {report}"


# ---- the parameters


def _read_params() -> Params:
    params = checked(read_yaml(PARAMS_FILE), str(PARAMS_FILE))
    check_inputs(params)
    return params


def _compared_with_conf() -> tuple[State, str]:
    try:
        text = composed(from_recorded=True)
    except CbirError as error:
        return State.note, f"{PARAMS_FILE} is sound, but {CONF_DIR}/ gives none: {error}"
    if PARAMS_FILE.read_text(encoding="utf-8") == text:
        return State.fine, f"{PARAMS_FILE} is what {CONF_DIR}/ and the last `cbir compose` give"
    return (
        State.note,
        f"{PARAMS_FILE} is not what {CONF_DIR}/ and the last `cbir compose` give: one of them was edited, or an experiment was "
        "applied; the run uses the file as it is, `cbir compose ...` writes it anew",
    )


def _data_set(params: Params) -> Iterator[tuple[State, str]]:
    url = params.dataset.url
    for name, value in (
        ("dataset.url", url),
        ("queries.path", params.queries.path),
        ("queries.qrels", params.queries.qrels),
    ):
        path = local_path(value) if value is not None else None
        if path is not None and not path.exists():
            yield State.stops, f"{name}: expected a file or a folder, found nothing at {path.absolute()}"
    for name in user_files(params.queries.prompt_sets):
        if not Path(name).expanduser().exists():
            yield State.stops, f"queries.prompt_sets: expected a file, found nothing at {name}"
    if url is not None and local_path(url) is None and not (DataPaths().raw / "archive.zip").exists():
        filled_in(url)  # raises ConfigError for a variable that is not set
    yield State.fine, data_set_name(params.dataset.reader.value, url)


def _weights(params: Params) -> Iterator[tuple[State, str]]:
    fetched = [name for name in params.encoders if (DataPaths().weights(name) / "encoder.json").exists()]
    for name, encoder in params.encoders.items():
        is_file = encoder.weights.startswith(("/", "./", "../", "~", "file:"))
        path = local_path(encoder.weights) if is_file else None
        if path is not None and not path.exists():
            yield State.stops, f"encoders.{name}.weights: expected a file, found nothing at {path}"
        elif name not in fetched and "://" in encoder.weights:
            filled_in(encoder.weights)
    demo = [name for name, encoder in params.encoders.items() if is_demo(encoder.weights) and name not in fetched]
    absent = [name for name in params.encoders if name not in (*fetched, *demo)]
    places = {"in data/weights": fetched, "in the package": demo, "fetched by the next run": absent}
    yield State.fine, "; ".join(f"{place}: {listed(names)}" for place, names in places.items() if names)


def _device(params: Params) -> Iterator[tuple[State, str]]:
    name = params.device.name.value
    check_device(name)
    kinds = f"it may have {listed(gpus())}" if gpus() else "no GPU"
    yield State.fine, f"{name}; this machine: {processor()}, {cores()} cores, {kinds}"


_CHECKS: dict[str, Callable[[Path], Iterator[tuple[State, str]]]] = {
    "python": _python,
    "packages": _packages,
    "user": _user,
    "place": _place,
    "git": _git,
    "disk": _disk,
    "cache": _cache,
    "outputs": _outputs,
}
_CHECKS_OF_PARAMS: dict[str, Callable[[Params], Iterator[tuple[State, str]]]] = {
    "data set": _data_set,
    "weights": _weights,
    "device": _device,
}
