"""Queries that stand in the gallery too, as they are or nearly so: they find themselves, and lift every figure.

Three ways to find them, each sure of other copies: the same bytes; nearly the same picture from afar (scaled, or compressed
anew), by fingerprints; nearly the same vector of a picture that is alike from afar (brighter, or cut a little at its edges).
A query's own image, left out of its results, is no duplicate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.vectors import MISSING, Positions
from cbir.evaluation.relevance import Scores

BYTES, PIXELS = "bytes", "pixels"  # how a duplicate was found; else by the vectors of the encoder named

# Of 1,000 photographs of Tiny ImageNet, compressed anew (quality 50, 20) or scaled (half, double), 95 % move by less than 3.5;
# no two of 12,000 are nearer than 13, no two drawings of this project nearer than 4.2 (measured).
NEAR_GREYS: Final = 4.0
_OF_CONTRAST = 0.1
# Brighter or with more contrast, 95 % of those photographs move by less than 11 from their own mean grey, cut by a twentieth at
# each side half of them by less than 21; of two others' nearest, 95 % are farther than 22 apart (measured).
LIKE_GREYS: Final = 20.0
MOST_COPIES: Final = 20
_BLOCK_NUMBERS = 2**25  # products held at a time: 128 MB

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """Images to compare.  digests : sha256 of their bytes.  fingerprints : (n, 256) uint8."""

    digests: pa.Array
    fingerprints: Bytes

    @classmethod
    def of(cls, table: pa.Table) -> "Pictures":
        """table : the columns sha256 and fingerprint of `cbir.artifacts.images`."""
        column = table["fingerprint"].combine_chunks()
        rows = np.frombuffer(b"".join(column.to_pylist()), np.uint8)
        return cls(table["sha256"].combine_chunks(), rows.reshape(len(column), -1 if len(column) else 256))


@dataclass(frozen=True)
class DuplicatePair:
    """A query and the gallery image that it is like.

    query, position : rows of the query list and of the gallery.  found_by : BYTES, PIXELS or an encoder.
    likeness : 1; the root mean square difference of the fingerprints, in greys of 255; the cosine.
    """

    query: int
    position: int
    found_by: str
    likeness: float


def same_bytes(asked: Pictures, gallery: Pictures, own: Positions) -> Iterator[DuplicatePair]:
    """Pairs of the very same file, at most MOST_COPIES a query.  own : (n,) each query's own position, or MISSING."""
    candidates = np.flatnonzero(pc.is_in(gallery.digests, asked.digests).to_numpy(zero_copy_only=False))
    places: dict[str, list[int]] = {}
    for position, digest in zip(
        candidates.tolist(), gallery.digests.take(pa.array(candidates)).to_pylist(), strict=True
    ):
        places.setdefault(digest, []).append(position)
    for query, (digest, mine) in enumerate(zip(asked.digests.to_pylist(), own.tolist(), strict=True)):
        others = (position for position in places.get(digest, []) if position != mine)
        for position in islice(others, MOST_COPIES):
            yield DuplicatePair(query, position, BYTES, 1.0)


def same_pixels(asked: Pictures, gallery: Pictures, own: Positions) -> Iterator[DuplicatePair]:
    """Pairs whose fingerprints differ by at most NEAR_GREYS, root mean square, and by a tenth of the query's own contrast.

    So a picture without contrast has no copies: from afar it is like any other of its grey.  At most MOST_COPIES a query.
    """
    if not len(gallery.fingerprints):
        return
    # Whole numbers below 2^24: float32 holds every sum exactly, in any order.
    rows = gallery.fingerprints.astype(np.float32)
    squares = (rows.astype(np.float64) ** 2).sum(1)
    step = max(1, _BLOCK_NUMBERS // len(rows))
    for start in range(0, len(asked.fingerprints), step):
        block = asked.fingerprints[start : start + step].astype(np.float32)
        own_squares = (block.astype(np.float64) ** 2).sum(1)
        most = np.minimum(NEAR_GREYS, _OF_CONTRAST * block.std(axis=1)) ** 2 * rows.shape[1]
        # |a - b|^2 <= most, written so that the large matrix is compared and not computed with
        found = block @ rows.T >= (((own_squares - most)[:, None] + squares) / 2).astype(np.float32)
        for query in np.flatnonzero(found.any(axis=1) & (most > 0)).tolist():
            others = (int(position) for position in np.flatnonzero(found[query]) if position != own[start + query])
            for position in islice(others, MOST_COPIES):
                difference = block[query].astype(np.float64) - rows[position]
                yield DuplicatePair(start + query, position, PIXELS, float(np.sqrt((difference**2).mean())))


def same_vectors(scores: Scores, positions: Positions, encoder: str, least_cosine: float) -> Iterator[DuplicatePair]:
    """Pairs of at least so large a cosine, among the results of exact search, whose own images are left out already.

    scores, positions : (n, more than MOST_COPIES, or the whole gallery), the best first.  A query that is so near to more than
    MOST_COPIES images, or to the whole gallery, has none: the encoder does not tell it from others, as random weights do not.
    """
    found = positions != MISSING
    near = (scores >= least_cosine) & found
    everyone = (near.sum(axis=1) == found.sum(axis=1)) & (found.sum(axis=1) > 1)
    near[(near.sum(axis=1) > MOST_COPIES) | everyone] = False
    for query, column in np.argwhere(near).tolist():
        yield DuplicatePair(query, int(positions[query, column]), encoder, float(scores[query, column]))


def alike(pair: DuplicatePair, asked: Pictures, gallery: Pictures) -> bool:
    """Whether the fingerprints of a pair, less the mean of each, differ by at most LIKE_GREYS, root mean square.

    To confirm a pair of vectors: those of an encoder that never saw such images are all alike.
    """
    one, other = (
        pictures.fingerprints[row].astype(np.float64)
        for pictures, row in ((asked, pair.query), (gallery, pair.position))
    )
    difference = (one - one.mean()) - (other - other.mean())
    return bool(np.sqrt((difference**2).mean()) <= LIKE_GREYS)


def pairs_table(
    pairs: Sequence[DuplicatePair], query_ids: pa.Array, gallery_ids: pa.Array, schema: pa.Schema
) -> pa.Table:
    """Rows of (query_id, image_id, found_by, likeness), in the order of the query list."""
    ordered = sorted(pairs, key=lambda pair: (pair.query, pair.position, pair.found_by))
    return pa.table(
        {
            "query_id": query_ids.take(pa.array([pair.query for pair in ordered], pa.int64())),
            "image_id": gallery_ids.take(pa.array([pair.position for pair in ordered], pa.int64())),
            "found_by": [pair.found_by for pair in ordered],
            "likeness": [round(pair.likeness, 6) for pair in ordered],
        },
        schema,
    )
