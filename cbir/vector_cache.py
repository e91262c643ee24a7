"""Finished shards of vectors, kept outside DVC's outputs: a killed run goes on there, and nothing is computed twice.

DVC deletes a stage's outputs before it runs, so what shall outlive a kill lies in the user's cache folder, one file a shard:

    <cache>/vectors/<first two digits>/<key>.npy

The key is a hash of all that makes the vectors: the images' bytes in their order, and the maker (weights, preprocessing,
precision, backend, device, versions).  What changes none of these recomputes nothing; what changes one finds no file.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cbir.artifacts.vectors import Vectors

_UNIT_TOLERANCE = 1e-3


class VectorCache:
    """The shards that one maker made, in `folder`."""

    def __init__(self, folder: Path, maker: Mapping[str, Any]) -> None:
        self._folder, self._dim = folder / "vectors", maker["dim"]
        # where the weights were fetched from makes no vector
        makes = {name: value for name, value in maker.items() if name != "origin"}
        self._maker = hashlib.sha256(json.dumps(makes, sort_keys=True).encode()).hexdigest()

    def path(self, image_sha256s: Sequence[str]) -> Path:
        """Where the vectors of these images lie, or would."""
        key = hashlib.sha256("\n".join([self._maker, *image_sha256s]).encode()).hexdigest()
        return self._folder / key[:2] / f"{key}.npy"

    def get(self, path: Path, rows: int) -> Vectors | None:
        """The vectors kept at `path`, float32 (rows, dim), unit rows; None when there are none, or the file is damaged."""
        try:
            found: Vectors = np.load(path, allow_pickle=False)
            os.utime(path)  # when it was last of use, for pruning
        except (OSError, ValueError, EOFError):
            return None
        if found.dtype != np.float32 or found.shape != (rows, self._dim):
            return None
        return found if np.allclose(np.linalg.norm(found, axis=1), 1.0, atol=_UNIT_TOLERANCE) else None

    def put(self, path: Path, vectors: Vectors) -> None:
        """Keep the vectors; atomic, also where two runs keep the same."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".writing", delete=False) as file:
            np.save(file, vectors, allow_pickle=False)
        os.replace(file.name, path)
