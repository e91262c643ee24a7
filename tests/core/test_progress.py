"""Progress of long jobs: plain lines in a log, a bar on a terminal."""

import os
import subprocess
import sys

import pytest

from cbir.core.progress import Progress, progress
from tests.support.imports import ROOT


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, as the only item; a test moves it."""
    now = [0.0]
    monkeypatch.setattr("cbir.core.progress.monotonic", lambda: now[0])
    return now


def test_log_lines_every_ten_seconds_and_at_end(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress(248_100_000, "fetch tiny-imagenet-200.zip", "B", done=8_100_000) as bar:
        for _ in range(24):
            clock[0] += 1
            bar.advance(10_000_000)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "fetch tiny-imagenet-200.zip:  44% 108M/248M [00:10<00:14, 10.0MB/s]",
        "fetch tiny-imagenet-200.zip:  84% 208M/248M [00:20<00:04, 10.0MB/s]",
        "fetch tiny-imagenet-200.zip: 100% 248M/248M [00:24<00:00, 10.0MB/s]",
    ]


@pytest.mark.parametrize(
    ("total", "unit", "done", "text"),
    [
        (None, "B", 2_500_000, "job: 2.50MB [00:02, 1.25MB/s]"),
        (1000, "B", 600, "job:  60% 600/1.00k [00:02<00:01, 300B/s]"),
        (500, "B", 500, "job: 100% 500/500 [00:02<00:00, 250B/s]"),
        (100_000, "images", 1000, "job:   1% 1000/100000 [00:02<03:18, 500.00 images/s]"),
        (5, "queries", 0, "job:   0% 0/5 [00:02<?, ? queries/s]"),
        (0, "B", 0, "job: 0.00B [00:02, ?B/s]"),
    ],
)
def test_line_holds_amount_rate_and_time_left(
    clock: list[float], total: int | None, unit: str, done: int, text: str
) -> None:
    bar = Progress(total, "job", unit)
    bar.advance(done)
    clock[0] = 2.0
    assert str(bar) == text


def test_skipped_units_do_not_count_towards_the_rate(clock: list[float]) -> None:
    bar = Progress(1000, "job", "images", done=100)
    clock[0] = 2.0
    bar.skip(400)
    bar.advance(200)
    assert str(bar) == "job:  70% 700/1000 [00:02<00:03, 100.00 images/s, 400 from cache]"


def test_detail_is_read_when_the_line_is_printed(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress(2, "embed", "images") as bar:
        bar.detail = words = ["decode"]
        clock[0] = 1.0
        bar.advance(2)
        words.append("infer")
    assert capsys.readouterr().err == "embed: 100% 2/2 [00:01<00:00,  2.00 images/s, ['decode', 'infer']]\n"


def test_failed_job_ends_with_a_line(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), progress(4, "embed", "images") as bar:
        bar.advance(1 // 0)
    assert capsys.readouterr().err == "embed:   0% 0/4 [00:00<?, ? images/s]\n"


def test_bar_on_a_terminal() -> None:
    pty = pytest.importorskip("pty")
    code = "from cbir.core.progress import progress\nwith progress(4, 'a [bold] name', 'images') as p: p.advance(4)"
    reader, terminal = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen([sys.executable, "-c", code], stderr=terminal, env=environment) as process:
        os.close(terminal)
        output = b""
        try:
            while piece := os.read(reader, 4096):
                output += piece
        except OSError:  # Linux reports a closed terminal so
            pass
        os.close(reader)
    assert process.returncode == 0
    assert b"a [bold] name: 100%" in output
    assert b"4/4 [" in output
    assert "█".encode() in output
    assert output.endswith(b"\n")
