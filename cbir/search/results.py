"""What a search returns: ranked hits and the nearest categories."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from html import escape
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from cbir.core.errors import CbirError
from cbir.core.text import printable
from cbir.search.thumbnails import Thumbnail

if TYPE_CHECKING:
    import pandas as pd

EXACT: Final = "exact"
MAX_THUMBNAILS, THUMBNAIL_PX = 24, 128  # a notebook keeps them, about 5 kB each
RESULT_SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("label_name", pa.string()),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("path", pa.string()),
    ]
)


@dataclass(frozen=True)
class Hit:
    """One gallery image in the ranked results.

    rank : from 1.  score : cosine similarity of query and image, higher is better; ivf_pq and sq8 estimate it.
    label_name : the display name of the class, or its label where it has no name.  source : the name of the file in the data
    set.  path : the file on this machine; None where the data set is no folder, or the file is gone.
    """

    rank: int
    score: float
    label: str | None
    label_name: str | None
    image_id: str
    source: str
    path: str | None

    @property
    def file(self) -> str:
        """What to call the file: its path, or its name in the data set."""
        return self.path or self.source


@dataclass(frozen=True)
class Category:
    """A class of the gallery.  distance : 1 - cosine similarity of the query and the mean vector of the class."""

    label: str
    label_name: str
    distance: float


@dataclass(frozen=True)
class Results:
    """The results of one query.

    encoder : the name of the encoder.  by : the kind of index that was searched, or "exact".  hits : in order of rank.
    categories : the nearest classes, nearest first; empty if the gallery has no labels.
    encode_ms, search_ms : milliseconds to embed the query and to search, without the time to open models and indexes; the
    mean of its queries for each of a batch.
    read_image : reads the packed bytes of a gallery image, for notebooks; None in a copy that was unpickled.
    """

    encoder: str
    by: str
    hits: tuple[Hit, ...]
    categories: tuple[Category, ...]
    encode_ms: float
    search_ms: float
    read_image: Callable[[str], bytes] | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def to_arrow(self) -> pa.Table:
        """The hits as a table with the schema RESULT_SCHEMA."""
        return pa.Table.from_pylist([asdict(hit) for hit in self.hits], RESULT_SCHEMA)

    def to_pandas(self) -> "pd.DataFrame":
        """The hits as a data frame; needs pandas."""
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame

    def to_json(self) -> dict[str, Any]:
        """The results as plain values."""
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "read_image"}
        return plain | {name: [asdict(row) for row in plain[name]] for name in ("hits", "categories")}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "read_image": None}

    def _repr_html_(self) -> str:
        """The results as notebooks show them: a thumbnail of each, of at most MAX_THUMBNAILS."""
        figures = "".join(map(self._figure, self.hits[:MAX_THUMBNAILS]))
        more = len(self) - MAX_THUMBNAILS
        heading = f"{len(self)} {'result' if len(self) == 1 else 'results'} by {self.encoder}, {self.by}"
        return (
            f"<div>{escape(printable(heading))}{f'; the first {MAX_THUMBNAILS}:' if more > 0 else ''}</div>"
            f'<div style="display: flex; flex-wrap: wrap; gap: 8px">{figures}</div>'
        )

    def _figure(self, hit: Hit) -> str:
        name, image_id = (escape(printable(text)) for text in (hit.label_name or "no label", hit.image_id))
        style = f"margin: 0; width: {THUMBNAIL_PX}px; font-size: 12px; overflow-wrap: anywhere"
        return (
            f'<figure style="{style}">{self._image(hit, name)}'
            f"<figcaption>{hit.rank}. <b>{hit.score:.3f}</b> {name}<br>{image_id}</figcaption></figure>"
        )

    def _image(self, hit: Hit, alt: str) -> str:
        if self.read_image is None:
            return ""
        try:
            thumbnail = Thumbnail.of(self.read_image(hit.image_id), THUMBNAIL_PX)
        except (CbirError, OSError):  # the gallery was replaced since
            return ""
        return f'<img src="{thumbnail.uri}" width="{thumbnail.width}" alt="{alt}">'
