"""DVC experiments, run one after another in a private clone of the repository, so that no file of the user's is touched.

`dvc exp run --temp` and `--queue` prepare each experiment in the user's own folder: for about a second HEAD is detached and
uncommitted changes are in a stash, and a kill leaves them there.  In a git worktree DVC would still use the stash and the refs
of the user's repository (both observed with DVC 3.67).  The clone is in `.dvc/tmp`.  It contains HEAD and the uncommitted
changes, and uses the user's DVC cache: outputs are links into it, and stages that have run before come from its run cache.
A finished experiment is fetched into the user's repository, as if it had been run there.
"""

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

from cbir import starting_point
from cbir.artifacts.evaluations import read_intervals, read_latency, read_metrics
from cbir.artifacts.latency import Latency
from cbir.artifacts.metrics import Intervals, Metrics
from cbir.artifacts.paths import ReportPaths
from cbir.core.errors import ConfigError
from cbir.core.params import CONF_DIR
from cbir.runs.opening import check_owner, open_reports

FOLDER = Path(".dvc/tmp/sweep")
_NEEDED = ("conf", "cbir", "stages", "dvc.yaml")
# Results do not depend on these; what conf/ composes to is part of a job's name.
_WITHOUT_EFFECT = (
    "README.md",
    "benchmarks",
    "conf",
    "docs",
    "dvc.lock",
    "mkdocs.yml",
    "params.yaml",
    "reports",
    "tests",
)
_GENERATED = (":!dvc.lock", ":!params.yaml", ":!reports")
_EXPERIMENT = re.compile(r"(\w+) (refs/exps/\w{2}/\w{38}/(.+))")
_RUNNING = re.compile(r"Running stage '(.+)':")
FINGERPRINT_CHARACTERS = 8
_STOP_TIMEOUT_S = 30


class Experiment(NamedTuple):
    """A finished DVC experiment."""

    revision: str
    reference: str
    name: str


class Results(NamedTuple):
    """What an experiment measured."""

    metrics: Metrics
    intervals: Intervals
    latency: Latency


class JobError(Exception):
    """An experiment failed; the message is the line of its output that says why."""


