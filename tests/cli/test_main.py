"""The command `cbir`: what all its commands share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cbir.cli.main import main
from tests.support.imports import ROOT

HEAVY = {"dvc", "faiss", "hydra", "matplotlib", "numpy", "omegaconf", "openvino", "pyarrow", "rich", "scipy", "torch"}


def run_python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run this Python with arguments; the modules are those of the repository."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom cbir.cli.main import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n"
        f"    print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    ended = run_python("-c", code)
    assert ended.stdout.startswith("usage: cbir [-h] [--version] command")
    assert ended.stdout.splitlines()[-1] == "[]", ended.stderr


@pytest.mark.parametrize("arguments", [["--check", "index=hnsw"], ["index=hsw"], ["--no"]], ids=" ".join)
def test_both_forms_of_compose_are_one_command(arguments: list[str]) -> None:
    first, second = (run_python("-m", *form, *arguments) for form in (("cbir", "compose"), ("cbir.compose",)))
    assert (first.returncode, first.stdout, first.stderr) == (second.returncode, second.stdout, second.stderr)
    assert first.returncode in (1, 2)
    assert first.stderr.startswith(("error: ", "usage: cbir compose "))


def test_compose_takes_check_before_and_after_overrides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    for arguments in (["--check", "index=flat"], ["index=flat", "--check"]):
        main(["compose", *arguments])
        assert capsys.readouterr().out == "params.yaml is the composition of conf/\n"


@pytest.mark.parametrize("arguments", [["cache", "more"], ["search", "star", "--no-such-option"]], ids=" ".join)
def test_unknown_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert f"unrecognized arguments: {arguments[-1]}" in capsys.readouterr().err


def test_an_unknown_command_is_refused_with_the_nearest() -> None:
    with pytest.raises(SystemExit, match=r"^error: cbir has no command 'serch'; nearest: search$"):
        main(["serch", "a star"])


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("cbir")


def test_an_interrupt_before_the_command_runs_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cbir.cli.search.add_arguments", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["search", "a star"])
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted\n")
