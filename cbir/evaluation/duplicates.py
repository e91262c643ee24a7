"""Duplicates: image queries whose picture, or nearly the same picture, is also in the gallery.  They raise every metric.

Three comparisons detect different copies: of bytes (the same file); of fingerprints (scaled or recompressed); of vectors,
where the fingerprints are similar as well (brighter, or slightly cropped).  A query's own image is left out of its results
and is no duplicate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.vectors import MISSING, Positions, Scores

BYTES, PIXELS = "bytes", "pixels"  # what was compared; otherwise the vectors of the encoder named

# Distances are root mean square differences of fingerprints, in grey levels of 255.  Of 1,000 photographs of Tiny ImageNet,
# recompressed (quality 50, 20) or scaled (half, double), 95 % change by less than 3.5; the nearest two of 12,000 differ by 13,
# the nearest two drawings of this project by 4.2 (measured).
NEAR_GREYS: Final = 4.0
_OF_CONTRAST = 0.1
# With the mean grey subtracted, 95 % of those photographs change by less than 11 when brightness or contrast are raised, and
# half of them by less than 21 when a twentieth is cropped at each side; 95 % of photographs differ by more than 22 from the
# nearest other one (measured).
SIMILAR_GREYS: Final = 20.0
MAX_COPIES: Final = 20  # per query
_BLOCK_NUMBERS = 2**25  # products held at a time: 128 MB

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """Images to compare.  digests : sha256 of their files.  fingerprints : (n, 256) uint8."""

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
    """A query and a gallery image that is a copy of it.

    query, position : rows of the query list and of the gallery.  found_by : BYTES, PIXELS or an encoder.
    likeness : 1, the root mean square difference of the fingerprints in grey levels of 255, or the cosine.
    """

    query: int
    position: int
    found_by: str
    likeness: float


def same_bytes(queries: Pictures, gallery: Pictures, own: Positions) -> Iterator[DuplicatePair]:
    """Pairs of identical files, at most MAX_COPIES per query.

    own : (n,) the position of each query's own image, or MISSING.
    """
    candidates = np.flatnonzero(pc.is_in(gallery.digests, queries.digests).to_numpy(zero_copy_only=False))
    positions: dict[str, list[int]] = {}
    for position, digest in zip(
        candidates.tolist(), gallery.digests.take(pa.array(candidates)).to_pylist(), strict=True
    ):
        positions.setdefault(digest, []).append(position)
    for query, (digest, own_position) in enumerate(zip(queries.digests.to_pylist(), own.tolist(), strict=True)):
        copies = (position for position in positions.get(digest, []) if position != own_position)
        for position in islice(copies, MAX_COPIES):
            yield DuplicatePair(query, position, BYTES, 1.0)


def same_pixels(queries: Pictures, gallery: Pictures, own: Positions) -> Iterator[DuplicatePair]:
    """Pairs whose fingerprints differ by at most NEAR_GREYS and a tenth of the query's contrast, at most MAX_COPIES per query.

    A picture without contrast has no copies, because its fingerprint is that of any picture of the same grey.
    """
    if not len(gallery.fingerprints):
        return
    # Integers below 2^24: float32 holds every sum exactly, in any order.
    rows = gallery.fingerprints.astype(np.float32)
    squares = (rows.astype(np.float64) ** 2).sum(1)
    step = max(1, _BLOCK_NUMBERS // len(rows))
    for start in range(0, len(queries.fingerprints), step):
        block = queries.fingerprints[start : start + step].astype(np.float32)
        block_squares = (block.astype(np.float64) ** 2).sum(1)
        limits = np.minimum(NEAR_GREYS, _OF_CONTRAST * block.std(axis=1)) ** 2 * rows.shape[1]
        # |a - b|^2 <= limit, arranged so that the large matrix is only compared
        near = block @ rows.T >= (((block_squares - limits)[:, None] + squares) / 2).astype(np.float32)
        for query in np.flatnonzero(near.any(axis=1) & (limits > 0)).tolist():
            copies = (int(position) for position in np.flatnonzero(near[query]) if position != own[start + query])
            for position in islice(copies, MAX_COPIES):
                difference = block[query].astype(np.float64) - rows[position]
                yield DuplicatePair(start + query, position, PIXELS, float(np.sqrt((difference**2).mean())))


def same_vectors(scores: Scores, positions: Positions, encoder: str, min_cosine: float) -> Iterator[DuplicatePair]:
    """Pairs with a cosine of at least min_cosine, among the results of exact search without the queries' own images.

    scores, positions : (n, more than MAX_COPIES, or the whole gallery), the best first.  A query that is this near to more
    than MAX_COPIES images, or to the whole gallery, has no pairs: an encoder with random weights, for example, does not
    distinguish images.
    """
    retrieved = positions != MISSING
    near = (scores >= min_cosine) & retrieved
    near_to_all = (near.sum(axis=1) == retrieved.sum(axis=1)) & (retrieved.sum(axis=1) > 1)
    near[(near.sum(axis=1) > MAX_COPIES) | near_to_all] = False
    for query, column in np.argwhere(near).tolist():
        yield DuplicatePair(query, int(positions[query, column]), encoder, float(scores[query, column]))


def similar_pixels(pair: DuplicatePair, queries: Pictures, gallery: Pictures) -> bool:
    """Whether the fingerprints of a pair, minus the mean of each, differ by at most SIMILAR_GREYS.

    It confirms a pair of similar vectors: an encoder that was not trained on such images may give all of them similar vectors.
    """
    query = queries.fingerprints[pair.query].astype(np.float64)
    image = gallery.fingerprints[pair.position].astype(np.float64)
    difference = (query - query.mean()) - (image - image.mean())
    return bool(np.sqrt((difference**2).mean()) <= SIMILAR_GREYS)


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