class ExperimentRunner:
    """Runs experiments for the repository in the working directory, for one sweep at a time.

    changed : files with uncommitted changes that the experiments include, except those that each run writes.
    Raises ConfigError on entry where no experiment can start.
    """

    def __enter__(self) -> Self:
        if not Path(".dvc").is_dir():
            raise ConfigError(".dvc/ is not here: run this in the repository's root")
        check_owner()
        if not _has_identity():
            raise ConfigError(
                "each job is a commit, and git does not know of whom: "
                "`git config user.name NAME && git config user.email ADDRESS`"
            )
        FOLDER.mkdir(parents=True, exist_ok=True)
        self._clone = FOLDER / "clone"
        self._lock = (FOLDER / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._prepare()
        except BlockingIOError:
            self._lock.close()
            raise ConfigError(
                "another sweep runs in this repository, or the last job of a killed sweep still does: wait until it ends"
            ) from None
        except BaseException:
            self._lock.close()
            raise
        return self

    def _prepare(self) -> None:
        if self._clone.exists():  # left by a killed sweep, whose last job may have finished
            with suppress(ConfigError):  # the clone may be incomplete
                self._fetch()
            shutil.rmtree(self._clone)
        try:
            self._head = _git("rev-parse", "--verify", "--quiet", "HEAD")
        except ConfigError:
            raise ConfigError("experiments need a commit to start from: `git add . && git commit`") from None
        if prefix := _git("rev-parse", "--show-prefix"):
            raise ConfigError(
                f"expected .dvc/ and .git/ in one folder, found .dvc/ in the folder {prefix} of a git repository; a sweep "
                "cannot clone that: `dvc exp run -S ...` runs one job there"
            )
        untracked = _git("ls-files", "--others", "--exclude-standard", "--", *_NEEDED).splitlines()
        if untracked:
            raise ConfigError(
                f"git does not track {untracked[0]}, so experiments would not have it: `git add {untracked[0]}` "
                "(no commit needed)"
            )
        without_content = _git("diff", "--name-only", "--diff-filter=A").splitlines()
        if without_content:
            path = without_content[0]
            raise ConfigError(
                f"git tracks {path} without its content (`git add -N`), so experiments would not have it: `git add {path}` "
                "(no commit needed)"
            )
        # A commit of what `git stash` would put away, without putting it away; empty where nothing has changed.
        self._content = _git("stash", "create") or self._head
        self.changed = _git("diff", "--name-only", "HEAD", "--", ".", *_GENERATED).splitlines()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        shutil.rmtree(self._clone, ignore_errors=True)
        self._lock.close()

    def code(self) -> str:
        """Git's hashes of the code and of everything else that a result may depend on."""
        lines = _git("ls-tree", self._content).splitlines()
        return "\n".join(line for line in lines if line.partition("\t")[2] not in _WITHOUT_EFFECT)

    def has_file(self, path: Path) -> bool:
        """Whether experiments have the file at a relative path.  False for folders: git may track only part of one."""
        return not path.is_dir() and bool(_git("ls-tree", self._content, "--", str(path)))

    def find(self, suffix: str) -> Experiment | None:
        """A finished experiment whose name ends with `suffix`, preferably one that started from HEAD."""
        matching = [experiment for experiment in _experiments() if experiment.name.endswith(suffix)]
        return max(matching, key=self.is_of_head, default=None)

    def is_of_head(self, experiment: Experiment) -> bool:
        """Whether it started from the present commit, so that `dvc exp show` lists it."""
        return experiment.reference == f"refs/exps/{self._head[:2]}/{self._head[2:]}/{experiment.name}"

    def read(self, experiment: Experiment) -> Results:
        """Read an experiment's results.  Raises DataError when they are missing from the cache or of another version."""
        with open_reports(experiment.revision, _files_of_results) as reports:
            return Results(read_metrics(reports), read_intervals(reports), read_latency(reports))

    def run(self, name: str, overrides: Sequence[str], log: Path, on_stage: Callable[[str], None]) -> Experiment:
        """Run one experiment.

        on_stage : called with the name of each stage that DVC runs.  log : file for everything that is printed.
        Raises JobError.
        """
        if not self._clone.exists():
            self._make_clone()
        log.parent.mkdir(parents=True, exist_ok=True)
        arguments = [word for override in overrides for word in ("--set-param", override)]
        with log.open("w", encoding="utf-8") as out:
            if not self._dvc(["exp", "run", "--name", name, *arguments], out, on_stage):
                raise JobError(cause(log.read_text(encoding="utf-8")))
        self._fetch()
        experiment = self.find(name)
        if experiment is None:
            raise JobError(f"DVC created no experiment named {name}")
        return experiment

    def _dvc(self, arguments: Sequence[str], out: IO[str], on_stage: Callable[[str], None]) -> bool:
        """Run DVC in the clone.  Returns whether it succeeded."""
        # The stages' `python` is the current one, whether or not its environment is activated.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        environment = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=self._clone,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            pass_fds=[self._lock.fileno()],  # DVC keeps the lock when this process is killed
            start_new_session=True,  # DVC does not pass signals on, so _stop signals the whole group
        ) as process:
            try:
                for line in process.stdout or ():
                    out.write(line)
                    out.flush()
                    if match := _RUNNING.match(line):
                        on_stage(match[1])
                return process.wait() == 0
            except BaseException:
                _stop(process)
                raise

    def _make_clone(self) -> None:
        from dvc.repo import Repo  # takes a second

        with Repo() as repo:
            cache = repo.cache.local_cache_dir
        identity = [f"user.{key}={value}" for key in ("name", "email") if (value := _git_config(f"user.{key}"))]
        options = [word for setting in identity for word in ("--config", setting)]
        _git("clone", "--quiet", "--shared", "--no-checkout", *options, ".", str(self._clone))
        # `git clone` shares no objects with a shallow repository, but no branch holds the uncommitted changes.
        objects = Path(_git("rev-parse", "--git-path", "objects")).resolve()
        (self._clone / ".git" / "objects" / "info" / "alternates").write_text(f"{objects}\n", encoding="utf-8")
        _git("checkout", "--quiet", "--detach", self._head, folder=self._clone)
        _git("read-tree", "-u", "--reset", self._content, folder=self._clone)
        if starting_point.is_present(CONF_DIR):  # git ignores it
            shutil.copytree(CONF_DIR / starting_point.FOLDER, self._clone / CONF_DIR / starting_point.FOLDER)
        (self._clone / ".dvc" / "config.local").write_text(f'[cache]\n    dir = "{cache}"\n', encoding="utf-8")

    def _fetch(self) -> None:
        """Fetch the clone's experiments into the repository."""
        experiments = _experiments(f"--git-dir={self._clone / '.git'}")
        if experiments:
            refspecs = [f"{experiment.reference}:{experiment.reference}" for experiment in experiments]
            _git("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--force", str(self._clone), *refspecs)


