"""Search the gallery of a finished pipeline run.

The command line, the page and notebooks all use `Searcher`:

    from cbir import Searcher
    Searcher.open("data").text("a red star", k=10).to_pandas()
"""

from collections.abc import Sequence, Sized
from pathlib import Path
from time import perf_counter
from typing import TypedDict, Unpack

import faiss
import numpy as np
import numpy.typing as npt

from cbir.artifacts.names import read_encoder_names
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.vectors import MISSING, Positions, Scores, Vectors
from cbir.core.errors import ConfigError, DataError
from cbir.core.parallel import cores
from cbir.core.params import PARAMS_FILE, load_params
from cbir.encoders.base import EmbedsNothingError
from cbir.encoders.demo import is_demo
from cbir.index.exact import exact_neighbours
from cbir.index.kinds import kind_of
from cbir.index.params import IndexParams, SearchParams
from cbir.index.search import search
from cbir.search.encoder_artifacts import EncoderArtifacts
from cbir.search.gallery import PackedGallery
from cbir.search.query import (
    ImageInput,
    QueryPart,
    checked_parts,
    image_part,
    image_parts,
    relative_weights,
    text_parts,
    weighted_sum,
)
from cbir.search.results import EXACT, Category, Hit, Results

CATEGORIES = 5


class SearchOptions(TypedDict, total=False):
    """The options of each search; see `Searcher.batch`."""

    encoder: str | None
    exact: bool
    labels: Sequence[str]
    categories: int


# a smaller search is over before threads have started; concurrent users have a thread each
_PRODUCTS_FOR_THREADS = 2**24


