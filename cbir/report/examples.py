"""Queries to look at, with what they found: the best, the worst, the most confused, and a seeded sample."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.images import read_columns
from cbir.artifacts.paths import ReportPaths
from cbir.artifacts.queries import read_qrels, read_query_list
from cbir.artifacts.runs import read_confusions, read_open_table, read_run
from cbir.artifacts.vectors import MISSING, positions_of
from cbir.core.errors import DataError
from cbir.evaluation.relevance import Relevance

SHOWN_RESULTS: Final = 10
SAMPLE: Final = "sample"
KINDS: Final = {"best": 2, "worst": 5, "confused": 3}  # of each task and encoder, so many, beside the sample
_VALUES = ("query_id", "label", "map_at_r", "mrr")
Row = dict[str, Any]


class ExampleQuery(NamedTuple):
    """A query: an image or a text."""

    query_id: str
    image_id: str | None
    text: str | None
    label: str | None


class Found(NamedTuple):
    """A result.  is_relevant : None where nothing is known to be relevant to the query."""

    rank: int
    score: float
    image_id: str
    label: str | None
    is_relevant: bool | None


@dataclass(frozen=True)
class Example:
    """A query with its first results, by exact search.

    kind : why it is shown.  map_at_r : None where nothing is relevant.
    """

    kind: str
    task: str
    encoder: str
    query: ExampleQuery
    map_at_r: float | None
    found: tuple[Found, ...]


class Judge:
    """Who asked, and what is right: the query list and the judgements of the data set in `data`."""

    def __init__(self, data: Path) -> None:
        self._data = data
        gallery = read_columns(data / "images" / "gallery", ["image_id", "label"])
        self._ids, self._labels = (gallery[name].combine_chunks() for name in ("image_id", "label"))
        queries = read_query_list(data / "queries" / "query_list.parquet")
        self._relevance = Relevance(self._ids, self._labels, queries, read_qrels(data / "queries" / "qrels.parquet"))
        self._rows = {row["query_id"]: row for row in queries.to_pylist()}

    def asked(self, query_id: str) -> ExampleQuery:
        """The query of this id.  Raises DataError where the query list has none."""
        if query_id not in self._rows:
            raise DataError(f"{self._data / 'queries'}: expected the query {query_id!r}, found none: run `dvc repro`")
        row = self._rows[query_id]
        return ExampleQuery(query_id, row["image_id"], row["text"], row["label"])

    def found(self, run: Path, query_ids: Collection[str]) -> dict[str, tuple[Found, ...]]:
        """query_id -> its first results in a run, with whether they are right.

        Raises DataError where a result is no image of the gallery.
        """
        table = read_run(run)
        is_asked = pc.is_in(table["query_id"], value_set=pa.array(list(query_ids), pa.string()))
        table = table.filter(pc.and_(is_asked, pc.less_equal(table["rank"], SHOWN_RESULTS)))
        positions = positions_of(table["image_id"].combine_chunks(), self._ids)
        if MISSING in positions:
            unknown = table["image_id"][int(np.flatnonzero(positions == MISSING)[0])].as_py()
            raise DataError(
                f"{self._data / 'images'}: expected the image {unknown!r} of {run}, found none: run `dvc repro`"
            )
        results: dict[str, list[Found]] = {query_id: [] for query_id in query_ids}
        relevant = {query_id: self._relevant(self.asked(query_id)) for query_id in query_ids}
        for row, position in zip(table.to_pylist(), positions.tolist(), strict=True):
            right = relevant[row["query_id"]]
            is_relevant = position in right if right else None
            label = self._labels[position].as_py()
            results[row["query_id"]].append(Found(row["rank"], row["score"], row["image_id"], label, is_relevant))
        return {query_id: tuple(found) for query_id, found in results.items()}

    def _relevant(self, asked: ExampleQuery) -> set[int]:
        own = int(positions_of([asked.image_id], self._ids)[0]) if asked.image_id is not None else MISSING
        return set(self._relevance.of(asked.query_id, own)[0].tolist())


class Shown(Protocol):
    """A query with results."""

    @property
    def query(self) -> ExampleQuery: ...

    @property
    def found(self) -> tuple[Found, ...]: ...


def images_of(shown: Sequence[Shown]) -> set[str]:
    """All that ask and all that are found."""
    asked = {one.query.image_id for one in shown if one.query.image_id is not None}
    return asked | {hit.image_id for one in shown for hit in one.found}


def choose_examples(judge: Judge, reports: Path, sampled: int, seed: int) -> list[Example]:
    """The examples of each task and encoder, `sampled` of them drawn; none is shown twice for the same task and encoder.

    Raises DataError where data and reports are of different runs.
    """
    per_query = read_open_table(reports / "per_query.parquet")
    exact = per_query.filter(pc.equal(per_query["search"], "exact"))
    confusions = read_confusions(reports / "confusions.parquet")
    return [
        example
        for task, encoder in dict.fromkeys(zip(exact["task"].to_pylist(), exact["encoder"].to_pylist(), strict=True))
        for example in _examples_of(judge, reports, task, encoder, exact, confusions, sampled, seed)
    ]


def _examples_of(
    judge: Judge,
    reports: Path,
    task: str,
    encoder: str,
    exact: pa.Table,
    confusions: pa.Table,
    sampled: int,
    seed: int,
) -> Iterator[Example]:
    answered = _of(exact, task, encoder)
    rows = answered.select([name for name in _VALUES if name in answered.column_names]).to_pylist()
    kinds = _choose(rows, _of(confusions, task, encoder)["label"].to_pylist(), sampled, seed)
    found = judge.found(ReportPaths(reports).run(task, encoder, "exact"), kinds)
    values = {row["query_id"]: row.get("map_at_r") for row in rows}
    for query_id, kind in kinds.items():
        yield Example(kind, task, encoder, judge.asked(query_id), values[query_id], found[query_id])


def _choose(rows: Sequence[Row], confused: Sequence[str], sampled: int, seed: int) -> dict[str, str]:
    """query_id -> why it is shown, best first; a query that has been chosen is not chosen again.

    confused : classes, the one that is most often taken for another first.  Equal queries stand in the order of the draw.
    """
    drawn = [rows[place] for place in np.random.default_rng(seed).permutation(len(rows))]
    judged = [row for row in drawn if row.get("map_at_r") is not None]
    rising = sorted(judged, key=lambda row: (row["map_at_r"], row["mrr"]))
    worst_of_class = {row["label"]: row for row in reversed(rising)}
    candidates = {
        "best": sorted((row for row in judged if row["map_at_r"] > 0), key=lambda row: (-row["map_at_r"], -row["mrr"])),
        "worst": [row for row in rising if row["map_at_r"] < 1],
        "confused": [worst_of_class[label] for label in dict.fromkeys(confused) if label in worst_of_class],
        SAMPLE: drawn,
    }
    chosen: dict[str, str] = {}
    best = min(KINDS["best"], (len(judged) + 1) // 2)  # the worse half is not best
    numbers = KINDS | {"best": best, SAMPLE: sampled}
    for kind, number in numbers.items():
        fresh = [row["query_id"] for row in candidates[kind] if row["query_id"] not in chosen]
        chosen |= dict.fromkeys(fresh[:number], kind)
    return chosen


def _of(table: pa.Table, task: str, encoder: str) -> pa.Table:
    return table.filter(pc.and_(pc.equal(table["task"], task), pc.equal(table["encoder"], encoder)))
