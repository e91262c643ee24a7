"""What the pipeline computed with one encoder: the gallery's vectors, their index, and the encoder's weights."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from threading import Lock
from typing import Generic, TypeVar

import faiss
import numpy as np

from cbir.artifacts.paths import DataPaths
from cbir.artifacts.vectors import Vectors, VectorSet, check_passport, open_vectors, rows_at
from cbir.core.errors import PassportError
from cbir.core.parallel import cores, ordered_map
from cbir.encoders.base import Encoder, EncoderCard, embeds_images
from cbir.encoders.opening import load_encoder, not_exported
from cbir.encoders.params import Family
from cbir.encoders.preprocessing import Pixels
from cbir.encoders.runtime import Runtime
from cbir.evaluation.classes import unit_means
from cbir.index.storage import open_index
from cbir.search.gallery import PackedGallery
from cbir.search.query import QueryPart

_KINDS = ("text", "image", "like")  # of the parts of queries
# smaller and larger batches take longer, of both demo encoders (measured on two cores)
_BATCH_TEXTS, _BATCH_IMAGES = 32, 16

Value = TypeVar("Value")


class OnFirstCall(Generic[Value]):
    """A function whose first call computes the value that all calls return.

    Threads that call it at the same time wait for one of them: no model is loaded twice.
    """

    def __init__(self, compute: Callable[[], Value]) -> None:
        self._compute, self._lock = compute, Lock()
        self._value: Value | None = None

    def __call__(self) -> Value:
        with self._lock:
            if self._value is None:
                self._value = self._compute()
            return self._value


class EncoderArtifacts:
    """The artifacts of one encoder; each is opened on first use.

    embeds_images : whether the encoder embeds new images; False where its vectors were made elsewhere.
    reads_text : whether it embeds new texts: the pipeline wrote vectors of texts, and they were not made elsewhere.
    """

    def __init__(self, paths: DataPaths, name: str, gallery: PackedGallery) -> None:
        self._paths, self._gallery, self.name = paths, gallery, name
        self.embeds_images = embeds_images(paths.weights(name))
        self.reads_text = self.embeds_images and paths.vectors(name, "texts").is_dir()
        self.vectors, self.encoder = OnFirstCall(self._open_vectors), OnFirstCall(self._load_encoder)
        self.index, self.class_means = OnFirstCall(self._open_index), OnFirstCall(self._compute_class_means)
        self._opened: set[str] = set()

    def open(self, towers: Collection[str], index: bool, class_means: bool) -> None:
        """Open what a query needs, in parallel: on two cores, the first query of a process then takes half a second less.

        towers : of "image" and "text".  index, class_means : whether the query needs them.
        """
        needed: dict[str, Callable[[], object]] = {kind: partial(self._open_tower, kind) for kind in towers}
        if index:
            needed["index"] = self.index
        if class_means:
            needed["class means"] = self.class_means
        missing = needed.keys() - self._opened
        if missing:
            with ThreadPoolExecutor(len(missing)) as pool:
                for future in [pool.submit(needed[name]) for name in sorted(missing)]:
                    future.result()
            self._opened |= missing

    def embed(self, parts: Sequence[QueryPart]) -> Vectors:
        """The unit vectors of parts of queries, (n, dim) float32; each tower embeds its parts in batches.

        Raises DataError for an image that cannot be decoded.
        """
        vectors = self.vectors()
        rows = np.empty((len(parts), vectors.passport["dim"]), np.float32)
        places = {kind: [place for place, part in enumerate(parts) if part.kind == kind] for kind in _KINDS}
        positions = [self._gallery.position(parts[place].image_id or "") for place in places["like"]]
        rows[places["like"]] = rows_at(vectors.parts, np.array(positions, np.int64), rows.shape[1])
        for batch in _batches(places["text"], _BATCH_TEXTS):
            rows[batch] = self.encoder().embed_texts([parts[place].text or "" for place in batch])
        with ThreadPoolExecutor(min(cores(), max(1, len(places["image"])))) as pool:
            images = ordered_map(
                pool, self._prepare, [parts[place] for place in places["image"]], ahead=2 * _BATCH_IMAGES
            )
            for batch in _batches(places["image"], _BATCH_IMAGES):
                rows[batch] = self.encoder().embed_images(np.stack(list(islice(images, len(batch)))))
        return rows

    def _prepare(self, part: QueryPart) -> Pixels:
        """The image of a part as the gallery's images were prepared, (crop_px, crop_px, 3) uint8."""
        packed = self._gallery.pack(part.image or b"", part.name)
        return self.encoder().card.preprocessing.prepare_packed(packed)

    def _open_vectors(self) -> VectorSet:
        folder = self._paths.embeddings(self.name)
        vectors = open_vectors(folder, self.name, "gallery")
        embedded = {"count": len(self._gallery.ids), "content_sha256": self._gallery.content_sha256}
        check_passport(vectors.passport["rows"], embedded, f"{folder} beside {self._gallery.folder}: rows")
        if not vectors.ids.equals(self._gallery.ids):
            raise PassportError(
                f"{folder}: expected vectors of the gallery in {self._gallery.folder}, found other image ids: "
                "run `dvc repro`"
            )
        return vectors

    def _load_encoder(self) -> Encoder:
        """Load the encoder that computed the vectors; here it runs on the CPU in fp32, whatever it ran on then."""
        folder = self._paths.weights(self.name)
        card = EncoderCard.read(folder)
        expected = {name: value for name, value in card.to_json().items() if name != "origin"}
        check_passport(self.vectors().passport, expected, f"{folder} beside the gallery's vectors")
        backend = "torch" if not_exported(folder) else "openvino"
        runtime = Runtime("cpu", backend, "fp32", workers=1, threads=cores())
        return load_encoder(folder, Family(card.family), runtime)

    def _open_tower(self, kind: str) -> None:
        self.encoder().open_tower(kind)

    def _open_index(self) -> faiss.Index:
        return open_index(self._paths.index(self.name), self.vectors())

    def _compute_class_means(self) -> Vectors:
        """The unit mean vector of each class, (n_classes, dim)."""
        vectors = self.vectors()
        return unit_means(vectors.parts, self._gallery.classes, vectors.passport["dim"])


def _batches(places: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(places), size):
        yield places[start : start + size]
