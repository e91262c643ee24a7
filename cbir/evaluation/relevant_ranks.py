"""Ranks of the relevant images of each query: all that the metrics need to know of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cbir.artifacts.vectors import Scores
from cbir.index.ordinals import ordinals

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NOT_RETRIEVED: Final = int(np.iinfo(np.int64).max // 2)
"""Rank of a relevant image that is not in the run; half of the range of int64, so that rank + 1 cannot overflow."""


@dataclass(frozen=True, eq=False)
class RelevantRanks:
    """Ranks and grades of the relevant images of each query.

    ranks      : (n_queries, m) int64, 1-based, ascending in each row, padded with NOT_RETRIEVED
    gains      : (n_queries, m) float64, grade of the image at each rank (>= 1), 0 where padded
    ideal      : (n_queries, m) float64, grades of all relevant images, retrieved or not, descending, padded with 0
    n_relevant : (n_queries,) int64, number of relevant images, retrieved or not

    Raises ValueError for an array that does not match this description, naming the first invalid query row.
    """

    ranks: Ints
    gains: Floats
    ideal: Floats
    n_relevant: Ints

    def __post_init__(self) -> None:
        shape = self.ranks.shape
        if len(shape) != 2:
            raise ValueError(f"RelevantRanks.ranks: expected shape (n_queries, m), found {shape}")
        for name, dtype, expected_shape in (
            ("ranks", np.int64, shape),
            ("gains", np.float64, shape),
            ("ideal", np.float64, shape),
            ("n_relevant", np.int64, shape[:1]),
        ):
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != expected_shape:
                raise ValueError(
                    f"RelevantRanks.{name}: expected {np.dtype(dtype)} of shape {expected_shape}, "
                    f"found {array.dtype} of shape {array.shape}"
                )

        retrieved = self.ranks < NOT_RETRIEVED
        before, after = self.ranks[:, :-1], self.ranks[:, 1:]
        self._require(
            "ranks",
            f"1-based ranks, ascending without repeats, padded with {NOT_RETRIEVED}",
            (self.ranks >= 1) & (self.ranks <= NOT_RETRIEVED),
            (before < after) | (before == after) & (after == NOT_RETRIEVED),
        )
        self._require(
            "gains",
            "a finite grade >= 1 at each retrieved rank and 0 where padded",
            np.where(retrieved, (self.gains >= 1) & np.isfinite(self.gains), self.gains == 0),
        )
        self._require(
            "ideal",
            "finite grades >= 1 in descending order, padded with 0",
            (self.ideal == 0) | (self.ideal >= 1) & np.isfinite(self.ideal),
            self.ideal[:, :-1] >= self.ideal[:, 1:],
        )
        n_ideal = np.count_nonzero(self.ideal, axis=1)
        self._require("n_relevant", "the number of grades in ideal", (self.n_relevant == n_ideal)[:, None])
        self._require(
            "gains", "no more and no higher grades than in ideal", -np.sort(-self.gains, axis=1) <= self.ideal
        )

    def _require(self, name: str, expected: str, *conditions: NDArray[np.bool_]) -> None:
        valid = np.concatenate(conditions, axis=1).all(axis=1)
        if not valid.all():
            row = int(valid.argmin())
            values = np.atleast_1d(getattr(self, name)[row])
            start = ", ".join(str(value) for value in values[:8].tolist()) + (", ..." if len(values) > 8 else "")
            raise ValueError(f"RelevantRanks.{name}, query row {row}: expected {expected}, found {start}")

    @classmethod
    def from_relevance(cls, relevance: ArrayLike, ideal: Sequence[ArrayLike]) -> "RelevantRanks":
        """Build ranks from the grades of the retrieved images, for shallow runs.

        relevance : (n_queries, depth) int or bool, grade of the image at each rank; below 1 is not relevant
        ideal     : for each query, the grades of all its relevant images, in any order
        Raises ValueError where the two contradict each other or have other shapes.

        >>> RelevantRanks.from_relevance([[0, 2, 1], [0, 0, 0]], ideal=[[1, 2, 1], []]).ranks[0].tolist()[:2]
        [2, 3]
        """
        grades = np.asarray(relevance)
        if grades.ndim != 2 or grades.dtype.kind not in "iub":
            raise ValueError(
                f"relevance: expected int of shape (n_queries, depth), found {grades.dtype} of shape {grades.shape}"
            )
        if len(ideal) != len(grades):
            raise ValueError(f"ideal: expected the grades of {len(grades)} queries, found {len(ideal)}")

        ranks = [np.flatnonzero(row >= 1) + 1 for row in grades]
        return cls.from_ranks(ranks, [row[row >= 1] for row in grades], ideal)

    @classmethod
    def from_ranks(
        cls, ranks: Sequence[ArrayLike], gains: Sequence[ArrayLike], ideal: Sequence[ArrayLike]
    ) -> "RelevantRanks":
        """Sort and pad the ranks of the retrieved relevant images.

        ranks, gains : for each query, the 1-based ranks, in any order, and the grades of the images at these ranks
        ideal        : for each query, the grades of all its relevant images, in any order; below 1 is not relevant
        Raises ValueError where they contradict each other.

        >>> RelevantRanks.from_ranks([[7, 2]], [[1, 3]], ideal=[[1, 3, 2]]).gains.tolist()
        [[3.0, 1.0, 0.0]]
        """
        all_relevant = [np.asarray(row, np.float64) for row in ideal]
        all_relevant = [-np.sort(-row[row >= 1]) for row in all_relevant]
        width = max([len(row) for row in all_relevant] + [len(np.asarray(row)) for row in ranks], default=0)
        shape = (len(all_relevant), width)
        padded_ranks, padded_gains, padded_ideal = (
            np.full(shape, NOT_RETRIEVED, np.int64),
            np.zeros(shape),
            np.zeros(shape),
        )
        for row, (query_ranks, query_gains, grades) in enumerate(zip(ranks, gains, all_relevant, strict=True)):
            order = np.argsort(query_ranks)
            padded_ranks[row, : len(order)] = np.asarray(query_ranks, np.int64)[order]
            padded_gains[row, : len(order)] = np.asarray(query_gains, np.float64)[order]
            padded_ideal[row, : len(grades)] = grades
        return cls(padded_ranks, padded_gains, padded_ideal, np.array([len(row) for row in all_relevant], np.int64))


def ranks_of_relevant(scores: Scores, relevant: ArrayLike, excluded: int | None = None) -> Ints:
    """Exact rank of each relevant image of one query among the whole gallery.

    The order is score descending, then position ascending, as in a stable argsort of -scores; -0.0 equals 0.0.

    scores   : (n_gallery,) float32, higher is better, no NaN
    relevant : (n_relevant,) int, positions in the gallery
    excluded : position that takes no rank (the query's own image), not one of the relevant
    Returns (n_relevant,) int64, 1-based, in the order of `relevant`.  Raises ValueError for any other argument.

    >>> ranks_of_relevant(np.float32([0.5, 0.9, 0.5, 1.0]), relevant=[2, 1], excluded=3)
    array([3, 1])
    """
    if scores.ndim != 1 or scores.dtype != np.float32:
        raise ValueError(
            f"scores: expected float32 of shape (n_gallery,), found {scores.dtype} of shape {scores.shape}"
        )
    if np.isnan(scores).any():
        raise ValueError(f"scores: expected numbers, found NaN at position {int(np.isnan(scores).argmax())}")
    positions = np.asarray(relevant)
    if excluded is not None and (not 0 <= excluded < len(scores) or (positions == excluded).any()):
        raise ValueError(
            f"excluded: expected a position from 0 to {len(scores) - 1} that is not relevant, found {excluded}"
        )
    if positions.size == 0:
        return np.empty(0, np.int64)
    if positions.ndim != 1 or positions.dtype.kind not in "iu":
        raise ValueError(
            f"relevant: expected int of shape (n_relevant,), found {positions.dtype} of shape {positions.shape}"
        )
    if positions.min() < 0 or positions.max() >= len(scores):
        raise ValueError(
            f"relevant: expected positions from 0 to {len(scores) - 1}, found {positions.min()} to {positions.max()}"
        )

    # One int64 holds the whole order: the score in the upper bits, the position in the lower.  Ties then need no special
    # case, and numpy's vectorised integer sort takes 2 ms per 100,000 images, where a stable argsort takes 10.
    order = (-ordinals(scores)).astype(np.int64) << 32 | np.arange(len(scores))
    ranks: Ints = np.searchsorted(np.sort(order), order[positions]) + 1
    if excluded is not None:
        ranks -= order[excluded] < order[positions]
    return ranks
