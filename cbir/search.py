"""One query in, ranked images out, from the artifacts of a pipeline that has run.

Command line, page and notebooks stand on `Searcher`:

    from cbir import Searcher
    Searcher.open("data").text("a red star", k=10).to_pandas()
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cbir.artifacts.images import read_columns, read_shards
from cbir.artifacts.tables import shard_paths
from cbir.artifacts.vectors import MISSING, Vectors, VectorSet, check_passport, open_vectors, positions_of, rows_at
from cbir.classes import Classes, prototypes
from cbir.config import ENCODERS, PARAMS_FILE, Family, load_params, nearest
from cbir.encoders.base import Encoder, EncoderCard
from cbir.encoders.opening import load_encoder, not_exported
from cbir.encoders.runtime import Runtime
from cbir.errors import ConfigError, DataError, PassportError, UndecodableImage
from cbir.exact import check_k, exact_neighbours
from cbir.images import encode_for_packing
from cbir.index import SearchParams, kind_of, search
from cbir.indexing import open_index
from cbir.parallel import cores
from cbir.retrieval import without_self

if TYPE_CHECKING:
    import pandas as pd

EXACT = "exact"
CATEGORIES = 5
RESULT_SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("label_name", pa.string()),
        pa.field("image_id", pa.string(), nullable=False),
    ]
)
CATEGORY_SCHEMA = pa.schema(
    [
        pa.field("label", pa.string(), nullable=False),
        pa.field("label_name", pa.string(), nullable=False),
        pa.field("distance", pa.float32(), nullable=False),
    ]
)
_SETTINGS = ("index.search", "dataset.max_pixels", "dataset.max_side_px")
_SMALLEST_LENGTH = 1e-3  # of a sum of unit vectors; a shorter one points nowhere


@dataclass(frozen=True)
class Part:
    """One of: a text, the bytes of an image file, the image_id of a gallery image.

    weight : how much it counts; below 0 it leads away.
    """

    text: str | None = None
    image: bytes | None = None
    image_id: str | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Hit:
    """One result.  score : cosine similarity of query and image, higher is better."""

    rank: int
    score: float
    label: str | None
    label_name: str | None
    image_id: str


@dataclass(frozen=True)
class Category:
    """A class of the gallery.  distance : 1 - cosine similarity of the query to the mean vector of its images."""

    label: str
    label_name: str
    distance: float


@dataclass(frozen=True)
class Results:
    """What a query found.

    encoder : who embedded it.  by : the kind of index that answered, or "exact".  hits : by rank.
    categories : the nearest classes, the nearest first; empty where the gallery has no labels.
    encode_ms, search_ms : what it took.
    """

    encoder: str
    by: str
    hits: tuple[Hit, ...]
    categories: tuple[Category, ...]
    encode_ms: float
    search_ms: float

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def to_arrow(self) -> pa.Table:
        """The hits by RESULT_SCHEMA."""
        return pa.Table.from_pylist([asdict(hit) for hit in self.hits], RESULT_SCHEMA)

    def to_pandas(self) -> "pd.DataFrame":
        """The hits as a data frame; needs pandas."""
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class _Gallery:
    """ids, labels, names : of all images, by position."""

    folder: Path
    ids: pa.Array
    labels: pa.Array
    names: pa.Array

    @classmethod
    def open(cls, folder: Path) -> "_Gallery":
        table = read_columns(folder, ["image_id", "label", "label_name"])
        if table.num_rows == 0:
            raise DataError(f"{folder} holds no images: run `dvc repro`")
        return cls(folder, *(table[name].combine_chunks() for name in table.column_names))

    @cached_property
    def classes(self) -> Classes:
        return Classes.of(self.labels, self.names)

    @cached_property
    def _first_rows(self) -> npt.NDArray[np.int64]:
        """Of each shard, the position of its first image; the number of all behind."""
        rows = [table.num_rows for _, table in read_shards(self.folder, ["image_id"])]
        return np.cumsum([0, *rows])

    def image(self, position: int) -> bytes:
        """The packed bytes of an image."""
        shard = int(np.searchsorted(self._first_rows, position, side="right")) - 1
        name = shard_paths(self.folder, "part-*.parquet")[shard]
        column = pq.ParquetFile(name, memory_map=True).read(["image"])["image"]
        data: bytes = column[position - int(self._first_rows[shard])].as_py()
        return data

    def hit(self, rank: int, score: float, position: int) -> Hit:
        label, name = self.labels[position].as_py(), self.names[position].as_py()
        return Hit(rank, float(score), label, name or label, self.ids[position].as_py())


class _Side:
    """All that one encoder made of the gallery; each is opened when it is first asked for."""

    def __init__(self, data: Path, name: str, gallery: _Gallery) -> None:
        self._data, self._gallery, self.name = data, gallery, name
        self._opening = Lock()  # two users who come at once shall not load a model twice

    @cached_property
    def vectors(self) -> VectorSet:
        vectors = open_vectors(self._data / "embeddings" / self.name, self.name, "gallery")
        if not vectors.ids.equals(self._gallery.ids):
            raise PassportError(
                f"{self._data / 'embeddings' / self.name}: made from another gallery than {self._gallery.folder}; "
                "run `dvc repro`"
            )
        return vectors

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder that made the vectors, on this machine's CPU and in fp32, whatever made them."""
        folder = self._data / "weights" / self.name
        card = EncoderCard.read(folder)
        made = {name: value for name, value in card.to_json().items() if name != "origin"}
        check_passport(self.vectors.passport, made, f"{folder} beside the gallery's vectors")
        backend = "torch" if not_exported(folder) else "openvino"
        runtime = Runtime("cpu", backend, "fp32", workers=1, threads=cores())
        return load_encoder(folder, Family(card.family), runtime)

    @cached_property
    def index(self) -> faiss.Index:
        return open_index(self._data / "index" / self.name, self.vectors)

    @cached_property
    def prototypes(self) -> Vectors:
        """The unit mean vector of each class, (n_classes, dim)."""
        sums = prototypes(self.vectors.parts, self._gallery.classes, self.vectors.passport["dim"])
        unit: Vectors = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
        return unit

    def get(self, what: str) -> Any:
        with self._opening:
            return getattr(self, what)


