"""Read-only views of a folder and of a zip archive: sorted names, bounded reads, no file outside."""

import os
import re
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from cbir.core.errors import DataError, UndecodableImage

ARCHIVE, FOLDER = "archive.zip", "folder.json"  # names in data/raw/
MAX_FILE_BYTES = 256 * 2**20  # larger than any image file; stops a zip bomb before it fills the memory


class Files(Protocol):
    """A view of files.  root : the folder or archive, for messages.  names : sorted relative paths with `/`."""

    root: str
    names: list[str]

    def read(self, name: str) -> bytes:
        """Return the bytes of a file.  Raises UndecodableImage if they cannot be read."""
        ...


class Folder:
    """The files below a folder, except hidden ones; links to folders are not followed, because they may form a circle."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise DataError(f"{path}: expected a folder of images, found {'a file' if path.exists() else 'nothing'}")
        self.root = str(path)
        files = list(_walk(path))
        self._paths = {_printable(os.path.relpath(file, path)): file for file in files}
        self.names = sorted(self._paths)
        if len(self.names) < len(files):
            raise DataError(
                f"{path}: two names are equal after bytes that are not UTF-8 became \\xNN: rename one of them"
            )

    def read(self, name: str) -> bytes:
        return read_file(self._paths[name])

    def fingerprint(self) -> Iterator[str]:
        """Yield the `stamp` of each file."""
        for name in self.names:
            yield stamp(name, self._paths[name])


class Zip:
    """The members of a zip archive, except hidden ones and those of macOS's `__MACOSX` folder.

    An archive with a link, or with a member that would be unpacked outside its folder, is refused.
    """

    def __init__(self, path: Path) -> None:
        self.root = str(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise DataError(f"{path} is not here: run `dvc repro download`") from None
        except Exception as error:  # BadZipFile, NotImplementedError, UnicodeDecodeError, ...
            raise DataError(
                f"{path}: expected a whole zip archive, found another file, or a damaged or truncated one ({error})"
            ) from error
        members = [info for info in self._zip.infolist() if not info.is_dir()]
        for info in members:
            _refuse_unsafe(path, info)
        names = {info.filename.removeprefix("./"): info for info in members}
        self._members = {name: info for name, info in names.items() if not _is_hidden(name)}
        self.names = sorted(self._members)

    def read(self, name: str) -> bytes:
        info = self._members[name]
        if info.file_size > MAX_FILE_BYTES:
            raise UndecodableImage("file too large", f"{info.file_size} bytes")
        try:
            with self._zip.open(info) as member:
                return member.read(MAX_FILE_BYTES)  # stops at the declared size and checks the CRC
        except Exception as error:  # BadZipFile, EOFError, RuntimeError, and those of each decompressor
            raise UndecodableImage("damaged archive member", str(error)) from error

    def require(self, name: str) -> bytes:
        """Return the bytes of a member that the data set needs.  Raises DataError if it is missing or damaged."""
        if name not in self._members:
            raise DataError(f"{self.root}: expected a member {name}, found none among {len(self.names)}")
        try:
            return self.read(name)
        except UndecodableImage as error:
            raise DataError(f"{self.root}: member {name}: {error}") from error


def stamp(name: str, path: Path) -> str:
    """Return a line that changes when the file does: name, size in bytes, time of the last change in ns."""
    info = path.stat() if path.exists() else path.lstat()  # of the target of a link, if there is one
    return f"{name}\t{info.st_size}\t{info.st_mtime_ns}"


def read_file(path: Path) -> bytes:
    """Return the bytes of a file on this machine.  Raises UndecodableImage if they cannot be read."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise UndecodableImage("not a plain file")
        if info.st_size > MAX_FILE_BYTES:
            raise UndecodableImage("file too large", f"{info.st_size} bytes, more than {MAX_FILE_BYTES}")
        return path.read_bytes()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and path.is_symlink():
            raise UndecodableImage("dangling link", f"points to {_printable(os.readlink(path))}") from error
        raise UndecodableImage("unreadable file", error.strerror or str(error)) from error


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root, onerror=_refuse_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(folder, name)


def _refuse_unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename}: this folder cannot be read: {error.strerror}") from error


def _printable(relative: str) -> str:
    """Return a relative path as valid Unicode with `/`; bytes that are not UTF-8 become \\xNN."""
    return Path(relative).as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _is_hidden(name: str) -> bool:
    parts = name.split("/")
    return parts[0] == "__MACOSX" or any(part.startswith(".") for part in parts)


def _refuse_unsafe(path: Path, info: zipfile.ZipInfo) -> None:
    if "\\" in info.filename:
        raise DataError(
            f"{path}: member {info.filename!r}: expected '/' between folders, found a backslash: pack the archive again"
        )
    if info.filename.startswith("/") or ".." in info.filename.split("/") or re.match("[A-Za-z]:", info.filename):
        raise DataError(
            f"{path}: member {info.filename!r} leaves its folder: expected an archive that is safe to unpack"
        )
    if stat.S_ISLNK(info.external_attr >> 16):
        raise DataError(f"{path}: member {info.filename!r} is a link: expected an archive that is safe to unpack")
