"""Sweeps without DVC: the jobs that Hydra makes of overrides, refusals before any job runs, and finished jobs."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cbir.artifacts.latency import Latency
from cbir.artifacts.metrics import Counts, Intervals, Metrics
from cbir.compose import composed
from cbir.core.errors import ConfigError, DataError
from cbir.runs.experiments import Experiment, JobError, Results
from cbir.runs.sweep import Outcome, Sweep, sweep_name
from tests.support.imports import ROOT
from tests.support.repository import copy_conf

CONF = Path("conf")  # a copy, in the working directory of each test


class FakeRunner:
    """Replaces ExperimentRunner: runs nothing, and records the jobs.  Jobs with `failing` in an override fail."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []
        self.finished: dict[str, Experiment] = {}
        self.present_code = "code"
        self.failing = "ivf_pq"
        self.missing: set[str] = set()  # revisions
        self.of_other_commits: set[str] = set()

    def code(self) -> str:
        return self.present_code

    def has_file(self, path: Path) -> bool:
        return (ROOT / path).exists() and path.parts[0] == "cbir"

    def is_of_head(self, experiment: Experiment) -> bool:
        return experiment.revision not in self.of_other_commits

    def find(self, suffix: str) -> Experiment | None:
        return next((experiment for name, experiment in self.finished.items() if name.endswith(suffix)), None)

    def run(self, name: str, overrides: Sequence[str], log: Path, on_stage: Callable[[str], None]) -> Experiment:
        self.ran.append(tuple(overrides))
        on_stage("scan")
        if any(self.failing in override for override in overrides):
            raise JobError("error: the job fails")
        self.finished[name] = Experiment(f"revision-{len(self.ran)}", "refs/exps/", name)
        return self.finished[name]

    def read(self, experiment: Experiment) -> Results:
        if experiment.revision in self.missing:
            raise DataError("not in the cache")
        return results_of(experiment.revision)


def results_of(revision: str) -> Results:
    """Results in which the revision can be recognised."""
    metrics = Metrics(
        data=Counts(gallery_images=1, queries=1, queries_without_relevant={}, duplicates={}, index_bytes={}),
        cbir={"clip": {"map_at_r": float(revision.rpartition("-")[2])}},
    )
    return Results(metrics, Intervals(), Latency({}, k=10, threads=1))


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRunner:
    monkeypatch.chdir(tmp_path)
    copy_conf(tmp_path)
    return FakeRunner()


def swept(runner: FakeRunner, *overrides: str) -> list[Outcome]:
    sweep = Sweep(runner, Path("logs"), conf_dir=CONF)  # type: ignore[arg-type]
    sweep.run(overrides)
    return sweep.outcomes


@pytest.mark.parametrize(
    ("overrides", "jobs"),
    [
        ("index=hnsw", ["index=hnsw"]),
        (
            "index=flat,hnsw encoders=[clip_demo],[mobilenet_demo,clip_vit_b_32]",
            [
                f"index={i} encoders={e}"
                for i in ("flat", "hnsw")
                for e in ("[clip_demo]", "[mobilenet_demo,clip_vit_b_32]")
            ],
        ),
        ("index=choice(flat,hnsw)", ["index=flat", "index=hnsw"]),
        ("index=glob(ivf*)", ["index=ivf_flat", "index=ivf_pq"]),
        (
            "index=ivf_flat index.search.nprobe=range(1,4)",
            [f"index=ivf_flat index.search.nprobe={n}" for n in (1, 2, 3)],
        ),
        ("evaluate.ks=[1],[1,5] index=hnsw", ["evaluate.ks=[1] index=hnsw", "evaluate.ks=[1,5] index=hnsw"]),
        ("index={kind:flat},{kind:sq8}", ["index={kind:flat}", "index={kind:sq8}"]),
    ],
)
def test_jobs_are_those_of_hydras_multirun(runner: FakeRunner, overrides: str, jobs: list[str]) -> None:
    outcomes = swept(runner, *overrides.split())
    assert [" ".join(outcome.job.overrides) for outcome in outcomes] == jobs
    assert len({outcome.job.name for outcome in outcomes}) == len(jobs)
    assert sorted(map(" ".join, runner.ran)) == sorted(jobs)


def test_the_first_line_names_data_set_and_encoders(runner: FakeRunner, capsys: pytest.CaptureFixture[str]) -> None:
    swept(runner, "index=flat,hnsw", "dataset=tiny_imagenet", "encoders=[clip_demo]")
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "sweep over tiny_imagenet http://cs231n.stanford.edu/tiny-imagenet-200.zip, with clip_demo"
    swept(runner, "encoders=[clip_demo],[mobilenet_demo]")
    assert capsys.readouterr().out.startswith("sweep over shapes, with several choices of encoders\n")


