"""What was asked of which images, as `reports/test_collection.json` says it: runs of one collection can be compared."""

from typing import Any

import pyarrow as pa

from cbir.core.files import hash_ids

GALLERY_COLUMNS = ["image_id", "label", "sha256"]
QUERY_COLUMNS = ["image_id", "sha256"]


def collection_of(gallery: pa.Table, query_list: pa.Table, query_images: pa.Table, qrels: pa.Table) -> dict[str, Any]:
    """Rows and hash of each part.  gallery, query_images : their GALLERY_COLUMNS and QUERY_COLUMNS."""
    return {
        "gallery": _identity(gallery),
        "queries": _identity(query_list),
        "query images": _identity(query_images),
        "judgements": _identity(qrels),
    }


def _identity(table: pa.Table) -> dict[str, Any]:
    batches = table.combine_chunks().to_batches(max_chunksize=1024)  # the same, however the table was sharded
    cells = (repr(cell) for batch in batches for column in batch.columns for cell in column.to_pylist())
    return {"rows": table.num_rows, "sha256": hash_ids(cells)}
