"""A folder of images, or a zip archive of one: the first folder level is the class.

    images/cats/1.jpg   image_id "cats/1.jpg", label "cats"
    images/2.jpg        image_id "2.jpg", no label

Labels are in composed Unicode (NFC); an image_id is spelt as its file is.

With a `gallery_folder`, such as "train", the images below it are the gallery, and its first level is the class.  The queries
are the images of `query_folder` where it is given.  Otherwise they are gallery images whose class has another image to find;
or, with `hold_out`, images that are taken out of the gallery, at most half of each class; the seed chooses them.
"""

import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import PurePosixPath

from cbir.artifacts.left_out import LeftOut
from cbir.artifacts.queries import Judgement
from cbir.core.errors import ConfigError, DataError
from cbir.core.text import listed, nfc
from cbir.datasets.base import Query, SourceImage, choose
from cbir.fetching.views import IMAGE_SUFFIXES, Files, is_image

# folders that are parts of a data set, as of ImageNet, rather than classes
_SPLITS = frozenset(
    ["train", "training", "val", "valid", "validation", "test", "testing", "gallery", "query", "queries", "probe"]
)
_NAMED_FOLDERS = 6


class ImageFolder:
    """A folder of images as a data set; see `cbir.datasets.base.Dataset`.

    root : the folder in `files` that contains all images, "" or such as "photos/".  gallery_folder, query_folder : below it;
    images in neither of two given folders are left out.
    held_out : number of images of each class to hold out as queries; 0 leaves all images in the gallery.
    """

    def __init__(
        self,
        files: Files,
        root: str,
        query_folder: str | None,
        held_out: int,
        seed: int,
        gallery_folder: str | None = None,
    ) -> None:
        self._files = files
        self._names = [name for name in files.names if is_image(name)]
        self._root = root
        self._outside: list[str] = []
        if not self._names:
            raise DataError(
                f"{files.root}: expected images ({', '.join(IMAGE_SUFFIXES)}), found none among {len(files.names)} files"
            )
        self._query_root = self._subfolder("dataset.query_folder", query_folder)
        self._gallery_root = self._subfolder("dataset.gallery_folder", gallery_folder)
        if self._gallery_root is not None:
            if self._gallery_root == self._query_root:
                raise ConfigError(
                    f"dataset.gallery_folder, dataset.query_folder: expected two folders, found {gallery_folder} twice"
                )
            chosen = tuple(filter(None, (self._gallery_root, self._query_root)))
            self._outside = [name for name in self._names if not name.startswith(chosen)]
            self._names = [name for name in self._names if name.startswith(chosen)]
        self._held_out = self._choose_held_out(held_out if self._query_root is None else 0, seed)

    def gallery(self) -> Iterator[SourceImage]:
        return (image for image in self._images() if not self._is_query(image))

    def query_images(self) -> Iterator[SourceImage]:
        if self._query_root is None and not self._held_out:
            per_class = Counter(image.label for image in self._images())
            return (image for image in self._images() if per_class[image.label] > 1)
        return (image for image in self._images() if self._is_query(image))

    def class_names(self) -> dict[str, str]:
        labels = {image.label for image in self._images() if image.label is not None}
        return {label: label.replace("_", " ") for label in sorted(labels)}

    def synonyms(self) -> dict[str, list[str]]:
        return {label: [name] for label, name in self.class_names().items()}

    def ignored_files(self) -> dict[str, int]:
        ignored = (name for name in self._files.names if not is_image(name))
        return dict(sorted(Counter(PurePosixPath(name).suffix.lower() for name in ignored).items()))

    def left_out(self) -> list[LeftOut]:
        folders = Counter(name.removeprefix(self._root).partition("/")[0] for name in self._outside)
        outside = [LeftOut(folder, "outside", count) for folder, count in folders.items()]
        return sorted([*outside, *self._files.left_out(is_image)], key=lambda folder: folder.folder)

    def notes(self) -> list[str]:
        return list(self._notes())

    def _notes(self) -> Iterator[str]:
        folders = {folder for name in self._names if (folder := self._class_folder(name)) is not None}
        if several := len(folders) - len({nfc(folder) for folder in folders}):
            yield (
                f"{several:,} class folder{' has' if several == 1 else 's have'} the name of another in a second form of "
                "Unicode (NFC and NFD): they are one class."
            )
        classes = Counter(image.label for image in self._images() if image.label is not None)
        splits = sorted(label for label in classes if label.lower() in _SPLITS)
        if splits and 2 * len(splits) >= len(classes):  # a train may also be one of many vehicles
            yield (
                f"{listed([f'`{label}`' for label in splits])} {'is a class' if len(splits) == 1 else 'are classes'} here, but "
                "also the usual names of parts of a data set: if the classes are the folders below, set "
                "`dataset.gallery_folder` and `dataset.query_folder`."
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
        top = self._query_root if in_query_folder else self._gallery_root
        folder, *rest = name.removeprefix(self._root if top is None else top).split("/")
        return folder if rest else None

    def _subfolder(self, key: str, folder: str | None) -> str | None:
        """The prefix of the names of a folder's images, None without a folder."""
        if not folder:
            return None
        wanted = nfc(f"{self._root}{posixpath.normpath(folder.strip('/'))}/")
        for name in self._names:
            if nfc(name).startswith(wanted):
                return "/".join(name.split("/")[: wanted.count("/")]) + "/"
        tops = sorted({name.removeprefix(self._root).partition("/")[0] for name in self._names if "/" in name})
        raise ConfigError(
            f"{key}: expected a folder with images in {self._files.root}, found no {folder}; its folders are "
            f"{listed(tops, _NAMED_FOLDERS) or 'none'}"
        )

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
    images = [name for name in names if is_image(name)]
    top_folders = {name.split("/", 1)[0] for name in images}
    all_nested = all(name.count("/") >= 2 for name in images)
    return f"{top_folders.pop()}/" if len(top_folders) == 1 and all_nested else ""
