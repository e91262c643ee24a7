"""A folder of images, or a zip archive of one: the first folder level is the class.

    images/cats/1.jpg   image_id "cats/1.jpg", label "cats"
    images/2.jpg        image_id "2.jpg", no label

Labels are in composed Unicode (NFC); an image_id is spelt as its file is.

The queries are the images of `query_folder` where it is given.  Otherwise `queries_per_class` images of each class, but at
most half of the class, are held out of the gallery; the seed chooses them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import PurePosixPath

from cbir.artifacts.left_out import LeftOut
from cbir.artifacts.queries import Judgement
from cbir.core.errors import ConfigError, DataError
from cbir.core.text import nfc
from cbir.datasets.base import IMAGE_SUFFIXES, Query, SourceImage, choose
from cbir.fetching.views import Files


class ImageFolder:
    """A folder of images as a data set; see `cbir.datasets.base.Dataset`.

    root : the folder in `files` that contains all images, "" or such as "photos/".
    queries_per_class : number of images of each class to hold out as queries; 0 leaves all images in the gallery.
    """

    def __init__(
        self, files: Files, root: str, query_folder: str | None, queries_per_class: int | None, seed: int
    ) -> None:
        self._files = files
        self._names = [name for name in files.names if _is_image(name)]
        self._root = root
        if not self._names:
            raise DataError(
                f"{files.root}: expected images ({', '.join(IMAGE_SUFFIXES)}), found none among {len(files.names)} files"
            )
        self._query_root = f"{self._root}{query_folder.strip('/')}/" if query_folder else None
        if self._query_root and not any(name.startswith(self._query_root) for name in self._names):
            raise ConfigError(
                f"dataset.query_folder: expected a folder with images in {files.root}, found no {query_folder}"
            )
        if self._query_root is None and queries_per_class is None:
            raise ConfigError(
                "dataset.queries_per_class: expected the number of images of each class to hold out as queries, "
                "found null; or set dataset.query_folder"
            )
        self._held_out = (
            self._choose_held_out(queries_per_class or 0, seed) if self._query_root is None else frozenset()
        )

    def gallery(self) -> Iterator[SourceImage]:
        return (image for image in self._images() if not self._is_query(image))

    def query_images(self) -> Iterator[SourceImage]:
        return (image for image in self._images() if self._is_query(image))

    def class_names(self) -> dict[str, str]:
        labels = {image.label for image in self._images() if image.label is not None}
        return {label: label.replace("_", " ") for label in sorted(labels)}

    def synonyms(self) -> dict[str, list[str]]:
        return {label: [name] for label, name in self.class_names().items()}

    def ignored_files(self) -> dict[str, int]:
        ignored = (name for name in self._files.names if not _is_image(name))
        return dict(sorted(Counter(PurePosixPath(name).suffix.lower() for name in ignored).items()))

    def left_out(self) -> list[LeftOut]:
        return self._files.left_out(_is_image)

    def notes(self) -> list[str]:
        return list(self._notes())

    def _notes(self) -> Iterator[str]:
        folders = {folder for name in self._names if (folder := self._class_folder(name)) is not None}
        if several := len(folders) - len({nfc(folder) for folder in folders}):
            yield (
                f"{several:,} class folder{' has' if several == 1 else 's have'} the name of another in a second form of "
                "Unicode (NFC and NFD): they are one class."
            )

    def class_group(self, label: str | None) -> str | None:
        return None

    def judgements(self, queries: Iterable[Query]) -> Iterator[Judgement] | None:
        return None

    def _images(self) -> Iterator[SourceImage]:
        for name in self._names:
            folder = self._class_folder(name)
            label = None if folder is None else nfc(folder)
            image_id = name.removeprefix(self._root)
            read, path = partial(self._files.read, name), self._files.path(name)
            yield SourceImage(image_id, label, label, None, image_id, read, path)

    def _class_folder(self, name: str) -> str | None:
        """The folder whose name is the class of a file, None without a class."""
        in_query_folder = self._query_root is not None and name.startswith(self._query_root)
        folder, *rest = name.removeprefix((self._query_root or "") if in_query_folder else self._root).split("/")
        return folder if rest else None

    def _is_query(self, image: SourceImage) -> bool:
        if self._query_root is not None:
            return f"{self._root}{image.image_id}".startswith(self._query_root)
        return image.image_id in self._held_out

    def _choose_held_out(self, per_class: int, seed: int) -> frozenset[str]:
        if per_class == 0:
            return frozenset()
        chosen = choose(self._images(), per_class, seed)
        remaining = {label: count // 2 for label, count in Counter(image.label for image in self._images()).items()}
        held_out = set()
        for image in self._images():
            if chosen(image) and remaining[image.label] > 0:
                held_out.add(image.image_id)
                remaining[image.label] -= 1
        return frozenset(held_out)


def common_folder(names: list[str]) -> str:
    """The folder that contains all images of an archive, such as "photos/", or "": an archive of `photos/` is that folder.

    It counts only where each image is in a folder below it, so that an archive of a single class keeps its class.

    >>> common_folder(["photos/cats/1.jpg", "photos/dogs/2.jpg"]), common_folder(["cats/1.jpg"])
    ('photos/', '')
    """
    images = [name for name in names if _is_image(name)]
    top_folders = {name.split("/", 1)[0] for name in images}
    all_nested = all(name.count("/") >= 2 for name in images)
    return f"{top_folders.pop()}/" if len(top_folders) == 1 and all_nested else ""


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES
