"""The group `device`: hardware, threads and workers.  No result depends on it, so only the stage `latency` declares it."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from cbir.core.params import PARAMS_FILE, Parameters, at_least, load_params


class DeviceName(Enum):
    """Hardware that runs the encoders; `auto` is the first of cuda, mps and cpu that is available."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


@dataclass
class DeviceParams(Parameters):
    """Group `device`; see the comments in `conf/device/`."""

    name: DeviceName = DeviceName.auto
    batch_images: int | None = None
    threads: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        at_least(1, self, "batch_images", "threads", "workers")


def load_device(path: Path = PARAMS_FILE) -> DeviceParams:
    """Read the group `device`, which stages may read without declaring it."""
    return load_params("device", DeviceParams, ["device"], path)