def _files_of_results(encoder: str) -> list[Path]:
    reports = ReportPaths()
    evaluation = reports.evaluation(encoder)
    return [evaluation.passport, evaluation.metrics, evaluation.intervals, reports.latency(encoder)]


def _stop(process: subprocess.Popen[str]) -> None:
    """Interrupt DVC and its stage; kill them when that takes too long, or at another Ctrl-C."""
    print("\nwaiting for the stage to stop", flush=True)
    with suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.communicate(timeout=_STOP_TIMEOUT_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            os.killpg(process.pid, signal.SIGKILL)


def cause(output: str) -> str:
    """The line of DVC's output that says why a run failed: the last line of the failed stage, or else DVC's own error.

    >>> cause("Running stage 'a':\\n> python ...\\nerror: no such file\\nERROR: failed to reproduce 'a': failed to run")
    'error: no such file'
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no output"]
    first_error = next((number for number, line in enumerate(lines) if line.startswith("ERROR:")), len(lines))
    in_stage = first_error == len(lines) or "failed to run" in lines[first_error]
    if in_stage and first_error > 0 and not lines[first_error - 1].startswith("> "):
        return lines[first_error - 1]
    return lines[min(first_error, len(lines) - 1)]


def fingerprint(*parts: str) -> str:
    """The first characters of a hash of all parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:FINGERPRINT_CHARACTERS]


def _experiments(*options: str) -> list[Experiment]:
    """The finished experiments of a repository, by default that of the working directory.  options : of git."""
    lines = _git(*options, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").splitlines()
    return [Experiment(*match.groups()) for line in lines if (match := _EXPERIMENT.fullmatch(line))]


def _git(*arguments: str, folder: Path | None = None) -> str:
    """Run git and return its output.  Raises ConfigError with git's message."""
    ended = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        messages = ended.stderr.strip().splitlines() or ["no message"]
        command = next(word for word in arguments if not word.startswith("-"))
        raise ConfigError(f"`git {command}` failed: {messages[-1]}")
    return ended.stdout.strip()


def _has_identity() -> bool:
    """Whether git has a name and an address for commits, in its settings or in the environment."""
    given = {
        key: [os.environ.get(f"GIT_{who}_{key.upper()}") for who in ("AUTHOR", "COMMITTER")]
        for key in ("name", "email")
    }
    return all(_git_config(f"user.{key}") or all(values) for key, values in given.items())


def _git_config(key: str) -> str:
    ended = subprocess.run(["git", "config", key], capture_output=True, text=True, check=False)
    return ended.stdout.strip()
