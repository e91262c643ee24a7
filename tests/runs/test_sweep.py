"""`cbir sweep`: what Hydra makes of the overrides, refusals before anything runs, the table; and real sweeps by DVC in small
repositories: a job that fails, a kill, a repeat that runs nothing again.
"""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cbir.cli.sweep import check_writable
from cbir.compose import composed
from cbir.core.errors import ConfigError, DataError
from cbir.runs.experiments import Bench, Experiment, JobError
from cbir.runs.sweep import RESULTS, Job, Outcome, Results, Sweep, sweep_name
from cbir.runs.sweep_table import (
    METRICS,
    SweepRow,
    SweepTable,
    as_csv,
    as_markdown,
    check_metrics,
    print_table,
    tabulate,
)
from tests.support.imports import ROOT
from tests.support.repository import TINY, copy_working_tree

CONF = ROOT / "conf"

# ---- what Hydra makes of the overrides


class NoBench:
    """Stands for the repository: runs nothing, remembers what it was asked to run; jobs with `failing` in them fail."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []
        self.finished: dict[str, Experiment] = {}
        self.its_code = "code"
        self.failing = "ivf_pq"
        self.gone: set[str] = set()
        self.elsewhere: set[str] = set()

    def code(self) -> str:
        return self.its_code

    def holds(self, path: Path) -> bool:
        return (ROOT / path).exists() and path.parts[0] == "cbir"

    def is_of_head(self, experiment: Experiment) -> bool:
        return experiment.revision not in self.elsewhere

    def find(self, suffix: str) -> Experiment | None:
        return next((one for name, one in self.finished.items() if name.endswith(suffix)), None)

    def run(self, name: str, overrides: Sequence[str], log: Path, on_stage: Callable[[str], None]) -> Experiment:
        self.ran.append(tuple(overrides))
        on_stage("scan")
        if any(self.failing in one for one in overrides):
            raise JobError("error: it is not to be")
        self.finished[name] = Experiment(f"revision-{len(self.ran)}", "refs/exps/", name)
        return self.finished[name]

    def read(self, experiment: Experiment, files: Sequence[str]) -> Results:
        if experiment.revision in self.gone:
            raise DataError("not in the cache")
        return {file: {"revision": experiment.revision} for file in files}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> NoBench:
    monkeypatch.chdir(tmp_path)
    return NoBench()


def swept(bench: NoBench, *overrides: str) -> list[Outcome]:
    sweep = Sweep(bench, Path("logs"), conf_dir=CONF)  # type: ignore[arg-type]
    sweep.run(overrides)
    return sweep.outcomes


@pytest.mark.parametrize(
    ("overrides", "jobs"),
    [
        ("index=hnsw", ["index=hnsw"]),
        (
            "index=flat,hnsw clip=demo,vit_b_32",
            [f"index={i} clip={c}" for i in ("flat", "hnsw") for c in ("demo", "vit_b_32")],
        ),
        ("index=choice(flat,hnsw)", ["index=flat", "index=hnsw"]),
        ("index=glob(ivf*)", ["index=ivf_flat", "index=ivf_pq"]),
        ("index.search.nprobe=range(1,4)", [f"index.search.nprobe={n}" for n in (1, 2, 3)]),
        ("evaluate.ks=[1],[1,5] index=hnsw", ["evaluate.ks=[1] index=hnsw", "evaluate.ks=[1,5] index=hnsw"]),
        ("index={kind:flat},{kind:sq8}", ["index={kind:flat}", "index={kind:sq8}"]),
    ],
)
def test_the_jobs_are_those_of_hydras_multirun(bench: NoBench, overrides: str, jobs: list[str]) -> None:
    outcomes = swept(bench, *overrides.split())
    assert [" ".join(outcome.job.overrides) for outcome in outcomes] == jobs
    assert len({outcome.job.name for outcome in outcomes}) == len(jobs)
    assert sorted(map(" ".join, bench.ran)) == sorted(jobs)


def test_an_experiment_of_conf_may_declare_a_sweep(bench: NoBench) -> None:
    outcomes = swept(bench, "experiment=ann_pareto", "clip=vit_b_32")
    assert len(outcomes) == 10
    assert {"experiment=ann_pareto", "clip=vit_b_32"} <= set(outcomes[0].job.overrides)
    for outcome in outcomes:
        assert "hydra" not in composed(outcome.job.overrides, CONF)
    assert "ef_search: 64" in composed(outcomes[7].job.overrides, CONF)
    assert outcomes[7].job.name.startswith("index-kind-hnsw-hnsw_m-32-ef_construction-200-ef_search-64-")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("index=flat,hsw", r"index has no option 'hsw'; nearest: hnsw \(files of "),
        ("index=flat,hnsw clip=dmo", "clip has no option 'dmo'; nearest: demo"),
        ("index=flat,hnsw index.nprobe=1,2", r"unknown parameter 'index\.nprobe'; nearest: index\.search\.nprobe"),
        ("index=flat dataset.seed=1,x", r"dataset\.seed: Value 'x' of type 'str' could not be converted to Integer"),
        (
            "index=ivf_flat index.search.nprobe=4,0",
            r"index\.search\.nprobe: expected a number >= 1, found 0; in the job index=ivf_flat index\.search\.nprobe=0: "
            "nothing was run",
        ),
        (
            "dataset=shapes,image_folder",
            r"dataset\.url has no value: .* in the job dataset=image_folder: nothing was run",
        ),
        ("index", "override 'index' is not key=value or group=option"),
        ("index=glob(zz*)", r"^no job came of index=glob\(zz\*\): its pattern fits no option, or its range is empty$"),
        ("index.build.seed=range(0,2),5", r"range\(0,2\),5': expected a list of values, found a range\(\)"),
        ("index.build.seed=interval(1,2)", "BasicSweeper does not support sweep type : INTERVAL_SWEEP"),
        ("hydra/sweeper=none index=flat", "needs the value to optimise: add --objective"),
    ],
)
def test_one_bad_combination_is_told_in_one_line_and_nothing_runs(bench: NoBench, overrides: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        swept(bench, *overrides.split())
    assert "\n" not in str(raised.value)
    assert bench.ran == []


def test_a_relative_path_is_refused_unless_the_experiments_will_find_it(bench: NoBench, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    own = ("dataset=image_folder", "index=flat,hnsw")
    with pytest.raises(
        ConfigError, match=rf"^photos: expected an absolute path in a sweep, as {tmp_path}/photos; nothing"
    ):
        swept(bench, *own, "dataset.url=photos")
    assert len(swept(bench, *own, f"dataset.url={tmp_path}/photos")) == 2
    (tmp_path / "cbir").symlink_to(ROOT / "cbir")
    assert len(swept(bench, "clip.tokenizer=cbir/demo/weights/tokenizer.json")) == 1


def test_a_job_that_is_done_is_known_by_its_parameters_code_and_files(bench: NoBench, tmp_path: Path) -> None:
    asked = tmp_path / "asked.csv"
    asked.write_text("query_id,task,image\nq1,cbir,mine.jpg\n")
    (tmp_path / "mine.jpg").write_text("")
    own = ("queries=file", f"queries.path={asked}")
    first = swept(bench, "index=flat,hnsw", *own)
    again = swept(bench, "index=ivf_flat,hnsw", *own)
    assert [outcome.seconds is None for outcome in again] == [False, True]
    assert (again[1].results, again[1].job.name) == (first[1].results, first[1].job.name)
    assert len(bench.ran) == 3
    swept(bench, "index=hnsw", "dataset.seed=0", *own)  # the same parameters in other words
    assert len(bench.ran) == 3
    (tmp_path / "mine.jpg").write_text("another")
    swept(bench, "index=hnsw", *own)
    asked.write_text("query_id,task,image\nq2,cbir,mine.jpg\n")
    swept(bench, "index=hnsw", *own)
    assert len(bench.ran) == 5
    bench.gone.add("revision-5")
    assert swept(bench, "index=hnsw", *own)[0].results == {file: {"revision": "revision-6"} for file in RESULTS}
    bench.its_code = "other code"
    swept(bench, "index=hnsw", *own)
    assert len(bench.ran) == 7
    asked.write_text("query_id\nq1\n")
    with pytest.raises(DataError, match="'task' is missing"):
        swept(bench, "index=hnsw", *own)
    assert len(bench.ran) == 7


@pytest.mark.parametrize("folder", ["my photos", "a:b", "été, 2"])
@pytest.mark.parametrize("address", ['dataset.url="{}"', "dataset.url='file://{}'"])
def test_a_change_below_any_path_is_seen(bench: NoBench, tmp_path: Path, folder: str, address: str) -> None:
    photos = tmp_path / folder
    photos.mkdir()
    overrides = ("dataset=image_folder", address.format(photos))
    for number in range(2):
        (photos / f"{number}.jpg").write_text("")
        assert [outcome.seconds is None for outcome in swept(bench, *overrides, "index=flat,hnsw")] == [False, False]
    assert swept(bench, *overrides)[0].job.settings["dataset"] == "image_folder"
    with pytest.raises(ConfigError, match=f"^{folder}: expected an absolute path in a sweep"):
        swept(bench, "dataset=image_folder", f'dataset.url="{folder}"')


def test_a_change_in_a_file_of_prompts_is_seen(bench: NoBench, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    for template in ("a {}", "the {}"):
        prompts.write_text(template)
        assert swept(bench, f"queries.prompt_sets=[bare,{prompts}]")[0].seconds is not None
    with pytest.raises(ConfigError, match=r"^prompts\.txt: expected an absolute path in a sweep"):
        swept(bench, "queries.prompt_sets=[bare,prompts.txt]")


def test_what_lies_there_under_the_name_of_a_part_of_ours_is_not_meant(bench: NoBench, tmp_path: Path) -> None:
    for name in ("demo", "bare", "synonyms"):
        (tmp_path / name).mkdir()
    assert len(swept(bench, "clip=demo", "index=flat")) == 1


def test_a_job_that_is_done_at_another_commit_says_where_it_is_shown(
    bench: NoBench, capsys: pytest.CaptureFixture[str]
) -> None:
    swept(bench, "index=flat")
    bench.elsewhere.add("revision-1")
    swept(bench, "index=flat")
    assert re.search(
        r"done before: index-flat-\w+, at another commit: `dvc exp show -A` shows it$", capsys.readouterr().out
    )


def test_a_failed_job_is_kept_and_the_others_run(bench: NoBench, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = swept(bench, "index=flat,ivf_pq,hnsw")
    assert [outcome.error for outcome in outcomes] == [None, "error: it is not to be", None]
    assert outcomes[1].job.command == "cbir sweep index=ivf_pq"
    printed = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"job 1 of 3: index=flat: scan \.\.\. done in 0 s: index-flat-[0-9a-f]{8}", printed[0])
    assert re.fullmatch(r"job 2 of 3: index=ivf_pq: scan \.\.\. failed in 0 s: index-ivf_pq-[0-9a-f]{8}", printed[1])


def test_an_objective_that_was_not_measured_is_told(bench: NoBench) -> None:
    sweep = Sweep(bench, Path("logs"), "revisio", CONF)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^--objective: no number revisio in metrics\.json; nearest: revision$"):
        sweep.run(["index=flat,hnsw"])
    assert len(sweep.outcomes) == 2


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("index=flat,hnsw clip=demo", "index"),
        ("index=flat,hnsw clip=demo,vit_b_32", "index-clip"),
        ("experiment=ann_pareto", "ann_pareto"),
        ("experiment=ann_pareto mobilenet=demo,large", "ann_pareto-mobilenet"),
        ("index=hnsw dataset.url=/my/photos", "index-hnsw-dataset-url-my-photos"),
    ],
)
def test_the_files_are_named_by_what_varies(overrides: str, name: str) -> None:
    assert sweep_name(overrides.split()) == name


# ---- the table


def results(precision: float, recall: float, p50: float, index_bytes: int, **changes: Any) -> Results:
    """Of one encoder and one task."""
    metrics = {"precision@10": precision, "map_at_r": 0.5, "mrr": 0.9}
    indexed = {"precision@10": precision, "ann_recall@10": recall, "ann_recall@50": 0.0}
    found: Results = {
        "metrics.json": {
            "cbir": {"mobilenet": metrics},
            "tbir": {},
            "ann": {"mobilenet": {"image": indexed}},
            "data": {"gallery_images": 100, "index_bytes": {"mobilenet": index_bytes}},
        },
        "intervals.json": {
            "cbir": {"mobilenet": {"precision@10": [precision - 0.1, precision + 0.1]}},
            "tbir": {},
            "ann": {"mobilenet": {"image": {"ann_recall@10": [recall, 1.0]}}},
        },
        "latency.json": {"encoders": {"mobilenet": {"image": {"index": {"single_ms": {"p50": p50}}}}}},
    }
    return {**found, **changes}


def table_of(found: dict[str, Results], overrides: dict[str, str] | None = None) -> SweepTable:
    """`found` by index; `overrides` by index where there is more."""
    outcomes = [
        Outcome(
            Job((f"index={name}", "clip=demo", *(overrides or {}).get(name, "").split()), f"index-{name}-1"),
            found[name],
        )
        for name in found
    ]
    return tabulate(outcomes, METRICS)


@pytest.fixture
def three() -> SweepTable:
    return table_of(
        {
            "flat": results(0.8, 1.0, 0.3, 800),
            "hnsw": results(0.7, 0.9, 0.1, 900),
            "sq8": results(0.8004, 0.9, 0.2, 200),
        }
    )


def test_a_metric_that_no_job_has_is_named() -> None:
    outcomes = [Outcome(Job(("index=flat",), "a"), results(0.5, 1.0, 0.1, 100)), Outcome(Job(("index=hnsw",), "b"))]
    check_metrics(outcomes, ["mrr", "precision@10"])
    with pytest.raises(ConfigError, match=r"^--metrics: no job has precison@10; nearest: precision@10; the jobs stand"):
        check_metrics(outcomes, ["mrr", "precison@10"])


@pytest.mark.parametrize(
    ("blocked", "message"),
    [
        ("sweeps", r"^sweeps: expected a folder to write the table into: File exists; move it away"),
        ("sweeps/index", r"^sweeps: expected a folder .*, found a file at sweeps/index: move it away, or .* --name$"),
        ("sweeps/index.md/", r"^sweeps: expected a folder .*, found a folder at sweeps/index\.md: move it away"),
    ],
)
def test_a_table_that_cannot_be_written_is_told_before_the_first_job(
    blocked: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(blocked)
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if blocked.endswith("/") else path.write_text("")
    with pytest.raises(ConfigError, match=message):
        check_writable(Path("sweeps/index"))


def test_a_line_holds_what_the_experiment_measured(three: SweepTable) -> None:
    assert three.shared == {"clip": "demo"}
    assert three.keys == ["index"]
    assert three.columns == ["precision@10", "map_at_r", "ann_recall@10", "p50 ms", "bytes a vector"]
    line = three.lines[1]
    assert (line.number, line.place, line.settings) == (2, ("cbir", "mobilenet"), {"index": "hnsw"})
    assert line.figures["precision@10"] == (0.7, [0.6, pytest.approx(0.8)])
    assert line.figures["ann_recall@10"] == (0.9, [0.9, 1.0])
    assert [line.figures[name].value for name in ("p50 ms", "bytes a vector")] == [0.1, 9.0]


def test_the_best_is_the_highest_the_fastest_and_the_smallest_as_shown(three: SweepTable) -> None:
    best = {name: [line.settings["index"] for line in three.lines if name in line.best] for name in three.columns}
    assert best == {
        "precision@10": ["flat", "sq8"],  # equal in the decimals that are shown
        "map_at_r": [],  # all are equal
        "ann_recall@10": ["flat"],
        "p50 ms": ["hnsw"],
        "bytes a vector": ["sq8"],
    }


def test_the_front_holds_whom_no_other_job_beats_in_both(three: SweepTable) -> None:
    assert {line.settings["index"]: line.front for line in three.lines} == {"flat": True, "hnsw": True, "sq8": False}


def test_where_encoders_differ_there_is_no_front() -> None:
    found = {"flat": results(0.8, 1.0, 0.3, 800), "hnsw": results(0.7, 0.9, 0.1, 900)}
    table = table_of(found, {"hnsw": "mobilenet=small"})
    assert table.keys == ["index", "mobilenet"]
    assert [line.settings["mobilenet"] for line in table.lines] == ["", "small"]
    assert {line.front for line in table.lines} == {None}
    assert "front" not in as_markdown(table) + as_csv(table)


def test_a_failed_job_and_a_task_that_was_not_asked_leave_no_line() -> None:
    texts = results(0.5, 1.0, 0.1, 100)
    texts["metrics.json"]["tbir"] = {"mobilenet": {"precision@10": 0.5}}
    texts["metrics.json"]["ann"]["mobilenet"]["text"] = {"ann_recall@10": 1.0}
    texts["intervals.json"]["tbir"] = {"mobilenet": {}}
    texts["intervals.json"]["ann"]["mobilenet"]["text"] = {}
    outcomes = [
        Outcome(Job(("index=flat",), "a"), results(0.5, 1.0, 0.1, 100)),
        Outcome(Job(("index=hnsw",), "b"), error="error: no"),
        Outcome(Job(("index=sq8",), "c"), texts),
    ]
    table = tabulate(outcomes, METRICS)
    assert [(line.number, line.place.task) for line in table.lines] == [(1, "cbir"), (3, "cbir"), (3, "tbir")]
    assert table.lines[2].figures["p50 ms"].value is None
    assert "| tbir mobilenet | 3 | sq8 | 0.500 | - | 1.000 | - | 1 |" in as_markdown(table)


def test_the_terminal_shows_intervals_below_and_stars_the_best(three: SweepTable) -> None:
    console = Console(width=140, record=True, force_terminal=False, file=io.StringIO())
    print_table(three, console)
    text = console.export_text()
    assert "sweep clip=demo" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["cbir", "mobilenet", "1", "flat", "0.800*", "0.500", "1.000*", "0.300", "8", "front"] in lines
    assert ["[0.700,", "0.900]", "[1.000,", "1.000]"] in lines
    assert "`cbir compare` tells" in text


def test_markdown_has_the_best_in_bold_and_escapes_settings(three: SweepTable) -> None:
    assert "| cbir mobilenet | 1 | flat | **0.800** [0.700, 0.900] | 0.500 |" in as_markdown(three)
    hostile = SweepRow(1, "x", three.lines[0].place, {"index": "<b>|x"}, three.lines[0].figures)
    page = as_markdown(SweepTable({}, ["index"], three.columns, [hostile]))
    assert "\\<b\\>\\|x" in page
    assert "<b>" not in page


def test_csv_holds_plain_figures_and_their_bounds(three: SweepTable) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(three))))
    assert [row["experiment"] for row in rows] == ["index-flat-1", "index-hnsw-1", "index-sq8-1"]
    assert (rows[2]["index"], float(rows[2]["precision@10"]), rows[2]["front"]) == ("sq8", 0.8004, "0")
    assert float(rows[1]["precision@10 low"]) == pytest.approx(0.6)


def test_csv_tells_the_setting_experiment_from_the_experiments_name(three: SweepTable) -> None:
    line = SweepRow(1, "its-name", three.lines[0].place, {"experiment": "ann_pareto"}, {})
    (found,) = csv.DictReader(io.StringIO(as_csv(SweepTable({}, ["experiment"], [], [line]))))
    assert (found["experiment"], found["set experiment"]) == ("its-name", "ann_pareto")


# ---- DVC, in a repository of two small stages

TOOL = """
import json, os, sys, time
from pathlib import Path
import yaml

