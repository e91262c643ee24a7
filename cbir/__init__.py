"""cbir: reproducible image retrieval as a batch pipeline.

from cbir import Searcher   # opens what `dvc repro` made, and searches it
"""

from importlib import import_module
from typing import Any

__all__ = ["Searcher"]


def __getattr__(name: str) -> Any:
    """Import on demand, and unseen by those who read imports: every stage imports this package, none of them searches."""
    if name in __all__:
        return getattr(import_module("cbir.search.searcher"), name)
    raise AttributeError(f"module 'cbir' has no attribute {name!r}")
