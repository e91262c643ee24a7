"""benchmarks/gpu.sh, without a GPU: what it measured becomes tables, and what is missing is one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import tables
from tests.support.imports import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu.sh"


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": str(python)}
    return subprocess.run([str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, timeout=1200)


def test_rows_become_tables_whatever_is_missing(tmp_path: Path) -> None:
    assert tables(tmp_path / "rows.jsonl") == "No measurement came to its end.\n"
    rows = [
        ("at once", ["clip", "bf16", "1", "2", "3"]),
        ("at once", ["mobilenet", "bf16", "failed: no memory"]),
        ("stopped", ["compare clip", "stopped after 9 s"]),
    ]
    lines = [json.dumps({"table": table, "cells": cells}) for table, cells in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    text = tables(tmp_path / "rows.jsonl").splitlines()
    assert text.count("| clip | bf16 | 1 | 2 | 3 |") == 1
    assert text.count("| mobilenet | bf16 | failed: no memory |  |  |") == 1
    assert text.count("| compare clip | stopped after 9 s |") == 1


def test_missing_packages_are_named_in_one_line(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')  # with the standard library alone
    python.chmod(0o755)
    done = run(python)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {python} does not have torch torchvision open_clip timm")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_script_runs_on_a_cpu(tmp_path: Path) -> None:
    done = run(Path(sys.executable), "--device", "cpu", "--minutes", "4", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert {row["table"] for row in rows} >= {"accuracy", "pipeline", "workers", "at once", "batches", "compile"}
    accuracy = [row["cells"] for row in rows if row["table"] == "accuracy"]
    assert [cells[0] for cells in accuracy] == ["mobilenet", "clip"]
    assert all(cells[-2:] == ["yes", "0e+00"] for cells in accuracy)
    assert (tmp_path / "gpu.md").read_text().startswith("Machine: ")
