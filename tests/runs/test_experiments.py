"""Sweeps that DVC runs in small repositories: a failing job, a kill, an interrupt, and a repeat that runs nothing again."""

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml

from cbir.compose import composed
from cbir.core.errors import ConfigError
from cbir.runs.experiments import ExperimentRunner
from cbir.starting_point import write_starting_point
from tests.support.imports import ROOT
from tests.support.repository import ENCODERS, TINY, copy_conf, copy_working_tree

CONF = ROOT / "conf"
PATIENCE_S = 1200  # of a test on a busy machine

TOOL = (
    f"import sys; sys.path.insert(0, {str(ROOT)!r})"
    + """
import os, sys, time
from pathlib import Path
import yaml
from cbir.artifacts.evaluation_passport import hashes_of_files
from cbir.artifacts.paths import EvaluationPaths
from cbir.artifacts.vectors import write_passport
from cbir.core.files import write_json

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
    time.sleep(3600)
recall = {"flat": 1.0, "hnsw": 0.75}.get(kind, 0.5)
indexed, metrics = {"ann_recall@10": recall}, {"precision@10": 0.5, "map_at_r": recall}
groups = dict.fromkeys(("cbir", "tbir", "subsets", "categories", "without_duplicates", "ann", "ann_cost"), {})
reports = {
    "encoders": {"encoders": ["mobilenet"]},
    "metrics/mobilenet": {"cbir": {"mobilenet": {**metrics, **indexed}}},
    "evaluation/mobilenet/metrics": {
        **groups, "cbir": {"mobilenet": metrics}, "ann": {"mobilenet": {"image": indexed}}, "ceilings": {}, "chance": {},
        "data": {
            "gallery_images": 10, "queries": 1, "queries_without_relevant": {}, "duplicates": {},
            "index_bytes": {"mobilenet": 100},
        },
    },
    "evaluation/mobilenet/intervals": {**groups, "cbir": {"mobilenet": {}}, "ann": {"mobilenet": {"image": {}}}, "about": {}},
    "latency/mobilenet": {"encoders": {}, "k": 10, "threads": 1},
}
for name, value in reports.items():
    write_json(Path(f"reports/{name}.json"), value)
evaluation = EvaluationPaths(Path("reports/evaluation/mobilenet"))
write_passport(evaluation.root, {"files": hashes_of_files(evaluation)})
"""
)
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
    outs: [reports/encoders.json, reports/evaluation/mobilenet]
    metrics:
      - reports/metrics/mobilenet.json: {cache: false}
      - reports/latency/mobilenet.json: {cache: false}
