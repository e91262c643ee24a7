"""The number of threads that FAISS uses."""

from collections.abc import Iterator
from contextlib import contextmanager

import faiss

from cbir.core.errors import ConfigError


@contextmanager
def faiss_threads(threads: int) -> Iterator[None]:
    """Set FAISS's number of threads, which is global to the process, and restore it on exit."""
    if threads < 1:
        raise ConfigError(f"threads: expected 1 or more, found {threads}")
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
