"""How much memory a process has held."""

import resource
import sys
from pathlib import Path


def peak_bytes() -> int:
    """The most that this process has held since it began.

    Linux's ru_maxrss counts what the parent held when it started the process too; VmHWM does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024
