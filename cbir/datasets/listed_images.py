"""The images that a user's query list names: gallery images, in any spelling of their paths, or files beside the list.

A query that is a gallery image is left out of its own results, so it must be recognised.  A list may name it by its image_id;
by a path, relative to the list or absolute, through links or with `./`; or by a copy of the file, which is found by its bytes.
"""

import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cbir.artifacts.paths import DataPaths
from cbir.core.errors import DataError
from cbir.core.text import nfc
from cbir.datasets.base import Dataset, SourceImage
from cbir.datasets.packing import packed_rows
from cbir.datasets.query_file import ListedQuery, image_path, listed_image, listed_image_id
from cbir.fetching.folders import identity


def images_of_rows(
    path: Path, rows: Sequence[ListedQuery], dataset: Dataset, data: DataPaths
) -> dict[str, SourceImage]:
    """Return query_id -> the image of each row that has one: a gallery image, or a file below the folder of the list.

    Raises DataError when a row names neither, or when a file's image_id would be that of a gallery image.
    """
    rows = [row for row in rows if row.image is not None]
    gallery_ids = _packed_ids(data, {str(row.image) for row in rows} | {listed_image_id(row) for row in rows})
    named = {row.query_id: str(row.image) for row in rows if row.image in gallery_ids}
    named |= _other_spellings(path, [row for row in rows if row.query_id not in named], dataset, data)
    images = gallery_images(dataset, set(named.values()))
    for row in rows:
        if row.query_id not in named and listed_image_id(row) in gallery_ids:
            raise DataError(
                f"{path} line {row.line}, column query_id: the image of {row.query_id!r} would get the image_id "
                f"{listed_image_id(row)!r}, which a gallery image already has: choose another query_id"
            )
    return {
        row.query_id: images[named[row.query_id]] if row.query_id in named else listed_image(path, row) for row in rows
    }


def copies_of_gallery_images(data: DataPaths, image_ids: Iterable[str]) -> dict[str, str]:
    """Return query image -> the first gallery image of the same bytes, for those of `image_ids` that have one.

    Both must be packed.  An id that is a gallery image's own is passed over.
    """
    queries = dict(packed_rows(data.images("queries"), "image_id", "sha256"))
    digests = {image_id: queries[image_id] for image_id in image_ids if image_id in queries}
    wanted = set(digests.values())
    first: dict[str, str] = {}
    for image_id, digest in packed_rows(data.images("gallery"), "image_id", "sha256"):
        digests.pop(image_id, None)
        if digest in wanted:
            first.setdefault(digest, image_id)
    return {image_id: first[digest] for image_id, digest in digests.items() if digest in first}


def gallery_images(dataset: Dataset, image_ids: set[str]) -> dict[str, SourceImage]:
    """Return those gallery images of the data set that have these ids."""
    return {image.image_id: image for image in dataset.gallery() if image.image_id in image_ids}


def _other_spellings(path: Path, rows: Iterable[ListedQuery], dataset: Dataset, data: DataPaths) -> Mapping[str, str]:
    """query_id -> image_id, of rows that name a packed gallery image in another way than by its image_id."""
    by_file: dict[object, list[str]] = {}
    by_name: dict[str, list[str]] = {}
    for row in rows:
        _, file = image_path(path, row)
        if os.path.isfile(file):
            by_file.setdefault(identity(file), []).append(row.query_id)
        else:
            by_name.setdefault(_spelled(str(row.image)), []).append(row.query_id)
    if not (by_file or by_name):
        return {}
    image_ids: dict[str, str] = {}
    packed = _packed_ids(data, None)
    for image in dataset.gallery():
        if image.image_id not in packed:
            continue
        query_ids = list(by_name.get(_spelled(image.image_id), ()))
        if by_file and image.path is not None:
            query_ids += by_file.get(identity(image.path), ())
        for query_id in query_ids:
            image_ids.setdefault(query_id, image.image_id)
    return image_ids


def _packed_ids(data: DataPaths, wanted: set[str] | None) -> set[str]:
    """The ids of the packed gallery images, of those wanted (None: all)."""
    ids = (image_id for (image_id,) in packed_rows(data.images("gallery"), "image_id"))
    return {image_id for image_id in ids if wanted is None or image_id in wanted}


def _spelled(name: str) -> str:
    """A path in one spelling: without `./`, in composed Unicode (NFC); macOS writes decomposed names.

    >>> _spelled("./cats//1.jpg")
    'cats/1.jpg'
    """
    return nfc(posixpath.normpath(name))
