"""What a reader of a data set provides, and the choice of images by seed."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cbir.artifacts.left_out import LeftOut

if TYPE_CHECKING:  # it imports pyarrow, and `cbir --help` imports this module
    from cbir.artifacts.queries import Judgement


@dataclass(frozen=True)
class SourceImage:
    """An image file of a data set or query list, not read yet.

    source : its path in the data set, for messages.  read : returns the file's bytes or raises UndecodableImage.
    path : the file, None for a member of an archive.
    """

    image_id: str
    label: str | None
    label_name: str | None
    caption: str | None
    source: str
    read: Callable[[], bytes]
    path: Path | None = None


@dataclass(frozen=True)
class Query:
    """One row of the query list: an image query (cbir) has an `image_id`, a text query (tbir) a `text`.

    subset : the group of queries that the report shows separately, such as "captions" or "captions/unseen".
    """

    query_id: str
    task: str
    image_id: str | None
    text: str | None
    label: str | None
    subset: str | None = None


class Dataset(Protocol):
    """An open data set.  Images come in ascending order of image_id, and can be iterated over repeatedly."""

    def gallery(self) -> Iterator[SourceImage]:
        """The images that are searched."""
        ...

    def query_images(self) -> Iterator[SourceImage]:
        """The images that can be used as queries; one that is in the gallery is left out of its own results."""
        ...

    def class_names(self) -> dict[str, str]:
        """label -> the name to use in prompts, for each class of the data set."""
        ...

    def synonyms(self) -> dict[str, list[str]]:
        """label -> all names of the class, the one of `class_names` first."""
        ...

    def ignored_files(self) -> dict[str, int]:
        """suffix -> number of files that are skipped because their names are not those of images."""
        ...

    def left_out(self) -> list[LeftOut]:
        """The folders of the data set that are not read."""
        ...

    def notes(self) -> list[str]:
        """What a user must know about the data set, in sentences without text from the data."""
        ...

    def class_group(self, label: str | None) -> str | None:
        """The group of classes to report separately, such as "unseen", that a label belongs to; None without groups."""
        ...

    def judgements(self, queries: Iterable[Query]) -> "Iterator[Judgement] | None":
        """Graded relevance of gallery images; None where images of the query's label are the relevant ones."""
        ...


def choose(images: Iterable[SourceImage], per_class: int | None, seed: int) -> Callable[[SourceImage], bool]:
    """Return a predicate that selects at most `per_class` images of each label (None: all images).

    The choice depends only on the seed and on the ids of the images of the same label, not on the order of a listing.
    """
    if per_class is None:
        return lambda image: True
    ranked: dict[str | None, list[tuple[bytes, str]]] = defaultdict(list)
    for image in images:
        ranked[image.label].append((_random_key(seed, image.image_id), image.image_id))
    chosen = {image_id for members in ranked.values() for _, image_id in sorted(members)[:per_class]}
    return lambda image: image.image_id in chosen


def _random_key(seed: int, image_id: str) -> bytes:
    return hashlib.sha256(f"{seed}/{image_id}".encode()).digest()[:8]