def test_an_experiment_of_conf_may_declare_a_sweep(runner: FakeRunner) -> None:
    outcomes = swept(runner, "experiment=ann_pareto", "encoders=[clip_vit_b_32]")
    assert len(outcomes) == 10
    assert {"experiment=ann_pareto", "encoders=[clip_vit_b_32]"} <= set(outcomes[0].job.overrides)
    for outcome in outcomes:
        assert "hydra" not in composed(outcome.job.overrides, CONF)
    assert "ef_search: 64" in composed(outcomes[7].job.overrides, CONF)
    assert outcomes[7].job.name.startswith("index-kind-hnsw-hnsw_m-32-ef_construction-200-ef_search-64-")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("index=flat,hsw", r"index has no option 'hsw'; nearest: hnsw \(files of "),
        ("index=flat,hnsw encoders=[clip_dmo]", "encoders has no option 'clip_dmo'; nearest: clip_demo"),
        ("encoders=[clip_demo],[clip_demo,clip_dmo]", "encoders has no option 'clip_dmo'; nearest: clip_demo"),
        ("index=flat,hnsw clip=demo", r"use 'encoders=\[mobilenet_demo,clip_demo\]'$"),
        ("index=flat,hnsw index.nprobe=1,2", r"unknown parameter 'index\.nprobe'; nearest: index\.search\.nprobe"),
        ("index=flat dataset.seed=1,x", r"dataset\.seed: Value 'x' of type 'str' could not be converted to Integer"),
        (
            "index=ivf_flat index.search.nprobe=4,0",
            r"index\.search\.nprobe: expected a number >= 1, found 0; in the job index=ivf_flat index\.search\.nprobe=0: "
            "nothing was run",
        ),
        ("index.search.nprobe=range(1,3)", r"index\.search\.nprobe applies to ivf_flat or ivf_pq, not to flat"),
        (
            "evaluate.run_depth=20,50 index=flat",
            r"evaluate\.run_depth: expected null, or at least .* 50, found 20; in the",
        ),
        (
            "device=cpu,mps",
            r"device\.name: expected auto or cpu on this machine, found mps: use device=auto; in the job",
        ),
        (
            "dataset=shapes,image_folder",
            r"dataset\.url has no value: .* in the job dataset=image_folder: nothing was run",
        ),
        ("index", "override 'index' is not key=value or group=option"),
        ("index=glob(zz*)", r"^index=glob\(zz\*\) gives no job: its pattern matches no option, or its range is empty$"),
        ("index.build.seed=range(0,2),5", r"range\(0,2\),5': expected a list of values, found a range\(\)"),
        ("index.build.seed=interval(1,2)", "BasicSweeper does not support sweep type : INTERVAL_SWEEP"),
        ("hydra/sweeper=none index=flat", "needs the value to optimise: add --objective"),
    ],
)
def test_one_bad_combination_is_refused_before_any_job_runs(
    runner: FakeRunner, overrides: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbir.core.device.gpus", list)
    with pytest.raises(ConfigError, match=message) as raised:
        swept(runner, *overrides.split())
    assert "\n" not in str(raised.value)
    assert runner.ran == []


def test_a_relative_path_is_refused_unless_experiments_have_the_file(runner: FakeRunner, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    own = ("dataset=image_folder", "index=flat,hnsw")
    with pytest.raises(
        ConfigError, match=rf"^photos: expected an absolute path in a sweep, as {tmp_path}/photos; nothing"
    ):
        swept(runner, *own, "dataset.url=photos")
    assert len(swept(runner, *own, f"dataset.url={tmp_path}/photos")) == 2
    (tmp_path / "cbir").symlink_to(ROOT / "cbir")
    assert len(swept(runner, "encoders.clip_demo.tokenizer=cbir/demo/weights/tokenizer.json")) == 1


def test_finished_jobs_are_recognised_by_parameters_code_and_files(runner: FakeRunner, tmp_path: Path) -> None:
    queries = tmp_path / "queries.csv"
    queries.write_text("query_id,task,image\nq1,cbir,mine.jpg\n")
    (tmp_path / "mine.jpg").write_text("")
    own = ("queries=file", f"queries.path={queries}")
    first = swept(runner, "index=flat,hnsw", *own)
    again = swept(runner, "index=ivf_flat,hnsw", *own)
    assert [outcome.seconds is None for outcome in again] == [False, True]
    assert (again[1].results, again[1].job.name) == (first[1].results, first[1].job.name)
    assert len(runner.ran) == 3
    swept(runner, "index=hnsw", "dataset.seed=0", *own)  # the same parameters in other words
    assert len(runner.ran) == 3
    (tmp_path / "mine.jpg").write_text("another")
    swept(runner, "index=hnsw", *own)
    queries.write_text("query_id,task,image\nq2,cbir,mine.jpg\n")
    swept(runner, "index=hnsw", *own)
    assert len(runner.ran) == 5
    runner.missing.add("revision-5")
    assert swept(runner, "index=hnsw", *own)[0].results == results_of("revision-6")
    runner.present_code = "other code"
    swept(runner, "index=hnsw", *own)
    assert len(runner.ran) == 7
    queries.write_text("query_id\nq1\n")
    with pytest.raises(DataError, match="'task' is missing"):
        swept(runner, "index=hnsw", *own)
    assert len(runner.ran) == 7


@pytest.mark.parametrize("folder", ["my photos", "a:b", "été, 2"])
@pytest.mark.parametrize("address", ['dataset.url="{}"', "dataset.url='file://{}'"])
def test_a_change_in_a_local_folder_repeats_the_job(
    runner: FakeRunner, tmp_path: Path, folder: str, address: str
) -> None:
    photos = tmp_path / folder
    photos.mkdir()
    overrides = ("dataset=image_folder", address.format(photos))
    for number in range(2):
        (photos / f"{number}.jpg").write_text("")
        assert [outcome.seconds is None for outcome in swept(runner, *overrides, "index=flat,hnsw")] == [False, False]
    assert swept(runner, *overrides)[0].job.settings["dataset"] == "image_folder"
    with pytest.raises(ConfigError, match=f"^{folder}: expected an absolute path in a sweep"):
        swept(runner, "dataset=image_folder", f'dataset.url="{folder}"')


def test_a_change_in_a_prompt_file_repeats_the_job(runner: FakeRunner, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    for template in ("a {}", "the {}"):
        prompts.write_text(template)
        assert swept(runner, f"queries.prompt_sets=[bare,{prompts}]")[0].seconds is not None
    with pytest.raises(ConfigError, match=r"^prompts\.txt: expected an absolute path in a sweep"):
        swept(runner, "queries.prompt_sets=[bare,prompts.txt]")


def test_local_folders_named_like_an_option_are_ignored(runner: FakeRunner, tmp_path: Path) -> None:
    for name in ("demo:clip", "demo:mobilenet", "demo", "clip_demo", "bare", "synonyms"):
        (tmp_path / name).mkdir()
    assert len(swept(runner, "encoders=[clip_demo,mobilenet_demo]", "index=flat")) == 1


def test_jobs_finished_at_another_commit_say_how_to_list_them(
    runner: FakeRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    swept(runner, "index=flat")
    runner.of_other_commits.add("revision-1")
    swept(runner, "index=flat")
    assert re.search(
        r"done before: index-flat-\w+, at another commit: `dvc exp show -A` lists it$", capsys.readouterr().out
    )


def test_a_failed_job_does_not_stop_the_others(runner: FakeRunner, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = swept(runner, "index=flat,ivf_pq,hnsw")
    assert [outcome.error for outcome in outcomes] == [None, "error: the job fails", None]
    assert outcomes[1].job.command == "cbir sweep index=ivf_pq"
    printed = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"job 1 of 3: index=flat: scan \.\.\. done in 0 s: index-flat-[0-9a-f]{8}", printed[1])
    assert re.fullmatch(r"job 2 of 3: index=ivf_pq: scan \.\.\. failed in 0 s: index-ivf_pq-[0-9a-f]{8}", printed[2])


def test_an_unknown_objective_is_refused(runner: FakeRunner) -> None:
    sweep = Sweep(runner, Path("logs"), "cbir.clip.map_at_k", CONF)  # type: ignore[arg-type]
    with pytest.raises(
        ConfigError,
        match=r"^--objective: no number cbir\.clip\.map_at_k in metrics\.json; nearest: cbir\.clip\.map_at_r$",
    ):
        sweep.run(["index=flat,hnsw"])
    assert len(sweep.outcomes) == 2


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("index=flat,hnsw encoders=[clip_demo]", "index"),
        ("index=flat,hnsw encoders=[clip_demo],[clip_vit_b_32]", "index-encoders"),
        ("experiment=ann_pareto", "ann_pareto"),
        ("experiment=ann_pareto encoders=[mobilenet_demo],[mobilenet_v3_large]", "ann_pareto-encoders"),
        ("index=hnsw dataset.url=/my/photos", "index-hnsw-dataset-url-my-photos"),
    ],
)
def test_files_are_named_after_what_varies(overrides: str, name: str) -> None:
    assert sweep_name(overrides.split()) == name