class Searcher:
    """Searches the gallery of a pipeline that has run; opens models, vectors and indexes when they are first needed.

    Several threads may search at a time.
    """

    def __init__(self, data: Path, params: SearchParams, max_pixels: int, max_side_px: int) -> None:
        """params : as the pipeline evaluated the indexes.  max_pixels, max_side_px : as it packed its images."""
        self._data, self._params = data, params
        self._max_pixels, self._max_side_px = max_pixels, max_side_px
        self._gallery = _Gallery.open(data / "images" / "gallery")
        self._sides = {name: _Side(data, name, self._gallery) for name in ENCODERS if (data / "index" / name).is_dir()}
        if not self._sides:
            raise DataError(f"{data / 'index'} holds no index: run `dvc repro`")

    @classmethod
    def open(cls, data: str | Path = "data") -> "Searcher":
        """Open the artifacts in `data`, with the settings of the params.yaml beside it.

        Raises DataError when no pipeline has run there, ConfigError when there is no params.yaml.
        """
        folder = Path(data)
        params = load_params(_SETTINGS, folder.parent / PARAMS_FILE)
        settings = SearchParams(**vars(params.index.search))
        return cls(folder, settings, params.dataset.max_pixels, params.dataset.max_side_px)

    @property
    def encoders(self) -> list[str]:
        """The encoders that can be asked."""
        return list(self._sides)

    @property
    def size(self) -> int:
        """The number of gallery images."""
        return len(self._gallery.ids)

    @property
    def labels(self) -> dict[str, str]:
        """label -> what people call the class."""
        classes = self._gallery.classes
        return dict(zip(classes.labels, classes.names, strict=True))

    def text(self, text: str, k: int = 10, *, encoder: str = "clip", **options: Any) -> Results:
        """The k images nearest to a text; options as in `search`."""
        return self.search([Part(text=text)], k, encoder=encoder, **options)

    def image(self, image: str | Path | bytes, k: int = 10, *, encoder: str = "clip", **options: Any) -> Results:
        """The k images nearest to an image file, or its bytes; options as in `search`."""
        data = image if isinstance(image, bytes) else read_query_image(Path(image))
        return self.search([Part(image=data)], k, encoder=encoder, **options)

    def like(self, image_id: str, k: int = 10, *, encoder: str = "clip", **options: Any) -> Results:
        """The k images nearest to one of the gallery, which is left out; options as in `search`."""
        return self.search([Part(image_id=image_id)], k, encoder=encoder, **options)

    def search(
        self,
        parts: Sequence[Part],
        k: int = 10,
        *,
        encoder: str = "clip",
        exact: bool = False,
        labels: Sequence[str] = (),
        categories: int = CATEGORIES,
    ) -> Results:
        """The k gallery images nearest to the weighted sum of the parts' unit vectors.

        Gallery images among the parts are left out of the results.
        exact : search by brute force instead of the index.  labels : only images of these classes, searched exactly.
        categories : so many of the nearest classes.
        Raises ConfigError for an encoder that is not there or reads no text, a k that is larger than what can be found, an
        unknown label or image_id, parts that cancel each other out; DataError for an image that cannot be decoded;
        PassportError when artifacts are of another encoder or gallery.
        """
        side = self._side(encoder)
        begun = perf_counter()
        own = self._own(parts)
        query = self._vector(side, parts)
        encoded = perf_counter()
        vectors = side.get("vectors")
        if labels:
            by, scores, positions = EXACT, *self._within(vectors, query, labels, own, k)
        else:
            check_k(k, self.size - len(own))
            reached = k + len(own)
            if exact:
                by, (scores, positions) = EXACT, exact_neighbours(query, vectors.parts, reached)
            else:
                index = side.get("index")
                by = kind_of(index)
                scores, positions = (row[0] for row in search(index, query[None], reached, self._params, cores()))
            for position in own:
                left = without_self(scores[None], positions[None], np.array([position]), len(scores))
                scores, positions = left[0][0], left[1][0]
        found = [(score, position) for score, position in zip(scores, positions, strict=True) if position != MISSING][
            :k
        ]
        hits = tuple(self._gallery.hit(rank, score, int(position)) for rank, (score, position) in enumerate(found, 1))
        searched = perf_counter()
        return Results(
            encoder,
            by,
            hits,
            self._categories(side, query, categories),
            1e3 * (encoded - begun),
            1e3 * (searched - encoded),
        )

    def image_bytes(self, image_id: str) -> bytes:
        """The encoded bytes (JPEG or PNG) of a gallery image.  Raises ConfigError for an unknown image_id."""
        return self._gallery.image(self._position(image_id))

    def picture_of(self, part: Part) -> bytes | None:
        """What a part of a query looks like, packed as the gallery's images are; None for a text.

        Raises DataError for an image that cannot be decoded, ConfigError for an unknown image_id.
        """
        if part.image_id is not None:
            return self.image_bytes(part.image_id)
        return None if part.image is None else self._packed(part.image)

    def label_of(self, image_id: str) -> str | None:
        """What people call the class of a gallery image.  Raises ConfigError for an unknown image_id."""
        return self._gallery.hit(0, 0.0, self._position(image_id)).label_name

    def sample(self, number: int, seed: int = 0) -> list[str]:
        """So many image_ids of the gallery, drawn by the seed."""
        chosen = np.random.default_rng(seed).permutation(self.size)[:number]
        return [self._gallery.ids[int(position)].as_py() for position in chosen]

    def _side(self, encoder: str) -> _Side:
        if encoder not in self._sides:
            raise ConfigError(f"encoder: expected one of {', '.join(self._sides)}, found {encoder!r}")
        return self._sides[encoder]

    def _position(self, image_id: str) -> int:
        position = int(positions_of([image_id], self._gallery.ids)[0])
        if position == MISSING:
            raise ConfigError(f"the gallery has no image {image_id!r}; `cbir search` prints ids in its last column")
        return position

    def _own(self, parts: Sequence[Part]) -> list[int]:
        return sorted({self._position(part.image_id) for part in parts if part.image_id is not None})

    def _vector(self, side: _Side, parts: Sequence[Part]) -> Vectors:
        """The unit vector of the weighted sum, (dim,) float32."""
        if not parts:
            raise ConfigError("expected a text, an image or the id of a gallery image to search for, found none")
        if not all(np.isfinite(part.weight) for part in parts):
            raise ConfigError("weights: expected finite numbers")
        rows = [part.weight * self._part(side, part).astype(np.float64) for part in parts]
        total = np.sum(rows, axis=0)
        length = float(np.linalg.norm(total))
        if length < _SMALLEST_LENGTH:
            raise ConfigError("the parts of the query cancel each other out: give them other weights")
        unit: Vectors = (total / length).astype(np.float32)
        return unit

    def _part(self, side: _Side, part: Part) -> Vectors:
        if part.image_id is not None:
            row: Vectors = side.get("vectors").rows([part.image_id], "search")[0]
            return row
        encoder: Encoder = side.get("encoder")
        if part.text is not None:
            if not encoder.reads_text:
                raise ConfigError(f"{side.name} reads no text: search for an image, or use the encoder clip")
            text: Vectors = encoder.embed_texts([part.text])[0]
            return text
        packed = self._packed(part.image or b"")
        image: Vectors = encoder.embed_images(encoder.card.preprocessing.prepare_packed(packed)[None])[0]
        return image

    def _packed(self, image: bytes) -> bytes:
        """The image as the gallery's were packed, so that both went the same way before they are embedded."""
        try:
            return encode_for_packing(image, self._max_pixels, self._max_side_px).data
        except UndecodableImage as error:
            raise DataError(f"the image cannot be decoded: {error}") from error

    def _within(
        self, vectors: VectorSet, query: Vectors, labels: Sequence[str], own: Sequence[int], k: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Exact search among the images of some classes."""
        for label in labels:
            if label not in self.labels:
                raise ConfigError(f"class: the gallery has no {label!r}; {nearest(label, self.labels)}")
        chosen = pc.is_in(self._gallery.labels, value_set=pa.array(labels, pa.string()))
        positions = np.setdiff1d(np.flatnonzero(chosen.to_numpy(zero_copy_only=False)), own)
        k = min(k, len(positions))
        if k == 0:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        scores, places = exact_neighbours(query, [rows_at(vectors.parts, positions, len(query))], k)
        return scores, positions[places]

    def _categories(self, side: _Side, query: Vectors, number: int) -> tuple[Category, ...]:
        if not self._gallery.classes.labels or number < 1:
            return ()
        classes, distances = self._gallery.classes, 1 - side.get("prototypes") @ query
        order = np.lexsort((np.arange(len(distances)), distances))[:number]
        return tuple(Category(classes.labels[n], classes.names[n], float(distances[n])) for n in order)


def read_query_image(path: Path) -> bytes:
    """The bytes of an image file.  Raises DataError when it cannot be read."""
    from cbir.datasets.files import read_file

    try:
        return read_file(path)
    except UndecodableImage as error:
        raise DataError(f"{path}: expected an image file, found {error.reason}: {error.detail}") from error


def pipeline_has_run(data: Path) -> bool:
    """Whether there is anything to search."""
    return any((data / "index" / name / "passport.json").is_file() for name in ENCODERS)
