"""What each stage took, and on which machine: `data/timings/<stage>.json`.

Times stand in these, in an index's build.json and in reports/latency.json, and in the reports that show them; no result depends
on them.
"""

import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from cbir.core.errors import DataError
from cbir.core.files import read_json, write_json
from cbir.core.parallel import cores

TIMINGS: Final = Path("data/timings")
# in the order of the pipeline; scan, which runs always and takes no time, and report, which shows them, are left out
STAGES: Final = ("download", "weights", "preprocess", "embed", "index", "map", "evaluate", "prompts", "latency")
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss


@contextmanager
def timed(stage: str) -> Iterator[dict[str, Any]]:
    """Write what the block took, when it ends well; what the caller puts into the dictionary stands beside it.

    wall_s, cpu_s : seconds of the block, and of the work of all its processes in it.  peak_mb : the most memory (10^6
    bytes) that one of its processes held.  Where a killed stage goes on, the block is what was left to do.
    """
    begun, worked, more = perf_counter(), _cpu_s(), dict[str, Any]()
    yield more
    wall_s = perf_counter() - begun
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {
        "wall_s": round(wall_s, 2),
        "cpu_s": round(_cpu_s() - worked, 2),
        "peak_mb": round(max(peak_bytes(), children.ru_maxrss * _RSS_UNIT) / 1e6),
        "machine": {"processor": processor(), "cores": cores(), "system": platform.system()},
    }
    write_json(TIMINGS / f"{stage}.json", found | more)


def _cpu_s() -> float:
    """Of this process and of those that it started and that have ended."""
    used = (resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def read_timings(folder: Path) -> dict[str, dict[str, Any]]:
    """stage -> what it took, in the order of the pipeline, of those that were timed; an encoder's stage is embed_clip.

    Raises DataError for a file that holds something else.
    """
    paths = [path for stage in STAGES for path in sorted(folder.glob(f"{stage}*.json"))]
    return {path.stem: _read(path) for path in paths}


def _read(path: Path) -> dict[str, Any]:
    found = read_json(path)
    machine = found.get("machine")
    numbers = all(isinstance(found.get(name), int | float) for name in ("wall_s", "cpu_s", "peak_mb"))
    if not (numbers and isinstance(machine, dict) and {"processor", "cores", "system"} <= set(machine)):
        raise DataError(f"{path}: expected what a stage took, found {found}: run `dvc repro`")
    return found


def peak_bytes() -> int:
    """The most memory that this process has held since it began.

    Linux's ru_maxrss counts what the parent held when it started the process too; VmHWM does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT


def processor() -> str:
    """What the system calls it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        return platform.processor() or platform.machine()  # there is no such file outside Linux
    return platform.machine()
