"""An encoder's index on disk, with a passport that names the vectors from which it was built."""

from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import faiss

from cbir.artifacts.vectors import VectorSet, check_passport, read_passport, write_passport
from cbir.core.errors import REPAIR, DataError, PassportError
from cbir.core.files import replacing, unchanged_file_sha256, write_json
from cbir.index.build import build_index, factory_string, resolve_build_params
from cbir.index.kinds import kind_of
from cbir.index.params import IndexParams

_INDEX = "index.faiss"


def index_vectors(vectors: VectorSet, params: IndexParams, out: Path, threads: int) -> None:
    """Build an index and write `index.faiss`, `passport.json` and `build.json` to `out`; only build.json holds a time."""
    n_rows, dim = len(vectors.ids), vectors.passport["dim"]
    kind = params.kind.value
    begun = perf_counter()
    index = build_index(vectors.parts, n_rows, dim, kind, params.build, threads)
    build_s = perf_counter() - begun
    out.mkdir(parents=True, exist_ok=True)
    write_index(out / _INDEX, index)
    write_passport(
        out,
        {
            "kind": kind,
            "factory": factory_string(kind, params.build, n_rows, dim),
            "build": {"kind": kind, **asdict(resolve_build_params(kind, params.build, n_rows, dim))},
            "faiss": faiss.__version__,
            "sha256": unchanged_file_sha256(out / _INDEX),
            "vectors": vectors.passport,
        },
    )
    size_bytes = index_bytes(out)
    write_json(
        out / "build.json",
        {
            "build_s": round(build_s, 3),
            "threads": threads,
            "index_bytes": size_bytes,
            "bytes_per_vector": size_bytes / n_rows,
            "of": unchanged_file_sha256(out / _INDEX),
        },
    )


def open_index(folder: Path, vectors: VectorSet) -> faiss.Index:
    """Read the index in `folder`.

    Raises PassportError unless it is the one that was built from these vectors; DataError when it cannot be read.
    """
    passport = read_passport(folder)
    check_passport(passport, {"vectors": vectors.passport}, str(folder))
    path = folder / _INDEX
    _check_exists(path)
    if (sha256 := unchanged_file_sha256(path)) != passport.get("sha256"):
        raise PassportError(f"{path}: expected sha256 {passport.get('sha256')}, found {sha256}; {REPAIR}")
    index = read_index(path)
    kind, rows = kind_of(index).name, len(vectors.ids)
    if (kind, index.ntotal, index.d) != (passport["kind"], rows, vectors.passport["dim"]):
        raise PassportError(
            f"{path}: expected {passport['kind']} of {rows:,} x {vectors.passport['dim']}, found {kind} of "
            f"{index.ntotal:,} x {index.d}; {REPAIR}"
        )
    return index


def index_bytes(folder: Path) -> int:
    """The size in bytes of the index in `folder`."""
    return (folder / _INDEX).stat().st_size


def write_index(path: Path, index: faiss.Index) -> None:
    """Write the index under a temporary name, then rename it: after a crash, the old file or none is there, never a part."""
    with replacing(path) as temporary:
        faiss.write_index(index, str(temporary))


def read_index(path: Path) -> faiss.Index:
    """Read an index that write_index wrote.

    Raises DataError when the file does not exist, FAISS cannot read it, or it holds an index of another kind.
    """
    _check_exists(path)
    try:
        index = faiss.read_index(str(path))
        kind_of(index)
    except (RuntimeError, DataError) as error:
        raise DataError(
            f"{path}: expected a whole index that FAISS {faiss.__version__} can read, found something else ({error}); "
            f"{REPAIR}"
        ) from error
    return index


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path}: expected a FAISS index, found no such file; {REPAIR}")
