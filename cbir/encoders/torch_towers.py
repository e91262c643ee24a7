"""Towers that torch runs, on any device."""

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cbir.encoders.runtime import Runtime

_HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def autocast(device: str, precision: str) -> torch.autocast:
    """The arithmetic of the forward pass: "fp16" and "bf16" by torch's autocast, "fp32" without it."""
    return torch.autocast(device, dtype=_HALVES.get(precision, torch.bfloat16), enabled=precision in _HALVES)


class TorchTower:
    """A tower in the format channels_last: 1.5 times as fast for convolutions on a CPU (measured), and fit for tensor cores."""

    def __init__(self, module: torch.nn.Module, runtime: Runtime) -> None:
        # without gradients: autocast keeps its casts of parameters that have one, for all threads, and would give those of
        # one stream to another, which may read them before they are written
        self.module = module.eval().requires_grad_(False).to(runtime.device).to(memory_format=torch.channels_last)
        self._runtime, self._local = runtime, threading.local()
        if runtime.device == "cuda":
            # fp32 means fp32: by default, cuDNN rounds the inputs of a convolution to 10 bits, and some installations let
            # cuBLAS do so
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
            torch.cuda.synchronize()  # the other streams do not wait for this one, which still moves the weights

    @torch.inference_mode()
    def __call__(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """n pixels or tokens -> float32 (n, dim), from any thread; the inputs may be overwritten afterwards."""
        if self._runtime.device == "cuda":
            # one stream for each thread: a copy runs during the forward pass of another thread
            with torch.cuda.stream(self._stream()):
                return self._forward(torch.from_numpy(inputs).pin_memory())
        return self._forward(torch.from_numpy(inputs))

    def _forward(self, inputs: torch.Tensor) -> npt.NDArray[np.float32]:
        with autocast(self._runtime.device, self._runtime.precision):
            rows = self.module(inputs.to(self._runtime.device, non_blocking=True))
        vectors: npt.NDArray[np.float32] = rows.cpu().numpy()  # waits for this thread's stream
        return vectors

    def _stream(self) -> torch.cuda.Stream:
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream: torch.cuda.Stream = self._local.stream
        return stream
