"""Shapes, the embedded data set: drawings that code makes from a seed (see `cbir.drawing`), in one zip archive.

The archive contains gallery/*.jpg, queries/*.jpg, and attributes.jsonl with the attributes of each drawing.

Images of the query's label (colour and shape) are relevant.  Their grades, for nDCG:
    image query             1, plus 1 for the same texture, plus 1 for the same size
    class prompt            1
    caption of a drawing    1, plus 1 for each of texture, size and background that the caption names

The report separates labels that the demo encoders were trained on ("seen") from those that were held out ("unseen").
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial

from cbir.artifacts.left_out import LeftOut
from cbir.artifacts.queries import Judgement
from cbir.core.errors import DataError
from cbir.datasets.base import Query, SourceImage
from cbir.drawing.archive import ATTRIBUTES
from cbir.drawing.attributes import Attributes
from cbir.drawing.unseen import UNSEEN_LABELS
from cbir.fetching.archives import Zip


class Shapes:
    """Shapes as a data set; see `cbir.datasets.base.Dataset`."""

    def __init__(self, archive: Zip) -> None:
        self._zip = archive
        self._attributes: dict[str, Attributes] = {}
        for line in self._zip.require(ATTRIBUTES).decode("utf-8").splitlines():
            row = json.loads(line)
            name = row.pop("name")
            self._attributes[name] = Attributes(**row)

    def gallery(self) -> Iterator[SourceImage]:
        return self._images("gallery")

    def query_images(self) -> Iterator[SourceImage]:
        return self._images("queries")

    def class_names(self) -> dict[str, str]:
        return {label: label for label in sorted({attributes.label for attributes in self._attributes.values()})}

    def synonyms(self) -> dict[str, list[str]]:
        return {label: [name] for label, name in self.class_names().items()}

    def ignored_files(self) -> dict[str, int]:
        return {}

    def left_out(self) -> list[LeftOut]:
        return []

    def notes(self) -> list[str]:
        return []

    def class_group(self, label: str | None) -> str | None:
        return "unseen" if label in UNSEEN_LABELS else "seen"

    def judgements(self, queries: Iterable[Query]) -> Iterator[Judgement] | None:
        return self._judgements(queries)

    def _judgements(self, queries: Iterable[Query]) -> Iterator[Judgement]:
        by_label: dict[str | None, list[SourceImage]] = defaultdict(list)
        for image in self.gallery():
            by_label[image.label].append(image)
        by_caption = {attributes.caption: attributes for attributes in self._attributes.values()}
        for query in queries:
            wanted, graded = self._wanted(query, by_caption)
            for image in by_label[query.label]:
                attributes = self._attributes[image.image_id]
                same = 0 if wanted is None else sum(getattr(wanted, n) == getattr(attributes, n) for n in graded)
                yield query.query_id, image.image_id, 1 + same

    def _wanted(self, query: Query, by_caption: dict[str, Attributes]) -> tuple[Attributes | None, tuple[str, ...]]:
        """The attributes that a query shows or names, and those of them that add to the grade beside its label."""
        if query.image_id is not None:
            return self._attributes[query.image_id], ("texture", "size")
        return by_caption.get(query.text or ""), ("texture", "size", "background")

    def _images(self, split: str) -> Iterator[SourceImage]:
        for name in self._zip.names:
            if name.startswith(f"{split}/"):
                attributes = self._attributes.get(name)
                if attributes is None:
                    raise DataError(f"{self._zip.root}: {name} has no line in {ATTRIBUTES}")
                label, read = attributes.label, partial(self._zip.read, name)
                yield SourceImage(name, label, label, attributes.caption, name, read)
