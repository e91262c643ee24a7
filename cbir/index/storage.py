"""An encoder's index with its passport: build and write it, and open it for vectors that must be those it was built from."""

from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import faiss

from cbir.artifacts.vectors import VectorSet, check_passport, read_passport, write_passport
from cbir.core.files import write_json
from cbir.index.faiss_index import (
    BuildParams,
    build_index,
    factory_string,
    read_index,
    resolve_build_params,
    write_index,
)
from cbir.index.params import IndexParams


def index_vectors(vectors: VectorSet, params: IndexParams, out: Path, threads: int) -> None:
    """Leave `index.faiss`, `passport.json` and `build.json` in `out`; only build.json holds a time."""
    n_rows, dim = len(vectors.ids), vectors.passport["dim"]
    build = BuildParams(kind=params.kind.value, **vars(params.build))
    begun = perf_counter()
    index = build_index(vectors.parts, n_rows, dim, build, threads)
    build_s = perf_counter() - begun
    out.mkdir(parents=True, exist_ok=True)
    write_index(out / "index.faiss", index)
    write_passport(
        out,
        {
            "kind": build.kind,
            "factory": factory_string(build, n_rows, dim),
            "build": asdict(resolve_build_params(build, n_rows, dim)),
            "faiss": faiss.__version__,
            "vectors": vectors.passport,
        },
    )
    index_bytes = (out / "index.faiss").stat().st_size
    write_json(
        out / "build.json",
        {
            "build_s": round(build_s, 3),
            "threads": threads,
            "index_bytes": index_bytes,
            "bytes_per_vector": index_bytes / n_rows,
        },
    )


def open_index(folder: Path, vectors: VectorSet) -> faiss.Index:
    """Read the index in `folder`.  Raises PassportError when it was built from other vectors than these."""
    check_passport(read_passport(folder)["vectors"], vectors.passport, str(folder))
    return read_index(folder / "index.faiss")
