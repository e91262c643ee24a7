"""`cbir sweep`: the jobs that Hydra makes of the overrides, each a DVC experiment of its own, one after another.

Hydra's own sweeper expands the overrides (the product of all lists; or any installed sweeper plugin, by
`hydra/sweeper=...`) and hands batches of jobs to the launcher in `conf/hydra_plugins/`, which calls `Sweep.run_batch`.
"""

import importlib
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override, ValueType
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from cbir.artifacts.names import ENCODERS
from cbir.compose import check_overrides, composed, explained, parsed, register_schema
from cbir.core.errors import ConfigError, DataError
from cbir.core.params import CONF_DIR, nearest
from cbir.datasets.local_state import images_state, local_state
from cbir.datasets.prompt_sets import user_files
from cbir.fetching.addresses import local_path
from cbir.runs.experiments import FINGERPRINT_CHARACTERS, FOLDER, Bench, JobError, fingerprint

RESULTS = ("metrics.json", "intervals.json", "latency.json")
_PATHS = ("dataset.url", "queries.path", "queries.qrels")
_MAY_BE_PATHS = tuple(f"{encoder}.{key}" for encoder in ENCODERS for key in ("architecture", "weights", "tokenizer"))
_SLUG_CHARACTERS = 60

Results = dict[str, dict[str, Any]]  # file of reports/ -> its content


@dataclass(frozen=True)
class Job:
    """overrides : as `dvc exp run --set-param` takes them.  name : of its experiment; ends in a fingerprint of parameters,
    code and local files, by which a job that is already done is known again.
    """

    overrides: tuple[str, ...]
    name: str

    @property
    def settings(self) -> dict[str, str]:
        """What each override sets."""
        return _settings(self.overrides)

    @property
    def command(self) -> str:
        """What runs this job alone."""
        return shlex.join(["cbir", "sweep", *self.overrides])


@dataclass
class Outcome:
    """results : what the experiment measured; None where it failed, and `error` says why.  stages : those that were run.
    seconds : None where the job was already done.
    """

    job: Job
    results: Results | None = None
    stages: list[str] = field(default_factory=list)
    seconds: float | None = None
    error: str | None = None


class Sweep:
    """Runs the jobs of one sweep on a bench, and keeps what came of them.

    logs : folder for what each job prints.  objective : the value of metrics.json that the sweeper optimises, where it does.
    """

    def __init__(self, bench: Bench, logs: Path, objective: str | None = None, conf_dir: Path = CONF_DIR) -> None:
        self.outcomes: list[Outcome] = []
        self._bench, self._logs, self._objective, self._conf_dir = bench, logs, objective, conf_dir

    def run(self, overrides: Sequence[str]) -> None:
        """Let Hydra's sweeper make jobs of the overrides, and run them.

        Raises ConfigError in one line for the first job that cannot be composed; nothing has been run then.
        """
        given = parsed(overrides)
        check_overrides([text for one in given for text in _values(one)], self._conf_dir)
        if self._objective is None and any(one.key_or_group == "hydra/sweeper" for one in given):
            raise ConfigError(
                "a sweeper of your choice needs the value to optimise: add --objective cbir.clip.map_at_r"
            )
        _register(self._conf_dir)
        notes = FOLDER / "hydra"  # for what a sweeper writes of its own accord
        notes.mkdir(parents=True, exist_ok=True)
        hydra_overrides = ["hydra/launcher=cbir", f"hydra.sweep.dir={notes}"]
        try:
            with initialize_config_dir(str(self._conf_dir.resolve()), version_base=None):
                hydra: Any = GlobalHydra.instance().hydra
            hydra.multirun("config", self.run_batch, [*overrides, *hydra_overrides], with_log_configuration=False)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(explained(error, overrides, self._conf_dir)) from error
        if not self.outcomes:
            raise ConfigError(
                f"no job came of {' '.join(overrides)}: its pattern fits no option, or its range is empty"
            )

    def run_batch(self, batch: Sequence[Sequence[str]]) -> list[float | None]:
        """Check every job of a batch, then run one after another; the objective of each, None where there is none.

        Raises ConfigError as `run` does.
        """
        varied = varying([_settings(overrides) for overrides in batch])
        jobs = [self._job(overrides, varied) for overrides in batch]
        before = len(self.outcomes)
        for number, job in enumerate(jobs, before + 1):
            of_all = f" of {before + len(jobs)}" if len(jobs) > 1 else ""
            print(f"job {number}{of_all}: {' '.join(_shown(job.overrides, varied))}:", end=" ", flush=True)
            self.outcomes.append(self._run(job))
        return [self._value(outcome) for outcome in self.outcomes[before:]]

    def _job(self, overrides: Sequence[str], varied: Sequence[str]) -> Job:
        try:
            text = composed(overrides, self._conf_dir)
        except ConfigError as error:
            raise ConfigError(f"{error}; in the job {' '.join(overrides)}: nothing was run") from error
        values = yaml.safe_load(text)
        names = _names(values)
        for name in names:
            path = local_path(name)
            if path is not None and path.exists() and not path.is_absolute() and not self._bench.holds(path):
                raise ConfigError(f"{name}: expected an absolute path in a sweep, as {path.resolve()}; nothing was run")
        state = local_state(names)
        if _at(values, "queries.source") == "file":
            state |= images_state(_at(values, "queries.path"))
        made_of = fingerprint(text, self._bench.code(), repr(state))
        return Job(tuple(overrides), f"{slug(_shown(overrides, varied))}-{made_of}")

    def _run(self, job: Job) -> Outcome:
        done = self._bench.find(job.name[-FINGERPRINT_CHARACTERS - 1 :])
        if done is not None:
            with suppress(DataError):  # else its files have left the cache
                outcome = Outcome(Job(job.overrides, done.name), self._bench.read(done, RESULTS))
                where = "" if self._bench.is_of_head(done) else ", at another commit: `dvc exp show -A` shows it"
                print(f"done before: {done.name}{where}", flush=True)
                return outcome
        outcome, begun = Outcome(job), perf_counter()

        def tell(stage: str) -> None:
            outcome.stages.append(stage)
            print(stage, end=" ", flush=True)

        try:
            experiment = self._bench.run(job.name, job.overrides, self._logs / f"{job.name}.log", tell)
            outcome.results = self._bench.read(experiment, RESULTS)
        except (JobError, DataError) as error:
            outcome.error = str(error)
        outcome.seconds = perf_counter() - begun
        how = "failed" if outcome.error is not None else "done"
        print(f"... {how} in {outcome.seconds:.0f} s: {job.name}", flush=True)
        return outcome

    def _value(self, outcome: Outcome) -> float | None:
        if self._objective is None or outcome.results is None:
            return None
        metrics = outcome.results["metrics.json"]
        value = _at(metrics, self._objective)
        if not isinstance(value, float | int):
            raise ConfigError(
                f"--objective: no number {self._objective} in metrics.json; {nearest(self._objective, _leaves(metrics))}"
            )
        return float(value)