what, log = sys.argv[1], Path(os.environ["TOOL_LOG"])
params = yaml.safe_load(Path("params.yaml").read_text())
kind, seed = params["index"]["kind"], params["dataset"]["seed"]
with log.open("a") as file:
    file.write(f"{what} {seed if what == 'base' else kind}\\n")
if what == "base":
    Path("base.txt").write_text(f"{seed} {Path('note.txt').read_text()}")
    sys.exit()
if kind == "ivf_pq":
    sys.exit("error: the gallery is too small; set index.kind to flat")
if kind == os.environ.get("TOOL_WAITS_AT"):
    log.with_name("group").write_text(str(os.getpgrp()))
    time.sleep(60)
recall = {"flat": 1.0, "hnsw": 0.75}.get(kind, 0.5)
indexed, metrics = {"ann_recall@10": recall}, {"precision@10": 0.5, "map_at_r": recall}
reports = {
    "metrics": {
        "cbir": {"mobilenet": metrics}, "tbir": {}, "ann": {"mobilenet": {"image": indexed}},
        "data": {"gallery_images": 10, "index_bytes": {"mobilenet": 100}},
    },
    "intervals": {"cbir": {"mobilenet": {}}, "tbir": {}, "ann": {"mobilenet": {"image": {}}}},
    "latency": {"encoders": {}},
}
Path("reports").mkdir(exist_ok=True)
for name, value in reports.items():
    Path(f"reports/{name}.json").write_text(json.dumps(value))
