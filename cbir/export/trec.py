"""A finished run as trec_eval reads it: runs and qrels in plain text (`cbir trec`).

trec_eval and its kin make of these files what metrics.json holds, as deep as the runs go (evaluate.run_depth): map, map_at_r,
r_precision and mrr of metrics.json know the whole ranking.

- White space ends a field there, and '#' may begin a comment.  In ids these, '%' and what is not printable ASCII are written as
  in a web address ("my cats/é.jpg" is my%20cats/%C3%A9.jpg); urllib.parse.unquote gives the id back.
- trec_eval does not read the rank.  It sorts by score, and equal scores by id, descending; we sort equal scores by their place
  in the gallery.  So scores are written strictly falling: one that is not below its predecessor becomes the float32 next below
  it.  float32, because trec_eval 9.0.7 and pytrec_eval hold a score as one.
- qrels hold what counts: images of the gallery with a relevance of 1 or more, never a query's own image.  A query without any
  is not among them: trec_eval would count it as 0, metrics.json leaves it out of the mean.
"""

import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.names import ENCODERS, SEARCHES, TASKS
from cbir.artifacts.paths import ReportPaths
from cbir.artifacts.runs import read_run
from cbir.artifacts.vectors import Scores, positions_of
from cbir.core.errors import ConfigError, DataError
from cbir.core.files import read_json, replacing
from cbir.evaluation.collection import Collection, open_collection
from cbir.index.ordinals import ordinals, scores_of

_KEPT = "".join(sorted(set(string.punctuation) - set("%#")))


@dataclass(frozen=True)
class ExportedFile:
    """A file of `cbir trec`.  lowered : scores that were lowered to fall strictly, None for qrels."""

    path: Path
    lines: int
    lowered: int | None


def export(data: Path, reports: Path, out: Path) -> list[ExportedFile]:
    """Write <task>.qrels and <task>_<encoder>_<search>.run for every run of the reports; the latter name is the tag, too.

    Files of these names that an earlier run left go.

    Raises DataError when there is no finished run, or it was made from other data than `data` holds; ConfigError when `out`
    is no folder and cannot become one.
    """
    gallery = open_collection(data / "images", data / "queries")
    _check_collection(gallery, reports)
    found = [
        (task, encoder, search, ReportPaths(reports).run(task, encoder, search))
        for task in TASKS
        for encoder in ENCODERS
        for search in SEARCHES
    ]
    found = [one for one in found if one[-1].exists()]
    if not found:
        raise DataError(f"{reports / 'runs'} holds no run: run `dvc repro`")
    try:
        written = [
            _write_qrels(out / f"{task}.qrels", gallery, task) for task in dict.fromkeys(one[0] for one in found)
        ]
        for task, encoder, search, path in found:
            written.append(_write_run(out / f"{task}_{encoder}_{search}.run", read_run(path)))
        for task, encoder, search in product(TASKS, ENCODERS, SEARCHES):  # of an earlier run
            for path in (out / f"{task}.qrels", out / f"{task}_{encoder}_{search}.run"):
                if path not in [one.path for one in written]:
                    path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"--out: expected a folder to write into, found {out}: {error.strerror}") from error
    return written


def escaped(text: str) -> str:
    """An id as a field of trec_eval's: urllib.parse.unquote gives it back.

    >>> escaped("my cats/100%.jpg")
    'my%20cats/100%25.jpg'
    """
    return quote(text, safe=_KEPT)


def strictly_falling(scores: Scores) -> Scores:
    """Scores in the order of their ranks, each at most its own value and less than the one before it.

    scores : (depth,) float32, finite.  Returns (depth,) float32; a score moves by as many float32 steps as there are equal
    ones before it.

    >>> strictly_falling(np.float32([0.5, 0.25, 0.25])).tolist()
    [0.5, 0.25, 0.2499999850988388]
    """
    steps = np.arange(len(scores))
    falling = np.minimum.accumulate(ordinals(scores) + steps) - steps
    return scores_of(falling.astype(np.int32))


def _check_collection(gallery: Collection, reports: Path) -> None:
    collection = read_json(reports / "test_collection.json")
    for what, found in gallery.identity.items():
        if collection.get(what) != found:
            raise DataError(
                f"{reports / 'runs'}: expected runs over the {what} of today's data, found other {what}: run `dvc repro`"
            )


def _write_qrels(path: Path, gallery: Collection, task: str) -> ExportedFile:
    """By query, so that memory never holds the judgements of more than one: by label they are n_queries x relevant."""
    queries = gallery.queries.filter(pc.equal(gallery.queries["task"], task))
    own = positions_of(queries["image_id"].combine_chunks(), gallery.gallery_ids)
    image_ids = [escaped(image_id) for image_id in gallery.gallery_ids.to_pylist()]

    def blocks() -> Iterator[list[str]]:
        for query_id, mine in zip(queries["query_id"].to_pylist(), own, strict=True):
            positions, grades = gallery.relevance.of(query_id, int(mine))
            head = f"{escaped(query_id)} 0"
            yield [
                f"{head} {image_ids[position]} {grade:.0f}\n"
                for position, grade in zip(positions.tolist(), grades.tolist(), strict=True)
            ]

    return ExportedFile(path, _write_lines(path, blocks()), None)


def _write_run(path: Path, table: pa.Table) -> ExportedFile:
    query_ids, query_of = _escaped_ids(table["query_id"])
    image_ids, image_of = _escaped_ids(table["image_id"])
    ranks, scores = table["rank"].to_numpy(), table["score"].to_numpy()
    starts = np.flatnonzero(np.diff(query_of, prepend=-1))
    lowered = 0

    def blocks() -> Iterator[list[str]]:
        nonlocal lowered
        for rows in map(slice, starts, [*starts[1:], len(query_of)]):
            falling = strictly_falling(scores[rows])
            lowered += int((falling != scores[rows]).sum())
            query_id = query_ids[query_of[rows.start]]
            columns = zip(image_of[rows].tolist(), ranks[rows].tolist(), falling.tolist(), strict=True)
            # 9 digits tell any two float32 apart
            yield [
                f"{query_id} Q0 {image_ids[image]} {rank} {score:.9g} {path.stem}\n" for image, rank, score in columns
            ]

    return ExportedFile(path, _write_lines(path, blocks()), lowered)


def _escaped_ids(column: pa.ChunkedArray) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Distinct ids, and for each row which of them."""
    encoded = column.combine_chunks().dictionary_encode()
    return [escaped(text) for text in encoded.dictionary.to_pylist()], encoded.indices.to_numpy().astype(np.int64)


def _write_lines(path: Path, blocks: Iterable[list[str]]) -> int:
    count = 0
    with replacing(path) as temporary, temporary.open("w", encoding="ascii", newline="\n") as file:
        for lines in blocks:
            file.writelines(lines)
            count += len(lines)
    return count
