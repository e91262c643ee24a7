"""A small data set with known vectors: the artifacts that the stages would write, written by the real writers.

Relevance and rankings are computed here a second time, with plain loops, for comparison with the oracles.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256, shake_256
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from cbir.artifacts import images as image_artifacts
from cbir.artifacts.evaluation_passport import write_evaluation_passport
from cbir.artifacts.evaluations import read_metrics
from cbir.artifacts.images import PackedImage, Quarantined, write_quarantine, write_shards
from cbir.artifacts.names import write_encoder_names
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.artifacts.queries import (
    QRELS_SCHEMA,
    QUERY_SCHEMA,
    write_prompts,
    write_qrels,
    write_query_list,
)
from cbir.artifacts.vectors import open_vectors, write_part, write_vectors_passport
from cbir.core.files import hash_ids, read_json, write_json
from cbir.datasets.base import Query
from cbir.datasets.prompt_sets import prompt_table
from cbir.evaluation.collection import open_collection
from cbir.evaluation.depths import leave_out_large_ks
from cbir.evaluation.evaluate import evaluate_encoder
from cbir.evaluation.params import EvaluateParams
from cbir.evaluation.prompts import write_prompt_metrics
from cbir.evaluation.results import ResultsWriter
from cbir.index.params import BuildParams, IndexKind, IndexParams, SearchParams
from cbir.index.storage import index_vectors
from tests.support import oracles

Vector = NDArray[np.float32]

PROMPT_SETS = ["bare", "photo", "synonyms"]
DIMS = {"mobilenet": 16, "clip": 24}
KINDS = tuple(kind.value for kind in IndexKind)
LABELS = tuple(f"c{number}" for number in range(8))
PARAMS = EvaluateParams(
    ks=[1, 5, 10, 60],
    ann_ks=[1, 10, 50],
    run_depth=None,
    duplicate_cosine=0.9999,
    resamples=200,
    latency_queries=10,
    seed=0,
)


@dataclass
class World:
    """A data set in plain Python, and its paths on disk after `write`.

    gallery : image_id -> label.  held_out : query image_id -> label.
    vectors : encoder -> kind of rows (gallery, queries, texts) -> id -> vector.
    qrels : query_id -> image_id -> grade, or None where the rule is "same label".
    """

    root: Path
    gallery: dict[str, str | None]
    held_out: dict[str, str | None]
    queries: list[Query]
    vectors: dict[str, dict[str, dict[str, Vector]]]
    qrels: dict[str, dict[str, int]] | None = None
    quarantine: list[Quarantined] = field(default_factory=list)
    origin: str = "random:0"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def embeddings(self) -> Path:
        return self.data / "embeddings"

    def indexes(self, kind: str = "flat") -> Path:
        """The folder of the encoders' indexes of one kind; flat ones are where the pipeline has them."""
        return self.data / "index" if kind == "flat" else self.root / "indexes" / kind

    def write(self, *kinds: str) -> "World":
        """Write images, queries, embeddings and indexes of these kinds (flat when none is given)."""
        with (
            mock.patch.object(image_artifacts, "MAX_SHARD_ROWS", 100),
            mock.patch.object(image_artifacts, "_ends_shard", return_value=False),
        ):
            write_shards(self.data / "images" / "gallery", map(_packed, self.gallery.items()))
            write_shards(self.data / "images" / "queries", map(_packed, self.held_out.items()))
        quarantine_sha256 = write_quarantine(self.data / "images" / "quarantine.parquet", self.quarantine)
        write_json(self.data / "images" / "summary.json", self._summary() | {"quarantine_sha256": quarantine_sha256})
        table = pa.Table.from_pylist([asdict(query) for query in self.queries], QUERY_SCHEMA)
        write_query_list(self.data / "queries" / "query_list.parquet", table)
        rows = [
            {"query_id": query_id, "image_id": image_id, "relevance": grade}
            for query_id, grades in (self.qrels or {}).items()
            for image_id, grade in grades.items()
        ]
        write_qrels(self.data / "queries" / "qrels.parquet", pa.Table.from_pylist(rows, QRELS_SCHEMA))
        labels = [label for label in LABELS if label in self.gallery.values()]
        table = prompt_table(PROMPT_SETS, {label: [f"name of {label}", f"other {label}"] for label in labels})
        write_prompts(self.data / "queries" / "prompts.parquet", table)
        for encoder in self.vectors:
            self._write_vectors(encoder)
        write_encoder_names(DataPaths(self.data).encoders, self.vectors)
        for kind in kinds or ("flat",):
            self.build(kind)
        return self

    def build(self, kind: str) -> None:
        for encoder in self.vectors:
            params = IndexParams(IndexKind(kind), _build_params(kind), SearchParams())
            index_vectors(
                open_vectors(self.embeddings / encoder, encoder, "gallery"), params, self.indexes(kind) / encoder, 1
            )

    def evaluate(
        self,
        reports: Path,
        kind: str = "flat",
        params: EvaluateParams = PARAMS,
        search: SearchParams | None = None,
        encoders: Sequence[str] | None = None,
        threads: int = 1,
    ) -> dict[str, Any]:
        """Do what stages.evaluate does for each encoder, without prompts; return the metrics of all."""
        collection = open_collection(DataPaths(self.data))
        paths, search = ReportPaths(reports), search or SearchParams()
        names = list(encoders or self.vectors)
        left_out = leave_out_large_ks(params := deepcopy(params), collection.n_results)
        for encoder in names:
            embeddings, index = self.embeddings / encoder, self.indexes(kind) / encoder
            writer = ResultsWriter(paths.evaluation(encoder), encoder, collection, params, left_out)
            for evaluated in evaluate_encoder(collection, embeddings, index, encoder, params, search, threads):
                writer.add(*evaluated)
            writer.add_index(index)
            writer.add_duplicates(self.data / "images")
            writer.write()
            writer.write_headline(paths.headline(encoder))
            in_pipeline = self.indexes() / encoder  # the report looks for the index there
            write_evaluation_passport(paths.evaluation(encoder), in_pipeline if in_pipeline.exists() else index)
        write_encoder_names(paths.encoders, names)
        return read_metrics(paths).to_json()

    def compare_prompts(self, reports: Path, params: EvaluateParams = PARAMS) -> dict[str, Any]:
        """Do what stages.evaluate does for the prompts of an encoder that reads text; return prompts.json."""
        out = ReportPaths(reports).evaluation("clip")
        write_prompt_metrics(out.prompts, DataPaths(self.data), "clip", params.resamples, params.seed)
        if not out.prompts.exists():
            return {}
        write_evaluation_passport(out, DataPaths(self.data).index("clip"))
        return read_json(out.prompts)

    # --- expected values, for the oracles ----------------------------------------------------------------------------

    def queries_of(self, task: str) -> list[Query]:
        return [query for query in self.queries if query.task == task]

    def own_image(self, query: Query) -> str | None:
        """The image_id of the query's own image if it is in the gallery."""
        return query.image_id if query.image_id in self.gallery else None

    def vector(self, encoder: str, query: Query) -> Vector:
        kind, row = ("queries", query.image_id) if query.task == "cbir" else ("texts", query.query_id)
        return self.vectors[encoder][kind][str(row)]

    def relevance(self, query: Query) -> dict[str, int]:
        """Grades of gallery images other than the query's own."""
        if self.qrels is not None:
            grades = self.qrels.get(query.query_id, {})
        else:
            grades = {i: 1 for i, label in self.gallery.items() if label is not None and label == query.label}
        return {i: grade for i, grade in grades.items() if i in self.gallery and i != self.own_image(query)}

    def scores(self, encoder: str, query: Query) -> dict[str, float]:
        """The exact score of every gallery image."""
        vector = self.vector(encoder, query).astype(np.float64)
        gallery = self.vectors[encoder]["gallery"]
        return {i: float(np.float32(np.dot(vector, gallery[i].astype(np.float64)))) for i in self.gallery}

    def ranking(self, encoder: str, query: Query) -> list[str]:
        """The whole gallery without the query's own image, best first."""
        ids, scores = list(self.gallery), list(self.scores(encoder, query).values())
        own = self.own_image(query)
        return [ids[position] for position in oracles.ranked_positions(scores, None if own is None else ids.index(own))]

    def passport(self, encoder: str, kind: str = "gallery") -> dict[str, Any]:
        rows = self._rows(encoder, kind)
        return {
            "encoder": encoder,
            "family": "torchvision" if encoder == "mobilenet" else "open_clip",
            "architecture": f"{encoder}_known",
            "origin": self.origin,
            "tag": None,
            "weights_sha256": hash_ids([encoder]),
            "preprocessing": {"resize_px": 8, "crop_px": 8, "resize_mode": "shortest", "interpolation": "bilinear"},
            "precision": "fp32",
            "backend": "torch",
            "device": "cpu",
            "versions": {"torch": "2.15.0", "numpy": "2.4.0"},
            "dim": DIMS[encoder],
            "rows": {
                "count": len(rows),
                "ids_sha256": hash_ids(rows),
                "content_sha256": self._content_sha256(kind, rows),
            },
        }

    def _rows(self, encoder: str, kind: str) -> dict[str, Vector]:
        """The vectors of a kind, in the order of the images."""
        rows = self.vectors[encoder][kind]
        order = {"gallery": self.gallery, "queries": self.held_out}.get(kind, rows)
        return {name: rows[name] for name in order if name in rows} | rows

    def _content_sha256(self, kind: str, rows: Iterable[str]) -> str:
        if kind in ("gallery", "queries"):
            labels = self.gallery | self.held_out
            return sha256("".join(_packed((name, labels[name])).sha256 for name in rows).encode()).hexdigest()
        texts = {query.query_id: query.text for query in self.queries}
        return hash_ids(texts.get(name) or name for name in rows)  # the id of a prompt is its text

    def _write_vectors(self, encoder: str) -> None:
        """In parts of 70 rows, whereas the shards hold 100."""
        for kind in self.vectors[encoder]:
            rows = self._rows(encoder, kind)
            ids = list(rows)
            (self.embeddings / encoder / kind).mkdir(parents=True, exist_ok=True)
            for number, start in enumerate(range(0, len(ids), 70)):
                chosen = ids[start : start + 70]
                stacked = np.stack([rows[row] for row in chosen])
                write_part(self.embeddings / encoder / kind, f"part-{number:05d}", chosen, stacked)
            write_vectors_passport(self.embeddings / encoder / kind, self.passport(encoder, kind))
        card = {name: self.passport(encoder)[name] for name in ("family", "architecture", "origin", "preprocessing")}
        write_json(DataPaths(self.data).weights(encoder) / "encoder.json", card)

    def _summary(self) -> dict[str, Any]:
        """As cbir.datasets.preprocess writes it."""
        sizes = [list(self.gallery.values()).count(label) for label in {*self.gallery.values()} - {None}]
        tasks = [query.task for query in self.queries]
        return {
            "dataset": "image_folder",
            "title": "pictures",
            "ignored_files": {},
            "left_out": [],
            "notes": [],
            "limits": {"max_pixels": 50_000_000, "max_side_px": 512},
            "gallery": {
                "images": len(self.gallery),
                "bytes": 0,
                "classes": len(sizes),
                "smallest_class": min(sizes, default=0),
                "largest_class": max(sizes, default=0),
                "unlabelled": len(self.gallery) - sum(sizes),
            },
            "queries": {"by_task": {task: tasks.count(task) for task in sorted(set(tasks))}},
            "relevance": "same_label" if self.qrels is None else "qrels",
        }