"""
DVC_YAML = """
stages:
  base:
    cmd: python tool.py base
    params: [dataset.seed]
    deps: [tool.py, note.txt]
    outs: [base.txt]
  measure:
    cmd: python tool.py measure
    params: [index.kind]
    deps: [tool.py, base.txt]
    outs: [reports/intervals.json]
    metrics:
      - reports/metrics.json: {cache: false}
      - reports/latency.json: {cache: false}
"""


class Small:
    """A git and DVC repository with the project's conf/ and two stages of no weight, which log when they run."""

    def __init__(self, base: Path) -> None:
        self.root, self.log = base / "small", base / "log.txt"
        shutil.copytree(CONF, self.root / "conf", ignore=shutil.ignore_patterns("__pycache__"))
        for name, text in {
            "tool.py": TOOL,
            "dvc.yaml": DVC_YAML,
            "note.txt": "a note",
            "params.yaml": composed(conf_dir=CONF),
            ".gitignore": "/base.txt\n/reports/intervals.json\n/reports/sweeps\n__pycache__/\n",
        }.items():
            (self.root / name).write_text(text, encoding="utf-8")
        (self.root / ".dvc").mkdir()
        shutil.copy(ROOT / ".dvc" / "config", self.root / ".dvc" / "config")
        (self.root / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "small")

    @property
    def environment(self) -> dict[str, str]:
        author = {f"GIT_{who}_{what}": "tester@x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        return {**os.environ, **author, "PYTHONPATH": str(ROOT), "TOOL_LOG": str(self.log)}

    def git(self, *arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=True
        ).stdout

    def start(self, *arguments: str, waits_at: str = "") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "cbir", "sweep", *arguments],
            cwd=self.root,
            env={**self.environment, "TOOL_WAITS_AT": waits_at},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def sweep(self, *arguments: str) -> tuple[int, str, str]:
        with self.start(*arguments) as process:
            out, error = process.communicate(timeout=300)
        return process.returncode, out, error

    def ran(self) -> list[str]:
        """The stages that were run since the last look."""
        found = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        self.log.with_name("group").unlink(missing_ok=True)
        return found

    def group(self) -> int:
        """The process group of the job that waits."""
        file = self.log.with_name("group")
        wait_for(lambda: file.exists() and bool(file.read_text()))
        return int(file.read_text())

    def files(self) -> dict[str, bytes]:
        """All of the user's files, and where git stands."""
        names = [path for path in self.root.rglob("*") if path.is_file() and ".git/" not in f"{path}/"]
        kept = [
            path
            for path in names
            if not re.search(r"/(\.git|\.dvc/tmp|\.dvc/cache|reports/sweeps|__pycache__)/", str(path))
        ]
        state = {"HEAD": (self.root / ".git" / "HEAD").read_bytes(), "stash": self.git("stash", "list").encode()}
        return {**{str(path): path.read_bytes() for path in kept}, **state, "status": self.git("status", "-s").encode()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    base = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        for who in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{who}_NAME", "tester")
            patch.setenv(f"GIT_{who}_EMAIL", "tester@x")
        yield Small(base)
    shutil.rmtree(base)


def test_a_sweep_runs_shares_fails_goes_on_and_repeats_nothing(small: Small) -> None:
    (small.root / "note.txt").write_text("another note")  # not committed
    before = small.files()
    code, out, error = small.sweep("index=flat,ivf_pq,hnsw")
    assert small.ran() == ["base 0", "measure flat", "measure ivf_pq", "measure hnsw"]
    assert small.files() == before
    lines = out.splitlines()
    assert lines[0] == "note: uncommitted changes are part of every job: note.txt"
    assert re.fullmatch(r"job 1 of 3: index=flat: base measure \.\.\. done in \d+ s: index-flat-[0-9a-f]{8}", lines[1])
    assert re.fullmatch(r"job 2 of 3: index=ivf_pq: measure \.\.\. failed in \d+ s: index-ivf_pq-[0-9a-f]{8}", lines[2])
    assert re.fullmatch(r"job 3 of 3: index=hnsw: measure \.\.\. done in \d+ s: index-hnsw-[0-9a-f]{8}", lines[3])
    assert "failed: index=ivf_pq: error: the gallery is too small; set index.kind to flat" in lines
    log = re.search(r"full output: (\S+); to repeat it: cbir sweep index=ivf_pq$", out, re.MULTILINE)
    assert log is not None
    assert "ERROR: failed to reproduce 'measure'" in (small.root / log[1]).read_text(encoding="utf-8")
    assert (code, error) == (1, "error: 1 of 3 jobs failed, see above; the results of the others are kept\n")
    rows = list(csv.DictReader(io.StringIO((small.root / "reports/sweeps/index.csv").read_text(encoding="utf-8"))))
    assert [(row["index"], row["ann_recall@10"]) for row in rows] == [("flat", "1.0"), ("hnsw", "0.75")]

    # each is an experiment of DVC's, with its metrics, the uncommitted change and the data in the user's cache
    code, out, error = small.sweep("index=hnsw,flat", "--name", "again")
    assert (code, small.ran(), out.count("done before")) == (0, [], 2)
    assert (small.root / "reports/sweeps/again.md").exists()
    name = rows[1]["experiment"]
    shown = small.git(
        "show", f"refs/exps/{(head := small.git('rev-parse', 'HEAD').strip())[:2]}/{head[2:]}/{name}:note.txt"
    )
    assert shown == "another note"
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "exp", "show", "--json"],
        cwd=small.root,
        env=small.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    experiments = {one["name"]: one["revs"][0]["data"] for one in json.loads(listed.stdout)[1]["experiments"]}
    assert experiments.keys() == {row["experiment"] for row in rows}
    metrics = experiments[name]["metrics"]["reports/metrics.json"]["data"]
    assert metrics["ann"]["mobilenet"]["image"]["ann_recall@10"] == 0.75


