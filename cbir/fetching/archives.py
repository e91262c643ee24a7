"""A read-only view of a zip archive: sorted names, bounded reads, no file outside."""

import re
import stat
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from cbir.artifacts.left_out import LeftOut, Reason, reason_of
from cbir.core.errors import DataError, UndecodableImage
from cbir.fetching.views import MAX_FILE_BYTES

ARCHIVE, FOLDER = "archive.zip", "folder.json"  # names in data/raw/


class Zip:
    """The members of a zip archive, except hidden ones and those in folders that software makes, such as `__MACOSX`.

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
        self._outside = {name: folder for name in names if (folder := _left_out_folder(name)) is not None}
        self._members = {
            name: info
            for name, info in names.items()
            if name not in self._outside and not name.rpartition("/")[2].startswith(".")
        }
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

    def path(self, name: str) -> None:
        return None

    def left_out(self, is_image: Callable[[str], bool]) -> list[LeftOut]:
        images = Counter(folder for name, folder in self._outside.items() if is_image(name))
        return [LeftOut(folder, reason, count) for (folder, reason), count in sorted(images.items())]

    def require(self, name: str) -> bytes:
        """Return the bytes of a member that the data set needs.  Raises DataError if it is missing or damaged."""
        if name not in self._members:
            raise DataError(f"{self.root}: expected a member {name}, found none among {len(self.names)}")
        try:
            return self.read(name)
        except UndecodableImage as error:
            raise DataError(f"{self.root}: member {name}: {error}") from error


def _left_out_folder(name: str) -> tuple[str, Reason] | None:
    """The outermost folder of a member that is left out, with the reason."""
    *folders, _ = name.split("/")
    for number, folder in enumerate(folders, start=1):
        reason = reason_of(folder)
        if reason is not None:
            return "/".join(folders[:number]), reason
    return None


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
