"""Shapes, the embedded data set: drawings made by code from a seed (`cbir.drawing.draw`), packed in one zip.

The zip holds gallery/*.jpg, queries/*.jpg and attributes.jsonl, what each drawing shows.

Relevant to a query is what has its label (colour and shape).  Grades, for nDCG:
    image query      1, plus 1 for the same texture, plus 1 for the same size
    class prompt     1
    full caption     1, plus 1 for each of texture, size and background that is as the caption says

Figures stand apart for labels that images of the demo encoders' training have ("seen"), and for those held out ("unseen").
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from cbir.core.errors import DataError
from cbir.datasets.base import Grade, Query, SourceImage
from cbir.drawing.archive import ATTRIBUTES
from cbir.drawing.draw import Attributes
from cbir.drawing.unseen import UNSEEN_LABELS
from cbir.fetching.archives import Zip


class Shapes:
    """The reader; see `cbir.datasets.base.Source`."""

    def __init__(self, archive: Path) -> None:
        self._zip = Zip(archive)
        self._shown: dict[str, Attributes] = {}
        for line in self._zip.require(ATTRIBUTES).decode("utf-8").splitlines():
            row = json.loads(line)
            name = row.pop("name")
            self._shown[name] = Attributes(**row)

    def gallery(self) -> Iterator[SourceImage]:
        return self._split("gallery")

    def queries(self) -> Iterator[SourceImage]:
        return self._split("queries")

    def class_names(self) -> dict[str, str]:
        return {label: label for label in sorted({shown.label for shown in self._shown.values()})}

    def synonyms(self) -> dict[str, list[str]]:
        return {label: [name] for label, name in self.class_names().items()}

    def ignored(self) -> dict[str, int]:
        return {}

    def part(self, label: str | None) -> str | None:
        return "unseen" if label in UNSEEN_LABELS else "seen"

    def grades(self, queries: Iterable[Query]) -> Iterator[Grade] | None:
        return self._grades(queries)

    def _grades(self, queries: Iterable[Query]) -> Iterator[Grade]:
        by_label: dict[str | None, list[SourceImage]] = defaultdict(list)
        for image in self.gallery():
            by_label[image.label].append(image)
        by_caption = {shown.caption: shown for shown in self._shown.values()}
        for query in queries:
            asked, compared = self._asked(query, by_caption)
            for image in by_label[query.label]:
                shown = self._shown[image.image_id]
                same = 0 if asked is None else sum(getattr(asked, name) == getattr(shown, name) for name in compared)
                yield query.query_id, image.image_id, 1 + same

    def _asked(self, query: Query, by_caption: dict[str, Attributes]) -> tuple[Attributes | None, tuple[str, ...]]:
        """What the query shows or says, and which attributes count beside its label."""
        if query.image_id is not None:
            return self._shown[query.image_id], ("texture", "size")
        return by_caption.get(query.text or ""), ("texture", "size", "background")

    def _split(self, split: str) -> Iterator[SourceImage]:
        for name in self._zip.names:
            if name.startswith(f"{split}/"):
                shown = self._shown.get(name)
                if shown is None:
                    raise DataError(f"{self._zip.root}: {name} has no line in {ATTRIBUTES}")
                yield SourceImage(name, shown.label, shown.label, shown.caption, name, partial(self._zip.read, name))