"""


class Small:
    """A git and DVC repository with the project's conf/ and two fast stages, which log when they run."""

    def __init__(self, base: Path) -> None:
        self.root, self.log = base / "small", base / "log.txt"
        copy_conf(self.root)
        for name, text in {
            "tool.py": TOOL,
            "dvc.yaml": DVC_YAML,
            "note.txt": "a note",
            "params.yaml": composed(conf_dir=CONF),
            ".gitignore": "/base.txt\n/conf/mine/\n/reports/encoders.json\n/reports/evaluation\n/reports/sweeps\n"
            "__pycache__/\n/.dvc_state/\n",
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

    @contextmanager
    def start(self, *arguments: str, waits_at: str = "") -> Iterator[subprocess.Popen[str]]:
        """A sweep that runs while the block does.  waits_at : the index at which its job waits to be killed."""
        with subprocess.Popen(
            [sys.executable, "-m", "cbir", "sweep", *arguments],
            cwd=self.root,
            env={**self.environment, "TOOL_WAITS_AT": waits_at},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()
                if waits_at and self.group_file.exists():
                    with suppress(ProcessLookupError):
                        os.killpg(int(self.group_file.read_text()), signal.SIGKILL)

    def sweep(self, *arguments: str) -> tuple[int, str, str]:
        """Run a sweep.  Returns its status, stdout and stderr."""
        with self.start(*arguments) as process:
            out, error = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out, error

    def ran(self) -> list[str]:
        """The stages that ran since the last call."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        self.group_file.unlink(missing_ok=True)
        return lines

    @property
    def group_file(self) -> Path:
        return self.log.with_name("group")

    def group(self) -> int:
        """The process group of the job that waits."""
        wait_for(lambda: self.group_file.exists() and bool(self.group_file.read_text()))
        return int(self.group_file.read_text())

    def files(self) -> dict[str, bytes]:
        """The user's files, and the state of git."""
        names = [path for path in self.root.rglob("*") if path.is_file() and ".git/" not in f"{path}/"]
        kept = [
            path
            for path in names
            if not re.search(r"/(\.git|\.dvc/tmp|\.dvc/cache|\.dvc_state|reports/sweeps|__pycache__)/", str(path))
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


def test_jobs_share_stages_survive_failures_and_are_not_repeated(small: Small) -> None:
    (small.root / "note.txt").write_text("another note")  # not committed
    before = small.files()
    code, out, error = small.sweep("index=flat,ivf_pq,hnsw")
    assert small.ran() == ["base 0", "measure flat", "measure ivf_pq", "measure hnsw"]
    assert small.files() == before
    lines = out.splitlines()
    assert lines[0] == "note: uncommitted changes are part of every job: note.txt"
    assert lines[1] == "sweep over shapes, with mobilenet_demo, clip_demo"
    assert re.fullmatch(r"job 1 of 3: index=flat: base measure \.\.\. done in \d+ s: index-flat-[0-9a-f]{8}", lines[2])
    assert re.fullmatch(r"job 2 of 3: index=ivf_pq: measure \.\.\. failed in \d+ s: index-ivf_pq-[0-9a-f]{8}", lines[3])
    assert re.fullmatch(r"job 3 of 3: index=hnsw: measure \.\.\. done in \d+ s: index-hnsw-[0-9a-f]{8}", lines[4])
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
    metrics = experiments[name]["metrics"]["reports/metrics/mobilenet.json"]["data"]
    assert metrics["cbir"]["mobilenet"]["ann_recall@10"] == 0.75


def test_after_a_kill_files_are_untouched_and_a_repeat_continues(small: Small) -> None:
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


def test_an_interrupt_stops_the_job_and_shows_the_table(small: Small) -> None:
    before = small.files()
    small.ran()
    with small.start("index=sq8,hnsw", "dataset.seed=1", waits_at="hnsw") as process:
        wait_for(lambda: small.log.exists() and "measure hnsw" in small.log.read_text())
        group = small.group()
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=PATIENCE_S)
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


def test_a_sweeper_plugin_gets_the_objective_of_each_job(small: Small) -> None:
    plugin = small.root / "conf" / "hydra_plugins" / "greedy.py"
    plugin.write_text(GREEDY, encoding="utf-8")
    try:
        arguments = ("hydra/sweeper=greedy", "dataset.seed=7", "--objective")
        code, _, error = small.sweep(*arguments, "cbir.mobilenet.map_at_r")
        assert (
            error
            == "error: git does not track conf/hydra_plugins/greedy.py, so experiments would not have it: `git add "
            "conf/hydra_plugins/greedy.py` (no commit needed)\n"
        )
        small.git("add", "conf")
        code, out, error = small.sweep(*arguments, "cbir.mobilenet.map_at_r")
        assert (code, error) == (1, "error: 1 of 4 jobs failed, see above; the results of the others are kept\n")
        assert re.search(r"^job 4: dataset\.seed=7 index=flat index\.build\.seed=3: ", out, re.MULTILINE)
    finally:
        small.git("rm", "--quiet", "--force", "--ignore-unmatch", str(plugin))
        plugin.unlink(missing_ok=True)


def test_a_shallow_clone_runs_with_its_uncommitted_changes(small: Small, tmp_path: Path) -> None:
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


def test_an_experiment_of_dvc_leaves_no_value_of_the_former(small: Small) -> None:
    for overrides in (["experiment=tiny_imagenet", "index=hnsw"], ["index=flat"]):
        words = [word for override in overrides for word in ("-S", override)]
        command = [sys.executable, "-m", "dvc", "exp", "run", *words]
        subprocess.run(command, cwd=small.root, env=small.environment, capture_output=True, check=True)
        assert (small.root / "params.yaml").read_text(encoding="utf-8") == composed(overrides, CONF)


def test_a_repository_without_possible_experiments_is_refused(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.root)
    new = small.root / "new.txt"
    new.write_text("new")
    small.git("add", "--intent-to-add", "new.txt")
    try:
        with (
            pytest.raises(ConfigError, match=r"^git tracks new\.txt without its content .*: `git add new\.txt` \(no"),
            ExperimentRunner(),
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
        ExperimentRunner(),
    ):
        pass


def test_only_tracked_files_count_as_present_in_experiments(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small.root)
    with ExperimentRunner() as runner:
        assert runner.has_file(Path("note.txt"))
        assert not runner.has_file(Path("conf"))
        assert not runner.has_file(Path("base.txt"))


def test_outside_a_repository_the_message_says_where_to_go(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cbir", "sweep", "index=flat"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert re.fullmatch("error: cbir sweep: .*, without a dvc.yaml: go to the root of the repository\n", ended.stderr)


@pytest.mark.parametrize("command", [("sweep", "index=flat"), ("compare", "HEAD", "HEAD")], ids=" ".join)
def test_a_repository_of_another_user_is_named(small: Small, command: tuple[str, ...]) -> None:
    environment = {**small.environment, "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    arguments = [sys.executable, "-m", "cbir", *command]
    ended = subprocess.run(arguments, cwd=small.root, env=environment, capture_output=True, text=True, check=False)
    remedy = f"`git config --global --add safe.directory {small.root}`"
    expected = f"error: the repository belongs to another user, so git refuses it; if you trust its files: {remedy}\n"
    assert (ended.returncode, ended.stderr) == (1, expected)


def test_without_a_git_user_no_job_starts(small: Small, tmp_path: Path) -> None:
    environment = {name: value for name, value in small.environment.items() if not name.startswith("GIT_")}
    environment |= {"HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1", "XDG_CONFIG_HOME": str(tmp_path)}
    arguments = [sys.executable, "-m", "cbir", "sweep", "index=sq8"]
    ended = subprocess.run(arguments, cwd=small.root, env=environment, capture_output=True, text=True, check=False)
    remedy = "`git config user.name NAME && git config user.email ADDRESS`"
    expected = f"error: each job is a commit, and git does not know of whom: {remedy}\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", expected)


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


# ---- the pipeline itself


@pytest.mark.slow
def test_jobs_of_the_real_pipeline_share_stages(tmp_path: Path) -> None:
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
    code, out, error = small.sweep("index=ivf_pq,flat", *TINY, "--name", "tiny")
    # the gallery is too small for ivf_pq, whose job fails
    assert code == 1, out + error
    jobs = {found[1]: found[2].split() for found in re.finditer(r"job \d of 2: index=(\w+): (.*) \.\.\.", out)}
    assert jobs["ivf_pq"][-1] == "index@mobilenet_demo"
    assert "embed@clip_demo" in jobs["ivf_pq"]
    assert "error: ivf_pq: expected a gallery of at least 256 rows to train on, found 160" in out
    of_each = [
        f"{stage}@{encoder}" for stage in ("index", "verify", "map", "evaluate", "latency") for encoder in ENCODERS
    ]
    assert set(jobs["flat"]) == {"scan", *of_each, "report"}
    assert small.files() == before
    rows = list(csv.DictReader(io.StringIO((small.root / "reports/sweeps/tiny.csv").read_text(encoding="utf-8"))))
    assert [(row["task"], row["encoder"]) for row in rows] == [
        ("cbir", "mobilenet_demo"),
        ("cbir", "clip_demo"),
        ("tbir", "clip_demo"),
    ]
    assert all(0 <= float(row["precision@10 low"]) <= float(row["precision@10 high"]) <= 1 for row in rows)
    assert all(float(row["p50 ms"]) > 0 for row in rows)


def test_jobs_start_from_the_last_composition(small: Small) -> None:
    default, other = (yaml.safe_load(composed(overrides, CONF)) for overrides in ([], ["dataset.seed=12345"]))
    write_starting_point(other, default, small.root / "conf")
    assert small.sweep("index=flat")[0] == 0
    assert small.ran() == ["base 12345", "measure flat"]
    write_starting_point(default, default, small.root / "conf")
