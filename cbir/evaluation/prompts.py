"""How much text search depends on the prompt around a class name: the metrics of each prompt set.

Each class is searched for with each prompt of a set (see `cbir.datasets.prompt_sets`), and with their ensemble, the mean of
the prompts' vectors scaled to unit length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.images import read_columns
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.queries import read_prompts
from cbir.artifacts.vectors import MISSING, Positions, Vectors, VectorSet, open_vectors
from cbir.core.files import write_json
from cbir.core.progress import progress
from cbir.evaluation.classes import Classes, class_means
from cbir.evaluation.metrics import mean, per_query
from cbir.evaluation.relevant_ranks import RelevantRanks, ranks_of_relevant
from cbir.evaluation.statistics import bounds_of_means
from cbir.index.exact import exact_scores, queries_per_block

_KS = (1, 10)
_METRICS = ("success@1", "precision@10", "map_at_r")

Values = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class _Prompts:
    """The prompts of a set: class, text and vector of each, (n,) and (n, dim)."""

    classes: npt.NDArray[np.int64]
    texts: list[str]
    vectors: Vectors


def write_prompt_metrics(out: Path, data: DataPaths, encoder: str, resamples: int, seed: int) -> None:
    """Write the metrics of each prompt set; nothing if the encoder reads no text."""
    if not data.vectors(encoder, "prompts").is_dir():
        return
    gallery, texts = (open_vectors(data.embeddings(encoder), encoder, kind) for kind in ("gallery", "prompts"))
    labels = read_columns(data.images("gallery"), ["label"])["label"].combine_chunks()
    write_json(out, compare_prompts(read_prompts(data.prompts), gallery, labels, texts, resamples, seed))


def compare_prompts(
    prompts: pa.Table, gallery: VectorSet, labels: pa.Array, texts: VectorSet, resamples: int, seed: int
) -> dict[str, Any]:
    """Evaluate each prompt set: {set: {classes, wordings, mean, ensemble, spread, worst_class, intervals}}.

    labels : of the gallery, in order of position.  texts : the vectors of the prompts, by text.
    Relevant are the images of the class.  wordings : the least and the greatest number of prompts per class.  mean : over
    all prompts, each class with the same weight.  spread : the standard deviation over the prompts of one class, averaged
    over the classes.
    """
    classes = Classes.of(labels)
    relevant = [np.flatnonzero(classes.of_gallery == number) for number in range(len(classes.labels))]
    compared = {}
    for prompt_set in dict.fromkeys(prompts["prompt_set"].to_pylist()):
        rows = prompts.filter(pc.equal(prompts["prompt_set"], prompt_set))
        of_prompts = classes.of_queries(rows["label"].combine_chunks())
        in_gallery = np.flatnonzero(of_prompts != MISSING)
        prompt_texts = rows["text"].take(pa.array(in_gallery)).to_pylist()
        of_set = _Prompts(of_prompts[in_gallery], prompt_texts, texts.rows(prompt_texts, "prompts"))
        if prompt_texts:
            compared[prompt_set] = _evaluate_set(prompt_set, of_set, classes, relevant, gallery, resamples, seed)
    return compared


def _evaluate_set(
    name: str,
    prompts: _Prompts,
    classes: Classes,
    relevant: Sequence[Positions],
    gallery: VectorSet,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """relevant : the positions of each class."""
    numbers, class_of = np.unique(prompts.classes, return_inverse=True)  # class_of : index into numbers
    values = _values(prompts.vectors, [relevant[number] for number in prompts.classes], gallery, f"prompts {name}")
    sums = np.zeros((len(numbers), prompts.vectors.shape[1]))
    np.add.at(sums, class_of, prompts.vectors.astype(np.float64))
    ensembles = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
    ensemble = _values(ensembles, [relevant[number] for number in numbers], gallery, f"ensembles {name}")
    counts, means = class_means(values, class_of, len(numbers))
    _, variances = class_means(
        {metric: (column - means[metric][class_of]) ** 2 for metric, column in values.items()}, class_of, len(numbers)
    )
    worst = int(np.argmin(ensemble["map_at_r"]))
    return {
        "classes": len(numbers),
        "wordings": [int(counts.min()), int(counts.max())],
        "mean": mean(means),
        "ensemble": mean(ensemble),
        "spread": mean({metric: np.sqrt(column) for metric, column in variances.items()}),
        "worst_class": {
            "label": classes.labels[numbers[worst]],
            **{metric: float(column[worst]) for metric, column in ensemble.items()},
        },
        "intervals": {
            key: bounds_of_means(by_class, np.arange(len(numbers)), resamples, seed)
            for key, by_class in (("mean", means), ("ensemble", ensemble))
        },
    }


def _values(vectors: Vectors, relevant: Sequence[Positions], gallery: VectorSet, title: str) -> Values:
    """The metrics of each row by exact search over the whole gallery.  relevant : the relevant positions of each row."""
    rows = queries_per_block(len(gallery.ids))
    parts: list[Values] = []
    with progress(len(vectors), title, "texts") as bar:
        for start in range(0, len(vectors), rows):
            block = slice(start, start + rows)
            scores = exact_scores(vectors[block], gallery.parts)
            ranks = [ranks_of_relevant(row, positions) for row, positions in zip(scores, relevant[block], strict=True)]
            grades = [np.ones(len(positions)) for positions in relevant[block]]
            parts.append(per_query(RelevantRanks.from_ranks(ranks, grades, ideal=grades), _KS))
            bar.advance(len(scores))
    return {name: np.concatenate([part[name] for part in parts]) for name in _METRICS}
