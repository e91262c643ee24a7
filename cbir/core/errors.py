"""The errors that a user can cause and mend: each is told in one line, without a traceback.

A message says what was expected, what was found, where, and the next command to type.
Every other exception is a bug of ours and keeps its traceback.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cbir.core.text import printable


class CbirError(Exception):
    """Base of all expected errors."""


class ConfigError(CbirError):
    """A parameter is unknown, missing, of the wrong type or out of its range."""


class FetchError(CbirError):
    """A file could not be fetched, or is not the file that its hash promises."""


class DataError(CbirError):
    """A data set, query list or artifact is not what the reader expects."""


class WeightsError(CbirError):
    """An encoder's weights do not exist or do not fit its architecture."""


class PassportError(CbirError):
    """Two artifacts that must come from one encoder do not."""


class UndecodableImage(Exception):
    """An image that goes to quarantine: `reason` is a short fixed phrase, `detail` what the decoder said."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a CbirError into one line on stderr and exit status 1, an interrupt into status 130; `| head` is no error.

    What the system refuses (no permission, disk full) is told in one line, too.
    """
    try:
        yield
        sys.stdout.flush()
    except CbirError as error:
        sys.exit(f"error: {printable(error, most=None)}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python's last flush fails, too
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        sys.exit(f"error: {printable(f'{where}{error.strerror or error}', most=None)}")
