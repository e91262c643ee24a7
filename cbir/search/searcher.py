"""One query in, ranked images out, from the artifacts of a pipeline that has run.

Command line, page and notebooks stand on `Searcher`:

    from cbir import Searcher
    Searcher.open("data").text("a red star", k=10).to_pandas()
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.images import read_image, read_shards
from cbir.artifacts.names import ENCODERS
from cbir.artifacts.vectors import MISSING, Vectors, VectorSet, check_passport, open_vectors
from cbir.core.errors import ConfigError, DataError, PassportError, UndecodableImage
from cbir.core.files import read_json
from cbir.core.parallel import cores
from cbir.core.params import PARAMS_FILE, load_params
from cbir.datasets.decoding import encode_for_packing
from cbir.encoders.base import Encoder, EncoderCard
from cbir.encoders.opening import load_encoder, not_exported
from cbir.encoders.params import Family
from cbir.encoders.runtime import Runtime
from cbir.evaluation.classes import Classes, unit_means
from cbir.fetching.archives import read_file
from cbir.index.exact import exact_neighbours
from cbir.index.faiss_index import SearchParams, kind_of, search
from cbir.index.params import IndexParams
from cbir.index.storage import open_index

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
_PRODUCTS_FOR_THREADS = 2**24  # fewer are done before several threads have met; many users have a thread each anyway
_SMALLEST_SHARE = 1e-3  # of the length that a sum of unit vectors can have; a shorter one points nowhere

Made = TypeVar("Made")


@dataclass(frozen=True)
class Part:
    """One of: a text, the bytes of an image file, the image_id of a gallery image.

    weight : how much it counts; below 0 it leads away.  name : of an image, for messages.
    """

    text: str | None = None
    image: bytes | None = None
    image_id: str | None = None
    weight: float = 1.0
    name: str = "the image"

    def __post_init__(self) -> None:
        if [self.text, self.image, self.image_id].count(None) != 2:
            raise ConfigError("a part of a query: expected one of a text, an image and the id of a gallery image")
        if self.text is not None and not self.text.strip():
            raise ConfigError("expected words to search for, found an empty text")


@dataclass(frozen=True)
class Hit:
    """One result.  score : cosine similarity of query and image, higher is better; ivf_pq and sq8 estimate it.
    label_name : what people call the class, its label where it has no name.
    """

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
    encode_ms, search_ms : what it took, when all was opened.
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
    """ids, labels, names : of all images, by position; ids ascend.  content_sha256 : of the images, as a passport holds it.

    first_rows : of each shard, the position of its first image; the number of all behind.
    """

    folder: Path
    ids: pa.Array
    labels: pa.Array
    names: pa.Array
    content_sha256: str
    first_rows: npt.NDArray[np.int64]

    @classmethod
    def open(cls, folder: Path) -> "_Gallery":
        shards = [table for _, table in read_shards(folder, ["image_id", "label", "label_name", "sha256"])]
        first_rows = np.cumsum([0, *(table.num_rows for table in shards)])
        if first_rows[-1] == 0:
            raise DataError(f"{folder} holds no images: run `dvc repro`")
        table = pa.concat_tables(shards)
        ids, labels, names, digests = (table[name].combine_chunks() for name in table.column_names)
        content = sha256("".join(digests.to_pylist()).encode()).hexdigest()
        return cls(folder, ids, labels, names, content, first_rows)

    @cached_property
    def classes(self) -> Classes:
        return Classes.of(self.labels, self.names)

    def position(self, image_id: str) -> int:
        """Where an image is.  Raises ConfigError for an unknown image_id."""
        found = bisect_left(range(len(self.ids)), image_id, key=lambda place: str(self.ids[place]))
        if found == len(self.ids) or str(self.ids[found]) != image_id:
            raise ConfigError(f"the gallery has no image {image_id!r}; `cbir search --json` prints ids as they are")
        return found

    def image(self, position: int) -> bytes:
        """The packed bytes of an image.  Raises DataError when the gallery is another one by now."""
        shard = int(np.searchsorted(self.first_rows, position, side="right")) - 1
        row, name = position - int(self.first_rows[shard]), self.folder / f"part-{shard:05d}.parquet"
        found = read_image(name, row)
        if found is None or found[0] != str(self.ids[position]):
            raise DataError(f"{name}: expected the gallery that was opened, found another one: open it again")
        return found[1]

    def hit(self, rank: int, score: float, position: int) -> Hit:
        label, name = self.labels[position].as_py(), self.names[position].as_py()
        return Hit(rank, float(score), label, name or label, self.ids[position].as_py())


class _Once(Generic[Made]):
    """What is made when it is first asked for, and only once: two users who come at once shall not load a model twice."""

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make, self._lock = make, Lock()
        self._made: Made | None = None

    def __call__(self) -> Made:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made


class _Side:
    """All that one encoder made of the gallery; each is opened when it is first asked for.

    opened : what needs not be opened any more: towers by kind, "index", "categories".
    """

    def __init__(self, data: Path, name: str, gallery: _Gallery) -> None:
        self._data, self._gallery, self.name = data, gallery, name
        self.vectors, self.encoder = _Once(self._open_vectors), _Once(self._open_encoder)
        self.index, self.prototypes = _Once(self._open_index), _Once(self._average)
        self.opened: set[str] = set()

    def _open_vectors(self) -> VectorSet:
        folder = self._data / "embeddings" / self.name
        vectors = open_vectors(folder, self.name, "gallery")
        made_from = {"count": len(self._gallery.ids), "content_sha256": self._gallery.content_sha256}
        check_passport(vectors.passport["rows"], made_from, f"{folder} beside {self._gallery.folder}: rows")
        if not vectors.ids.equals(self._gallery.ids):
            raise PassportError(f"{folder}: made from another gallery than {self._gallery.folder}; run `dvc repro`")
        return vectors

    def _open_encoder(self) -> Encoder:
        """The encoder that made the vectors, on this machine's CPU and in fp32, whatever made them."""
        folder = self._data / "weights" / self.name
        card = EncoderCard.read(folder)
        made = {name: value for name, value in card.to_json().items() if name != "origin"}
        check_passport(self.vectors().passport, made, f"{folder} beside the gallery's vectors")
        backend = "torch" if not_exported(folder) else "openvino"
        runtime = Runtime("cpu", backend, "fp32", workers=1, threads=cores())
        return load_encoder(folder, Family(card.family), runtime)

    def _open_index(self) -> faiss.Index:
        return open_index(self._data / "index" / self.name, self.vectors())

    def _average(self) -> Vectors:
        """The unit mean vector of each class, (n_classes, dim)."""
        vectors = self.vectors()
        return unit_means(vectors.parts, self._gallery.classes, vectors.passport["dim"])


