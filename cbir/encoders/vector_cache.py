"""Finished shards of vectors, kept outside DVC's outputs: a killed run resumes from them, and nothing is computed twice.

DVC deletes a stage's outputs before it runs, so shards that must survive a kill are kept in the user's cache folder, one file
for each shard:

    <cache>/vectors/<first two digits>/<key>.npy

The key is a hash of all inputs of the vectors: the images' bytes or the texts, in order; the encoder's settings (weights,
preprocessing, precision, backend, device, library versions); and VECTORS_VERSION.  The cache is optional: when its folder is
not writable, a run prints a note and continues.
"""

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from cbir.artifacts.vectors import Vectors
from cbir.encoders.version import VECTORS_VERSION
from cbir.fetching.cache import WRITING

_DIGEST_BYTES = 32  # of the sha256 that follows the array
_FILE_MODE = 0o666  # less the umask: with tempfile's 0600, others who share the cache could not read the files


class VectorCache:
    """The kept shards of one encoder under one set of settings.

    rows_from_cache : how many rows `get` has returned.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """folder : the user's cache folder.  settings : see `cbir.encoders.embedding.vector_settings`."""
        self._folder, self._dim = folder / "vectors", settings["dim"]
        # the origin of the weights is left out: the same file gives the same vectors wherever it was fetched
        inputs = {name: value for name, value in settings.items() if name != "origin"} | {"version": VECTORS_VERSION}
        self._settings_sha256 = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        self._writable = True
        self.rows_from_cache = 0

    def path(self, sha256s: Sequence[str]) -> Path:
        """The path for the vectors of these images or texts, whether or not the file exists."""
        key = hashlib.sha256("\n".join([self._settings_sha256, *sha256s]).encode()).hexdigest()
        return self._folder / key[:2] / f"{key}.npy"

    def get(self, path: Path, rows: int) -> Vectors | None:
        """The vectors at `path`, float32 (rows, dim); None when the file is missing or damaged."""
        try:
            body = path.read_bytes()
        except OSError:
            return None
        array, digest = body[:-_DIGEST_BYTES], body[-_DIGEST_BYTES:]
        if hashlib.sha256(array).digest() != digest:
            return None  # before numpy reads it, because a damaged header raises errors of any kind
        vectors: Vectors = np.load(BytesIO(array), allow_pickle=False)
        if vectors.dtype != np.float32 or vectors.shape != (rows, self._dim):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the time of last use, for pruning
        self.rows_from_cache += rows
        return vectors

    def put(self, path: Path, vectors: Vectors) -> None:
        """Write the vectors atomically; another run may write the same.  Print one note when the folder is not writable."""
        if not self._writable:
            return
        array = BytesIO()
        np.save(array, vectors, allow_pickle=False)
        try:
            _write_with_digest(path, array.getvalue())
        except OSError as error:
            self._writable = False
            print(
                f"note: cannot write to the cache ({error}): the run continues, but if it is killed, the next one starts over; "
                "`cbir cache --prune` frees space, CBIR_CACHE=/another/folder sets another cache folder",
                file=sys.stderr,
                flush=True,
            )


def _write_with_digest(path: Path, array: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    umask = os.umask(0)
    os.umask(umask)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=WRITING, delete=False) as file:
        try:
            file.write(array + hashlib.sha256(array).digest())
            file.close()
            os.chmod(file.name, _FILE_MODE & ~umask)
            os.replace(file.name, path)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise
