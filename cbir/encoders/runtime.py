"""Where and with what a tower of layers runs: device, backend and precision, chosen once and told in the passport.

Backends: "torch" everywhere; "openvino" on CPUs, a compiled runtime that takes the very torch module.  Measured on two
cores (see benchmarks/RESULTS.md) it is 2 to 3 times as fast as torch for both encoders, and knows bf16 where the CPU does.
"""

import ctypes
import mmap
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from cbir.encoders.preprocessing import Pixels
from cbir.errors import ConfigError

Rows = npt.NDArray[np.float32]
Tower = Callable[[Pixels], Rows]

_MADV_PAGEOUT = 21  # linux/mman.h, since Linux 5.4; Python's mmap has no name for it
_HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Runtime:
    """device : "cpu", "cuda" or "mps".  backend : "torch" or "openvino".  precision : "fp32", "fp16" or "bf16".

    workers : threads that will call a tower at a time.
    """

    device: str = "cpu"
    backend: str = "torch"
    precision: str = "fp32"
    workers: int = 1

    def tower(self, module: torch.nn.Module, example: Pixels) -> Tower:
        """A function that runs the module on uint8 pixels: (n, side, side, 3) -> float32 (n, dim), from any thread.

        example : a batch of at least 2, for backends that trace the module.
        """
        makers: dict[str, Callable[[], Tower]] = {
            "torch": lambda: _TorchTower(module, self.device, self.precision),
            "openvino": lambda: _OpenvinoTower(module, example, self.precision, self.workers),
        }
        return makers[self.backend]()


def devices() -> list[str]:
    """The devices of this machine, the fastest first."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, found in there.items() if found]


def offers(device: str) -> dict[str, list[str]]:
    """The backends of a device, the fastest first, with the precisions that each has there."""
    if device == "mps":
        return {"torch": ["fp32", "fp16"]}
    if device == "cuda":
        return {"torch": ["fp32", "fp16", "bf16"]}
    can = _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {"openvino": ["fp32", *(["bf16"] if "BF16" in can else [])], "torch": ["fp32", "fp16", "bf16"]}


def pick_device(name: str) -> str:
    """The device by name; "auto" takes cuda, then mps, then cpu.  Raises ConfigError when it is not on this machine."""
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


def autocast(device: str, precision: str) -> torch.autocast:
    """The arithmetic of torch's forward pass: "fp32" as it is, "fp16" and "bf16" by autocast."""
    return torch.autocast(device, dtype=_HALVES.get(precision, torch.bfloat16), enabled=precision in _HALVES)


def return_freed_memory() -> None:
    """Allocators keep freed memory in pieces that later, larger blocks do not fit into.

    130 MB after loading ViT-B/32; after some hundred shards, 50 to 100 MB that grow with the data set.
    """
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # musl has none
            trim(0)


def page_out(module: torch.nn.Module) -> None:
    """Take the module's weights out of memory until they are read again, as far as they lie in a mapped file.

    A compiled tower has weights of its own, in another order; the 350 MB of ViT-B/32 that it was made from are read no more.
    """
    if sys.platform != "linux":
        return
    madvise, page = ctypes.CDLL(None, use_errno=True).madvise, mmap.PAGESIZE
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for weights in module.parameters():
        first = -(-weights.data_ptr() // page) * page
        length = (weights.data_ptr() + weights.nbytes - first) // page * page
        if length > 0:
            madvise(first, length, _MADV_PAGEOUT)  # a hint: an older kernel knows it not, and nothing is lost


class _TorchTower:
    """channels_last is 1.5 times as fast for convolutions on a CPU (measured), and what tensor cores want."""

    def __init__(self, module: torch.nn.Module, device: str, precision: str) -> None:
        self._module = module.eval().to(device).to(memory_format=torch.channels_last)
        self._device, self._precision, self._mine = device, precision, threading.local()
        if device == "cuda":  # fp32 means fp32: by default, cuDNN rounds the inputs of a convolution to 10 bits
            torch.backends.cudnn.allow_tf32 = False

    @torch.inference_mode()
    def __call__(self, pixels: Pixels) -> Rows:
        if self._device == "cuda":
            with torch.cuda.stream(self._stream()):  # one for each thread: a copy overlaps another's forward pass
                return self._run(torch.from_numpy(pixels).pin_memory())
        return self._run(torch.from_numpy(pixels))

    def _run(self, pixels: torch.Tensor) -> Rows:
        with autocast(self._device, self._precision):
            rows = self._module(pixels.to(self._device, non_blocking=True))
        found: Rows = rows.cpu().numpy()
        return found

    def _stream(self) -> torch.cuda.Stream:
        if not hasattr(self._mine, "stream"):
            self._mine.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream: torch.cuda.Stream = self._mine.stream
        return stream


class _OpenvinoTower:
    """A stream of one thread for each worker: no worker waits for another, and their number changes no result."""

    def __init__(self, module: torch.nn.Module, example: Pixels, precision: str, workers: int) -> None:
        openvino = _openvino()
        batch = torch.export.Dim("batch", min=1, max=4096)
        with torch.no_grad():
            exported = torch.export.export(module.eval(), (torch.from_numpy(example),), dynamic_shapes=({0: batch},))
        settings = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
            "NUM_STREAMS": workers,
            "INFERENCE_NUM_THREADS": workers,
        }
        self._compiled = openvino.Core().compile_model(openvino.convert_model(exported), "CPU", settings)
        page_out(module)
        self._mine = threading.local()

    def __call__(self, pixels: Pixels) -> Rows:
        if not hasattr(self._mine, "request"):
            self._mine.request = self._compiled.create_infer_request()
        found: Rows = self._mine.request.infer({0: pixels}, share_inputs=True)[0].copy()
        return found


def _openvino() -> Any:
    """Imported on demand, and without its telemetry, which would report each conversion to its makers unasked."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
