"""Finished shards of vectors, kept outside DVC's outputs: a killed run goes on there, and nothing is computed twice.

DVC deletes a stage's outputs before it runs, so what shall outlive a kill lies in the user's cache folder, one file a shard:

    <cache>/vectors/<first two digits>/<key>.npy

The key is a hash of all that makes the vectors: the images' bytes, or the texts, in their order, the maker (weights,
preprocessing, precision, backend, device, versions), and the code of `cbir.encoders`.  What changes none of these recomputes
nothing; what changes one finds no file.  The cache is a convenience: where it cannot be written, a run says so and goes on.
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

import cbir.encoders
from cbir.artifacts.vectors import Vectors
from cbir.fetching.cache import WRITING

_DIGEST_BYTES = 32  # of sha256, behind the array
_READABLE = 0o666  # less the umask: tempfile's 0600 would shut out those who share the cache


class VectorCache:
    """The shards that one maker made, in `folder`.  rows_found : how many rows have been taken from it."""

    def __init__(self, folder: Path, maker: Mapping[str, Any]) -> None:
        self._folder, self._dim = folder / "vectors", maker["dim"]
        # where the weights were fetched from makes no vector
        makes = {name: value for name, value in maker.items() if name != "origin"} | {"code": _code_sha256()}
        self._maker = hashlib.sha256(json.dumps(makes, sort_keys=True).encode()).hexdigest()
        self._writable = True
        self.rows_found = 0

    def path(self, sha256s: Sequence[str]) -> Path:
        """Where the vectors of these images or texts lie, or would."""
        key = hashlib.sha256("\n".join([self._maker, *sha256s]).encode()).hexdigest()
        return self._folder / key[:2] / f"{key}.npy"

    def get(self, path: Path, rows: int) -> Vectors | None:
        """The vectors kept at `path`, float32 (rows, dim); None when there are none, or the file is damaged."""
        try:
            kept = path.read_bytes()
        except OSError:
            return None
        array, digest = kept[:-_DIGEST_BYTES], kept[-_DIGEST_BYTES:]
        if hashlib.sha256(array).digest() != digest:
            return None  # before it is parsed: numpy meets a damaged header with errors of any kind
        found: Vectors = np.load(BytesIO(array), allow_pickle=False)
        if found.dtype != np.float32 or found.shape != (rows, self._dim):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # when it was last of use, for pruning
        self.rows_found += rows
        return found

    def put(self, path: Path, vectors: Vectors) -> None:
        """Keep the vectors; atomic, also where two runs keep the same.  Says once when the folder takes no file."""
        if not self._writable:
            return
        array = BytesIO()
        np.save(array, vectors, allow_pickle=False)
        try:
            _write_whole(path, array.getvalue())
        except OSError as error:
            self._writable = False
            print(
                f"note: the cache takes no shard ({error}): the run goes on, but a killed one would start over; "
                "`cbir cache --prune` makes room, CBIR_CACHE=/another/folder takes another",
                file=sys.stderr,
                flush=True,
            )


def _write_whole(path: Path, array: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    umask = os.umask(0)
    os.umask(umask)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=WRITING, delete=False) as file:
        try:
            file.write(array + hashlib.sha256(array).digest())
            file.close()
            os.chmod(file.name, _READABLE & ~umask)
            os.replace(file.name, path)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise


def _code_sha256() -> str:
    """Of the modules that make vectors: vectors of older code are other vectors."""
    digest = hashlib.sha256()
    for path in sorted(Path(*cbir.encoders.__path__).glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