def test_after_a_kill_the_user_has_lost_nothing_and_a_repeat_goes_on(small: Small) -> None:
    (small.root / "note.txt").write_text("a note of another day")
    before = small.files()
    small.ran()
    with small.start("index=flat,hnsw,sq8", waits_at="hnsw") as process:
        wait_for(lambda: small.log.exists() and "measure hnsw" in small.log.read_text())
        code, _, error = small.sweep("index=flat")
        assert (code, error.partition(",")[0]) == (1, "error: another sweep runs in this repository")
        process.kill()
        process.wait()
        code, _, error = small.sweep("index=flat")
        assert (code, error.partition(",")[0]) == (1, "error: another sweep runs in this repository")
        os.killpg(small.group(), signal.SIGKILL)
    assert small.files() == before
    assert small.ran() == ["base 0", "measure flat", "measure hnsw"]
    code, out, _ = small.sweep("index=flat,hnsw,sq8")
    assert code == 0
    assert small.ran() == ["measure hnsw", "measure sq8"]
    assert re.search(r"^job 1 of 3: index=flat: done before: index-flat-", out, re.MULTILINE)
    assert small.files() == before


def test_an_interrupt_of_cbir_alone_ends_the_job_and_shows_what_is_done(small: Small) -> None:
    before = small.files()
    small.ran()
    with small.start("index=sq8,hnsw", "dataset.seed=1", waits_at="hnsw") as process:
        wait_for(lambda: small.log.exists() and "measure hnsw" in small.log.read_text())
        group = small.group()
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
    assert "waiting for the stage to stop" in out
    assert process.returncode == 130
    assert error.splitlines()[-1] == "interrupted"
    assert "Traceback" not in error
    assert "0.500" in out  # the table of the first job
    assert small.files() == before
    assert not (small.root / ".dvc/tmp/sweep/clone").exists()


