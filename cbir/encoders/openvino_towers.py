"""Towers that OpenVINO runs on CPUs: exported once from the torch modules, then read without torch."""

import hashlib
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cbir.core.errors import REPAIR, WeightsError

_HINTS = {"fp32": "f32", "bf16": "bf16"}
# OpenVINO's Python module fills its tables of types at first use and releases the interpreter's lock meanwhile: two threads
# that do so at once wait for each other forever.  This lock lets one thread fill the tables.
_TABLES = threading.Lock()


class OpenvinoTower:
    """A tower with one stream for each worker: no worker waits for another, and their number changes no vector."""

    def __init__(self, path: Path, sha256: str, precision: str, workers: int, threads: int) -> None:
        """path : a tower that `cbir.encoders.exporting` wrote.  Raises WeightsError when its hash is not `sha256`."""
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "NUM_STREAMS": workers,
            "INFERENCE_NUM_THREADS": threads,
        }
        actual = tower_sha256(path)
        if actual != sha256:
            raise WeightsError(f"{path}: expected sha256 {sha256}, found {actual}; {REPAIR}")
        self._local = threading.local()
        with _TABLES:
            openvino = import_openvino()
            self._compiled = openvino.Core().compile_model(path, "CPU", settings)
            for port in (*self._compiled.inputs, *self._compiled.outputs):
                openvino.Tensor(np.zeros(1, port.element_type.to_dtype()), shared_memory=True).data.copy()

    def __call__(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """n pixels or tokens -> float32 (n, dim)."""
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        vectors: npt.NDArray[np.float32] = self._local.request.infer({0: inputs}, share_inputs=True)[0].copy()
        return vectors


def tower_sha256(path: Path) -> str:
    """sha256 over a tower's two files, the graph and its weights.  Raises WeightsError when one cannot be read."""
    digest = hashlib.sha256()
    for name in (path, path.with_suffix(".bin")):
        try:
            with name.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise WeightsError(f"{name}: {error.strerror}; {REPAIR}") from error
    return digest.hexdigest()


def import_openvino() -> Any:
    """Import OpenVINO on demand and without its telemetry, which would report conversions to its developers."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
