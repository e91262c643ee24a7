"""Errors that a user can cause and fix; commands and stages print them as one line, without a traceback.

A message says what was expected, what was found, where, and which command to run next.
Any other exception is a bug and keeps its traceback.
"""

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cbir.core.secrets import without_secrets
from cbir.core.text import printable

# for a damaged artifact: `dvc repro` alone, even with --force, brings a damaged copy in DVC's cache back
REPAIR = "run `cbir repair`, then `dvc repro`"
# of safetensors, tokenizers (Rust) and OpenVINO (C++, which gives no reason)
_OF_THE_DISK = re.compile(r"os error (27|28|122)\b|[Nn]o space left|[Ff]ile too large|iostream error|basic_ios")


class CbirError(Exception):
    """Base class of all errors that a user can fix."""


class ConfigError(CbirError):
    """A parameter is unknown, missing, of the wrong type or out of range."""


class FetchError(CbirError):
    """A file cannot be fetched, or its hash is not the expected one."""


class DataError(CbirError):
    """A data set, query list or artifact is missing, damaged or of an unexpected form."""


class WeightsError(CbirError):
    """An encoder's weights do not exist, or do not match its architecture."""


class PassportError(CbirError):
    """Artifacts that must come from the same encoder come from different ones."""


class UndecodableImage(Exception):
    """An image cannot be decoded and goes to quarantine.

    reason : a short fixed phrase.  detail : the decoder's message.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print a CbirError or an OSError (no permission, disk full) as one line on stderr and exit with status 1.

    So is a MemoryError.  An interrupt exits with status 130.  A reader that closes the pipe, such as `| head`, is not an error.
    """
    try:
        yield
        if sys.stdout is not None:  # as after `>&-`, where print writes nothing
            sys.stdout.flush()
    except CbirError as error:
        sys.exit(f"error: {_line(str(error))}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or else Python's final flush fails as well
        sys.exit(128 + signal.SIGPIPE)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't start new thread" not in str(error):
            raise
        sys.exit(
            f"error: not enough memory ({_line(str(error)) or 'none left'}): close other programs, or raise its limit"
        )
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        sys.exit(f"error: {_line(f'{where}{error.strerror or error}')}")


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Raise OSError where a library that writes into `folder` reports a full disk in an exception of its own."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if _OF_THE_DISK.search(str(error)):
            raise OSError(
                f"{folder}: cannot be written ({' '.join(str(error).split())}): make room, then run again"
            ) from error
        raise


def _line(message: str) -> str:
    return printable(without_secrets(message), max_characters=None)
