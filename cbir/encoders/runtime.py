"""What runs an encoder: device, backend and precision, picked once and recorded in the passport.

Backends: "torch" on every device; "openvino" on CPUs, a compiled runtime that reads the towers that the stage weights
exported.  On two cores (see benchmarks/RESULTS.md) it is 2 to 3 times as fast as torch for both encoders; it offers bf16
where the CPU does, and starts without torch.
"""

import ctypes
import sys
from dataclasses import dataclass

import pyarrow as pa

from cbir.core.device import gpus
from cbir.core.errors import ConfigError
from cbir.encoders.openvino_towers import import_openvino


@dataclass(frozen=True)
class Runtime:
    """device : "cpu", "cuda" or "mps".  backend : "torch" or "openvino".  precision : "fp32", "fp16" or "bf16".

    workers : how many images are decoded and resized at once.  threads : of the backend, for all workers together; None for
    one each.  at_device : how many batches a tower holds at once, which bounds the device's memory on a machine with any
    number of cores; None where each worker calls the tower itself.
    """

    device: str = "cpu"
    backend: str = "torch"
    precision: str = "fp32"
    workers: int = 1
    threads: int | None = None
    at_device: int | None = None

    @property
    def callers(self) -> int:
        """How many threads call a tower at once."""
        return self.workers if self.at_device is None else self.at_device


def devices() -> list[str]:
    """The devices of this machine, the fastest first."""
    if not gpus():
        return ["cpu"]
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, is_available in available.items() if is_available]


def offers(device: str) -> dict[str, list[str]]:
    """The backends of a device, the fastest first, with the precisions of each."""
    if device == "mps":
        return {"torch": ["fp32", "fp16"]}
    if device == "cuda":
        return {"torch": ["fp32", "fp16", "bf16"]}
    capabilities = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {"openvino": ["fp32", *(["bf16"] if "BF16" in capabilities else [])], "torch": ["fp32", "fp16", "bf16"]}


def pick_device(name: str) -> str:
    """The device of this name; "auto" takes cuda, then mps, then cpu.  Raises ConfigError when this machine has none."""
    if name == "cpu":
        return name
    available = devices()
    if name == "auto":
        return available[0]
    if name not in available:
        raise ConfigError(f"device.name: {name} is not on this machine, found {', '.join(available)}; use device=auto")
    return name


def pick_backend(group: str, backend: str, device: str, precision: str) -> str:
    """The backend of this name; "auto" takes the fastest that has the precision on this device.

    group : the encoder's name in params.yaml, for messages.
    Raises ConfigError when the device does not have the backend, or the backend does not have the precision there.
    """
    offered = offers(device)
    if backend == "auto":
        # when none has the precision, the message lists those of the last backend, torch
        backend = next((name for name, precisions in offered.items() if precision in precisions), [*offered][-1])
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
    """Return freed memory to the system; allocators keep it in pieces too small for later, larger blocks.

    This saves 130 MB after loading ViT-B/32; after some hundred shards, 50 to 100 MB that grow with the data set.
    """
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # musl does not have it
            trim(0)
