"""Evaluate any run and qrels in trec_eval's format with the metrics of the report (`cbir evaluate`).

As in trec_eval, results are ranked by descending score, and equal scores by descending image_id (in the order of code
points); the columns Q0, rank and tag are not read.  A judged query without results in the run counts 0 in every metric
(trec_eval -c); a query of the run without qrels is left out.  A grade below 1 is not relevant.  As everywhere in cbir, a query
without relevant images is left out of the mean, whereas trec_eval counts 0.

Scores are compared as float64, as in trec_eval's newest sources (usnistgov/trec_eval#38).  trec_eval 9.0.7 and pytrec_eval use
float32, in which more scores are equal; the queries for which this could matter are counted.

Where only one of the files is percent-encoded, as `cbir trec` encodes ids, an id of the run is matched with that of the qrels.
"""

import math
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from cbir.artifacts.trec import duplicate_judgement, matching_form, read_qrels_lines
from cbir.core.errors import DataError
from cbir.core.text import nfc
from cbir.core.text_files import excerpt, read_lines
from cbir.evaluation.metrics import mean, per_query
from cbir.evaluation.relevant_ranks import RelevantRanks
from cbir.evaluation.statistics import LEVEL, Interval, interval_of_means

_GRADES = range(-127, 128)  # some collections mark spam with a negative grade
_FIELD = re.compile(r"\S+", re.ASCII)  # as trec_eval: a no-break space ends no field
_RANK = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?")
_BLOCK_CELLS = 2_000_000  # bounds memory where one query has many more relevant images than the others

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RunCounts:
    """Numbers of queries, results and relevant images.

    queries : evaluated queries, which have a relevant image.  unanswered : those of them that are not in the run and count 0.
    without_relevant : queries of the qrels that are left out because they have no relevant image.  unjudged : queries of the
    run that are left out because they have no qrels.  results, relevant, found : of the evaluated queries, the lines of the
    run, the relevant images, and the relevant images in the run.  float32_ties : evaluated queries with different scores that
    are equal as float32.
    """

    queries: int
    unanswered: int
    without_relevant: int
    unjudged: int
    results: int
    relevant: int
    found: int  # a key of `cbir evaluate --json`
    float32_ties: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The metrics of a run.

    query_ids : (n,) the evaluated queries in the order of the qrels.  values : metric -> (n,) float64.
    intervals : metric -> interval of the mean, None with too few queries.
    """

    query_ids: list[str]
    values: dict[str, Floats]
    intervals: dict[str, Interval | None]
    counts: RunCounts
    resamples: int
    seed: int

    @property
    def means(self) -> dict[str, float]:
        """Metric -> mean over the evaluated queries."""
        return mean(self.values)

    def to_json(self) -> dict[str, Any]:
        """Plain values, under the names of metrics.json and intervals.json."""
        bounds = {name: interval and interval.bounds for name, interval in self.intervals.items()}
        about = {"level": LEVEL, "resamples": self.resamples, "seed": self.seed, "drawn": "queries"}
        return {"metrics": self.means, "intervals": bounds, "counts": asdict(self.counts), "about": about}


@dataclass(frozen=True, eq=False)
class _Rows:
    """The lines of a file in columns, (n,) each: numbers of query and image, grade or score, line number."""

    queries: Ints
    images: Ints
    values: Floats
    lines: Ints

    def taken(self, rows: npt.NDArray[Any]) -> "_Rows":
        return _Rows(self.queries[rows], self.images[rows], self.values[rows], self.lines[rows])


class _Ids:
    """Numbers the ids, in the same way for both files."""

    def __init__(self) -> None:
        self.queries: dict[str, int] = {}
        self.images: dict[str, int] = {}

    def read(self, lines: Iterable[tuple[int, tuple[str, str, float]]]) -> _Rows:
        """Rows in the order of the lines; each takes the memory of four numbers."""
        numbers, values = array("q"), array("d")
        for line, (query_id, image_id, value) in lines:
            numbers.append(self.queries.setdefault(query_id, len(self.queries)))
            numbers.append(self.images.setdefault(image_id, len(self.images)))
            numbers.append(line)
            values.append(value)
        columns = np.array(numbers, np.int64).reshape(-1, 3)
        return _Rows(columns[:, 0].copy(), columns[:, 1].copy(), np.array(values, np.float64), columns[:, 2].copy())

    def translated(self, rows: _Rows, ids: "_Ids") -> _Rows:
        """The rows numbered by `ids` in the numbers of these; one file may be percent-encoded where the other is not."""
        form = matching_form([(ids.queries, self.queries), (ids.images, self.images)])
        queries, images = (
            np.array([known.setdefault(form(text), len(known)) for text in others], np.int64)
            for known, others in ((self.queries, ids.queries), (self.images, ids.images))
        )
        return _Rows(queries[rows.queries], images[rows.images], rows.values, rows.lines)

    def keys(self, rows: _Rows) -> Ints:
        """One number per pair of query and image."""
        return rows.queries * len(self.images) + rows.images

    def repeated(self, rows: _Rows) -> tuple[int, str, str] | None:
        """Line, query_id and image_id of the first pair that is already in an earlier line."""
        keys = self.keys(rows)
        order = np.argsort(keys, kind="stable")
        again = order[1:][np.diff(keys[order]) == 0]
        if not len(again):
            return None
        row = again.min()
        return int(rows.lines[row]), list(self.queries)[rows.queries[row]], list(self.images)[rows.images[row]]


def evaluate_run(run: Path, qrels: Path, ks: Sequence[int], resamples: int, seed: int) -> Evaluation:
    """All metrics of the report for a run and qrels in trec_eval's format.

    Intervals resample queries, because the files name no classes.
    Raises DataError, naming file and line, for a line of another format, a score that is not a finite number, a pair of query
    and image that occurs twice, a file that is empty or unreadable, files without a common query, and an id that the files
    spell differently.
    """
    ids = _Ids()
    judged = ids.read(read_qrels_lines(qrels, _GRADES))
    if again := ids.repeated(judged):
        raise duplicate_judgement(qrels, *again)
    if not (judged.values >= 1).any():
        raise DataError(f"{qrels}: expected a relevance of 1 or more in at least one line, found {_number(judged)}")
    n_judged, n_judged_images = len(ids.queries), len(ids.images)
    run_ids = _Ids()
    retrieved = run_ids.read(_run_lines(run))
    if again := run_ids.repeated(retrieved):
        raise DataError(f"{run} line {again[0]}: query {again[1]!r} has image {again[2]!r} in an earlier line already")
    retrieved = ids.translated(retrieved, run_ids)
    if not (retrieved.queries < n_judged).any():
        raise DataError(
            f"{run}: expected results for queries of {qrels}, found none: {_example(ids, n_judged, retrieved)}"
        )
    _refuse_other_spellings(run, qrels, "query", list(ids.queries), n_judged, retrieved.queries)
    _refuse_other_spellings(run, qrels, "image", list(ids.images), n_judged_images, retrieved.images)

    relevant = judged.taken(judged.values >= 1)
    chosen = np.unique(relevant.queries)
    results = retrieved.taken(np.isin(retrieved.queries, chosen))
    results = results.taken(_order(results, _places(ids.images)))
    ranks = _ranks(results.queries)
    gains = _gains(ids.keys(results), ids.keys(relevant), relevant.values)
    hits = gains > 0
    values = _values(chosen, relevant, results.taken(hits), ranks[hits], gains[hits], ks)
    intervals = interval_of_means(np.column_stack([*values.values()]), np.arange(len(chosen)), resamples, seed)
    counts = RunCounts(
        queries=len(chosen),
        unanswered=len(chosen) - len(np.unique(results.queries)),
        without_relevant=n_judged - len(chosen),
        unjudged=len(ids.queries) - n_judged,
        results=len(results.lines),
        relevant=len(relevant.lines),
        found=int(hits.sum()),
        float32_ties=_float32_ties(results),
    )
    names = list(ids.queries)
    return Evaluation(
        [names[query] for query in chosen], values, dict(zip(values, intervals, strict=True)), counts, resamples, seed
    )


def _refuse_other_spellings(
    run: Path, qrels: Path, kind: str, names: Sequence[str], n_judged: int, retrieved: Ints
) -> None:
    """Raise DataError for an id that both files have, spelt differently: it would count as not found.

    names : first those of the qrels, n_judged, then the others of the run.  retrieved : the numbers that the run has.
    """
    in_run = set(np.unique(retrieved[retrieved < n_judged]).tolist())
    judged = {_spelled(name): name for number, name in enumerate(names[:n_judged]) if number not in in_run}
    for name in names[n_judged:]:
        if (other := judged.get(_spelled(name))) is not None:
            raise DataError(
                f"{run}: {kind} {excerpt(name)} is {excerpt(other)} in {qrels}: expected the same spelling in both files"
            )


def _spelled(name: str) -> str:
    """An id in one spelling: percent-encoded characters, forms of Unicode and `./` make no difference."""
    return nfc(unquote(name)).removeprefix("./")


def _run_lines(path: Path) -> Iterator[tuple[int, tuple[str, str, float]]]:
    """Line number, and query_id, image_id and score of each line; between tabs a field may hold spaces, as in qrels."""
    for number, line in read_lines(path):
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != 6 or not all(fields):
            fields = _FIELD.findall(line)
        if len(fields) != 6:
            raise DataError(
                f"{path} line {number}: expected the 6 fields 'query_id Q0 image_id rank score tag', "
                f"found {len(fields)}: {excerpt(line)}"
            )
        if not _RANK.fullmatch(fields[3]):  # not used, but a space in an id would shift the score
            raise DataError(
                f"{path} line {number}, column rank: expected a number, found {excerpt(fields[3])}: separate the 6 fields by "
                "tabs where ids hold spaces"
            )
        yield number, (fields[0], fields[2], _score(path, number, fields[4]))


def _score(path: Path, line: int, text: str) -> float:
    try:
        score = float(text) if text.isascii() and "_" not in text else math.nan  # Python reads 1_0 as 10
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise DataError(f"{path} line {line}, column score: expected a finite number, found {excerpt(text)}")
    return score


def _number(rows: _Rows) -> str:
    return f"none in {len(rows.lines):,} lines" if len(rows.lines) else "an empty file"


def _example(ids: _Ids, n_judged: int, retrieved: _Rows) -> str:
    if not len(retrieved.lines):
        return "the file is empty"
    names = list(ids.queries)
    return f"a query there is {excerpt(names[n_judged])}, in the qrels {excerpt(names[0])}"


def _places(images: dict[str, int]) -> Ints:
    """The rank of each image among all ids in ascending order."""
    places = np.empty(len(images), np.int64)
    places[[images[image_id] for image_id in sorted(images)]] = np.arange(len(images))
    return places


def _order(results: _Rows, places: Ints) -> Ints:
    """By query, then score descending, then image_id descending."""
    return np.lexsort((-places[results.images], -results.values, results.queries))


def _ranks(queries: Ints) -> Ints:
    """1-based ranks of sorted rows."""
    starts = np.flatnonzero(np.diff(queries, prepend=-1))
    lengths = np.diff(starts, append=len(queries))
    return np.arange(1, len(queries) + 1) - np.repeat(starts, lengths)


def _gains(results: Ints, relevant: Ints, grades: Floats) -> Floats:
    """The grade of each result, 0 where it is not relevant.  results, relevant : keys of query and image."""
    order = np.argsort(relevant)
    places = order[np.minimum(np.searchsorted(relevant, results, sorter=order), len(order) - 1)]
    return np.where(relevant[places] == results, grades[places], 0.0)


def _values(
    chosen: Ints, relevant: _Rows, hits: _Rows, ranks: Ints, gains: Floats, ks: Sequence[int]
) -> dict[str, Floats]:
    """Metric -> (n_chosen,) float64.  hits : the relevant results, sorted by query, with their ranks and gains."""
    relevant = relevant.taken(np.argsort(relevant.queries, kind="stable"))
    parts = []
    for rows in _blocks(np.diff(np.searchsorted(relevant.queries, chosen), append=len(relevant.queries))):
        block = chosen[rows]
        judged = RelevantRanks.from_ranks(
            _by_query(block, hits.queries, ranks),
            _by_query(block, hits.queries, gains),
            _by_query(block, relevant.queries, relevant.values),
        )
        parts.append(per_query(judged, ks))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _blocks(widths: Ints) -> Iterator[slice]:
    """Blocks of one or more consecutive queries whose number times their greatest width is at most _BLOCK_CELLS."""
    start = widest = 0
    for end, width in enumerate(widths.tolist()):
        if end > start and max(widest, width) * (end + 1 - start) > _BLOCK_CELLS:
            yield slice(start, end)
            start, widest = end, 0
        widest = max(widest, width)
    yield slice(start, len(widths))


def _by_query(chosen: Ints, queries: Ints, values: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """The values of each chosen query.  queries : the query of each value, ascending."""
    firsts, ends = (np.searchsorted(queries, chosen, side) for side in ("left", "right"))
    return [values[first:end] for first, end in zip(firsts, ends, strict=True)]


def _float32_ties(results: _Rows) -> int:
    """Number of queries with different scores that are equal as float32.  results : sorted."""
    with np.errstate(over="ignore"):
        single = results.values.astype(np.float32)
    same_query, same_single, same = (column[1:] == column[:-1] for column in (results.queries, single, results.values))
    return len(np.unique(results.queries[1:][same_query & same_single & ~same]))
