"""The command `cbir`: what all its commands share."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.imports import ROOT

FORMS = (["-m", "cbir", "compose"], ["-m", "cbir.compose"])


def run_python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run this Python with arguments; the modules are those of the repository."""
    environment = {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--check"], ["--check", "index=hnsw"], ["index=hsw"], ["--no"]])
def test_both_forms_of_compose_are_one_command(arguments: list[str]) -> None:
    first, second = (run_python(*form, *arguments) for form in FORMS)
    assert (first.returncode, first.stdout, first.stderr) == (second.returncode, second.stdout, second.stderr)
    assert "cbir compose" in first.stdout + first.stderr or "index=hsw" in arguments or first.returncode == 0
