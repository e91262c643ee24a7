"""Example queries with their results: the best, the worst, the most confused, and a random sample."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.evaluations import read_all_confusions, read_per_query
from cbir.artifacts.paths import ReportPaths
from cbir.report.judged import ExampleHit, ExampleQuery, JudgedCollection

SAMPLE: Final = "sample"
EXAMPLES_PER_KIND: Final = {"best": 2, "worst": 5, "confused": 3}  # queries per task and encoder, beside the sample
_COLUMNS = ("query_id", "label", "map_at_r", "mrr")
Row = dict[str, Any]


@dataclass(frozen=True)
class Example:
    """A query with its first results, with exact search.

    kind : why it was chosen.  map_at_r : None if no image is relevant.
    """

    kind: str
    task: str
    encoder: str
    query: ExampleQuery
    map_at_r: float | None
    hits: tuple[ExampleHit, ...]


class QueryWithHits(Protocol):
    """A query with results."""

    @property
    def query(self) -> ExampleQuery: ...

    @property
    def hits(self) -> tuple[ExampleHit, ...]: ...


def images_of(examples: Sequence[QueryWithHits]) -> set[str]:
    """Return the ids of all query images and all results."""
    queries = {example.query.image_id for example in examples if example.query.image_id is not None}
    return queries | {hit.image_id for example in examples for hit in example.hits}


def choose_examples(collection: JudgedCollection, reports: ReportPaths, sampled: int, seed: int) -> list[Example]:
    """Choose examples for each task and encoder, each query at most once.

    sampled : size of the random sample.  Raises DataError if data and reports are from different runs.
    """
    per_query = read_per_query(reports)
    exact = per_query.filter(pc.equal(per_query["search"], "exact"))
    confusions = read_all_confusions(reports)
    return [
        example
        for task, encoder in dict.fromkeys(zip(exact["task"].to_pylist(), exact["encoder"].to_pylist(), strict=True))
        for example in _examples_of(collection, reports, task, encoder, exact, confusions, sampled, seed)
    ]


def _examples_of(
    collection: JudgedCollection,
    reports: ReportPaths,
    task: str,
    encoder: str,
    exact: pa.Table,
    confusions: pa.Table,
    sampled: int,
    seed: int,
) -> Iterator[Example]:
    metrics = _select(exact, task, encoder)
    rows = metrics.select([name for name in _COLUMNS if name in metrics.column_names]).to_pylist()
    kinds = _choose(rows, _select(confusions, task, encoder)["label"].to_pylist(), sampled, seed)
    hits = collection.hits(reports.evaluation(encoder).run(task, "exact"), kinds)
    map_at_r = {row["query_id"]: row.get("map_at_r") for row in rows}
    for query_id, kind in kinds.items():
        yield Example(kind, task, encoder, collection.query(query_id), map_at_r[query_id], hits[query_id])


def _choose(rows: Sequence[Row], confused: Sequence[str], sampled: int, seed: int) -> dict[str, str]:
    """Return query_id -> why it was chosen, in the order of the page; each query is chosen once.

    confused : labels, the class that is most often confused first.  Ties are broken at random.
    """
    shuffled = [rows[row] for row in np.random.default_rng(seed).permutation(len(rows))]
    judged = [row for row in shuffled if row.get("map_at_r") is not None]
    rising = sorted(judged, key=lambda row: (row["map_at_r"], row["mrr"]))
    worst_of_class = {row["label"]: row for row in reversed(rising)}
    candidates = {
        "best": sorted((row for row in judged if row["map_at_r"] > 0), key=lambda row: (-row["map_at_r"], -row["mrr"])),
        "worst": [row for row in rising if row["map_at_r"] < 1],
        "confused": [worst_of_class[label] for label in dict.fromkeys(confused) if label in worst_of_class],
        SAMPLE: shuffled,
    }
    chosen: dict[str, str] = {}
    best = min(EXAMPLES_PER_KIND["best"], (len(judged) + 1) // 2)  # none from the worse half
    counts = EXAMPLES_PER_KIND | {"best": best, SAMPLE: sampled}
    for kind, count in counts.items():
        fresh = [row["query_id"] for row in candidates[kind] if row["query_id"] not in chosen]
        chosen |= dict.fromkeys(fresh[:count], kind)
    return chosen


def _select(table: pa.Table, task: str, encoder: str) -> pa.Table:
    return table.filter(pc.and_(pc.equal(table["task"], task), pc.equal(table["encoder"], encoder)))
