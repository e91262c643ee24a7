"""Sweeps: Hydra expands the overrides into jobs, and each job runs as a DVC experiment, one after another.

Hydra's basic sweeper (the product of all lists), or a sweeper plugin chosen with `hydra/sweeper=...`, passes batches of jobs to
the launcher in `conf/hydra_plugins/`, which calls `Sweep.run_batch`.
"""

import importlib
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
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

from cbir.artifacts.earlier_run import data_set_name
from cbir.compose import check_overrides, composed, explain, parse_overrides, register_schema
from cbir.core.device import check_device
from cbir.core.errors import ConfigError, DataError
from cbir.core.params import CONF_DIR
from cbir.core.text import nearest
from cbir.datasets.local_state import images_state, local_state
from cbir.datasets.prompt_sets import user_files
from cbir.fetching.addresses import local_path
from cbir.runs.experiments import (
    FINGERPRINT_CHARACTERS,
    FOLDER,
    ExperimentRunner,
    JobError,
    Results,
    fingerprint,
)

_PATHS = ("dataset.url", "queries.path", "queries.qrels")
_MAY_BE_PATHS = ("architecture", "weights", "tokenizer")  # of each encoder
_SLUG_CHARACTERS = 60


@dataclass(frozen=True)
class Job:
    """A job of a sweep.

    overrides : arguments of `dvc exp run --set-param`.  name : of the experiment; it ends in a fingerprint of parameters,
    code and local files, by which a finished job is recognised.  data_set, encoders : as people know them.
    """

    overrides: tuple[str, ...]
    name: str
    data_set: str = ""
    encoders: str = ""

    @property
    def settings(self) -> dict[str, str]:
        """key -> value, of each override."""
        return _settings(self.overrides)

    @property
    def command(self) -> str:
        """The command that runs this job alone."""
        return shlex.join(["cbir", "sweep", *self.overrides])


@dataclass
class Outcome:
    """The outcome of a job.

    results : None where the experiment failed, and `error` says why.  stages : those that DVC ran.
    seconds : None where the job had been finished before.
    """

    job: Job
    results: Results | None = None
    stages: list[str] = field(default_factory=list)
    seconds: float | None = None
    error: str | None = None