GREEDY = '''
"""A sweeper that takes the better of two indexes and asks once more, with another seed."""
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

class GreedySweeper(Sweeper):
    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
    def sweep(self, arguments):
        tried = {}
        for kind in ("hnsw", "flat", "ivf_pq"):
            (job,) = self.launcher.launch([[*arguments, f"index={kind}"]], len(tried))
            tried[kind] = job.return_value
        assert tried == {"hnsw": 0.75, "flat": 1.0, "ivf_pq": None}, tried
        best = max(filter(tried.get, tried), key=tried.get)
        self.launcher.launch([[*arguments, f"index={best}", "index.build.seed=3"]], len(tried))

ConfigStore.instance().store(
    group="hydra/sweeper", name="greedy", node={"_target_": "hydra_plugins.greedy.GreedySweeper"}
)
'''


def test_a_sweeper_plugin_is_handed_the_objective_of_each_job(small: Small) -> None:
    plugin = small.root / "conf" / "hydra_plugins" / "greedy.py"
    plugin.write_text(GREEDY, encoding="utf-8")
    try:
        arguments = ("hydra/sweeper=greedy", "dataset.seed=7", "--objective")
        code, _, error = small.sweep(*arguments, "cbir.mobilenet.map_at_r")
        assert (
            error == "error: conf/hydra_plugins/greedy.py is not known to git, so no experiment would see it: `git add "
            "conf/hydra_plugins/greedy.py` (no commit needed)\n"
        )
        small.git("add", "conf")
        code, out, error = small.sweep(*arguments, "cbir.mobilenet.map_at_r")
        assert (code, error) == (1, "error: 1 of 4 jobs failed, see above; the results of the others are kept\n")
        assert re.search(r"^job 4: dataset\.seed=7 index=flat index\.build\.seed=3: ", out, re.MULTILINE)
    finally:
        small.git("rm", "--quiet", "--force", "--ignore-unmatch", str(plugin))
        plugin.unlink(missing_ok=True)


