"""An encoder's index on disk, with a passport that names the vectors from which it was built."""

from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import faiss

from cbir.artifacts.vectors import VectorSet, check_passport, read_passport, write_passport
from cbir.core.errors import DataError
from cbir.core.files import replacing, write_json
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
        },
    )


def open_index(folder: Path, vectors: VectorSet) -> faiss.Index:
    """Read the index in `folder`.  Raises PassportError unless it was built from these vectors."""
    check_passport(read_passport(folder)["vectors"], vectors.passport, str(folder))
    return read_index(folder / _INDEX)


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
    if not path.is_file():
        raise DataError(f"{path}: expected a FAISS index, found no such file: build it: dvc repro index")
    try:
        index = faiss.read_index(str(path))
        kind_of(index)
    except (RuntimeError, DataError) as error:
        raise DataError(
            f"{path}: expected a whole index that FAISS {faiss.__version__} can read, found something else ({error}): "
            "build it again: dvc repro --force index"
        ) from error
    return index