class Sweep:
    """Runs the jobs of one sweep and collects their outcomes.

    logs : folder for the output of each job.  objective : dotted key of the mean that a sweeper plugin optimises
    (see `cbir.artifacts.metrics.Metrics`).
    """

    def __init__(
        self, runner: ExperimentRunner, logs: Path, objective: str | None = None, conf_dir: Path = CONF_DIR
    ) -> None:
        self.outcomes: list[Outcome] = []
        self._runner, self._logs, self._objective, self._conf_dir = runner, logs, objective, conf_dir

    def run(self, overrides: Sequence[str]) -> None:
        """Expand the overrides into jobs and run them.

        Raises ConfigError in one line for the first job that cannot be composed, before any job runs.
        """
        parsed_overrides = parse_overrides(overrides)
        check_overrides([text for override in parsed_overrides for text in _values(override)], self._conf_dir)
        if self._objective is None and any(override.key_or_group == "hydra/sweeper" for override in parsed_overrides):
            raise ConfigError(
                "a sweeper plugin needs the value to optimise: add --objective cbir.NAME.map_at_r, with the name of an encoder"
            )
        _register(self._conf_dir)
        sweeper_folder = FOLDER / "hydra"  # a sweeper may write files
        sweeper_folder.mkdir(parents=True, exist_ok=True)
        hydra_overrides = ["hydra/launcher=cbir", f"hydra.sweep.dir={sweeper_folder}"]
        try:
            with initialize_config_dir(str(self._conf_dir.resolve()), version_base=None):
                hydra: Any = GlobalHydra.instance().hydra
            hydra.multirun("config", self.run_batch, [*overrides, *hydra_overrides], with_log_configuration=False)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(explain(error, overrides, self._conf_dir)) from error
        if not self.outcomes:
            raise ConfigError(
                f"{' '.join(overrides)} gives no job: its pattern matches no option, or its range is empty"
            )

    def run_batch(self, batch: Sequence[Sequence[str]]) -> list[float | None]:
        """Check all jobs of a batch, then run them one after another.

        Returns the objective of each job, None where the job failed or there is no objective.  Raises ConfigError as `run`
        does.
        """
        varied = varying([_settings(overrides) for overrides in batch])
        jobs = [self._job(overrides, varied) for overrides in batch]
        before = len(self.outcomes)
        if not before:
            print(f"sweep over {subject(jobs)}", flush=True)
        for number, job in enumerate(jobs, before + 1):
            total = f" of {before + len(jobs)}" if len(jobs) > 1 else ""
            print(f"job {number}{total}: {' '.join(_label(job.overrides, varied))}:", end=" ", flush=True)
            self.outcomes.append(self._run(job))
        return [self._value(outcome) for outcome in self.outcomes[before:]]

    def _job(self, overrides: Sequence[str], varied: Sequence[str]) -> Job:
        try:
            text = composed(overrides, self._conf_dir, from_recorded=True)
            values = yaml.safe_load(text)
            check_device(_at(values, "device.name"))
        except ConfigError as error:
            raise ConfigError(f"{error}; in the job {' '.join(overrides)}: nothing was run") from error
        names = _names(values)
        for name in names:
            path = local_path(name)
            if path is not None and path.exists() and not path.is_absolute() and not self._runner.has_file(path):
                raise ConfigError(f"{name}: expected an absolute path in a sweep, as {path.resolve()}; nothing was run")
        state = local_state(names)
        if _at(values, "queries.source") == "file":
            state |= images_state(_at(values, "queries.path"))
        inputs = fingerprint(text, self._runner.code(), repr(state))
        data_set = data_set_name(_at(values, "dataset.reader"), _at(values, "dataset.url"))
        return Job(
            tuple(overrides), f"{slug(_label(overrides, varied))}-{inputs}", data_set, ", ".join(values["encoders"])
        )

    def _run(self, job: Job) -> Outcome:
        finished = self._runner.find(job.name[-FINGERPRINT_CHARACTERS - 1 :])
        if finished is not None:
            with suppress(DataError):  # its files are no longer in the cache
                outcome = Outcome(replace(job, name=finished.name), self._runner.read(finished))
                where = "" if self._runner.is_of_head(finished) else ", at another commit: `dvc exp show -A` lists it"
                print(f"done before: {finished.name}{where}", flush=True)
                return outcome
        outcome, begun = Outcome(job), perf_counter()

        def on_stage(stage: str) -> None:
            outcome.stages.append(stage)
            print(stage, end=" ", flush=True)

        try:
            experiment = self._runner.run(job.name, job.overrides, self._logs / f"{job.name}.log", on_stage)
            outcome.results = self._runner.read(experiment)
        except (JobError, DataError) as error:
            outcome.error = str(error)
        outcome.seconds = perf_counter() - begun
        state = "failed" if outcome.error is not None else "done"
        print(f"... {state} in {outcome.seconds:.0f} s: {job.name}", flush=True)
        return outcome

    def _value(self, outcome: Outcome) -> float | None:
        if self._objective is None or outcome.results is None:
            return None
        metrics = outcome.results.metrics.to_json()
        value = _at(metrics, self._objective)
        if not isinstance(value, float | int):
            raise ConfigError(
                f"--objective: no number {self._objective} in metrics.json; {nearest(self._objective, _leaves(metrics))}"
            )
        return float(value)


