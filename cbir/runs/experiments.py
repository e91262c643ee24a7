"""DVC experiments, one after another, in a clone of the repository, so that no file of the user's is touched.

`dvc exp run --temp` and `--queue` prepare every experiment in the user's own folder: for more than a second HEAD is detached
and the changes lie in a stash, and a kill leaves it so (DVC 3.67, tried).  The clone lies in `.dvc/tmp`, holds HEAD and the
uncommitted changes, and works on the user's DVC cache: outputs are links into it, finished stages come from its run cache,
and a finished experiment is fetched back under its name, as if it had been run in the repository itself.
"""

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from cbir.core.errors import ConfigError
from cbir.core.files import read_json
from cbir.runs.compare import copy_files

FOLDER = Path(".dvc/tmp/sweep")
_NEEDED = ("conf", "cbir", "stages", "dvc.yaml")
# no result depends on these; what conf/ composes to is looked at apart
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
_PATIENCE_S = 30


class Experiment(NamedTuple):
    """A finished experiment of DVC's."""

    revision: str
    reference: str
    name: str


class JobError(Exception):
    """An experiment failed; the message is the last line of what it said."""


class Bench:
    """The repository in the working directory, in which one sweep at a time runs its experiments.

    changed : the files with uncommitted changes that the experiments take along, without what every run writes anew.
    Raises ConfigError where a sweep cannot start.
    """

    def __enter__(self) -> Self:
        if not Path(".dvc").is_dir():
            raise ConfigError(".dvc/ is not here: run this in the repository's root")
        FOLDER.mkdir(parents=True, exist_ok=True)
        self._clone = FOLDER / "clone"
        self._lock = (FOLDER / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._look()
        except BlockingIOError:
            self._lock.close()
            raise ConfigError(
                "another sweep runs in this repository, or the last job of one that was killed: wait until it has ended"
            ) from None
        except BaseException:
            self._lock.close()
            raise
        return self

    def _look(self) -> None:
        if self._clone.exists():  # of a sweep that was killed: its last job may have come to its end
            with suppress(ConfigError):  # or the clone itself was not finished
                self._fetch()
            shutil.rmtree(self._clone)
        try:
            self._head = _git("rev-parse", "--verify", "--quiet", "HEAD")
        except ConfigError:
            raise ConfigError("experiments need a commit to start from: `git add . && git commit`") from None
        if below := _git("rev-parse", "--show-prefix"):
            raise ConfigError(
                f"expected .dvc/ and .git/ in one folder, found .dvc/ in the folder {below} of a git repository, of which a "
                "sweep makes no clone: `dvc exp run -S ...` runs one job there"
            )
        unknown = _git("ls-files", "--others", "--exclude-standard", "--", *_NEEDED).splitlines()
        if unknown:
            raise ConfigError(
                f"{unknown[0]} is not known to git, so no experiment would see it: `git add {unknown[0]}` (no commit needed)"
            )
        named = _git("diff", "--name-only", "--diff-filter=A").splitlines()
        if named:
            raise ConfigError(
                f"git knows {named[0]} by its name alone (`git add -N`), so no experiment would see it: `git add {named[0]}` "
                "(no commit needed)"
            )
        # a commit of what `git stash` would put away, without putting it away; nothing where there is nothing
        self._content = _git("stash", "create") or self._head
        self.changed = _git("diff", "--name-only", "HEAD", "--", ".", *_GENERATED).splitlines()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        shutil.rmtree(self._clone, ignore_errors=True)
        self._lock.close()

    def code(self) -> str:
        """What git calls the present content of the code, and of whatever else a result may depend on."""
        listed = _git("ls-tree", self._content).splitlines()
        return "\n".join(line for line in listed if line.partition("\t")[2] not in _WITHOUT_EFFECT)

    def holds(self, path: Path) -> bool:
        """Whether the experiments will find a relative path: that of a file, for git may know but a part of a folder."""
        return not path.is_dir() and bool(_git("ls-tree", self._content, "--", str(path)))

    def find(self, suffix: str) -> Experiment | None:
        """A finished experiment whose name ends so: HEAD's, or else of whichever commit."""
        found = [one for one in _experiments() if one.name.endswith(suffix)]
        return max(found, key=self.is_of_head, default=None)

    def is_of_head(self, experiment: Experiment) -> bool:
        """Whether it started from the present commit, so that `dvc exp show` lists it."""
        return experiment.reference == f"refs/exps/{self._head[:2]}/{self._head[2:]}/{experiment.name}"

    def read(self, experiment: Experiment, files: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The JSON files of its reports/.  Raises DataError when they are not at hand."""
        with tempfile.TemporaryDirectory() as copies:
            copy_files(experiment.revision, [f"reports/{file}" for file in files], Path(copies))
            return {file: read_json(Path(copies) / "reports" / file) for file in files}

    def run(self, name: str, overrides: Sequence[str], log: Path, on_stage: Callable[[str], None]) -> Experiment:
        """Run one experiment; `on_stage` is told each stage that DVC really runs.

        log : where everything that is printed goes.  Raises JobError.
        """
        if not self._clone.exists():
            self._make_clone()
        log.parent.mkdir(parents=True, exist_ok=True)
        arguments = [word for override in overrides for word in ("--set-param", override)]
        with log.open("w", encoding="utf-8") as out:
            if not self._dvc(["exp", "run", "--name", name, *arguments], out, on_stage):
                raise JobError(last_words(log.read_text(encoding="utf-8")))
        self._fetch()
        found = self.find(name)
        if found is None:
            raise JobError(f"DVC left no experiment of the name {name}")
        return found

    def _dvc(self, arguments: Sequence[str], out: IO[str], on_line: Callable[[str], None]) -> bool:
        """Run DVC in the clone; whether it ended well."""
        # the stages' `python` is this one, whether or not its environment is activated
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
            pass_fds=[self._lock.fileno()],  # were we killed, the lock would last as long as DVC
            start_new_session=True,  # a signal to us alone would not reach the stage, and DVC passes none on
        ) as process:
            try:
                for line in process.stdout or ():
                    out.write(line)
                    out.flush()
                    if found := _RUNNING.match(line):
                        on_line(found[1])
                return process.wait() == 0
            except BaseException:
                _stop(process)
                raise

    def _make_clone(self) -> None:
        from dvc.repo import Repo  # takes a second

        with Repo() as repo:
            cache = repo.cache.local_cache_dir
        identity = [f"user.{key}={value}" for key in ("name", "email") if (value := _git_config(f"user.{key}"))]
        options = [word for value in identity for word in ("--config", value)]
        _git("clone", "--quiet", "--shared", "--no-checkout", *options, ".", str(self._clone))
        # git shares no objects with a shallow clone, but here they must be: no branch holds the uncommitted changes
        objects = Path(_git("rev-parse", "--git-path", "objects")).resolve()
        (self._clone / ".git" / "objects" / "info" / "alternates").write_text(f"{objects}\n", encoding="utf-8")
        _git("checkout", "--quiet", "--detach", self._head, folder=self._clone)
        _git("read-tree", "-u", "--reset", self._content, folder=self._clone)
        (self._clone / ".dvc" / "config.local").write_text(f'[cache]\n    dir = "{cache}"\n', encoding="utf-8")

    def _fetch(self) -> None:
        """Bring the clone's experiments here."""
        references = [f"{one.reference}:{one.reference}" for one in _experiments(f"--git-dir={self._clone / '.git'}")]
        if references:
            _git("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--force", str(self._clone), *references)


def _stop(process: subprocess.Popen[str]) -> None:
    """Interrupt DVC and its stage; kill them where that takes too long, or at another Ctrl-C."""
    print("\nwaiting for the stage to stop", flush=True)
    with suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.communicate(timeout=_PATIENCE_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            os.killpg(process.pid, signal.SIGKILL)


def last_words(output: str) -> str:
    """Why a run failed: the last line of the stage that failed, or what DVC said where it was not a stage.

    >>> last_words("Running stage 'a':\\n> python ...\\nerror: no such file\\nERROR: failed to reproduce 'a': failed to run")
    'error: no such file'
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["it said nothing"]
    told = next((number for number, line in enumerate(lines) if line.startswith("ERROR:")), len(lines))
    by_stage = told == len(lines) or "failed to run" in lines[told]
    if by_stage and told > 0 and not lines[told - 1].startswith("> "):
        return lines[told - 1]
    return lines[min(told, len(lines) - 1)]


def fingerprint(*parts: str) -> str:
    """A few characters that stand for these texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:FINGERPRINT_CHARACTERS]


def _experiments(*where: str) -> list[Experiment]:
    """The finished experiments of a repository, by default of the one in the working directory."""
    listed = _git(*where, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps")
    found = (_EXPERIMENT.fullmatch(line) for line in listed.splitlines())
    return [Experiment(*one.groups()) for one in found if one]


def _git(*arguments: str, folder: Path | None = None) -> str:
    """The output of git.  Raises ConfigError with what it said."""
    ended = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        said = ended.stderr.strip().splitlines()
        command = next(word for word in arguments if not word.startswith("-"))
        raise ConfigError(f"`git {command}` failed: {said[-1] if said else 'it said nothing'}")
    return ended.stdout.strip()


def _git_config(key: str) -> str:
    ended = subprocess.run(["git", "config", key], capture_output=True, text=True, check=False)
    return ended.stdout.strip()
