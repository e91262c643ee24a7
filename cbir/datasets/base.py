"""What a data set's reader provides, and the seeded choice of images."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

SUFFIXES = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp")  # of images

Grade = tuple[str, str, int]  # query_id, image_id, relevance


@dataclass(frozen=True)
class SourceImage:
    """One image of a source, not read yet: `read()` gives the file's bytes or raises UndecodableImage."""

    image_id: str
    label: str | None
    label_name: str | None
    caption: str | None
    source: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Query:
    """One row of the query list; `image_id` for cbir, `text` for tbir."""

    query_id: str
    task: str
    image_id: str | None
    text: str | None
    label: str | None
    subset: str | None = None


class Source(Protocol):
    """A data set, ready to be read.  Iterations can be repeated, and come in the order of image_id."""

    def gallery(self) -> Iterator[SourceImage]:
        """The images that are searched."""
        ...

    def queries(self) -> Iterator[SourceImage]:
        """The images that ask; none of them is in the gallery."""
        ...

    def class_names(self) -> dict[str, str]:
        """label -> the name that stands in a prompt, for every class of the data set."""
        ...

    def synonyms(self) -> dict[str, list[str]]:
        """label -> every name of the class, that of class_names first."""
        ...

    def ignored(self) -> dict[str, int]:
        """Files that are left out because their names say that they are no images: suffix -> how many."""
        ...

    def part(self, label: str | None) -> str | None:
        """The part of the classes of which figures are wanted apart, such as "unseen"; None where there are no parts."""
        ...

    def grades(self, queries: Iterable[Query]) -> Iterator[Grade] | None:
        """Graded relevance of gallery images, or None where relevant means: of the same label."""
        ...


def choose(images: Iterable[SourceImage], per_class: int | None, seed: int) -> Callable[[SourceImage], bool]:
    """A test whether an image is among the `per_class` chosen of its label (null: all are).

    The choice depends on the seed and each image's id only, never on the order of a listing.
    """
    if per_class is None:
        return lambda image: True
    ranked: dict[str | None, list[tuple[bytes, str]]] = defaultdict(list)
    for image in images:
        ranked[image.label].append((_draw(seed, image.image_id), image.image_id))
    chosen = {image_id for members in ranked.values() for _, image_id in sorted(members)[:per_class]}
    return lambda image: image.image_id in chosen


def _draw(seed: int, image_id: str) -> bytes:
    return hashlib.sha256(f"{seed}/{image_id}".encode()).digest()[:8]