def subject(jobs: Sequence[Job]) -> str:
    """The data set and the encoders of jobs, where they have them in common.

    >>> subject([Job((), "a", "shapes", "clip_demo"), Job((), "b", "shapes", "mobilenet_demo")])
    'shapes, with several choices of encoders'
    """
    data_sets, encoders = {job.data_set for job in jobs}, {job.encoders for job in jobs}
    of_data = data_sets.pop() if len(data_sets) == 1 else "several data sets"
    return f"{of_data}, with {encoders.pop() if len(encoders) == 1 else 'several choices of encoders'}"


def varying(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys that do not have the same value in all settings.

    >>> varying([{"index": "flat", "map": "standard"}, {"index": "hnsw", "map": "standard"}])
    ['index']
    """
    keys = dict.fromkeys(key for values in settings for key in values)
    return [key for key in keys if len({values.get(key) for values in settings}) > 1]


def readable(value: str) -> str:
    """An override's value without Hydra's escapes; a mapping as its innermost keys and values.

    >>> readable("{kind:hnsw,search:{ef_search:16}}"), readable("random\\\\:0")
    ('kind=hnsw ef_search=16', 'random:0')
    """
    if value.startswith("{"):
        return re.sub(r"\w+:\{|[{}]", "", value).replace(":", "=").replace(",", " ")
    return re.sub(r"\\(.)", r"\1", value)


def sweep_name(overrides: Sequence[str]) -> str:
    """The name of a sweep's files: its experiment of conf/ and the keys that vary, or else all overrides.

    >>> sweep_name(["index=flat,hnsw", "map=standard"]), sweep_name(["experiment=ann_pareto"]), sweep_name(["index=hnsw"])
    ('index', 'ann_pareto', 'index-hnsw')
    """
    experiments, varied = [], []
    for override in parse_overrides(overrides):
        if override.is_sweep_override():
            varied.append(override.key_or_group)
        elif override.key_or_group == "experiment":
            experiments.append(str(override.value()))
    return slug([*experiments, *varied] or overrides)


def slug(words: Sequence[str]) -> str:
    """Join words into a valid name for a file and an experiment.

    >>> slug(["index={kind:hnsw,search:{ef_search:16}}", "map=standard"])
    'index-kind-hnsw-search-ef_search-16-map-standard'
    """
    return re.sub(r"[^A-Za-z0-9_]+", "-", " ".join(words)).strip("-")[:_SLUG_CHARACTERS].strip("-") or "sweep"


def _values(override: Override) -> list[str]:
    """One override for each value of a list; empty for a range or pattern, which Hydra expands later.

    Raises ConfigError for a list that contains another sweep.
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
    return {key: value for key, _, value in (override.partition("=") for override in overrides)}


def _label(overrides: Sequence[str], varied: Sequence[str]) -> list[str]:
    """The settings that distinguish a job from the others; all settings where none varies."""
    settings = _settings(overrides)
    keys = [key for key in settings if key in varied] or settings
    return [f"{key}={readable(settings[key])}" for key in keys]


def _register(conf_dir: Path) -> None:
    """Register the schema of the parameters and the launcher with Hydra."""
    register_schema()
    sys.path.append(str(conf_dir.resolve()))
    try:
        launcher = importlib.import_module("hydra_plugins.cbir_launcher").BatchLauncher
    finally:
        sys.path.pop()
    Plugins.instance().register(launcher)


def _names(values: Mapping[str, Any]) -> list[str]:
    """The values that may be paths of this machine; the demo weights are not, they are part of the code."""
    names = [_at(values, key) for key in _PATHS]
    of_encoders = [encoder.get(key) for encoder in values["encoders"].values() for key in _MAY_BE_PATHS]
    names += [name for name in of_encoders if not str(name).startswith("demo:")]
    return [*(str(name) for name in names if name is not None), *user_files(_at(values, "queries.prompt_sets"))]


def _at(values: Any, key: str) -> Any:
    """The value of a dotted key; None where there is none."""
    for name in key.split("."):
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys of all values."""
    keys = []
    for name, value in values.items():
        keys += _leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [f"{prefix}{name}"]
    return keys
