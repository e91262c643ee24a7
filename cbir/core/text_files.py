"""Text files that users write: read line by line as UTF-8, with errors that name file and line."""

from collections.abc import Iterator
from pathlib import Path

from cbir.core.errors import DataError
from cbir.core.files import check_regular

_EXCERPT_CHARACTERS = 120


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, stripped line) for each line that is not blank; one line in memory at a time.

    Lines end with LF, CR LF or CR: str.splitlines would also split at U+2028 and similar characters.
    Raises DataError when the file cannot be read, is a device or a pipe, or is not UTF-8.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            lines = (line for data in file for line in data.removesuffix(b"\n").removesuffix(b"\r").split(b"\r"))
            for number, data in enumerate(lines, start=1):
                line = decode_utf8(path, data, number).strip()
                if line:
                    yield number, line
    except OSError as error:
        raise DataError(f"{path}: expected a file that can be read, found none: {error.strerror}") from error


def decode_utf8(path: Path, data: bytes, first_line: int = 1) -> str:
    """Decode the bytes of a file, without the byte order mark that line 1 may begin with.

    first_line : the number of the line with which `data` begins.
    Raises DataError naming line and byte when the data is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig" if first_line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        line = first_line + data.count(b"\n", 0, error.start)
        raise DataError(
            f"{path} line {line}: expected text in UTF-8, found the byte 0x{data[error.start]:02x}: save it as UTF-8"
        ) from error


def excerpt(text: str) -> str:
    """The text in quotes for a message, escaped and shortened to 120 characters.

    >>> excerpt("tab\\there"), excerpt("x" * 121) == repr("x" * 120) + "..."
    ("'tab\\\\there'", True)
    """
    return repr(text) if len(text) <= _EXCERPT_CHARACTERS else f"{text[:_EXCERPT_CHARACTERS]!r}..."
