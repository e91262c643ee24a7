"""cbir: reproducible image retrieval as a batch pipeline.

from cbir import Searcher   # opens the results of `dvc repro` and searches them
"""

from importlib import import_module
from typing import Any

__all__ = ["Searcher"]


def __getattr__(name: str) -> Any:
    """Import on demand and by name: all stages import this package, and none of them depends on the searcher."""
    if name in __all__:
        return getattr(import_module("cbir.search.searcher"), name)
    raise AttributeError(f"module 'cbir' has no attribute {name!r}")
