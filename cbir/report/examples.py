"""Example queries with the results of all encoders: the best, worst, most confused, most disputed, and a random sample."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.evaluation_passport import checked
from cbir.artifacts.evaluations import read_all_confusions, read_per_query
from cbir.artifacts.paths import ReportPaths
from cbir.report.judged import ExampleHit, ExampleQuery, JudgedCollection

SAMPLE: Final = "sample"
EXAMPLES_PER_KIND: Final = {"best": 2, "worst": 5, "confused": 3, "disputed": 4}  # queries per task, beside the sample
Row = dict[str, Any]


@dataclass(frozen=True)
class Ranking:
    """The first results of an encoder, with exact search.  map_at_r : None if no image is relevant."""

    encoder: str
    map_at_r: float | None
    hits: tuple[ExampleHit, ...]


@dataclass(frozen=True)
class Example:
    """A query with the rankings of all encoders that answer it.  kind : why it was chosen."""

    kind: str
    task: str
    query: ExampleQuery
    rankings: tuple[Ranking, ...]

    @property
    def hits(self) -> tuple[ExampleHit, ...]:
        """The results of all encoders."""
        return tuple(hit for ranking in self.rankings for hit in ranking.hits)


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
    """Choose examples for each task, each query at most once.

    sampled : size of the random sample.  Raises DataError if data and reports are from different runs.
    """
    per_query = read_per_query(reports)
    exact = per_query.filter(pc.equal(per_query["search"], "exact"))
    confusions = read_all_confusions(reports)
    return [
        example
        for task in dict.fromkeys(exact["task"].to_pylist())
        for example in _examples_of(collection, reports, task, _of(exact, task), _of(confusions, task), sampled, seed)
    ]


def _examples_of(
    collection: JudgedCollection,
    reports: ReportPaths,
    task: str,
    exact: pa.Table,
    confusions: pa.Table,
    sampled: int,
    seed: int,
) -> Iterator[Example]:
    rows: dict[str, dict[str, Row]] = {}  # query_id -> encoder -> its row
    for row in exact.to_pylist():
        rows.setdefault(row["query_id"], {})[row["encoder"]] = row
    confused = [row["label"] for row in sorted(confusions.to_pylist(), key=lambda row: (-row["share"], row["label"]))]
    kinds = _choose([_pooled(query_id, of_query) for query_id, of_query in rows.items()], confused, sampled, seed)
    encoders = dict.fromkeys(exact["encoder"].to_pylist())
    evaluations = {encoder: reports.evaluation(encoder) for encoder in encoders}
    hits = {
        encoder: collection.hits(checked(evaluation, evaluation.run(task, "exact")), kinds)
        for encoder, evaluation in evaluations.items()
    }
    for query_id, kind in kinds.items():
        rankings = (
            Ranking(encoder, row.get("map_at_r"), hits[encoder][query_id]) for encoder, row in rows[query_id].items()
        )
        yield Example(kind, task, collection.query(query_id), tuple(rankings))


def _pooled(query_id: str, rows: Mapping[str, Row]) -> Row:
    """What is known of a query: means over the encoders, and the range of map_at_r."""
    values = [row["map_at_r"] for row in rows.values() if row.get("map_at_r") is not None]
    reciprocals = [row["mrr"] for row in rows.values() if row.get("mrr") is not None]
    return {
        "query_id": query_id,
        "label": next(iter(rows.values())).get("label"),
        "map_at_r": fmean(values) if values else None,
        "mrr": fmean(reciprocals) if reciprocals else None,
        "range": max(values) - min(values) if values else 0.0,
    }


def _choose(rows: Sequence[Row], confused: Sequence[str], sampled: int, seed: int) -> dict[str, str]:
    """Return query_id -> why it was chosen, in the order of the page; each query is chosen once.

    confused : labels, the class that is most often confused first.  Ties are broken at random.
    """
    shuffled = [rows[row] for row in np.random.default_rng(seed).permutation(len(rows))]
    judged = [row for row in shuffled if row["map_at_r"] is not None]
    rising = sorted(judged, key=lambda row: (row["map_at_r"], row["mrr"]))
    worst_of_class = {row["label"]: row for row in reversed(rising)}
    candidates = {
        "best": sorted((row for row in judged if row["map_at_r"] > 0), key=lambda row: (-row["map_at_r"], -row["mrr"])),
        "worst": [row for row in rising if row["map_at_r"] < 1],
        "confused": [worst_of_class[label] for label in dict.fromkeys(confused) if label in worst_of_class],
        "disputed": sorted((row for row in judged if row["range"] > 0), key=lambda row: -row["range"]),
        SAMPLE: shuffled,
    }
    chosen: dict[str, str] = {}
    best = min(EXAMPLES_PER_KIND["best"], (len(judged) + 1) // 2)  # none from the worse half
    counts = EXAMPLES_PER_KIND | {"best": best, SAMPLE: sampled}
    for kind, count in counts.items():
        fresh = [row["query_id"] for row in candidates[kind] if row["query_id"] not in chosen]
        chosen |= dict.fromkeys(fresh[:count], kind)
    return chosen


def _of(table: pa.Table, task: str) -> pa.Table:
    return table.filter(pc.equal(table["task"], task))
