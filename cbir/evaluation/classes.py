"""What an encoder makes of the classes: figures of each class, classes that it confuses, and categories predicted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cbir.artifacts.vectors import MISSING, Positions, Vectors, positions_of
from cbir.evaluation.relevance import Scores

NEIGHBOURS: Final = 20  # that vote
RANKS: Final = (1, 5)  # accuracy@1, accuracy@5

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Classes:
    """The classes of a gallery.

    labels : in order.  names : what people call them.  of_gallery : (n_gallery,) the number of each image's class, MISSING
    without a label.
    """

    labels: list[str]
    names: list[str]
    of_gallery: Ints

    @classmethod
    def of(cls, labels: pa.Array, names: pa.Array | None = None) -> "Classes":
        """labels, names : of the gallery's images, null where an image has none; of several names the first image's counts."""
        distinct = sorted(label for label in labels.unique().to_pylist() if label is not None)
        named = distinct
        if names is not None:
            first = pa.array(positions_of(distinct, labels))
            named = [name or label for name, label in zip(names.take(first).to_pylist(), distinct, strict=True)]
        return cls(distinct, named, positions_of(labels, pa.array(distinct, pa.string())))

    def of_queries(self, labels: pa.Array) -> Ints:
        """The number of each query's class, MISSING where the gallery has no such class."""
        return positions_of(labels, pa.array(self.labels, pa.string()))


def prototypes(parts: Sequence[Vectors], classes: Classes, dim: int) -> Floats:
    """The sum of each class's vectors, (n_classes, dim) float64; parts : as in `cbir.index.exact.exact_search`."""
    sums, first = np.zeros((len(classes.labels), dim)), 0
    for part in parts:
        of_part = classes.of_gallery[first : first + len(part)]
        labelled = of_part != MISSING
        np.add.at(sums, of_part[labelled], part[labelled].astype(np.float64))
        first += len(part)
    return sums


def unit_means(parts: Sequence[Vectors], classes: Classes, dim: int) -> Vectors:
    """The mean vector of each class, scaled to unit length, (n_classes, dim) float32; NaN where the vectors cancel out."""
    sums = prototypes(parts, classes, dim)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    means: Vectors = np.divide(sums, lengths, out=np.full_like(sums, np.nan), where=lengths > 0).astype(np.float32)
    return means


def rank_by_prototype(
    vectors: Vectors, sums: Floats, sizes: Ints, wanted: Ints, own: Positions, own_classes: Ints
) -> Floats:
    """The rank of each query's class among all, by the cosine to the class's mean vector; NaN without a class.

    vectors : (n, dim) float32.  sums : from `prototypes`.  sizes : images of each class.  wanted : (n,) the classes.
    own : (n,) the query's own position in the gallery or MISSING, own_classes : the class of that image; it is taken out of its
    class's mean.
    Of classes equally near, the query's own counts as the farthest.  A class of no other image than the query's has no mean;
    a query for such a class has no rank.
    """
    ranks = np.full(len(vectors), np.nan)
    lengths = np.linalg.norm(sums, axis=1)
    for row in np.flatnonzero(wanted != MISSING):
        query = vectors[row].astype(np.float64)
        cosines = sums @ query / lengths
        mine = own_classes[row]
        if own[row] != MISSING and mine != MISSING:
            rest = sums[mine] - query
            cosines[mine] = rest @ query / np.linalg.norm(rest) if sizes[mine] > 1 else -np.inf
        if np.isfinite(cosines[wanted[row]]):
            ranks[row] = (cosines >= cosines[wanted[row]]).sum()
    return ranks


def rank_by_votes(scores: Scores, found: Ints, wanted: Ints) -> Floats:
    """The rank of each query's class by the votes of its neighbours, inf where none votes for it; NaN without a class.

    scores, found : (n, k) scores and classes of the nearest gallery images, MISSING without a label.  wanted : (n,).
    A class has as many votes as neighbours; of equal votes the larger sum of scores wins, then the class of the nearer image.
    """
    ranks = np.full(len(found), np.nan)
    for row in np.flatnonzero(wanted != MISSING):
        voted = found[row] != MISSING
        names, first, of_vote = np.unique(found[row][voted], return_index=True, return_inverse=True)
        sums = np.bincount(of_vote, weights=scores[row][voted], minlength=len(names))
        order = np.lexsort((first, -sums, -np.bincount(of_vote, minlength=len(names))))
        place = np.flatnonzero(names[order] == wanted[row])
        ranks[row] = place[0] + 1 if len(place) else np.inf
    return ranks


def accuracies(ranks: Floats, name: str) -> dict[str, Floats]:
    """name_accuracy@1 and @5 of each query: 1 where its class is among the first so many, NaN without a class."""
    return {f"{name}_accuracy@{k}": np.where(np.isnan(ranks), np.nan, (ranks <= k).astype(np.float64)) for k in RANKS}


def confusions(found: Ints, wanted: Ints, n_classes: int) -> list[tuple[int, int, float]]:
    """(class asked for, class found instead, share of the results to it), the greatest share first.

    found : (n, k) classes of the first k results, MISSING without a label.  wanted : (n,), MISSING without a class.
    """
    asked = np.repeat(wanted[:, None], found.shape[1], 1)
    counted = (asked != MISSING) & (found != MISSING)
    pairs, counts = np.unique(asked[counted] * n_classes + found[counted], return_counts=True)
    results = np.bincount(asked[asked != MISSING], minlength=n_classes)
    every = [
        (int(pair // n_classes), int(pair % n_classes), float(count / results[pair // n_classes]))
        for pair, count in zip(pairs, counts, strict=True)
        if pair // n_classes != pair % n_classes
    ]
    return sorted(every, key=lambda one: (-one[2], one[:2]))


def class_means(values: Mapping[str, Floats], wanted: Ints, n_classes: int) -> tuple[Ints, dict[str, Floats]]:
    """The number of queries of each class, (n_classes,), and name -> the mean of each class, NaN where undefined."""
    rows = wanted != MISSING
    means = {}
    for name, column in values.items():
        defined = rows & ~np.isnan(column)
        sums = np.bincount(wanted[defined], weights=column[defined], minlength=n_classes)
        counts = np.bincount(wanted[defined], minlength=n_classes)
        means[name] = np.divide(sums, counts, out=np.full(n_classes, np.nan), where=counts > 0)
    return np.bincount(wanted[rows], minlength=n_classes), means
