"""Time and memory of each stage, and the machine that ran it: `data/timings/<stage>.json`.

No result depends on times; they are only in these files, in an index's build.json, in reports/latency/ and in the reports.
"""

import platform
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from cbir.artifacts.paths import DataPaths
from cbir.core.errors import DataError
from cbir.core.files import read_json, write_json
from cbir.core.machine import peak_bytes, processor, rss_bytes
from cbir.core.parallel import cores

# in the order of dvc.yaml, without scan and packing, which take no time, and report, which reads the timings
STAGES: Final = ("download", "weights", "preprocess", "embed", "index", "verify", "map", "evaluate", "latency")
_ONCE: Final = ("download", "preprocess")  # in a run; the others once for each encoder


@contextmanager
def timed(stage: str) -> Iterator[dict[str, Any]]:
    """Write time and memory of the block to `data/timings/<stage>.json`, unless it raises.

    The file holds the figures below, and the entries that the block adds to the dictionary that it receives.

    wall_s : seconds of the block.  cpu_s : processor seconds of the block, in this process and in those that it started.
    peak_mb : the most memory that one of these processes held, in 10^6 bytes.  machine : processor, cores, system.

    If a killed stage is resumed, the figures are those of the remaining work.
    """
    started_s, used_cpu_s, extra = perf_counter(), _cpu_s(), dict[str, Any]()
    yield extra
    wall_s = perf_counter() - started_s
    figures = {
        "wall_s": round(wall_s, 2),
        "cpu_s": round(_cpu_s() - used_cpu_s, 2),
        "peak_mb": round(max(peak_bytes(), rss_bytes(resource.RUSAGE_CHILDREN)) / 1e6),
        "machine": {"processor": processor(), "cores": cores(), "system": platform.system()},
    }
    write_json(DataPaths().timing(stage), figures | extra)


def _cpu_s() -> float:
    """Return the processor seconds of this process and of the processes that it started and that have ended."""
    usages = [resource.getrusage(processes) for processes in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def read_timings(folder: Path) -> dict[str, dict[str, Any]]:
    """Return stage -> figures for each timed stage, in the order of the pipeline; "embed@clip" is a stage of an encoder.

    Files of stages that an earlier version of cbir had are left out.  Raises DataError if a file holds something else.
    """
    patterns = (f"{stage}.json" if stage in _ONCE else f"{stage}@*.json" for stage in STAGES)
    paths = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    return {path.stem: _read(path) for path in paths}


def _read(path: Path) -> dict[str, Any]:
    figures = read_json(path)
    machine = figures.get("machine")
    has_numbers = all(isinstance(figures.get(name), int | float) for name in ("wall_s", "cpu_s", "peak_mb"))
    if not (has_numbers and isinstance(machine, dict) and {"processor", "cores", "system"} <= set(machine)):
        raise DataError(f"{path}: expected time and memory of a stage, found {figures}: run `dvc repro`")
    return figures
