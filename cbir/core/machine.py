"""The machine and the memory of this process."""

import platform
import resource
import sys
from pathlib import Path


def peak_bytes() -> int:
    """Return the most memory that this process has held since it began, in bytes.

    On Linux, ru_maxrss also counts the memory of the parent when it started the process; VmHWM does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    return rss_bytes(resource.RUSAGE_SELF)


def rss_bytes(processes: int) -> int:
    """Return the largest resident set of `resource.RUSAGE_SELF` or `RUSAGE_CHILDREN`, in bytes."""
    return resource.getrusage(processes).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def processor() -> str:
    """Return the system's name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        return platform.processor() or platform.machine()  # only Linux has this file
    return platform.machine()
