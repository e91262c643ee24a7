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

_ENCRYPTED_FLAG, _UTF8_FLAG = 0x1, 0x800  # APPNOTE.TXT 4.4.4


class Zip:
    """The members of a zip archive, except hidden ones and those in folders that software makes, such as `__MACOSX`.

    Names are UTF-8, also where a packer did not say so.  An archive is refused that has names of another encoding, a
    password, a link, or a member that would be unpacked outside its folder.
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
        members = [(_name_of(path, info), info) for info in self._zip.infolist() if not info.is_dir()]
        for name, info in members:
            _refuse_unsafe(path, name, info)
        names = {name.removeprefix("./"): info for name, info in members}
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
        except NotImplementedError as error:
            raise UndecodableImage("unsupported compression", f"{error}: unpack the archive") from error
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


def _name_of(path: Path, info: zipfile.ZipInfo) -> str:
    """Return the name of a member.

    Where the flag of UTF-8 is not set, zipfile takes the bytes for cp437, the code page of DOS; older macOS and some Java
    tools write UTF-8, and Windows the code page of its country, which nothing in the archive tells.
    """
    has_unicode = info.flag_bits & _UTF8_FLAG or info.filename != info.orig_filename  # of Info-ZIP's extra field
    if has_unicode or info.filename.isascii():
        return info.filename
    try:
        return info.orig_filename.encode("cp437").decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: member {info.filename!r}: expected a name in UTF-8, found another code page, which the archive does not "
            "name: unpack it and give the folder, or pack it again with UTF-8 names"
        ) from error


def _refuse_unsafe(path: Path, name: str, info: zipfile.ZipInfo) -> None:
    if info.flag_bits & _ENCRYPTED_FLAG:
        raise DataError(
            f"{path}: member {name!r} has a password: expected an archive without one: unpack it and give the folder"
        )
    if "\\" in name:
        raise DataError(
            f"{path}: member {name!r}: expected '/' between folders, found a backslash: pack the archive again"
        )
    if name.startswith("/") or ".." in name.split("/") or re.match("[A-Za-z]:", name):
        raise DataError(f"{path}: member {name!r} leaves its folder: expected an archive that is safe to unpack")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise DataError(f"{path}: member {name!r} is a link: expected an archive that is safe to unpack")
