"""Read-only views of a folder and of a zip archive: sorted names, bounded reads, nothing outside of them.

A view has `root` (what it reads, for messages), `names` (sorted, relative, with `/`) and `read(name)`.
"""

import os
import re
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from cbir.core.errors import DataError, UndecodableImage

ARCHIVE, FOLDER = "archive.zip", "folder.json"  # the names inside data/raw/
MAX_FILE_BYTES = 256 * 2**20  # a single image file is never larger; stops a zip bomb before it fills the memory


class Files(Protocol):
    """Named files, wherever they lie."""

    root: str
    names: list[str]

    def read(self, name: str) -> bytes:
        """The file's bytes.  Raises UndecodableImage when they cannot be had."""
        ...


class Folder:
    """The files below a folder but for hidden ones; links to folders are not followed, so a circle of links ends."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise DataError(f"{path}: expected a folder of images, found {'a file' if path.exists() else 'nothing'}")
        self.root = str(path)
        files = list(_walk(path))
        self._paths = {_printable(os.path.relpath(file, path)): file for file in files}
        self.names = sorted(self._paths)
        if len(self.names) < len(files):
            raise DataError(f"{path}: two names are the same once bytes that are no UTF-8 become \\xNN: rename one")

    def read(self, name: str) -> bytes:
        return read_file(self._paths[name])

    def fingerprint(self) -> Iterator[str]:
        """A line for every file that changes when the file does: name, bytes, time of the last change in ns."""
        for name in self.names:
            yield stamp(name, self._paths[name])


class Zip:
    """The members of a zip archive but for hidden ones, macOS's copies of them too.

    Members that would leave their folder, and links, are refused with the archive.
    """

    def __init__(self, path: Path) -> None:
        self.root = str(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise DataError(f"{path} is not here: run `dvc repro download`") from None
        except Exception as error:  # zipfile raises BadZipFile, NotImplementedError, UnicodeDecodeError, ...
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
                return member.read(MAX_FILE_BYTES)  # stops at the declared size, and checks the CRC at the end
        except Exception as error:  # zipfile raises BadZipFile, EOFError, RuntimeError, and what each decompressor does
            raise UndecodableImage("damaged archive member", str(error)) from error

    def require(self, name: str) -> bytes:
        """A member that the data set cannot do without.  Raises DataError when it is absent or damaged."""
        if name not in self._members:
            raise DataError(f"{self.root}: expected a member {name}, found none among {len(self.names)}")
        try:
            return self.read(name)
        except UndecodableImage as error:
            raise DataError(f"{self.root}: member {name}: {error}") from error


def stamp(name: str, path: Path) -> str:
    """A line that changes when the file does: name, bytes, time of the last change in ns."""
    info = path.stat() if path.exists() else path.lstat()  # of what a link points to, unless it dangles
    return f"{name}\t{info.st_size}\t{info.st_mtime_ns}"


def read_file(path: Path) -> bytes:
    """The bytes of a file on this machine.  Raises UndecodableImage when they cannot be had."""
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
    """A name that is valid Unicode with `/`: bytes that are no UTF-8 become \\xNN."""
    return (
        PurePosixPath(*Path(relative).parts)
        .as_posix()
        .encode("utf-8", "surrogateescape")
        .decode("utf-8", "backslashreplace")
    )


def _is_hidden(name: str) -> bool:
    parts = name.split("/")
    return parts[0] == "__MACOSX" or any(part.startswith(".") for part in parts)


def _refuse_unsafe(path: Path, info: zipfile.ZipInfo) -> None:
    if "\\" in info.filename:
        raise DataError(f"{path}: member {info.filename!r}: expected '/' between folders: pack the archive anew")
    if info.filename.startswith("/") or ".." in info.filename.split("/") or re.match("[A-Za-z]:", info.filename):
        raise DataError(f"{path}: member {info.filename!r} leaves its folder: this archive is not safe, refused")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise DataError(f"{path}: member {info.filename!r} is a link: this archive is not safe, refused")
