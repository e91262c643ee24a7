"""How commands and stages end: one line for an error that a user can fix, a traceback for a bug."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cbir.artifacts.images import read_columns, write_shards
from cbir.artifacts.names import encoder_argument
from cbir.core.errors import ConfigError, DataError, one_line_errors
from tests.support.imports import ROOT
from tests.support.packed import packed_images


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


@pytest.mark.parametrize("arguments", [[], ["foo"], ["mobilenet", "clip"]])
def test_a_stage_of_an_encoder_asks_for_its_name(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match="expected the name of an encoder, mobilenet or clip, found "):
        encoder_argument(["stages.embed", *arguments])


def test_a_stage_run_by_hand_without_its_encoder_says_so_in_one_line(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "stages.build_index"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (
        1,
        "error: expected the name of an encoder, mobilenet or clip, found none\n",
    )


def test_a_stage_run_by_hand_leaves_no_shard_of_an_earlier_run(tmp_path: Path) -> None:
    write_shards(tmp_path, packed_images(9, size=10))
    write_shards(tmp_path, packed_images(2, size=10))
    assert read_columns(tmp_path, ["image_id"]).num_rows == 2
