"""How commands and stages end: one line for an error that a user can fix, a traceback for a bug."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cbir.core.errors import DataError, disk_errors, one_line_errors
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


@pytest.mark.parametrize(
    ("command", "module"),
    [
        (["-m", "cbir", "compose"], "cbir.cli.main"),
        (["-m", "stages.scan"], "cbir.artifacts"),
        (["-m", "cbir"], "argparse"),
    ],
)
def test_an_interrupt_during_imports_is_one_line(tmp_path: Path, command: list[str], module: str) -> None:
    """A finder of modules interrupts at the import of one, as Ctrl-C may."""
    (tmp_path / "sitecustomize.py").write_text(
        "import signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r} and 'cbir' in sys.modules:\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    ended = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.stderr == "interrupted\n"
    assert ended.returncode in (130, -signal.SIGINT)


def test_a_stage_under_another_python_names_the_environment() -> None:
    code = (
        "import importlib.util as u, runpy, sys\n"
        "found = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'omegaconf' else found(name, *more)\n"
        "sys.argv[0] = '-m'\n"
        "import stages\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"error: {sys.executable} has none of the packages: activate the environment (`source .venv/bin/activate`), then run "
        "again\n"
    )


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    words = {str(number): number for number in range(10_000)}
    Tokenizer(WordLevel(words, unk_token="0")).save("/dev/full")


def save_openvino(folder: Path) -> None:
    import numpy as np
    import openvino as ov
    from openvino import opset13 as ops

    (folder / "model.bin").symlink_to("/dev/full")
    x = ops.parameter([1], np.float32, "x")
    constant = ops.constant(np.arange(100_000, dtype=np.float32))
    ov.save_model(ov.Model([ops.add(constant, x)], [x], "m"), folder / "model.xml")


def save_safetensors(folder: Path) -> None:
    from safetensors import SafetensorError

    raise SafetensorError("I/O error: No space left on device (os error 28)")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
@pytest.mark.parametrize("save", [save_tokenizer, save_openvino, save_safetensors])
def test_a_full_disk_is_told_whatever_the_library_says(tmp_path: Path, save: Callable[[Path], None]) -> None:
    with pytest.raises(OSError, match=r"cannot be written \(.*\): make room, then run again"), disk_errors(tmp_path):
        save(tmp_path)


def test_other_errors_of_libraries_stay_bugs(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), disk_errors(tmp_path):
        _ = 1 / 0
    with pytest.raises(DataError, match=r"^expected this$"), disk_errors(tmp_path):
        raise DataError("expected this")


def test_a_closed_output_is_no_error() -> None:
    program = "from cbir.core.errors import one_line_errors\nwith one_line_errors():\n    print('x')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        ["sh", "-c", f'{sys.executable} -c "$1" >&-', "sh", program], env=environment, capture_output=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")


NO_MEMORY = [MemoryError(), MemoryError("Unable to allocate 9 TiB"), RuntimeError("can't start new thread")]


@pytest.mark.parametrize("error", NO_MEMORY, ids=str)
def test_a_lack_of_memory_is_one_line(error: Exception) -> None:
    expected = r"^error: not enough memory \(.+\): close other programs, or raise its limit$"
    with pytest.raises(SystemExit, match=expected), one_line_errors():
        raise error
    with pytest.raises(RuntimeError, match="a bug"), one_line_errors():
        raise RuntimeError("a bug")
