"""Where and with what a tower of layers runs: device, backend and precision, chosen once and told in the passport.

Backends: "torch" everywhere; "openvino" on CPUs, a compiled runtime that reads the towers as the stage weights exported
them.  Measured on two cores (see benchmarks/RESULTS.md) it is 2 to 3 times as fast as torch for both encoders, knows bf16
where the CPU does, and starts without torch.
"""

import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from cbir.core.errors import ConfigError
from cbir.encoders.openvino_towers import import_openvino

# NVIDIA's on cards and on boards, AMD's, and either's below Windows: where Linux has none, torch need not be asked
_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/nvgpu", "/dev/nvhost-gpu", "/dev/kfd", "/dev/dxg")


@dataclass(frozen=True)
class Runtime:
    """device : "cpu", "cuda" or "mps".  backend : "torch" or "openvino".  precision : "fp32", "fp16" or "bf16".

    workers : threads that will call a tower at a time.  threads : those that work for all of them together; None for one each.
    """

    device: str = "cpu"
    backend: str = "torch"
    precision: str = "fp32"
    workers: int = 1
    threads: int | None = None


def devices() -> list[str]:
    """The devices of this machine, the fastest first."""
    if sys.platform == "linux" and not any(Path(driver).exists() for driver in _GPU_DRIVERS):
        return ["cpu"]
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, found in there.items() if found]


def offers(device: str) -> dict[str, list[str]]:
    """The backends of a device, the fastest first, with the precisions that each has there."""
    if device == "mps":
        return {"torch": ["fp32", "fp16"]}
    if device == "cuda":
        return {"torch": ["fp32", "fp16", "bf16"]}
    can = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {"openvino": ["fp32", *(["bf16"] if "BF16" in can else [])], "torch": ["fp32", "fp16", "bf16"]}


def pick_device(name: str) -> str:
    """The device by name; "auto" takes cuda, then mps, then cpu.  Raises ConfigError when it is not on this machine."""
    if name == "cpu":
        return name
    there = devices()
    if name == "auto":
        return there[0]
    if name not in there:
        raise ConfigError(f"device.name: {name} is not on this machine, found {', '.join(there)}; use device=auto")
    return name


def pick_backend(group: str, backend: str, device: str, precision: str) -> str:
    """The backend by name; "auto" takes the fastest that has the precision on this device.

    group : mobilenet or clip, for messages.
    Raises ConfigError when the device has no such backend, or the backend no such precision there.
    """
    offered = offers(device)
    if backend == "auto":
        # where none has it, the last one's precisions, torch's, are told
        backend = next((name for name, known in offered.items() if precision in known), [*offered][-1])
    if backend not in offered:
        raise ConfigError(
            f"{group}.backend: {backend} does not run on {device}, found {', '.join(offered)}; use {group}.backend=auto"
        )
    if precision not in offered[backend]:
        raise ConfigError(
            f"{group}.precision: {backend} on this machine's {device} has {', '.join(offered[backend])}, not {precision}"
        )
    return backend


def return_freed_memory() -> None:
    """Allocators keep freed memory in pieces that later, larger blocks do not fit into.

    130 MB after loading ViT-B/32; after some hundred shards, 50 to 100 MB that grow with the data set.
    """
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # musl has none
            trim(0)
