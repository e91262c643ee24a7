"""A sample of the images, and their nearest gallery images: what a change of vectors changes in the results."""

from collections.abc import Iterable
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from cbir.artifacts.vectors import Positions, Vectors, VectorSet
from cbir.index.exact import exact_search, without_self

TOP = 10


def sample_ids(ids: Iterable[str], count: int, seed: int) -> list[str]:
    """Sample at most `count` ids, those whose hash with the seed is smallest: their order has no influence."""
    return sorted(ids, key=lambda name: sha256(f"{seed}/{name}".encode()).digest())[:count]


def neighbours_in(gallery: VectorSet, vectors: Vectors, queries: Positions) -> Positions:
    """The ten exact neighbours of each row, (n, 10) positions, without the query itself when it is a gallery image.

    queries : the position of each row's own image in the gallery, MISSING where it is no gallery image.
    """
    scores, positions = exact_search(vectors, gallery.parts, TOP + 1)
    return without_self(scores, positions, queries, TOP)[1]


def overlap(neighbours: Positions, others: Positions) -> float:
    """The mean share of a row's neighbours that the same row of `others` has too."""
    pairs = zip(neighbours, others, strict=True)
    return float(np.mean([len(set(row) & set(other)) / TOP for row, other in pairs]))


def precision_at_top(
    neighbours: Positions, gallery: npt.NDArray[np.object_], queries: list[str | None]
) -> float | None:
    """Precision at 10 over the queries with a label.  gallery, queries : labels."""
    labelled = [row for row, label in enumerate(queries) if label is not None]
    if not labelled:
        return None
    return float(np.mean([[gallery[position] == queries[row] for position in neighbours[row]] for row in labelled]))
