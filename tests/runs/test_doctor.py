"""`cbir doctor`: one line for each subject, and status 1 for what would stop a run."""

import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cbir.artifacts.outputs import check_places
from cbir.cli import main as cli
from cbir.compose import composed, write_params
from cbir.core.errors import ConfigError
from cbir.runs import doctor
from cbir.runs.doctor import State, examine
from tests.support.imports import ROOT
from tests.support.repository import copy_conf

Change = Callable[[Path, pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def composition(tmp_path_factory: pytest.TempPathFactory) -> str:
    """params.yaml of the default."""
    root = tmp_path_factory.mktemp("composition")
    copy_conf(root)
    return composed(conf_dir=root / "conf")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, composition: str) -> Path:
    """A healthy repository that has not run yet; the process is in it, and its environment is active."""
    root = tmp_path / "cbir"
    copy_conf(root)
    for name in ("dvc.yaml", "requirements.txt"):
        shutil.copy(ROOT / name, root)
    identity = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**identity, "CBIR_CACHE": str(tmp_path / "cache"), "GIT_CEILING_DIRECTORIES": str(tmp_path)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(doctor, "_version", lambda _: None)  # each pin is tested below
    (root / "requirements.txt").write_text("")
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    monkeypatch.chdir(root)
    Path("params.yaml").write_text(composition)
    return root


def found(subject: str) -> list[tuple[State, str]]:
    return [(finding.state, finding.text) for finding in examine(Path()) if finding.subject == subject]


def test_a_healthy_repository_has_nothing_to_tell(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "nothing here would stop `dvc repro`"
    assert {line.split()[0] for line in lines[:-1]} == {"ok"}
    assert len(lines) <= 24


def edit_params(text: str, replacement: str) -> Change:
    def change(root: Path, _: pytest.MonkeyPatch) -> None:
        params = root / "params.yaml"
        assert text in params.read_text()
        params.write_text(params.read_text().replace(text, replacement))

    return change


def compose(*overrides: str) -> Change:
    return lambda *_: write_params(overrides)


def own_file(root: Path, _: pytest.MonkeyPatch) -> None:
    (root / "data" / "raw").mkdir(parents=True)
    (root / "data" / "raw" / "holiday.jpg").touch()


def no_name(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def getuser() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", getuser)


def no_python(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "python" else f"/usr/bin/{name}")


def other_python(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/other/bin/{name}")


def linked_data(root: Path, _: pytest.MonkeyPatch) -> None:
    (root.parent / "disk").mkdir()
    (root / "data").symlink_to(root.parent / "disk")


def with_password(url: str) -> Change:
    return lambda *_: write_params(["dataset=image_folder", f"dataset.url={url}", f"dataset.sha256={'0' * 64}"])


@pytest.mark.parametrize(
    ("change", "subject", "text"),
    [
        (no_python, "python", "`python`, which is not on the PATH: `source "),
        (other_python, "python", "`python`, which is /opt/other/bin/python, of another environment: `source "),
        (no_name, "user", "has no name, without which DVC does not start: `export USER=me`"),
        (linked_data, "place", "data/: expected a folder in the repository, found a link to "),
        (lambda root, _: shutil.rmtree(root / ".git"), "git", "not a git repository"),
        (own_file, "outputs", "found holiday.jpg, which the run would delete: move your files out"),
        (lambda root, _: (root / "params.yaml").unlink(), "parameters", "params.yaml is not here: run `cbir compose`"),
        (edit_params("kind: flat", "kind: flt"), "parameters", "index.kind: "),
        (edit_params("name: auto", "name: mps"), "device", "device.name: expected auto or cpu"),
        (compose("dataset=image_folder", "dataset.url=/no/such"), "data set", "dataset.url: expected a file or a folder"),
        (compose("encoders.clip_demo.weights=/no/such.safetensors"), "weights", "found nothing at /no/such.safetensors"),
        (with_password("'https://host/a.zip?$NO_SUCH_VARIABLE'"), "data set", "variable NO_SUCH_VARIABLE, found none"),
    ],
)  # fmt: skip
def test_what_would_stop_a_run_is_named(
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    subject: str,
    text: str,
) -> None:
    change(repository, monkeypatch)
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor", "--brief"])
    assert caught.value.code == 1
    line, end = capsys.readouterr().out.splitlines()
    assert line.startswith(f"STOPS  {subject} ")
    assert text in line
    assert end == "this would stop `dvc repro`"


def test_edited_parameters_and_settings_of_conf_are_noted(repository: Path) -> None:
    edit_params("seed: 0", "seed: 1")(repository, pytest.MonkeyPatch())
    ((state, text),) = found("parameters")
    assert state is State.note
    assert "is not what conf/ and the last `cbir compose` give" in text
    write_params(["index=hnsw"])
    assert found("parameters")[0][0] is State.fine


def damaged_summary(root: Path) -> None:
    (root / "data" / "images").mkdir(parents=True)
    (root / "data" / "images" / "summary.json").write_text("{")


@pytest.mark.parametrize(
    ("change", "subject", "text"),
    [
        (lambda root: (root / "conf" / "index" / "flat.yaml").write_text("{"), "parameters", "is sound, but conf/ gives none"),
        (lambda root: (root / "requirements.txt").unlink(), "packages", "cannot be examined: "),
        (damaged_summary, "outputs", "summary.json is not readable as JSON"),
    ],
)  # fmt: skip
def test_what_a_run_does_not_need_is_noted(
    repository: Path, change: Callable[[Path], object], subject: str, text: str
) -> None:
    change(repository)
    unusual = [finding for finding in examine(Path()) if finding.state is not State.fine]
    assert [(finding.subject, finding.state) for finding in unusual] == [(subject, State.note)]
    assert text in unusual[0].text


@pytest.mark.parametrize(
    ("pins", "installed", "state", "text"),
    [
        ("a==1\nb==2 \\\n    --hash=sha256:0\n", {"a": "1", "b": "2"}, State.fine, "2, as pinned"),
        ("torch==2.15.0\n", {"torch": "2.15.0+cpu"}, State.fine, "1, as pinned"),
        ("a==1 ; python_version < '3.12'\na==2 ; python_version >= '3.12'\n", {"a": "2"}, State.fine, "1, as pinned"),
        ("a==1 ; sys_platform == 'win32'\n", {}, State.fine, "1, as pinned"),
        ("a==1\nb==2\n", {"a": "1", "b": "3"}, State.note, "b 3 (pinned: 2)"),
        ("a==1\nb==2\n", {"a": "1"}, State.stops, "1 of 2 pinned packages are absent: b: `make setup`"),
    ],
)
def test_packages_are_compared_with_their_pins(
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    pins: str,
    installed: dict[str, str],
    state: State,
    text: str,
) -> None:
    Path("requirements.txt").write_text(f"# made by a test\n{pins}    # via a\n")
    monkeypatch.setattr(doctor, "_version", installed.get)
    ((actual, line),) = found("packages")
    assert actual is state
    assert text in line


def test_state_that_others_may_write_is_noted(repository: Path) -> None:
    folder = repository / ".dvc_state" / "repo"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert [state for state, _ in found("place")] == [State.fine, State.note]


@pytest.mark.parametrize("name", ["a{b}c", "${HOME}", "open{"])
def test_a_folder_with_braces_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match="expected a path without braces, which DVC takes for a template"):
        check_places(tmp_path / name)


def test_outputs_may_be_absent_or_links_inside(tmp_path: Path) -> None:
    check_places(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").symlink_to("elsewhere")
    check_places(tmp_path)


@pytest.mark.parametrize("command", ["compose", "doctor", "repair", "trec", "drift clip_demo"])
@pytest.mark.parametrize("inside", [True, False])
def test_commands_outside_the_root_say_where_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, inside: bool
) -> None:
    root = tmp_path / "my root"
    (root / "docs").mkdir(parents=True)
    if inside:
        (root / "dvc.yaml").touch()
    monkeypatch.chdir(root / "docs")
    remedy = f"`cd '{root}'`" if inside else "go to the root of the repository"
    with pytest.raises(SystemExit, match=rf"^error: cbir {command.split()[0]}: expected the root of .*: {remedy}$"):
        cli.main(command.split())