def varying(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys that not all of them set to the same.

    >>> varying([{"index": "flat", "clip": "demo"}, {"index": "hnsw", "clip": "demo"}])
    ['index']
    """
    keys = dict.fromkeys(key for one in settings for key in one)
    return [key for key in keys if len({one.get(key) for one in settings}) > 1]


def plain(value: str) -> str:
    """The value of an override as people read it: without Hydra's escapes, and of a mapping its keys and values alone.

    >>> plain("{kind:hnsw,search:{ef_search:16}}"), plain("random\\\\:0")
    ('kind=hnsw ef_search=16', 'random:0')
    """
    if value.startswith("{"):
        return re.sub(r"\w+:\{|[{}]", "", value).replace(":", "=").replace(",", " ")
    return re.sub(r"\\(.)", r"\1", value)


def sweep_name(overrides: Sequence[str]) -> str:
    """The name of a sweep's files: the experiment of conf/ that it runs, and what it varies; or else all that is set.

    >>> sweep_name(["index=flat,hnsw", "clip=demo"]), sweep_name(["experiment=ann_pareto"]), sweep_name(["index=hnsw"])
    ('index', 'ann_pareto', 'index-hnsw')
    """
    given = parsed(overrides)
    named = [str(one.value()) for one in given if one.key_or_group == "experiment" and not one.is_sweep_override()]
    varied = [one.key_or_group for one in given if one.is_sweep_override()]
    return slug([*named, *varied] or overrides)


def slug(words: Sequence[str]) -> str:
    """The words as one that may be a file's and an experiment's name.

    >>> slug(["index={kind:hnsw,search:{ef_search:16}}", "clip=demo"])
    'index-kind-hnsw-search-ef_search-16-clip-demo'
    """
    return re.sub(r"[^A-Za-z0-9_]+", "-", " ".join(words)).strip("-")[:_SLUG_CHARACTERS].strip("-") or "sweep"


def _values(override: Override) -> list[str]:
    """The override once for each value of a list; nothing where Hydra has yet to find the values.

    Raises ConfigError for a list with more than values in it.
    """
    if override.is_choice_sweep() and override.value_type != ValueType.GLOB_CHOICE_SWEEP:
        try:
            return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        except OmegaConfBaseException as error:
            raise ConfigError(
                f"override '{override.input_line}': expected a list of values, found a range() or another sweep in it: "
                "write all values, as in 0,1,5"
            ) from error
    return [] if override.is_sweep_override() else [str(override.input_line)]


def _settings(overrides: Sequence[str]) -> dict[str, str]:
    return {key: value for key, _, value in (one.partition("=") for one in overrides)}


def _shown(overrides: Sequence[str], varied: Sequence[str]) -> list[str]:
    """What tells a job from the others, as people read it; all of it where there is nothing to tell it from."""
    settings = _settings(overrides)
    return [f"{key}={plain(settings[key])}" for key in settings if key in varied or settings.keys().isdisjoint(varied)]


def _register(conf_dir: Path) -> None:
    """Tell Hydra of the types of our parameters and of our launcher."""
    register_schema()
    sys.path.append(str(conf_dir.resolve()))
    try:
        launcher = importlib.import_module("hydra_plugins.cbir_launcher").BatchLauncher
    finally:
        sys.path.pop()
    Plugins.instance().register(launcher)


def _names(values: Mapping[str, Any]) -> list[str]:
    """What the parameters name that may lie on this machine; the demo weights do not, they are part of the code."""
    given = [_at(values, key) for key in _PATHS]
    given += [name for key in _MAY_BE_PATHS if (name := _at(values, key)) != "demo"]
    return [*(str(name) for name in given if name is not None), *user_files(_at(values, "queries.prompt_sets"))]


def _at(values: Any, key: str) -> Any:
    """The value of a dotted key; None where there is none."""
    for name in key.split("."):
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys of all values."""
    found = []
    for name, value in values.items():
        found += _leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [f"{prefix}{name}"]
    return found