class Searcher:
    """Searches the gallery of a pipeline that has run; opens models, vectors and indexes when they are first needed.

    Several threads may search at a time.
    """

    def __init__(self, data: Path, params: SearchParams) -> None:
        """params : as the pipeline evaluated the indexes."""
        self._params = params
        self._limits = read_json(data / "images" / "summary.json").get("limits", {})  # as the gallery was packed
        self._gallery = _Gallery.open(data / "images" / "gallery")
        self._sides = {name: _Side(data, name, self._gallery) for name in ENCODERS if (data / "index" / name).is_dir()}
        if not self._sides:
            raise DataError(f"{data / 'index'} holds no index: run `dvc repro`")

    @classmethod
    def open(cls, data: str | Path = "data") -> "Searcher":
        """Open the artifacts in `data`, with the search settings (index.search) of the params.yaml beside it.

        Raises DataError when no pipeline has run there, ConfigError when there is no params.yaml.
        """
        folder = Path(data)
        if not (folder / "images").is_dir():
            raise DataError(f"{folder}: expected the artifacts of a pipeline that has run, found none: run `dvc repro`")
        beside = folder.absolute().parent / PARAMS_FILE
        path = beside if beside.is_file() else folder.resolve().parent / PARAMS_FILE
        return cls(folder, SearchParams(**vars(load_params("index", IndexParams, ["index.search"], path).search)))

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
        """At most k images, those nearest to a text; options as in `search`."""
        return self.search([Part(text=text)], k, encoder=encoder, **options)

    def image(self, image: str | Path | bytes, k: int = 10, *, encoder: str = "clip", **options: Any) -> Results:
        """At most k images, those nearest to an image file, or its bytes; options as in `search`."""
        part = (
            Part(image=image)
            if isinstance(image, bytes)
            else Part(image=read_query_image(Path(image)), name=str(image))
        )
        return self.search([part], k, encoder=encoder, **options)

    def like(self, image_id: str, k: int = 10, *, encoder: str = "clip", **options: Any) -> Results:
        """At most k images, those nearest to one of the gallery, which is left out; options as in `search`."""
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
        """At most k gallery images, those nearest to the weighted sum of the parts' unit vectors.

        Gallery images among the parts are left out of the results.
        exact : search by brute force instead of the index.  labels : only images of these classes, by label or by name,
        searched exactly.  categories : so many of the nearest classes.
        Raises ConfigError for an encoder that is not there or reads no text, k below 1, an unknown class or image_id, parts
        that cancel each other out; DataError for an image that cannot be decoded; PassportError when artifacts are of
        another encoder or gallery.
        """
        if k < 1:
            raise ConfigError(f"k: expected 1 or more, found {k}")
        side, own = self._side(encoder), self._own(parts)
        among = self._among(labels, own) if labels else None
        vectors = side.vectors()
        by_index = not exact and not labels
        self._open(side, parts, by_index, categories > 0)
        index = side.index() if by_index else None
        begun = perf_counter()
        query = self._vector(side, parts)
        encoded = perf_counter()
        if among is not None:
            scores, positions = exact_neighbours(query, vectors.parts, min(k, int(among.sum())), among)
        else:
            reached = min(k + len(own), self.size)
            if index is None:
                scores, positions = exact_neighbours(query, vectors.parts, reached)
            else:
                threads = cores() if index.ntotal * index.d >= _PRODUCTS_FOR_THREADS else 1
                scores, positions = (row[0] for row in search(index, query[None], reached, self._params, threads))
            kept = ~np.isin(positions, [*own, MISSING])
            scores, positions = scores[kept][:k], positions[kept][:k]
        hits = tuple(
            self._gallery.hit(rank, score, int(position))
            for rank, (score, position) in enumerate(zip(scores, positions, strict=True), 1)
        )
        searched = perf_counter()
        by = EXACT if index is None else kind_of(index)
        times = (1e3 * (encoded - begun), 1e3 * (searched - encoded))
        return Results(encoder, by, hits, self._categories(side, query, categories), *times)

    def image_bytes(self, image_id: str) -> bytes:
        """The encoded bytes (JPEG or PNG) of a gallery image.  Raises ConfigError for an unknown image_id."""
        return self._gallery.image(self._gallery.position(image_id))

    def picture_of(self, part: Part) -> bytes | None:
        """What a part of a query looks like, packed as the gallery's images are; None for a text.

        Raises DataError for an image that cannot be decoded, ConfigError for an unknown image_id.
        """
        if part.image_id is not None:
            return self.image_bytes(part.image_id)
        return None if part.image is None else self._packed(part)

    def label_of(self, image_id: str) -> str | None:
        """What people call the class of a gallery image.  Raises ConfigError for an unknown image_id."""
        return self._gallery.hit(0, 0.0, self._gallery.position(image_id)).label_name

    def sample(self, number: int, seed: int = 0) -> list[str]:
        """So many image_ids of the gallery, drawn by the seed."""
        chosen = np.random.default_rng(seed).permutation(self.size)[:number]
        return [self._gallery.ids[int(position)].as_py() for position in chosen]

    def _side(self, encoder: str) -> _Side:
        if encoder not in self._sides:
            raise ConfigError(
                f"encoder: expected one of {', '.join(self._sides)}, found {encoder!r}; `dvc repro` makes all"
            )
        return self._sides[encoder]

    def _own(self, parts: Sequence[Part]) -> list[int]:
        return sorted({self._gallery.position(part.image_id) for part in parts if part.image_id is not None})

    def _open(self, side: _Side, parts: Sequence[Part], by_index: bool, categories: bool) -> None:
        """Open what the query needs, side by side: on two cores, the first of a process comes half a second sooner."""
        kinds = {"text" if part.text is not None else "image" for part in parts if part.image_id is None}
        wanted: dict[str, Callable[[], object]] = {kind: partial(_open_tower, side, kind) for kind in kinds}
        if by_index:
            wanted["index"] = side.index
        if categories and self._gallery.classes.labels:
            wanted["categories"] = side.prototypes
        missing = wanted.keys() - side.opened
        if missing:
            with ThreadPoolExecutor(len(missing)) as pool:
                for opening in [pool.submit(wanted[what]) for what in sorted(missing)]:
                    opening.result()
            side.opened |= missing

    def _vector(self, side: _Side, parts: Sequence[Part]) -> Vectors:
        """The unit vector of the weighted sum, (dim,) float32."""
        if not parts:
            raise ConfigError("expected a text, an image or the id of a gallery image to search for, found none")
        weights = np.array([part.weight for part in parts], np.float64)
        if not np.isfinite(weights).all() or not weights.any():
            raise ConfigError("weights: expected finite numbers, at least one of them not 0")
        weights = weights / np.abs(weights).max()
        rows = np.stack([self._part(side, part) for part in parts]).astype(np.float64)
        total = weights @ rows
        length = float(np.linalg.norm(total))
        if length < _SMALLEST_SHARE * np.abs(weights).sum():
            raise ConfigError("the parts of the query cancel each other out: give them other weights")
        unit: Vectors = (total / length).astype(np.float32)
        return unit

    def _part(self, side: _Side, part: Part) -> Vectors:
        """The unit vector of a part, (dim,) float32."""
        row: Vectors
        if part.image_id is not None:
            row = side.vectors().rows([part.image_id], "search")[0]
        elif part.text is not None:
            row = side.encoder().embed_texts([part.text])[0]
        else:
            preprocessing = side.encoder().card.preprocessing
            row = side.encoder().embed_images(np.stack([preprocessing.prepare_packed(self._packed(part))]))[0]
        return row

    def _packed(self, part: Part) -> bytes:
        """A part's image as the gallery's were packed, so that both went the same way before they are embedded."""
        try:
            limits = (self._limits["max_pixels"], self._limits["max_side_px"])
            return encode_for_packing(part.image or b"", *limits).data
        except KeyError as error:
            raise DataError("data/images/summary.json is of an older version: run `dvc repro preprocess`") from error
        except UndecodableImage as error:
            raise DataError(f"{part.name} cannot be decoded: {error}") from error

    def _among(self, labels: Sequence[str], own: Sequence[int]) -> npt.NDArray[np.bool_]:
        """(n_gallery,) whether an image is of one of these classes, by label or by name, and none of `own`."""
        classes = self._gallery.classes
        if isinstance(labels, str):
            raise ConfigError(f"classes: expected a list of them, found the text {labels!r}")
        if not classes.labels:
            raise ConfigError("class: the gallery has no classes: none of its images has a label")
        known = {*classes.labels, *classes.names}
        for label in labels:
            if label not in known:
                close = get_close_matches(label, sorted(known), n=3, cutoff=0.0)
                raise ConfigError(f"class: the gallery has no {label!r}; nearest: {', '.join(close)}")
        chosen = {label for label, name in self.labels.items() if label in labels or name in labels}
        among = pc.is_in(self._gallery.labels, value_set=pa.array(sorted(chosen), pa.string()))
        mask: npt.NDArray[np.bool_] = among.to_numpy(zero_copy_only=False).copy()
        mask[list(own)] = False
        return mask

    def _categories(self, side: _Side, query: Vectors, number: int) -> tuple[Category, ...]:
        if not self._gallery.classes.labels or number < 1:
            return ()
        classes, distances = self._gallery.classes, 1 - side.prototypes() @ query
        order = np.lexsort((np.arange(len(distances)), distances))[:number]
        return tuple(Category(classes.labels[n], classes.names[n], float(distances[n])) for n in order)


def _open_tower(side: _Side, kind: str) -> None:
    if kind == "text" and not side.encoder().reads_text:
        raise ConfigError(f"{side.name} reads no text: search for an image, or use the encoder clip")
    side.encoder().open_tower(kind)


def read_query_image(path: Path) -> bytes:
    """The bytes of an image file.  Raises DataError when it cannot be read."""
    try:
        return read_file(path)
    except UndecodableImage as error:
        raise DataError(f"{path}: expected an image file, found: {error}") from error


def pipeline_has_run(data: Path) -> bool:
    """Whether there is anything to search."""
    return any((data / "index" / name / "passport.json").is_file() for name in ENCODERS)
