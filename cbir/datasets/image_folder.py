"""A folder of images, or a zip archive of one: the first folder level is the class.

    images/cats/1.jpg   image_id "cats/1.jpg", label "cats"
    images/2.jpg        image_id "2.jpg", no label

The queries are the images of `query_folder` where it is given; otherwise `queries_per_class` images of each class are
held out of the gallery, chosen by seed, but never more than half of a class.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import PurePosixPath

from cbir.core.errors import ConfigError, DataError
from cbir.datasets.base import SUFFIXES, Grade, Query, SourceImage, choose
from cbir.fetching.archives import Files


class ImageFolder:
    """The reader; see `cbir.datasets.base.Source`.

    root : the folder inside `files` that holds everything, "" or "photos/".
    hold_out : how many images of each class become queries; 0 leaves every image in the gallery.
    """

    def __init__(self, files: Files, root: str, query_folder: str | None, hold_out: int | None, seed: int) -> None:
        self._files = files
        self._names = [name for name in files.names if _is_image(name)]
        self._root = root
        if not self._names:
            raise DataError(
                f"{files.root}: expected images ({', '.join(SUFFIXES)}), found none among {len(files.names)} files"
            )
        self._query_root = f"{self._root}{query_folder.strip('/')}/" if query_folder else None
        if self._query_root and not any(name.startswith(self._query_root) for name in self._names):
            raise ConfigError(
                f"dataset.query_folder: expected a folder with images in {files.root}, found no {query_folder}"
            )
        if self._query_root is None and hold_out is None:
            raise ConfigError(
                "dataset.queries_per_class: expected a number, how many images of each class to hold out as queries, "
                "found null; or name dataset.query_folder"
            )
        self._held_out = self._choose_held_out(hold_out or 0, seed) if self._query_root is None else frozenset()

    def gallery(self) -> Iterator[SourceImage]:
        return (image for image in self._all() if not self._asks(image))

    def queries(self) -> Iterator[SourceImage]:
        return (image for image in self._all() if self._asks(image))

    def class_names(self) -> dict[str, str]:
        labels = {image.label for image in self._all() if image.label is not None}
        return {label: label.replace("_", " ") for label in sorted(labels)}

    def synonyms(self) -> dict[str, list[str]]:
        return {label: [name] for label, name in self.class_names().items()}

    def ignored(self) -> dict[str, int]:
        others = (name for name in self._files.names if not _is_image(name))
        return dict(sorted(Counter(PurePosixPath(name).suffix.lower() for name in others).items()))

    def part(self, label: str | None) -> str | None:
        return None

    def grades(self, queries: Iterable[Query]) -> Iterator[Grade] | None:
        return None

    def _all(self) -> Iterator[SourceImage]:
        for name in self._names:
            asks = self._query_root is not None and name.startswith(self._query_root)
            parts = name.removeprefix((self._query_root or "") if asks else self._root).split("/")
            label = parts[0] if len(parts) > 1 else None
            image_id = name.removeprefix(self._root)
            yield SourceImage(image_id, label, label, None, image_id, partial(self._files.read, name))

    def _asks(self, image: SourceImage) -> bool:
        if self._query_root is not None:
            return f"{self._root}{image.image_id}".startswith(self._query_root)
        return image.image_id in self._held_out

    def _choose_held_out(self, per_class: int, seed: int) -> frozenset[str]:
        if per_class == 0:
            return frozenset()
        chosen = choose(self._all(), per_class, seed)
        free = {label: number // 2 for label, number in Counter(image.label for image in self._all()).items()}
        held_out = set()
        for image in self._all():
            if chosen(image) and free[image.label] > 0:
                held_out.add(image.image_id)
                free[image.label] -= 1
        return frozenset(held_out)


def common_folder(names: list[str]) -> str:
    """The one folder around all images of an archive, as "photos/", or "": an archive of `photos/` is that folder.

    Stripped only where every image lies in a folder below it, so that an archive of a single class keeps its class.
    """
    images = [name for name in names if _is_image(name)]
    tops = {name.split("/", 1)[0] for name in images}
    deep = all(name.count("/") >= 2 for name in images)
    return f"{tops.pop()}/" if len(tops) == 1 and deep else ""


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES
