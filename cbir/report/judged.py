"""Queries and results of a run, with relevance judgements."""

from collections.abc import Collection
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.images import read_columns
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.queries import read_qrels, read_query_list
from cbir.artifacts.runs import read_run
from cbir.artifacts.vectors import MISSING, positions_of
from cbir.core.errors import DataError
from cbir.evaluation.relevance import Relevance

MAX_HITS: Final = 10  # per query


class ExampleQuery(NamedTuple):
    """A query: an image or a text."""

    query_id: str
    image_id: str | None
    text: str | None
    label: str | None


class ExampleHit(NamedTuple):
    """A result.  is_relevant : None if no gallery image is known to be relevant to the query."""

    rank: int
    score: float
    image_id: str
    label: str | None
    is_relevant: bool | None


class JudgedCollection:
    """The gallery's labels, the query list and the relevance judgements of a data set."""

    def __init__(self, data: DataPaths) -> None:
        self._data = data
        gallery = read_columns(data.images("gallery"), ["image_id", "label"])
        self._ids, self._labels = (gallery[name].combine_chunks() for name in ("image_id", "label"))
        queries = read_query_list(data.query_list)
        self._relevance = Relevance(self._ids, self._labels, queries, read_qrels(data.qrels))
        self._rows = {row["query_id"]: row for row in queries.to_pylist()}

    def query(self, query_id: str) -> ExampleQuery:
        """Return the query with this id.  Raises DataError if the query list does not have it."""
        if query_id not in self._rows:
            raise DataError(f"{self._data.queries}: expected the query {query_id!r}, found none: run `dvc repro`")
        row = self._rows[query_id]
        return ExampleQuery(query_id, row["image_id"], row["text"], row["label"])

    def hits(self, run: Path, query_ids: Collection[str]) -> dict[str, tuple[ExampleHit, ...]]:
        """Return query_id -> its first MAX_HITS results in a run.

        Raises DataError if a result is not in the gallery.
        """
        table = read_run(run)
        is_wanted = pc.is_in(table["query_id"], value_set=pa.array(list(query_ids), pa.string()))
        table = table.filter(pc.and_(is_wanted, pc.less_equal(table["rank"], MAX_HITS)))
        positions = positions_of(table["image_id"].combine_chunks(), self._ids)
        if MISSING in positions:
            unknown = table["image_id"][int(np.flatnonzero(positions == MISSING)[0])].as_py()
            raise DataError(
                f"{self._data.all_images}: expected the image {unknown!r} of {run}, found none: run `dvc repro`"
            )
        hits: dict[str, list[ExampleHit]] = {query_id: [] for query_id in query_ids}
        relevant = {query_id: self._relevant(self.query(query_id)) for query_id in query_ids}
        for row, position in zip(table.to_pylist(), positions.tolist(), strict=True):
            relevant_positions = relevant[row["query_id"]]
            is_relevant = position in relevant_positions if relevant_positions else None
            label = self._labels[position].as_py()
            hits[row["query_id"]].append(ExampleHit(row["rank"], row["score"], row["image_id"], label, is_relevant))
        return {query_id: tuple(of_query) for query_id, of_query in hits.items()}

    def _relevant(self, query: ExampleQuery) -> set[int]:
        """Return the positions of the relevant gallery images, without the query's own image."""
        own = int(positions_of([query.image_id], self._ids)[0]) if query.image_id is not None else MISSING
        return set(self._relevance.of(query.query_id, own)[0].tolist())
