"""What a search returns: ranked hits and the nearest categories."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd

EXACT: Final = "exact"
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
    encode_ms, search_ms : milliseconds to embed the query and to search, without the time to open models and indexes.
    """

    encoder: str
    by: str
    hits: tuple[Hit, ...]
    categories: tuple[Category, ...]
    encode_ms: float
    search_ms: float

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
        return asdict(self)
