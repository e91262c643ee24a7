"""Towers that OpenVINO runs, on CPUs: exported from the very torch module once, read without torch ever after."""

import hashlib
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cbir.core.errors import WeightsError

_HINTS = {"fp32": "f32", "bf16": "bf16"}
# OpenVINO's Python side makes its tables of types when they are first needed, and lets go of the interpreter's lock meanwhile:
# two threads that come first at once wait for each other for ever, and the whole process with them.  So they are made alone.
_TABLES = threading.Lock()


class OpenvinoTower:
    """A stream for each worker: no worker waits for another, and their number changes no result."""

    def __init__(self, path: Path, sha256: str, precision: str, workers: int, threads: int) -> None:
        """path : what `cbir.encoders.exporting` wrote.  Raises WeightsError where it is not what it wrote."""
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "NUM_STREAMS": workers,
            "INFERENCE_NUM_THREADS": threads,
        }
        found = tower_sha256(path)
        if found != sha256:
            raise WeightsError(f"{path}: expected sha256 {sha256}, found {found}; run `dvc repro --force weights`")
        self._mine = threading.local()
        with _TABLES:
            openvino = import_openvino()
            self._compiled = openvino.Core().compile_model(path, "CPU", settings)
            for port in (*self._compiled.inputs, *self._compiled.outputs):
                openvino.Tensor(np.zeros(1, port.element_type.to_dtype()), shared_memory=True).data.copy()

    def __call__(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """n pixels or tokens -> float32 (n, dim)."""
        if not hasattr(self._mine, "request"):
            self._mine.request = self._compiled.create_infer_request()
        found: npt.NDArray[np.float32] = self._mine.request.infer({0: inputs}, share_inputs=True)[0].copy()
        return found


def tower_sha256(path: Path) -> str:
    """sha256 over a tower's two files, the graph and its weights.  Raises WeightsError where one is not there."""
    digest = hashlib.sha256()
    for name in (path, path.with_suffix(".bin")):
        try:
            with name.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise WeightsError(f"{name}: {error.strerror}; run `dvc repro --force weights`") from error
    return digest.hexdigest()


def import_openvino() -> Any:
    """Imported on demand, and without its telemetry, which would report each conversion to its makers unasked."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
