"""Runs and qrels in TREC's format, for trec_eval (`cbir trec`).

trec_eval computes from these files the metrics of metrics.json, but only to the depth of the runs (evaluate.run_depth): map,
map_at_r, r_precision and mrr of metrics.json use the whole ranking.

- In TREC's format white space ends a field, and '#' may start a comment.  In ids these, '%' and everything but printable ASCII
  are percent-encoded ("my cats/é.jpg" becomes my%20cats/%C3%A9.jpg); `cbir evaluate` and queries.qrels read them back.
- trec_eval ignores the rank.  It sorts by score, and equal scores by descending id; here equal scores are in the order of the
  gallery.  So scores are written strictly falling: a score that is not below the previous one becomes the next lower float32.
  float32, because trec_eval 9.0.7 and pytrec_eval store scores in that type.
- qrels contain only relevance of 1 or more for images of the gallery, and never a query's own image.  Queries without relevant
  images are left out: trec_eval would count them as 0, metrics.json leaves them out of the mean.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.evaluation_passport import checked, is_listed
from cbir.artifacts.names import SEARCHES, TASKS, read_encoder_names
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.artifacts.runs import read_run
from cbir.artifacts.trec import percent_encoded
from cbir.artifacts.vectors import Scores, positions_of
from cbir.core.errors import ConfigError, DataError
from cbir.core.files import replacing
from cbir.evaluation.collection import Collection, check_collection, open_collection
from cbir.export.manifest import replace_earlier
from cbir.index.ordinals import ordinals, scores_of


@dataclass(frozen=True)
class ExportedFile:
    """A written file.  lowered : number of scores that were lowered to fall strictly, None for qrels."""

    path: Path
    lines: int
    lowered: int | None


def export(data: DataPaths, reports: ReportPaths, out: Path) -> list[ExportedFile]:
    """Write <task>.qrels and <task>_<encoder>_<search>.run for each run of the reports; a run's tag is its file's name.

    The files of an earlier export are deleted.

    Raises DataError when there is no run, or the runs are over other data than `data`; ConfigError when `out` is not a folder
    and cannot be created.
    """
    collection = open_collection(data)
    check_collection(collection, reports)
    present = {}
    for task, encoder, search in product(TASKS, read_encoder_names(reports.encoders), SEARCHES):
        evaluation = reports.evaluation(encoder)
        if is_listed(evaluation, path := evaluation.run(task, search)):
            present[f"{task}_{encoder}_{search}.run"] = checked(evaluation, path)
    if not present:
        raise DataError(f"{reports.all_evaluations} holds no run: run `dvc repro`")
    tasks = [task for task in TASKS if any(name.startswith(f"{task}_") for name in present)]
    try:
        replace_earlier(out, "trec", [*(f"{task}.qrels" for task in tasks), *present])
        files = [_write_qrels(out / f"{task}.qrels", collection, task) for task in tasks]
        files += [_write_run(out / name, read_run(path)) for name, path in present.items()]
    except OSError as error:
        raise ConfigError(f"--out: expected a folder to write into, found {out}: {error.strerror}") from error
    return files


def strictly_falling(scores: Scores) -> Scores:
    """Lower scores where needed, so that each is less than the previous one.

    scores : (depth,) float32, finite, in the order of their ranks.  Returns (depth,) float32; a score is lowered by one float32
    step for each equal score before it.

    >>> strictly_falling(np.float32([0.5, 0.25, 0.25])).tolist()
    [0.5, 0.25, 0.2499999850988388]
    """
    steps = np.arange(len(scores))
    falling = np.minimum.accumulate(ordinals(scores) + steps) - steps
    return scores_of(falling.astype(np.int32))


def _write_qrels(path: Path, collection: Collection, task: str) -> ExportedFile:
    """Write the judgements query by query: those of all queries, n_queries x n_relevant, would take much memory."""
    queries = collection.queries.filter(pc.equal(collection.queries["task"], task))
    own_positions = positions_of(queries["image_id"].combine_chunks(), collection.gallery_ids)
    image_ids = [percent_encoded(image_id) for image_id in collection.gallery_ids.to_pylist()]

    def blocks() -> Iterator[list[str]]:
        for query_id, own_position in zip(queries["query_id"].to_pylist(), own_positions.tolist(), strict=True):
            positions, grades = collection.relevance.of(query_id, own_position)
            start = f"{percent_encoded(query_id)} 0"
            yield [
                f"{start} {image_ids[position]} {grade:.0f}\n"
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
            # 9 digits distinguish any two float32 values
            yield [
                f"{query_id} Q0 {image_ids[image]} {rank} {score:.9g} {path.stem}\n" for image, rank, score in columns
            ]

    return ExportedFile(path, _write_lines(path, blocks()), lowered)


def _escaped_ids(column: pa.ChunkedArray) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The distinct ids, and for each row the position of its id among them."""
    encoded = column.combine_chunks().dictionary_encode()
    return [percent_encoded(text) for text in encoded.dictionary.to_pylist()], encoded.indices.to_numpy().astype(
        np.int64
    )


def _write_lines(path: Path, blocks: Iterable[list[str]]) -> int:
    count = 0
    with replacing(path) as temporary, temporary.open("w", encoding="ascii", newline="\n") as file:
        for lines in blocks:
            file.writelines(lines)
            count += len(lines)
    return count
