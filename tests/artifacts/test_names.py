"""The encoder's name on a stage's command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cbir.artifacts.names import encoder_argument
from cbir.core.errors import ConfigError
from tests.support.imports import ROOT


@pytest.mark.parametrize("arguments", [[], ["foo"], ["mobilenet", "clip"]])
def test_encoder_argument_is_required(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match="expected the name of an encoder, mobilenet or clip, found "):
        encoder_argument(["stages.embed", *arguments])


def test_stage_without_its_encoder_ends_with_one_line(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "stages.build_index"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (
        1,
        "error: expected the name of an encoder, mobilenet or clip, found none\n",
    )
