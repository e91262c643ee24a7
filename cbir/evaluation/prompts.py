"""How much a text search depends on the words around a class's name: every prompt set against the others.

Each class is searched for by every wording of a set (see `cbir.datasets.prompt_sets`), and by their ensemble,
the unit vector of the mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cbir.artifacts.vectors import MISSING, Vectors, VectorSet
from cbir.core.progress import progress
from cbir.evaluation.classes import Classes, class_means
from cbir.evaluation.metrics import RelevantRanks, mean, per_query, ranks_of_relevant
from cbir.evaluation.statistics import bounds_of_means
from cbir.index.exact import exact_scores

_KS = (1, 10)
_SHOWN = ("success@1", "precision@10", "map_at_r")
_BLOCK_SCORES = 2**25  # scores held at a time: 128 MB as float32

Values = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class _Wordings:
    """A prompt set: class, text and vector of each row, (n,) and (n, dim)."""

    classes: npt.NDArray[np.int64]
    texts: list[str]
    vectors: Vectors


def compare_prompts(
    prompts: pa.Table, gallery: VectorSet, labels: pa.Array, texts: VectorSet, resamples: int, seed: int
) -> dict[str, Any]:
    """What each prompt set finds: {set: {classes, wordings, mean, ensemble, spread, worst_class, intervals}}.

    labels : of the gallery rows.  texts : the vectors of the prompts' texts, by text.
    Relevant is what has the class's label.  mean : over all wordings, a class as much as another.  spread : the standard
    deviation over the wordings of one class, mean over the classes.
    """
    classes = Classes.of(labels)
    groups = [np.flatnonzero(classes.of_gallery == number) for number in range(len(classes.labels))]
    found = {}
    for prompt_set in dict.fromkeys(prompts["prompt_set"].to_pylist()):
        rows = prompts.filter(pa.compute.equal(prompts["prompt_set"], prompt_set))
        numbers = classes.of_queries(rows["label"].combine_chunks())
        kept = np.flatnonzero(numbers != MISSING)
        named = rows["text"].take(pa.array(kept)).to_pylist()
        wordings = _Wordings(numbers[kept], named, texts.rows(named, "prompts"))
        if named:
            found[prompt_set] = _of_set(prompt_set, wordings, classes, groups, gallery, resamples, seed)
    return found


def _of_set(
    name: str,
    wordings: _Wordings,
    classes: Classes,
    groups: Sequence[npt.NDArray[np.int64]],
    gallery: VectorSet,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    asked, of_row = np.unique(wordings.classes, return_inverse=True)
    values = _values(wordings.vectors, [groups[number] for number in wordings.classes], gallery, f"prompts {name}")
    sums = np.zeros((len(asked), wordings.vectors.shape[1]))
    np.add.at(sums, of_row, wordings.vectors.astype(np.float64))
    ensembles = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
    ensemble = _values(ensembles, [groups[number] for number in asked], gallery, f"ensembles {name}")
    counts, means = class_means(values, of_row, len(asked))
    _, variances = class_means(
        {metric: (column - means[metric][of_row]) ** 2 for metric, column in values.items()}, of_row, len(asked)
    )
    worst = int(np.argmin(ensemble["map_at_r"]))
    return {
        "classes": len(asked),
        "wordings": [int(counts.min()), int(counts.max())],
        "mean": mean(means),
        "ensemble": mean(ensemble),
        "spread": mean({metric: np.sqrt(column) for metric, column in variances.items()}),
        "worst_class": {"label": classes.labels[asked[worst]], **{k: float(v[worst]) for k, v in ensemble.items()}},
        "intervals": {
            name: bounds_of_means(of_classes, np.arange(len(asked)), resamples, seed)
            for name, of_classes in (("mean", means), ("ensemble", ensemble))
        },
    }


def _values(vectors: Vectors, relevant: Sequence[npt.NDArray[np.int64]], gallery: VectorSet, title: str) -> Values:
    """The shown metrics of each row, by exact search over the whole gallery."""
    rows = max(1, min(128, _BLOCK_SCORES // len(gallery.ids)))
    parts: list[Values] = []
    with progress(len(vectors), title, "texts") as bar:
        for start in range(0, len(vectors), rows):
            block = slice(start, start + rows)
            scores = exact_scores(vectors[block], gallery.parts)
            ranks = [ranks_of_relevant(row, positions) for row, positions in zip(scores, relevant[block], strict=True)]
            grades = [np.ones(len(positions)) for positions in relevant[block]]
            parts.append(per_query(RelevantRanks.from_ranks(ranks, grades, ideal=grades), _KS))
            bar.advance(len(scores))
    return {name: np.concatenate([part[name] for part in parts]) for name in _SHOWN}
