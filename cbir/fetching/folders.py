"""A read-only view of a folder: sorted names, bounded reads, links followed, each folder read once."""

import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from cbir.artifacts.left_out import LeftOut, Reason, reason_of
from cbir.core.errors import DataError, UndecodableImage
from cbir.fetching.views import MAX_FILE_BYTES


class Folder:
    """The files below a folder, except hidden ones and those in folders that software makes (see `left_out`).

    Links are followed.  A folder that several links name is read once, so no image is there twice and no circle is endless.

    linked : the folders outside that links lead to, all links followed, sorted.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise DataError(f"{path}: expected a folder of images, found {'a file' if path.exists() else 'nothing'}")
        self.root = str(path)
        tree = _Tree(path)
        self._left_out = tree.left_out
        self.linked = sorted(tree.linked)
        self._paths = {_printable(os.path.relpath(file, path)): file for file in tree.files}
        self.names = sorted(self._paths)
        if len(self.names) < len(tree.files):
            raise DataError(
                f"{path}: two names are equal after bytes that are not UTF-8 became \\xNN: rename one of them"
            )

    def read(self, name: str) -> bytes:
        return read_file(self._paths[name])

    def path(self, name: str) -> Path:
        """Return the path of a file."""
        return self._paths[name]

    def fingerprint(self, is_content: Callable[[str], bool] | None = None) -> Iterator[str]:
        """Yield the `stamp` of each file; the name alone of those that are no content, such as a growing log."""
        for name in self.names:
            yield stamp(name, self._paths[name]) if is_content is None or is_content(name) else name

    def left_out(self, is_image: Callable[[str], bool]) -> list[LeftOut]:
        folders = []
        for path, reason in self._left_out:
            images = None
            if reason in ("hidden", "made by software"):
                images = sum(is_image(name) for _, _, names in os.walk(path) for name in names)
                if images == 0:
                    continue
            folders.append(LeftOut(_printable(os.path.relpath(path, self.root)), reason, images))
        return sorted(folders, key=lambda folder: folder.folder)


class _Tree:
    """All files below a folder, and the folders that are left out; its own folders before those behind links."""

    def __init__(self, root: Path) -> None:
        self.files: list[Path] = []
        self.left_out: list[tuple[Path, Reason]] = []
        self.linked: set[Path] = set()
        self._root = os.path.realpath(root)
        self._read: set[str] = set()
        self._links = deque([root])
        while self._links:
            link = self._links.popleft()
            place = os.path.realpath(link)
            if link != root and Path(self._root).is_relative_to(place):
                self.left_out.append((link, "read elsewhere"))
                continue
            if not Path(place).is_relative_to(self._root):
                self.linked.add(Path(place))
            self._walk(link, place)

    def _walk(self, top: Path, place: str) -> None:
        """Read a folder and those below it.  place : the folder itself, without links."""
        waiting = [(top, place)]
        while waiting:
            folder, place = waiting.pop()
            if place in self._read:
                self.left_out.append((folder, "read elsewhere"))
                continue
            self._read.add(place)
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                if place == self._root:
                    raise DataError(f"{folder}: this folder cannot be read: {error.strerror}") from error
                self.left_out.append((folder, "unreadable"))
                continue
            for entry in entries:
                path = folder / entry.name
                # a link may be one of a circle, for which entry.is_dir() raises; the others need no look at the disk
                if os.path.isdir(path) if entry.is_symlink() else entry.is_dir():
                    reason = reason_of(entry.name)
                    if reason is not None:
                        self.left_out.append((path, reason))
                    elif entry.is_symlink():
                        self._links.append(path)
                    else:
                        waiting.append((path, os.path.join(place, entry.name)))
                elif not entry.name.startswith("."):
                    self._add_file(path, entry.is_symlink())

    def _add_file(self, path: Path, is_link: bool) -> None:
        if is_link:
            if not path.suffix and not os.path.lexists(os.path.realpath(path)):
                self.left_out.append((path, "link to nothing"))  # a folder, as far as anyone can tell
                return
            target = Path(os.path.realpath(path)).parent
            if not target.is_relative_to(self._root):
                self.linked.add(target)
        self.files.append(path)


def stamp(name: str, path: Path) -> str:
    """Return a line that changes when the file does: name, size in bytes, time of the last change in ns."""
    info = path.stat() if path.exists() else path.lstat()  # of the target of a link, if there is one
    return f"{name}\t{info.st_size}\t{info.st_mtime_ns}"


def identity(path: Path) -> object:
    """Return what two paths of the same file have in common, links followed."""
    try:
        info = path.stat()
    except OSError:
        return None
    return (info.st_dev, info.st_ino) if info.st_ino else os.path.realpath(path)  # some network drives number no files


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


def _printable(relative: str) -> str:
    """Return a relative path as valid Unicode with `/`; bytes that are not UTF-8 become \\xNN."""
    return Path(relative).as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
