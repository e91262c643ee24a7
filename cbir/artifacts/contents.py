"""Whether vectors are those of the images and texts in `data/`: by the hashes in their passports."""

from collections.abc import Sequence
from hashlib import sha256

from cbir.artifacts.images import read_columns
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.queries import read_texts
from cbir.artifacts.vectors import read_passport
from cbir.core.errors import PassportError
from cbir.core.files import hash_ids

VECTOR_KINDS = ("gallery", "queries", "texts", "prompts")


def check_vectors(data: DataPaths, encoder: str, kinds: Sequence[str] = VECTOR_KINDS) -> None:
    """Raise PassportError unless the encoder's vectors are those of the present images, queries and prompts, in their order.

    Kinds of vectors that the encoder does not have are left out.
    """
    for kind in kinds:
        folder = data.vectors(encoder, kind)
        if not folder.exists():
            continue
        rows, expected = read_passport(folder).get("rows", {}), _rows(data, kind)
        if any(rows.get(name) != value for name, value in expected.items()):
            what = data.images(kind) if kind in ("gallery", "queries") else data.queries
            raise PassportError(f"{folder}: expected the vectors of {what}, found those of other data: run `dvc repro`")


def _rows(data: DataPaths, kind: str) -> dict[str, object]:
    """The fields of a passport's `rows` that describe what was embedded."""
    if kind in ("gallery", "queries"):
        images = read_columns(data.images(kind), ["image_id", "sha256"])
        ids, content = images["image_id"].to_pylist(), "".join(images["sha256"].to_pylist())
        return {"count": len(ids), "ids_sha256": hash_ids(ids), "content_sha256": sha256(content.encode()).hexdigest()}
    ids, texts = read_texts(data.query_list, data.prompts)[kind]
    return {"count": len(ids), "ids_sha256": hash_ids(ids), "content_sha256": hash_ids(texts)}
