"""What the pipeline computed with one encoder: the gallery's vectors, their index, and the encoder's weights."""

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Generic, TypeVar

import faiss

from cbir.artifacts.paths import DataPaths
from cbir.artifacts.vectors import Vectors, VectorSet, check_passport, open_vectors
from cbir.core.errors import PassportError
from cbir.core.parallel import cores
from cbir.encoders.base import Encoder, EncoderCard, embeds_images
from cbir.encoders.opening import load_encoder, not_exported
from cbir.encoders.params import Family
from cbir.encoders.runtime import Runtime
from cbir.evaluation.classes import unit_means
from cbir.index.storage import open_index
from cbir.search.gallery import PackedGallery

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