def unit(rows: NDArray[np.float64]) -> Vector:
    scaled: Vector = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return scaled


def make_world(root: Path, seed: int = 350, graded: bool = False, n_gallery: int = 280) -> World:
    """A gallery of 8 classes (the last 8 images have no label), 22 cbir and 14 tbir queries.

    With this seed no two scores of a query nearly tie (see smallest_gap).  Six of the cbir queries are gallery images, one
    has no label, and one has a label that no gallery image has.  A tbir query is a class prompt or a caption; one caption
    has no label.  graded : judgements from 0 to 3 of about 40 images per query, two of them not in the gallery; two queries
    have no grade above 0.
    """
    rng = np.random.default_rng(seed)
    gallery = {
        f"img{number:03d}": None if number >= n_gallery - 8 else LABELS[number * 5 % 8] for number in range(n_gallery)
    }
    held_out: dict[str, str | None] = {f"ask{number:02d}": LABELS[number % 8] for number in range(14)}
    held_out |= {"ask-nameless": None, "ask-stranger": "c9"}
    queries = [Query(image_id, "cbir", image_id, None, label) for image_id, label in held_out.items()]
    inside = [f"img{number:03d}" for number in np.linspace(0, n_gallery - 9, 6).astype(int)]
    queries[7:7] = [Query(f"mine:{image_id}", "cbir", image_id, None, gallery[image_id]) for image_id in inside]
    queries += [Query(f"class:{label}", "tbir", None, f"a {label}", label, "class prompts") for label in LABELS]
    queries += [
        Query(f"caption:{n}", "tbir", None, f"caption {n}", (*LABELS[:5], None)[n], "captions") for n in range(6)
    ]
    vectors: dict[str, dict[str, dict[str, Vector]]] = {}
    for encoder, dim in DIMS.items():
        labels = (*LABELS, "c9", None)
        centres = dict(zip(labels, rng.normal(size=(len(labels), dim)), strict=True))

        def near(
            label: str | None, spread: float, centres: Mapping[str | None, NDArray[np.float64]] = centres
        ) -> Vector:
            return unit(centres[label] + spread * rng.normal(size=len(centres[label])))

        of_gallery = {image_id: near(label, 1.2) for image_id, label in gallery.items()}
        of_queries = {image_id: near(label, 1.2) for image_id, label in held_out.items()}
        of_queries |= {image_id: of_gallery[image_id] for image_id in inside}
        vectors[encoder] = {"gallery": of_gallery, "queries": of_queries}
    texts = {query.query_id: near(query.label, 1.5) for query in queries if query.task == "tbir"}
    vectors["clip"]["texts"] = texts
    prompt_rng, of_gallery = np.random.default_rng(seed + 1), vectors["clip"]["gallery"]
    table = prompt_table(PROMPT_SETS, {label: [f"name of {label}", f"other {label}"] for label in LABELS})
    vectors["clip"]["prompts"] = {
        row["text"]: unit(
            np.mean([of_gallery[image_id] for image_id, label in gallery.items() if label == row["label"]], axis=0)
            + 0.3 * prompt_rng.normal(size=DIMS["clip"])
        )
        for row in table.to_pylist()
    }
    # As in preprocess: gallery images that are queries are packed with the queries as well.
    held_out |= {image_id: gallery[image_id] for image_id in inside}
    qrels = _grades(rng, queries, gallery) if graded else None
    return World(root, gallery, dict(sorted(held_out.items())), queries, vectors, qrels)