def test_a_shallow_clone_takes_its_uncommitted_changes_along(small: Small, tmp_path: Path) -> None:
    small.git("commit", "--quiet", "--allow-empty", "--message", "one to leave out the first")
    shallow = tmp_path / "shallow"
    small.git("clone", "--quiet", "--depth", "1", f"file://{small.root}", str(shallow))
    (shallow / "note.txt").write_text("a note in the shallow clone")
    small.ran()
    command = [sys.executable, "-m", "cbir", "sweep", "index=flat"]
    ended = subprocess.run(command, cwd=shallow, env=small.environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert small.ran() == ["base 0", "measure flat"]
    again = subprocess.run(command, cwd=shallow, env=small.environment, capture_output=True, text=True, check=False)
    assert "done before: index-flat-" in again.stdout


def test_where_no_experiment_can_start_it_says_why(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.root)
    new = small.root / "new.txt"
    new.write_text("new")
    small.git("add", "--intent-to-add", "new.txt")
    try:
        with (
            pytest.raises(ConfigError, match=r"^git knows new\.txt by its name alone .*: `git add new\.txt` \(no"),
            Bench(),
        ):
            pass
    finally:
        small.git("rm", "--quiet", "--force", "new.txt")
        new.unlink(missing_ok=True)
    part = tmp_path / "part"
    (part / ".dvc").mkdir(parents=True)
    (part / "file").write_text("")
    for command in (["init", "--quiet", str(tmp_path)], ["add", "."], ["commit", "--quiet", "--message", "a part"]):
        subprocess.run(["git", *command], cwd=part, env=small.environment, check=True)
    monkeypatch.chdir(part)
    with (
        pytest.raises(
            ConfigError, match=r"^expected \.dvc/ and \.git/ in one folder, found \.dvc/ in the folder part/"
        ),
        Bench(),
    ):
        pass


def test_a_relative_folder_is_not_taken_for_what_git_knows_of_it(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small.root)
    with Bench() as bench:
        assert bench.holds(Path("note.txt"))
        assert not bench.holds(Path("conf"))
        assert not bench.holds(Path("base.txt"))


def test_outside_a_repository_it_says_where_to_go(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cbir", "sweep", "index=flat"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "error: .dvc/ is not here: run this in the repository's root\n")


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


# ---- the pipeline itself


@pytest.mark.slow
def test_a_sweep_of_the_pipeline_shares_what_jobs_have_in_common(tmp_path: Path) -> None:
    small = Small(tmp_path)
    shutil.rmtree(small.root)
    small.root.mkdir()
    copy_working_tree(small.root)
    (small.root / "dvc.lock").unlink(missing_ok=True)
    for path in (small.root / "reports").iterdir():
        if path.name != ".gitignore":  # knows of sweeps/
            path.unlink() if path.is_file() else shutil.rmtree(path)
    small.git("init", "--quiet", "--initial-branch=main")
    small.git("add", ".")
    small.git("commit", "--quiet", "--message", "the working tree")
    before = small.files()
    code, out, error = small.sweep("index=flat,hnsw,ivf_flat", *TINY, "index.build.nlist=2", "--name", "tiny")
    # nlist applies to ivf_flat alone: the others fail
    assert code == 1, out + error
    jobs = {found[1]: found[2].split() for found in re.finditer(r"job \d of 3: index=(\w+): (.*) \.\.\.", out)}
    assert jobs["flat"][-1] == jobs["hnsw"][-1] == "index@mobilenet"
    assert "embed@clip" in jobs["flat"]
    assert jobs["hnsw"] == ["scan", "index@mobilenet"]
    assert "error: index.build.nlist applies to ivf_flat or ivf_pq, not to flat: expected null, found 2" in out
    indexed = ["index@mobilenet", "index@clip", "map@mobilenet", "map@clip"]
    assert jobs["ivf_flat"] == ["scan", *indexed, "evaluate", "prompts", "latency", "report"]
    assert small.files() == before
    rows = list(csv.DictReader(io.StringIO((small.root / "reports/sweeps/tiny.csv").read_text(encoding="utf-8"))))
    assert [(row["task"], row["encoder"]) for row in rows] == [
        ("cbir", "mobilenet"),
        ("cbir", "clip"),
        ("tbir", "clip"),
    ]
    assert all(0 <= float(row["precision@10 low"]) <= float(row["precision@10 high"]) <= 1 for row in rows)
    assert all(float(row["p50 ms"]) > 0 for row in rows)
