"""Evaluation by class: means of each class, confusions between classes, and the accuracy of predicted classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cbir.artifacts.vectors import MISSING, Positions, Scores, Vectors, positions_of

NEIGHBOURS: Final = 20  # neighbours that vote
KS: Final = (1, 5)  # accuracy@1, accuracy@5

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Classes:
    """The classes of a gallery.

    labels : sorted; a class is numbered by its position among them.  names : for display.  of_gallery : (n_gallery,) the class
    of each image, MISSING without a label.
    """

    labels: list[str]
    names: list[str]
    of_gallery: Ints

    @classmethod
    def of(cls, labels: pa.Array, names: pa.Array | None = None) -> "Classes":
        """Number the classes.

        labels, names : of the gallery's images, null where an image has none.  A class has the name of its first image.
        """
        distinct = sorted(label for label in labels.unique().to_pylist() if label is not None)
        named = distinct
        if names is not None:
            first = pa.array(positions_of(distinct, labels))
            named = [name or label for name, label in zip(names.take(first).to_pylist(), distinct, strict=True)]
        return cls(distinct, named, positions_of(labels, pa.array(distinct, pa.string())))

    def of_queries(self, labels: pa.Array) -> Ints:
        """The class of each query, (n,), MISSING where the gallery has no such class."""
        return positions_of(labels, pa.array(self.labels, pa.string()))


def vector_sums(parts: Sequence[Vectors], classes: Classes, dim: int) -> Floats:
    """The sum of the vectors of each class, (n_classes, dim) float64.  parts : as in `cbir.index.exact.exact_search`."""
    sums, first = np.zeros((len(classes.labels), dim)), 0
    for part in parts:
        of_part = classes.of_gallery[first : first + len(part)]
        labelled = of_part != MISSING
        np.add.at(sums, of_part[labelled], part[labelled].astype(np.float64))
        first += len(part)
    return sums


def unit_means(parts: Sequence[Vectors], classes: Classes, dim: int) -> Vectors:
    """The mean vector of each class, scaled to unit length, (n_classes, dim) float32; NaN where the sum is zero."""
    sums = vector_sums(parts, classes, dim)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    means: Vectors = np.divide(sums, lengths, out=np.full_like(sums, np.nan), where=lengths > 0).astype(np.float32)
    return means


def rank_by_prototype(
    vectors: Vectors, sums: Floats, sizes: Ints, query_classes: Ints, own: Positions, own_classes: Ints
) -> Floats:
    """The rank of each query's class among all classes, by the cosine to the class's mean vector; NaN without a class.

    vectors : (n, dim) float32, the queries.  sums : from `vector_sums`.  sizes : (n_classes,) images of each class.
    query_classes : (n,).  own : (n,) the position of the query's own image in the gallery, or MISSING.  own_classes : (n,) the
    class of that image, which is excluded from the mean of its class.
    Of equally near classes, the query's own ranks last.  A class without another image than the query's has no mean, and its
    query no rank.
    """
    ranks = np.full(len(vectors), np.nan)
    lengths = np.linalg.norm(sums, axis=1)
    for row in np.flatnonzero(query_classes != MISSING):
        query = vectors[row].astype(np.float64)
        cosines = sums @ query / lengths
        own_class = own_classes[row]
        if own[row] != MISSING and own_class != MISSING:
            rest = sums[own_class] - query
            cosines[own_class] = rest @ query / np.linalg.norm(rest) if sizes[own_class] > 1 else -np.inf
        cosine = cosines[query_classes[row]]
        if np.isfinite(cosine):
            ranks[row] = (cosines >= cosine).sum()
    return ranks


def rank_by_votes(scores: Scores, neighbour_classes: Ints, query_classes: Ints) -> Floats:
    """The rank of each query's class by the votes of its neighbours, inf where it has none; NaN without a class.

    scores, neighbour_classes : (n, k) scores and classes of the nearest gallery images, MISSING without a label.
    query_classes : (n,).
    Each neighbour is a vote for its class; between equal votes the larger sum of scores decides, then the nearer image.
    """
    ranks = np.full(len(neighbour_classes), np.nan)
    for row in np.flatnonzero(query_classes != MISSING):
        voted = neighbour_classes[row] != MISSING
        candidates, first, of_vote = np.unique(neighbour_classes[row][voted], return_index=True, return_inverse=True)
        sums = np.bincount(of_vote, weights=scores[row][voted], minlength=len(candidates))
        order = np.lexsort((first, -sums, -np.bincount(of_vote, minlength=len(candidates))))
        index = np.flatnonzero(candidates[order] == query_classes[row])
        ranks[row] = index[0] + 1 if len(index) else np.inf
    return ranks


def accuracies(ranks: Floats, name: str) -> dict[str, Floats]:
    """name_accuracy@1 and @5 of each query: 1 where its class is among the first k, otherwise 0, NaN without a rank."""
    return {f"{name}_accuracy@{k}": np.where(np.isnan(ranks), np.nan, (ranks <= k).astype(np.float64)) for k in KS}


def confusions(result_classes: Ints, query_classes: Ints, n_classes: int) -> list[tuple[int, int, float]]:
    """(class of the queries, class of results, their share of the queries' results), the greatest share first.

    result_classes : (n, k) classes of the first k results, MISSING without a label.  query_classes : (n,), MISSING without a
    class.
    """
    of_query = np.repeat(query_classes[:, None], result_classes.shape[1], 1)
    counted = (of_query != MISSING) & (result_classes != MISSING)
    pairs, counts = np.unique(of_query[counted] * n_classes + result_classes[counted], return_counts=True)
    n_results = np.bincount(of_query[of_query != MISSING], minlength=n_classes)
    confused = [
        (int(pair // n_classes), int(pair % n_classes), float(count / n_results[pair // n_classes]))
        for pair, count in zip(pairs, counts, strict=True)
        if pair // n_classes != pair % n_classes
    ]
    return sorted(confused, key=lambda confusion: (-confusion[2], confusion[:2]))


def class_means(values: Mapping[str, Floats], query_classes: Ints, n_classes: int) -> tuple[Ints, dict[str, Floats]]:
    """The number of queries of each class, (n_classes,), and metric -> (n_classes,) means, NaN where undefined."""
    rows = query_classes != MISSING
    means = {}
    for name, column in values.items():
        defined = rows & ~np.isnan(column)
        sums = np.bincount(query_classes[defined], weights=column[defined], minlength=n_classes)
        counts = np.bincount(query_classes[defined], minlength=n_classes)
        means[name] = np.divide(sums, counts, out=np.full(n_classes, np.nan), where=counts > 0)
    return np.bincount(query_classes[rows], minlength=n_classes), means