def smallest_gap(world: World) -> float:
    """The smallest difference between two scores of one query; well above 2e-7, every search gives the same ranking."""
    pairs = [
        (encoder, query)
        for encoder, vectors in world.vectors.items()
        for query in world.queries
        if query.task == "cbir" or "texts" in vectors
    ]
    return min(float(np.diff(np.sort(list(world.scores(*pair).values()))).min()) for pair in pairs)


def _grades(
    rng: np.random.Generator, queries: Sequence[Query], gallery: Mapping[str, str | None]
) -> dict[str, dict[str, int]]:
    """Judgements by query: half of the judged images have the query's label."""
    qrels = {}
    for query in queries[1:]:  # the first has no judgements
        same = [image_id for image_id, label in gallery.items() if label == query.label]
        others = [image_id for image_id, label in gallery.items() if label != query.label]
        judged = [
            *rng.permutation(same)[:20].tolist(),
            *rng.choice(others, 20, replace=False).tolist(),
            "gone-1",
            "gone-2",
        ]
        grades = rng.integers(0, 4, len(judged)) * (query.query_id != "caption:2")  # nothing above 0
        qrels[query.query_id] = dict(zip(judged, grades.tolist(), strict=True))
    return qrels


def _build_params(kind: str) -> BuildParams:
    return BuildParams(hnsw_m=2 if kind == "hnsw" else None)


@cache
def _jpeg(label: str | None) -> bytes:
    file = BytesIO()
    Image.new("L", (8, 8), 0 if label is None else 25 * int(label[1:])).save(file, "JPEG")
    return file.getvalue()


def _packed(row: tuple[str, str | None]) -> PackedImage:
    image_id, label = row
    encoded = _jpeg(label) + image_id.encode()  # decoders ignore what follows the image
    digest, fingerprint = sha256(encoded).hexdigest(), shake_256(image_id.encode()).digest(256)
    return PackedImage(image_id, label, label, None, f"{image_id}.jpg", digest, 8, 8, fingerprint, encoded)