class Searcher:
    """Search the gallery of a finished pipeline run; models, vectors and indexes are opened on first use.

    Several threads may search at the same time.
    """

    def __init__(self, data: Path, params: SearchParams) -> None:
        """params : search settings of the indexes, as in the evaluation."""
        paths = DataPaths(data)
        self._params = params
        self._gallery = PackedGallery.open(paths)
        names = read_encoder_names(paths.encoders)
        indexed = [EncoderArtifacts(paths, name, self._gallery) for name in names if paths.index(name).is_dir()]
        if not indexed:
            raise DataError(f"{paths.all_indexes} holds no index: run `dvc repro`")
        indexed.sort(key=lambda artifacts: (not artifacts.reads_text, not artifacts.embeds_images))
        self._artifacts = {artifacts.name: artifacts for artifacts in indexed}

    @classmethod
    def open(cls, data: str | Path = "data") -> "Searcher":
        """Open the artifacts in `data`, with the search settings (index.search) of the params.yaml next to that folder.

        Raises DataError if no pipeline has run there, ConfigError if there is no params.yaml.
        """
        if not isinstance(data, str | Path):
            raise ConfigError(f"data: expected the path of a folder, found {type(data).__name__}")
        folder = Path(data)
        if not DataPaths(folder).all_images.is_dir():
            is_in_root = (folder.absolute().parent / "dvc.yaml").is_file()
            advice = (
                "run `dvc repro`" if is_in_root else "go to the root of the repository, or name the folder (--data)"
            )
            raise DataError(f"{folder}: expected the artifacts of a pipeline that has run, found none: {advice}")
        beside = folder.absolute().parent / PARAMS_FILE
        path = beside if beside.is_file() else folder.resolve().parent / PARAMS_FILE
        return cls(folder, load_params("index", IndexParams, ["index.search"], path).search)

    @property
    def encoders(self) -> list[str]:
        """The names of the encoders: those that read text, those that embed images only, those of vectors made elsewhere."""
        return list(self._artifacts)

    @property
    def default_encoder(self) -> str:
        """The first encoder that reads text, or if none does, the first that embeds images."""
        return self.encoders[0]

    @property
    def size(self) -> int:
        """The number of gallery images."""
        return len(self._gallery.ids)

    @property
    def files(self) -> Path | None:
        """The folder of the gallery's image files; None where they are in an archive."""
        return self._gallery.files

    def has_image(self, image_id: str) -> bool:
        """Whether the gallery has an image of this image_id."""
        return image_id in self._gallery

    def has_demo_weights(self, encoder: str) -> bool:
        """Whether the encoder was trained on drawn shapes only.  Raises ConfigError for an unknown encoder."""
        return is_demo(str(self._artifacts_of(encoder).vectors().passport["origin"]))

    @property
    def labels(self) -> dict[str, str]:
        """label -> display name, for each class."""
        classes = self._gallery.classes
        return dict(zip(classes.labels, classes.names, strict=True))

    def reads_text(self, encoder: str) -> bool:
        """Whether the encoder embeds new texts.  Raises ConfigError for an unknown encoder."""
        return self._artifacts_of(encoder).reads_text

    def embeds_images(self, encoder: str) -> bool:
        """Whether the encoder embeds new images.  Raises ConfigError for an unknown encoder."""
        return self._artifacts_of(encoder).embeds_images

    def takes_words(self, encoder: str) -> bool:
        """Whether words are a text query for the encoder; `search` refuses it where vectors made elsewhere embed none."""
        artifacts = self._artifacts_of(encoder)
        return artifacts.reads_text or not artifacts.embeds_images

    def text(self, text: str, k: int = 10, **options: Unpack[SearchOptions]) -> Results:
        """Search for a text; see `batch` for the options."""
        return self.search([QueryPart(text=text)], k, **options)

    def image(self, image: ImageInput, k: int = 10, **options: Unpack[SearchOptions]) -> Results:
        """Search for an image: a path, the bytes of a file, a PIL image or an array of pixels; see `batch` for the options."""
        return self.search([image_part(image)], k, **options)

    def like(self, image_id: str, k: int = 10, **options: Unpack[SearchOptions]) -> Results:
        """Search for images like a gallery image, which is left out of the results; see `batch` for the options."""
        return self.search([QueryPart(image_id=image_id)], k, **options)

    def search(self, parts: Sequence[QueryPart], k: int = 10, **options: Unpack[SearchOptions]) -> Results:
        """Search for the weighted sum of several parts; see `batch` for parts and options."""
        return self.batch([parts], k, **options)[0]

    def texts(self, texts: Sequence[str], k: int = 10, **options: Unpack[SearchOptions]) -> list[Results]:
        """Search for each of several texts, faster than with `text`; see `batch` for the options."""
        return self.batch([[part] for part in text_parts(texts)], k, **options)

    def images(self, images: Sequence[ImageInput], k: int = 10, **options: Unpack[SearchOptions]) -> list[Results]:
        """Search for each of several images, faster than with `image`; see `batch` for the options."""
        return self.batch([[part] for part in image_parts(images)], k, **options)

    def batch(
        self,
        queries: Sequence[Sequence[QueryPart]],
        k: int = 10,
        *,
        encoder: str | None = None,
        exact: bool = False,
        labels: Sequence[str] = (),
        categories: int = CATEGORIES,
    ) -> list[Results]:
        """Search for several queries at once, which is faster than one after the other; returns the results of each.

        The results are the (at most) k gallery images nearest to the weighted sum of the unit vectors of a query's parts.
        Gallery images among the parts are left out of its results.
        encoder : by default the first that reads text.  exact : search by brute force instead of with the index.
        labels : search only images of these classes, given by label or by name, always by brute force.
        categories : the number of nearest classes to return.
        Raises ConfigError for an unknown encoder, a text or image that the encoder does not embed, k below 1, an unknown class
        or image_id, and parts that cancel each other out; DataError for an image that cannot be decoded; PassportError if
        artifacts come from different encoders or galleries.
        """
        _check_count("k", k, 1)
        _check_count("categories", categories, 0)
        artifacts = self._artifacts_of(self.default_encoder if encoder is None else encoder)
        queries = [checked_parts(parts) for parts in queries]
        weights = [relative_weights(parts) for parts in queries]
        excluded = [[self._gallery.position(part.image_id) for part in parts if part.image_id] for parts in queries]
        every_part = [part for parts in queries for part in parts]
        among = None if isinstance(labels, Sized) and not len(labels) else self._gallery.of_classes(labels)
        self._check_modalities(artifacts, every_part)
        use_index = not exact and among is None
        towers = {part.kind for part in every_part if part.kind != "like"}
        artifacts.open(towers, use_index, class_means=categories > 0 and bool(self._gallery.classes.labels))
        index = artifacts.index() if use_index else None
        start = perf_counter()
        ends = np.cumsum([len(parts) for parts in queries])
        rows = np.split(artifacts.embed(every_part), ends[:-1]) if queries else []
        vectors = [weighted_sum(*query) for query in zip(rows, weights, strict=True)]
        embedded = perf_counter()
        depth = k + max(map(len, excluded), default=0)
        neighbours = self._neighbours(artifacts, index, vectors, depth, among)
        hits = [self._hits(*nearest, own, k) for nearest, own in zip(neighbours, excluded, strict=True)]
        end = perf_counter()
        by = EXACT if index is None else kind_of(index).name
        encode_ms, search_ms = (1e3 * seconds / max(1, len(queries)) for seconds in (embedded - start, end - embedded))
        return [
            Results(
                artifacts.name,
                by,
                of_query,
                self._categories(artifacts, vector, categories),
                encode_ms,
                search_ms,
                self.image_bytes,
            )
            for of_query, vector in zip(hits, vectors, strict=True)
        ]

    def embed_texts(self, texts: Sequence[str], *, encoder: str | None = None) -> Vectors:
        """The unit vectors of texts, (n, dim) float32, by default by the first encoder that reads text.

        Raises ConfigError as `batch` does, and for a single text in place of a list.
        """
        return self._embed(text_parts(texts), encoder)

    def embed_images(self, images: Sequence[ImageInput], *, encoder: str | None = None) -> Vectors:
        """The unit vectors of images, (n, dim) float32; each as `image` takes it.  Raises as `batch` does."""
        return self._embed(image_parts(images), encoder)

    def _embed(self, parts: list[QueryPart], encoder: str | None) -> Vectors:
        artifacts = self._artifacts_of(self.default_encoder if encoder is None else encoder)
        self._check_modalities(artifacts, parts)
        return artifacts.embed(parts)

    def image_bytes(self, image_id: str) -> bytes:
        """The encoded bytes (JPEG or PNG) of a gallery image.  Raises ConfigError for an unknown image_id."""
        return self._gallery.image_bytes(self._gallery.position(image_id))

    def query_image(self, part: QueryPart) -> bytes | None:
        """The image of a query part, packed as the gallery images are; None for a text.

        Raises DataError for an image that cannot be decoded, ConfigError for an unknown image_id.
        """
        if part.image_id is not None:
            return self.image_bytes(part.image_id)
        return None if part.image is None else self._gallery.pack(part.image, part.name)

    def label_name(self, image_id: str) -> str | None:
        """The display name of the class of a gallery image.  Raises ConfigError for an unknown image_id."""
        return self._gallery.hit(0, 0.0, self._gallery.position(image_id)).label_name

    def sample(self, count: int, seed: int = 0) -> list[str]:
        """The image_ids of a random sample of the gallery."""
        _check_count("count", count, 0)
        positions = np.random.default_rng(seed).permutation(self.size)[:count]
        return [self._gallery.ids[int(position)].as_py() for position in positions]

    def _artifacts_of(self, encoder: str) -> EncoderArtifacts:
        if not isinstance(encoder, str) or encoder not in self._artifacts:
            raise ConfigError(
                f"encoder: expected one of {', '.join(self._artifacts)}, found {encoder!r}; "
                "`dvc repro` builds the indexes of all encoders"
            )
        return self._artifacts[encoder]

    def _neighbours(
        self,
        artifacts: EncoderArtifacts,
        index: faiss.Index | None,
        queries: list[Vectors],
        depth: int,
        among: npt.NDArray[np.bool_] | None,
    ) -> list[tuple[Scores, Positions]]:
        """The scores and positions of the `depth` images nearest to each query; by brute force without an index.

        among : (n_gallery,) which images are searched; None for all.
        """
        depth = min(depth, self.size if among is None else int(among.sum()))
        if index is None:
            # as fast as `exact_search` of all queries at once, which computes each score in float64 (measured)
            return [exact_neighbours(query, artifacts.vectors().parts, depth, among) for query in queries]
        if not queries:
            return []
        threads = cores() if len(queries) * index.ntotal * index.d >= _PRODUCTS_FOR_THREADS else 1
        return list(zip(*search(index, np.stack(queries), depth, self._params, threads), strict=True))

    def _hits(self, scores: Scores, positions: Positions, excluded: Sequence[int], k: int) -> tuple[Hit, ...]:
        kept = np.flatnonzero(~np.isin(positions, [*excluded, MISSING]))[:k]
        return tuple(
            self._gallery.hit(rank, float(scores[row]), int(positions[row])) for rank, row in enumerate(kept, 1)
        )

    def _check_modalities(self, artifacts: EncoderArtifacts, parts: Sequence[QueryPart]) -> None:
        kinds = {part.kind for part in parts if part.kind != "like"}
        if not kinds or (artifacts.embeds_images and (artifacts.reads_text or "text" not in kinds)):
            return
        others = [name for name, other in self._artifacts.items() if other.reads_text or "text" not in kinds]
        embedding = [name for name in others if self._artifacts[name].embeds_images]
        advice = f", or use the encoder {' or '.join(embedding)}" if embedding else ""
        if not artifacts.embeds_images:
            raise EmbedsNothingError(
                artifacts.name, " and no new ".join(sorted(kinds)), f"; search with --like{advice}"
            )
        raise ConfigError(f"the encoder {artifacts.name} reads no text: search for an image{advice}")

    def _categories(self, artifacts: EncoderArtifacts, query: Vectors, count: int) -> tuple[Category, ...]:
        """The classes nearest to the query, nearest first."""
        classes = self._gallery.classes
        if not classes.labels or count < 1:
            return ()
        distances = 1 - artifacts.class_means() @ query
        order = np.lexsort((np.arange(len(distances)), distances))[:count]
        return tuple(Category(classes.labels[row], classes.names[row], float(distances[row])) for row in order)


def _check_count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{name}: expected a whole number, {least} or more, found {value!r}")


def pipeline_has_run(data: Path) -> bool:
    """Whether `data` holds an index to search."""
    paths = DataPaths(data)
    names = read_encoder_names(paths.encoders) if paths.encoders.is_file() else []
    return any(paths.index_passport(name).is_file() for name in names)
