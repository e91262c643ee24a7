"""How commands and stages end: one line for an error that a user can fix, a traceback for a bug."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cbir.core.errors import DataError, one_line_errors
from tests.support.imports import ROOT


def test_expected_error_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, one_line_errors():
        raise DataError("expected this, found that")
    assert caught.value.code == "error: expected this, found that"


def test_interrupt_prints_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, one_line_errors():
        raise KeyboardInterrupt
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_closed_pipe_prints_nothing(tmp_path: Path) -> None:
    program = (
        "from cbir.core.errors import one_line_errors\nwith one_line_errors():\n    print('x' * 100 + '\\n', end='')"
    )
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), one_line_errors():
        _ = 1 / 0
