"""Which gallery images are relevant to a query, and run tables."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.runs import RUN_SCHEMA
from cbir.artifacts.vectors import MISSING, Positions, Scores, positions_of

Floats = npt.NDArray[np.float64]


class Relevance:
    """The relevant gallery positions of each query, and their grades."""

    def __init__(self, gallery_ids: pa.Array, labels: pa.Array, queries: pa.Table, qrels: pa.Table) -> None:
        """labels : of the gallery, by position.  queries : the query list.  qrels : empty when the rule is "same label"."""
        self._groups: dict[str, Positions] = {}
        self._grades: dict[str, Floats] = {}
        if qrels.num_rows:
            self._key = dict(zip(queries["query_id"].to_pylist(), queries["query_id"].to_pylist(), strict=True))
            judged = qrels.filter(pc.greater(qrels["relevance"], 0))
            positions = positions_of(judged["image_id"].combine_chunks(), gallery_ids)
            self._fill(judged["query_id"], positions, judged["relevance"].to_numpy().astype(np.float64))
        else:
            self._key = dict(zip(queries["query_id"].to_pylist(), queries["label"].to_pylist(), strict=True))
            labelled = np.flatnonzero(labels.is_valid().to_numpy(zero_copy_only=False))
            self._fill(labels.take(pa.array(labelled)), labelled, np.ones(len(labelled)))

    def of(self, query_id: str, excluded: int) -> tuple[Positions, Floats]:
        """Positions, ascending, and grades of the relevant images, without the position `excluded`."""
        key = self._key[query_id]
        positions = self._groups.get(key, np.empty(0, np.int64)) if key is not None else np.empty(0, np.int64)
        grades = self._grades.get(key, np.empty(0)) if key is not None else np.empty(0)
        kept = positions != excluded
        return positions[kept], grades[kept]

    def _fill(self, keys: pa.ChunkedArray | pa.Array, positions: Positions, grades: Floats) -> None:
        chunk = keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys
        encoded = chunk.dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        order = np.lexsort((positions, codes))
        order = order[positions[order] != MISSING]
        names = encoded.dictionary.to_pylist()
        cuts = np.searchsorted(codes[order], np.arange(len(names) + 1))
        for name, first, last in zip(names, cuts, cuts[1:], strict=False):
            self._groups[name] = positions[order[first:last]]
            self._grades[name] = grades[order[first:last]]


def run_table(query_ids: Sequence[str], scores: Scores, positions: Positions, gallery_ids: pa.Array) -> pa.Table:
    """The run of a search: rows of (query_id, image_id, rank, score).

    scores, positions : (n, depth); results at position MISSING are left out.
    """
    retrieved = positions != MISSING
    rows, columns = np.nonzero(retrieved)
    columns_of = {
        "query_id": pa.array(query_ids, pa.string()).take(pa.array(rows)),
        "image_id": gallery_ids.take(pa.array(positions[retrieved])),
        "rank": pa.array((columns + 1).astype(np.int32)),
        "score": pa.array(scores[retrieved].astype(np.float32)),
    }
    return pa.table(columns_of, RUN_SCHEMA)
