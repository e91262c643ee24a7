"""Code that comes with a model or a tokenizer (`auto_map`) is never run, and no library asks whether it may."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, Final

from cbir.core.errors import ConfigError

# of transformers' from_pretrained; without it, transformers asks on stdin
NO_CODE: Final[dict[str, Any]] = {"trust_remote_code": False}


def own_code_error(key: str, name: str, error: BaseException) -> ConfigError | None:
    """The error to raise where transformers refuse such code; None for another reason.

    key : the parameter that holds the name, for messages.
    """
    if "trust_remote_code" not in str(error):
        return None
    return ConfigError(
        f"{key}: {name} has code of its own (auto_map), which cbir never runs: name one that its library reads without it"
    )


@contextlib.contextmanager
def no_questions() -> Iterator[None]:
    """Close stdin for the block: no library reads an answer there."""
    stdin = sys.stdin
    with open(os.devnull, encoding="utf-8") as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = stdin
