"""Finished shards of vectors, kept outside DVC's outputs: a killed run resumes from them, and nothing is computed twice.

DVC deletes a stage's outputs before it runs, so shards that must survive a kill are kept in the user's cache folder:

    <cache>/vectors/<first two digits>/<key>.npy    vectors, float32 (n, dim); sha256 of each image or text; sha256 of the file
    <cache>/vectors/<first two digits>/<key>.ref    for some images or texts: the key of the last file that has their vectors

The key of a shard is a hash of all inputs of its vectors: the images' bytes or the texts, in order; the encoder's settings
(weights, preprocessing, precision, backend, device, library versions); and VECTORS_VERSION.  When images come or go, a shard
has no file of its own, but it shares images with an earlier one: the references lead there, so that only its new images are
embedded.  Adding an image to a shard keeps its other images, and one in _REFERRED of them suffices to find the earlier file.

The cache is optional: when its folder is not writable, a run prints a note and continues.
"""

import contextlib
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cbir.artifacts.vectors import Vectors
from cbir.encoders.version import VECTORS_VERSION
from cbir.fetching.cache import WRITING

Known = npt.NDArray[np.bool_]

_DIGEST_BYTES = 32  # of the sha256 that follows the arrays
_FORM = 2  # of the files
_REFERRED = 128  # one image in so many has a reference, and the first and the last of each shard
_FILE_MODE = 0o666  # less the umask: with tempfile's 0600, others who share the cache could not read the files


class VectorCache:
    """The kept shards of one encoder under one set of settings.

    rows_from_cache : how many vectors `get` has returned.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """folder : the user's cache folder.  settings : see `cbir.encoders.embedding.vector_settings`."""
        self._folder, self._dim = folder / "vectors", settings["dim"]
        # the origin of the weights is left out: the same file gives the same vectors wherever it was fetched
        inputs = {name: value for name, value in settings.items() if name != "origin"}
        inputs |= {"version": VECTORS_VERSION, "form": _FORM}
        self._settings_sha256 = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        self._writable = True
        self.rows_from_cache = 0

    def path(self, sha256s: Sequence[str]) -> Path:
        """The file of exactly these images or texts, whether or not it exists."""
        return self._path_of(self._key(*sha256s))

    def get(self, sha256s: Sequence[str], *, whole: bool) -> tuple[Vectors, Known]:
        """The vectors of these images or texts, float32 (n, dim), and which of them are known, bool (n,).

        whole : all or none of them, without a search for files that share some.  The rows that are not known hold zeros.
        """
        vectors, known = np.zeros((len(sha256s), self._dim), np.float32), np.zeros(len(sha256s), bool)
        for path in self._files(sha256s, whole):
            kept = self._read(path)
            for row in np.flatnonzero(~known).tolist() if kept else ():
                vector = kept.get(sha256s[row])
                if vector is not None:
                    vectors[row], known[row] = vector, True
            if known.all():
                break
        self.rows_from_cache += int(known.sum())
        return vectors, known

    def put(self, sha256s: Sequence[str], vectors: Vectors) -> None:
        """Write the vectors atomically; another run may write the same.  Print one note when the folder is not writable."""
        if not self._writable:
            return
        arrays = BytesIO()
        np.save(arrays, vectors, allow_pickle=False)
        np.save(arrays, np.array(sha256s, "S64"), allow_pickle=False)
        path = self.path(sha256s)
        try:
            _write(path, arrays.getvalue() + hashlib.sha256(arrays.getvalue()).digest())
            for sha256 in _referred(sha256s):
                _write(self._reference(sha256), path.stem.encode())
        except OSError as error:
            self._writable = False
            print(
                f"note: cannot write to the cache ({error}): the run continues, but if it is killed, the next one starts over; "
                "`cbir cache --prune` frees space, CBIR_CACHE=/another/folder sets another cache folder",
                file=sys.stderr,
                flush=True,
            )

    def _files(self, sha256s: Sequence[str], whole: bool) -> Iterator[Path]:
        """Yield the file of exactly these images or texts, then those that share some; they may be absent."""
        yield self.path(sha256s)
        keys = set()
        for sha256 in () if whole else _referred(sha256s):
            try:
                key = self._reference(sha256).read_bytes().decode("ascii", "replace")
            except OSError:
                continue
            if re.fullmatch("[0-9a-f]{64}", key) and key not in keys:
                keys.add(key)
                yield self._path_of(key)

    def _reference(self, sha256: str) -> Path:
        return self._path_of(self._key("reference", sha256)).with_suffix(".ref")

    def _key(self, *parts: str) -> str:
        return hashlib.sha256("\n".join([self._settings_sha256, *parts]).encode()).hexdigest()

    def _path_of(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.npy"

    def _read(self, path: Path) -> dict[str, Vectors]:
        """sha256 -> vector, of all rows of a file; empty when the file is missing or damaged."""
        try:
            body = path.read_bytes()
        except OSError:
            return {}
        arrays, digest = body[:-_DIGEST_BYTES], body[-_DIGEST_BYTES:]
        if hashlib.sha256(arrays).digest() != digest:
            return {}  # before numpy reads it, because a damaged header raises errors of any kind
        file = BytesIO(arrays)
        vectors, sha256s = (np.load(file, allow_pickle=False) for _ in range(2))
        if vectors.dtype != np.float32 or vectors.shape != (len(sha256s), self._dim):
            return {}
        with contextlib.suppress(OSError):
            os.utime(path)  # the time of last use, for pruning
        return dict(zip(sha256s.astype(str).tolist(), vectors, strict=True))


def _referred(sha256s: Sequence[str]) -> Iterable[str]:
    """The images or texts that have a reference: a sample that does not depend on the others, the first and the last."""
    sample = (sha256 for sha256 in sha256s if int(sha256[:8], 16) < 2**32 // _REFERRED)
    return dict.fromkeys((*sha256s[:1], *sha256s[-1:], *sample))


def _write(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    umask = os.umask(0)
    os.umask(umask)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=WRITING, delete=False) as file:
        try:
            file.write(body)
            file.close()
            os.chmod(file.name, _FILE_MODE & ~umask)
            os.replace(file.name, path)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise
