"""The test collection: gallery, queries and relevance judgements; and the query vectors of one encoder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.evaluations import read_collection
from cbir.artifacts.images import read_columns
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.artifacts.queries import read_qrels, read_query_list
from cbir.artifacts.vectors import Positions, Vectors, VectorSet, check_passport, open_vectors, positions_of
from cbir.core.errors import DataError
from cbir.core.files import hash_ids
from cbir.evaluation.classes import Classes
from cbir.evaluation.relevance import Relevance

GALLERY_COLUMNS = ["image_id", "label", "sha256"]
QUERY_COLUMNS = ["image_id", "sha256"]
_VECTORS = {"cbir": ("image_id", "queries"), "tbir": ("query_id", "texts")}  # task -> id column and kind of its vectors


@dataclass(frozen=True)
class Collection:
    """A test collection.

    gallery_ids : the image ids of the gallery, in order of position.  queries : the query list.  classes : of the gallery.
    identity : rows and hash of each part, as in `reports/test_collection.json`; only runs over the same collection can be
    compared.
    """

    gallery_ids: pa.Array
    relevance: Relevance
    queries: pa.Table
    classes: Classes
    identity: dict[str, dict[str, Any]]

    @property
    def n_results(self) -> int:
        """The results that each query can have: all of the gallery, less one image if a query is a gallery image."""
        are_gallery_images = pc.is_in(self.queries["image_id"], pc.drop_null(self.gallery_ids))
        return len(self.gallery_ids) - bool(pc.any(are_gallery_images).as_py())


@dataclass(frozen=True)
class TaskQueries:
    """The queries of one task, with the vectors of one encoder.

    table : their rows of the query list.  vectors : (n, dim) float32.  own_positions : (n,) the position of each query's own
    image in the gallery, MISSING where the query is no gallery image.
    """

    ids: list[str]
    table: pa.Table
    vectors: Vectors
    own_positions: Positions


def open_collection(data: DataPaths) -> Collection:
    """Read ids and labels of the gallery, the query list and the judgements."""
    gallery = read_columns(data.images("gallery"), ["image_id", "label", "label_name", "sha256"])
    ids, labels, names = (gallery[name].combine_chunks() for name in ("image_id", "label", "label_name"))
    query_list, qrels = read_query_list(data.query_list), read_qrels(data.qrels)
    query_images = read_columns(data.images("queries"), QUERY_COLUMNS)
    identity = collection_identity(gallery.select(GALLERY_COLUMNS), query_list, query_images, qrels)
    return Collection(ids, Relevance(ids, labels, query_list, qrels), query_list, Classes.of(labels, names), identity)


def check_collection(collection: Collection, reports: ReportPaths) -> None:
    """Raise DataError unless the results in `reports` are over this collection."""
    recorded = read_collection(reports)
    for part, identity in collection.identity.items():
        if recorded.get(part) != identity:
            raise DataError(
                f"{reports.all_evaluations}: expected runs over the present {part} of data/, found other {part}: "
                "run `dvc repro`"
            )


def open_queries(
    folder: Path, encoder: str, task: str, collection: Collection, gallery: VectorSet
) -> TaskQueries | None:
    """Read the queries of a task and their vectors; None when there are none, or the encoder reads no text.

    folder : of the encoder's embeddings.  gallery : the encoder's gallery vectors.
    Raises PassportError unless the query vectors were computed in the same way as the gallery's.
    """
    id_column, kind = _VECTORS[task]
    table = collection.queries.filter(pc.equal(collection.queries["task"], task))
    if not (folder / kind).exists() or table.num_rows == 0:
        return None
    vectors = open_vectors(folder, encoder, kind)
    expected = {name: value for name, value in gallery.passport.items() if name != "rows"}
    check_passport(vectors.passport, expected, f"{folder / kind} beside the gallery's")
    rows = vectors.rows(table[id_column].to_pylist(), f"{encoder} {task}")
    own_positions = positions_of(table["image_id"].combine_chunks(), collection.gallery_ids)
    return TaskQueries(table["query_id"].to_pylist(), table, rows, own_positions)


def collection_identity(
    gallery: pa.Table, query_list: pa.Table, query_images: pa.Table, qrels: pa.Table
) -> dict[str, Any]:
    """Number of rows and hash of each part of a collection.

    gallery, query_images : their GALLERY_COLUMNS and QUERY_COLUMNS.
    """
    return {
        "gallery": _identity(gallery),
        "queries": _identity(query_list),
        "query images": _identity(query_images),
        "judgements": _identity(qrels),
    }


def _identity(table: pa.Table) -> dict[str, Any]:
    batches = table.combine_chunks().to_batches(max_chunksize=1024)  # the same for any sharding of the table
    cells = (repr(cell) for batch in batches for column in batch.columns for cell in column.to_pylist())
    return {"rows": table.num_rows, "sha256": hash_ids(cells)}
