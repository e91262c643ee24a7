"""An interrupt (Ctrl-C) is one line whenever it comes, also while modules are imported.  It imports next to nothing."""

import sys
from types import TracebackType


def say_interrupted(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """The `sys.excepthook` of commands and stages: one line for an interrupt, a traceback for anything else."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)
