"""The group `device`: hardware, threads and workers.  No result depends on it, so only the stage `latency` declares it."""

import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from cbir.core.errors import ConfigError
from cbir.core.params import PARAMS_FILE, Parameters, at_least, load_params

# the drivers of NVIDIA's cards and boards, of AMD, and of either under Windows: without one, Linux has no GPU
_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/nvgpu", "/dev/nvhost-gpu", "/dev/kfd", "/dev/dxg")


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


def gpus() -> list[str]:
    """The kinds of GPU that this machine may have, as far as can be seen without torch."""
    platform: str = sys.platform
    if platform == "linux":
        return ["cuda"] if any(Path(driver).exists() for driver in _GPU_DRIVERS) else []
    return ["mps"] if platform == "darwin" else ["cuda"]


def check_device(name: str) -> None:
    """Raise ConfigError when this machine cannot have the device, so that a run stops at its begin and not after hours."""
    if name not in ("auto", "cpu", *gpus()):
        raise ConfigError(
            f"device.name: expected {' or '.join(['auto', 'cpu', *gpus()])} on this machine, found {name}: use device=auto"
        )
