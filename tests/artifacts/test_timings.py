"""Timings of stages: the file, its figures, and the files that dvc.yaml must declare."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cbir.artifacts.paths import DataPaths
from cbir.artifacts.timings import STAGES, read_timings, timed
from cbir.core.errors import DataError
from cbir.core.files import read_json, write_json
from tests.support.imports import ROOT

TIMINGS = DataPaths().timings
PIPELINE: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
UNTIMED = {"scan", "packing", "report"}
ENCODERS = ("mobilenet", "clip", "a_b-c")
PER_ENCODER = [stage for stage in STAGES if "foreach" in PIPELINE[stage]]
NAMES = [
    f"{stage}@{name}" if name else stage for stage in STAGES for name in (ENCODERS if stage in PER_ENCODER else [""])
]

ALLOCATE = "held = bytearray({mb} * 10**6); held[::4096] = bytes([1]) * len(held[::4096])"
SPIN = "import time\nbegun = time.process_time()\nwhile time.process_time() - begun < {s}: pass"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(stage: str = "trial") -> dict[str, Any]:
    figures: dict[str, Any] = read_json(TIMINGS / f"{stage}.json")
    return figures


def run_timed(block: str, before: str = "") -> dict[str, Any]:
    """Run a block in a process of its own, and return its figures and `since_start_s`, seconds since `before` began."""
    body = "".join(f"    {line}\n" for line in block.splitlines())
    script = (
        f"import subprocess, sys, time\nfrom cbir.artifacts.timings import timed\nstart_s = time.perf_counter()\n{before}\n"
        f"with timed('trial') as extra:\n{body}    extra['since_start_s'] = time.perf_counter() - start_s\n"
    )
    command = ["/bin/sh", "-c", '"$0" -c "$1"; exit $?', sys.executable, script]  # keeps pytest's memory out of it
    subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, check=True)
    return written()


# ---- the file


def test_block_writes_its_figures_and_the_machine() -> None:
    with timed("trial"):
        assert not TIMINGS.exists()
    assert list(written()) == ["wall_s", "cpu_s", "peak_mb", "machine"]
    assert list(written()["machine"]) == ["processor", "cores", "system"]
    assert all(written()["machine"].values())
    assert list(TIMINGS.iterdir()) == [TIMINGS / "trial.json"]


@pytest.mark.parametrize("error", [DataError("bad"), ValueError(), KeyboardInterrupt(), SystemExit(1)])
def test_failed_block_writes_no_file_and_raises_its_error(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, timed("trial"):
        raise error
    assert raised.value is error
    assert not TIMINGS.exists()


def test_failed_block_keeps_the_earlier_file() -> None:
    with timed("trial"):
        pass
    before = written()
    with pytest.raises(DataError), timed("trial"):
        raise DataError("bad")
    assert written() == before


def test_entries_of_the_block_follow_the_figures() -> None:
    with timed("trial") as extra:
        extra["rows_from_cache"] = 12
        extra["note"] = "صورة"
    assert list(written())[-2:] == ["rows_from_cache", "note"]
    assert (written()["rows_from_cache"], written()["note"]) == (12, "صورة")


def test_two_blocks_share_nothing() -> None:
    with timed("first") as extra:
        extra["rows"] = 1
    with timed("second"):
        pass
    assert "rows" not in written("second")


# ---- the figures


def test_waiting_in_the_block_is_wall_time_and_not_work() -> None:
    figures = run_timed("time.sleep(0.4)", "time.sleep(1.2)")
    assert 0.4 <= figures["wall_s"] < figures["since_start_s"]
    assert 0 <= figures["cpu_s"] < 0.3


def test_work_before_the_block_is_not_counted() -> None:
    figures = run_timed("pass", SPIN.format(s=0.6))
    assert figures["wall_s"] < figures["since_start_s"]
    assert 0 <= figures["cpu_s"] < 0.5
    assert 0.55 <= run_timed(SPIN.format(s=0.6))["cpu_s"] < 5


def test_work_of_child_processes_counts() -> None:
    child = f"subprocess.run([sys.executable, '-c', {SPIN.format(s=0.6)!r}], check=True)"
    alone, together = run_timed("pass"), run_timed(child)
    assert 0.55 <= together["cpu_s"] - alone["cpu_s"] < 5
    assert together["wall_s"] >= 0.5


@pytest.mark.parametrize("mb", [300, 600])
def test_peak_memory_is_what_was_held_and_little_more(mb: int) -> None:
    assert mb <= run_timed(ALLOCATE.format(mb=mb) + "\ndel held")["peak_mb"] < mb + 100


def test_peak_memory_is_that_of_the_largest_process() -> None:
    child = f"subprocess.run([sys.executable, '-c', {ALLOCATE.format(mb=300)!r}], check=True)"
    assert 300 <= run_timed(f"{ALLOCATE.format(mb=200)}\n{child}\n{child}")["peak_mb"] < 400


def test_memory_of_the_parent_process_does_not_count() -> None:
    """Linux keeps ru_maxrss through exec, and bash, as DVC calls it, replaces itself with the stage."""
    script = "from cbir.artifacts.timings import timed\nwith timed('trial'): pass"
    large = f"import subprocess, sys; {ALLOCATE.format(mb=400)}; subprocess.run(sys.argv[1:], check=True)"
    command = [sys.executable, "-c", large, sys.executable, "-c", script]
    subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, check=True)
    assert written()["peak_mb"] < 100


# ---- reading


FIGURES = {"wall_s": 1, "cpu_s": 0.5, "peak_mb": 9, "machine": {"processor": "p", "cores": 2, "system": "s"}}


def test_timings_are_read_in_the_order_of_the_pipeline(tmp_path: Path) -> None:
    for name in reversed(NAMES):
        write_json(tmp_path / f"{name}.json", FIGURES | {"wall_s": len(name)})
    expected = [name for stage in STAGES for name in sorted(name for name in NAMES if name.split("@")[0] == stage)]
    assert list(read_timings(tmp_path)) == expected
    assert read_timings(tmp_path) == {name: FIGURES | {"wall_s": len(name)} for name in NAMES}


@given(present=st.sets(st.sampled_from(NAMES)))
def test_stages_without_a_file_are_left_out(tmp_path_factory: pytest.TempPathFactory, present: set[str]) -> None:
    folder = tmp_path_factory.mktemp("timings")
    for name in present:
        write_json(folder / f"{name}.json", FIGURES)
    assert list(read_timings(folder)) == sorted(present, key=lambda name: (STAGES.index(name.split("@")[0]), name))


def test_missing_folder_has_no_timings(tmp_path: Path) -> None:
    assert read_timings(tmp_path / "absent") == {}


def test_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "map@clip.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"map@clip\.json is not readable as JSON"):
        read_timings(tmp_path)


@pytest.mark.parametrize(
    "other", [{}, FIGURES | {"wall_s": "x"}, FIGURES | {"machine": {"cores": 2}}, FIGURES | {"machine": 1}]
)
def test_file_with_other_content_is_named(tmp_path: Path, other: dict[str, Any]) -> None:
    write_json(tmp_path / "map@clip.json", other)
    with pytest.raises(
        DataError, match=r"map@clip\.json: expected time and memory of a stage, found .*: run `dvc repro`$"
    ):
        read_timings(tmp_path)


# ---- the pipeline


def test_stages_are_those_of_dvc_yaml_in_its_order() -> None:
    assert list(STAGES) == [stage for stage in PIPELINE if stage not in UNTIMED]


@pytest.mark.parametrize("stage", PIPELINE)
def test_stage_declares_the_timing_that_its_module_writes(stage: str) -> None:
    declared = PIPELINE[stage].get("do", PIPELINE[stage])
    module = declared["cmd"].split()[2]
    source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
    timed_as = [name.replace("{encoder}", "${key}") for name in re.findall(r'\btimed\(f?"([^"]*)"\)', source)]
    outs = [out for out in declared["outs"] if isinstance(out, str)]
    assert [out for out in outs if out.startswith(f"{TIMINGS}/")] == [f"{TIMINGS}/{name}.json" for name in timed_as]
    suffix = "@${key}" if stage in PER_ENCODER else ""
    assert timed_as == ([] if stage in UNTIMED else [f"{stage}{suffix}"])


def test_report_depends_on_the_folder_of_timings() -> None:
    assert str(TIMINGS) in PIPELINE["report"]["deps"]


def test_stages_of_an_earlier_version_are_left_out() -> None:
    with timed("download"):
        pass
    for name in ("evaluate", "embed_clip", "prompts", "download@clip"):  # without a seal, as that version wrote them
        (TIMINGS / f"{name}.json").write_text("{}", encoding="utf-8")
    assert list(read_timings(TIMINGS)) == ["download"]
