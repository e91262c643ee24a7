"""Tiny ImageNet, read from its zip archive: 200 classes of 64 px images.

The gallery is train/<wnid>/images, the query images are val/images.  The validation images are not sorted into folders by
class: val/val_annotations.txt has their labels.  words.txt has the names of each WordNet id, separated by ", ".
"""

from collections.abc import Iterable, Iterator
from functools import partial

from cbir.artifacts.left_out import LeftOut
from cbir.artifacts.queries import Judgement
from cbir.core.errors import DataError
from cbir.datasets.base import Query, SourceImage
from cbir.fetching.archives import Zip


class TinyImagenet:
    """Tiny ImageNet as a data set; see `cbir.datasets.base.Dataset`."""

    def __init__(self, archive: Zip) -> None:
        self._zip = archive
        self._root = self._find_root()
        self._wnids = self._lines("wnids.txt")
        names = dict(line.split("\t", 1) for line in self._lines("words.txt") if "\t" in line)
        for wnid in self._wnids:
            if wnid not in names:
                raise DataError(f"{self._zip.root}: words.txt: expected a line for class {wnid}, found none")
        self._names = {wnid: names[wnid] for wnid in self._wnids}
        self._val_labels = self._read_annotations()

    def gallery(self) -> Iterator[SourceImage]:
        for name in self._names_below("train/"):
            parts = name.split("/")
            if len(parts) == 4 and parts[2] == "images":
                yield self._image(name, self._checked_wnid(parts[1], name))

    def query_images(self) -> Iterator[SourceImage]:
        for name in self._names_below("val/images/"):
            label = self._val_labels.get(name.rsplit("/", 1)[1])
            if label is None:
                raise DataError(f"{self._zip.root}: {name} has no line in val/val_annotations.txt")
            yield self._image(name, label)

    def class_names(self) -> dict[str, str]:
        return {wnid: names[0] for wnid, names in self.synonyms().items()}

    def synonyms(self) -> dict[str, list[str]]:
        return {wnid: self._names[wnid].split(", ") for wnid in sorted(self._wnids)}

    def ignored_files(self) -> dict[str, int]:
        return {}

    def left_out(self) -> list[LeftOut]:
        return []

    def notes(self) -> list[str]:
        return []

    def class_group(self, label: str | None) -> str | None:
        return None

    def judgements(self, queries: Iterable[Query]) -> Iterator[Judgement] | None:
        return None

    def _find_root(self) -> str:
        names = [name for name in self._zip.names if name == "wnids.txt" or name.endswith("/wnids.txt")]
        if not names:
            raise DataError(
                f"{self._zip.root}: expected Tiny ImageNet's layout with a wnids.txt, found {len(self._zip.names)} "
                "other members; for your own images use dataset=image_folder"
            )
        return min(names, key=len).removesuffix("wnids.txt")

    def _lines(self, name: str) -> list[str]:
        try:
            return self._zip.require(self._root + name).decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{self._zip.root}: {name}: expected text in UTF-8: {error}") from error

    def _names_below(self, folder: str) -> Iterator[str]:
        prefix = self._root + folder
        return (name.removeprefix(self._root) for name in self._zip.names if name.startswith(prefix))

    def _read_annotations(self) -> dict[str, str]:
        name = "val/val_annotations.txt"
        labels = {}
        for number, line in enumerate(self._lines(name), start=1):
            fields = line.split("\t")
            if len(fields) < 2:
                raise DataError(f"{self._zip.root}: {name} line {number}: expected 'image<TAB>wnid...', found {line!r}")
            labels[fields[0]] = self._checked_wnid(fields[1], f"{name} line {number}")
        return labels

    def _checked_wnid(self, wnid: str, where: str) -> str:
        if wnid not in self._names:
            raise DataError(f"{self._zip.root}: {where}: class {wnid} is not in wnids.txt")
        return wnid

    def _image(self, name: str, label: str) -> SourceImage:
        return SourceImage(name, label, self._names[label], None, name, partial(self._zip.read, self._root + name))
