"""Read-only views of a folder and of a zip archive: sorted names, bounded reads, nothing outside of them.

A view has `root` (what it reads, for messages), `names` (sorted, relative, with `/`) and `read(name)`.
"""

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from cbir.datasets.base import MAX_FILE_BYTES
from cbir.errors import DataError, UndecodableImage


class Files(Protocol):
    """Named files, wherever they lie."""

    root: str
    names: list[str]

    def read(self, name: str) -> bytes:
        """The file's bytes.  Raises UndecodableImage when they cannot be had."""
        ...


class Folder:
    """The files below a folder; links to folders are not followed, so a circle of links ends."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise DataError(f"{path}: expected a folder of images, found {'a file' if path.exists() else 'nothing'}")
        self.root = str(path)
        self._paths = {_printable(os.path.relpath(file, path)): file for file in _walk(path)}
        self.names = sorted(self._paths)

    def read(self, name: str) -> bytes:
        path = self._paths[name]
        if not path.exists():
            raise UndecodableImage("dangling link", f"points to {os.readlink(path)}")
        try:
            if not path.is_file():
                raise UndecodableImage("not a plain file")
            if path.stat().st_size > MAX_FILE_BYTES:
                raise UndecodableImage("file too large", f"more than {MAX_FILE_BYTES} bytes")
            return path.read_bytes()
        except OSError as error:
            raise UndecodableImage("unreadable file", error.strerror or str(error)) from error

    def fingerprint(self) -> Iterator[str]:
        """A line for every file that changes when the file does: name, bytes, time of the last change in ns."""
        for name in self.names:
            info = self._paths[name].lstat()
            yield f"{name}\t{info.st_size}\t{info.st_mtime_ns}"


class Zip:
    """The members of a zip archive.  Members that would leave their folder, and links, are refused with the archive."""

    def __init__(self, path: Path) -> None:
        self.root = str(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise DataError(f"{path} is not here: run `dvc repro download`") from None
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(
                f"{path}: expected a whole zip archive, found a damaged or truncated one ({error})"
            ) from error
        members = [info for info in self._zip.infolist() if not info.is_dir()]
        for info in members:
            _refuse_unsafe(path, info)
        self._members = {info.filename: info for info in members}
        self.names = sorted(self._members)

    def read(self, name: str) -> bytes:
        info = self._members[name]
        if info.file_size > MAX_FILE_BYTES:
            raise UndecodableImage("file too large", f"{info.file_size} bytes")
        try:
            with self._zip.open(info) as member:
                return member.read(MAX_FILE_BYTES)  # stops at the declared size, and checks the CRC at the end
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
            raise UndecodableImage("damaged archive member", str(error)) from error

    def require(self, name: str) -> bytes:
        """A member that the data set cannot do without.  Raises DataError when it is absent or damaged."""
        if name not in self._members:
            raise DataError(f"{self.root}: expected a member {name}, found none among {len(self.names)}")
        try:
            return self.read(name)
        except UndecodableImage as error:
            raise DataError(f"{self.root}: member {name}: {error}") from error


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


def _refuse_unsafe(path: Path, info: zipfile.ZipInfo) -> None:
    parts = info.filename.replace("\\", "/").split("/")
    if info.filename.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise DataError(f"{path}: member {info.filename!r} leaves its folder: this archive is not safe, refused")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise DataError(f"{path}: member {info.filename!r} is a link: this archive is not safe, refused")
