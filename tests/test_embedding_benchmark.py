"""`make bench`, with few images: its table has a row for each encoder."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.embedding import ENCODERS, WAYS
from tests.support.imports import ROOT


@pytest.mark.slow
def test_the_table_has_all_ways_of_each_encoder(tmp_path: Path) -> None:
    out = tmp_path / "results.md"
    numbers = ["--images", "8", "--rounds", "1", "--precisions", "fp32"]
    command = [sys.executable, "-m", "benchmarks.embedding", *numbers, "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    rows = [line.split("|")[1:-1] for line in out.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert set(WAYS.values()) <= {cell.strip() for cell in rows[0]}
    measured = {
        row[0].strip(): [float(cell.replace(",", "").removesuffix(" MB ")) for cell in row[3:]] for row in rows[2:]
    }
    assert set(measured) == set(ENCODERS)
    assert all(value > 0 for values in measured.values() for value in values)
