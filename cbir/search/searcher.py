"""Search the gallery of a finished pipeline run.

The command line, the page and notebooks all use `Searcher`:

    from cbir import Searcher
    Searcher.open("data").text("a red star", k=10).to_pandas()
"""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.names import read_encoder_names
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.vectors import MISSING, Vectors
from cbir.core.errors import ConfigError, DataError
from cbir.core.parallel import cores
from cbir.core.params import PARAMS_FILE, load_params
from cbir.core.text import nfc
from cbir.encoders.base import EmbedsNothingError
from cbir.encoders.demo import is_demo
from cbir.index.exact import exact_neighbours
from cbir.index.kinds import kind_of
from cbir.index.params import IndexParams, SearchParams
from cbir.index.search import search
from cbir.search.encoder_artifacts import EncoderArtifacts
from cbir.search.gallery import PackedGallery
from cbir.search.query import ImageInput, QueryPart, image_part, relative_weights, weighted_sum
from cbir.search.results import EXACT, Category, Results

CATEGORIES = 5
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

    def text(
        self,
        text: str,
        k: int = 10,
        *,
        encoder: str | None = None,
        exact: bool = False,
        labels: Sequence[str] = (),
        categories: int = CATEGORIES,
    ) -> Results:
        """Search for a text; see `search` for the parameters."""
        part = QueryPart(text=text)
        return self.search([part], k, encoder=encoder, exact=exact, labels=labels, categories=categories)

    def image(
        self,
        image: ImageInput,
        k: int = 10,
        *,
        encoder: str | None = None,
        exact: bool = False,
        labels: Sequence[str] = (),
        categories: int = CATEGORIES,
    ) -> Results:
        """Search for an image: a path, the bytes of a file, a PIL image or an array of pixels; see `search` for the others."""
        part = image_part(image)
        return self.search([part], k, encoder=encoder, exact=exact, labels=labels, categories=categories)

    def like(
        self,
        image_id: str,
        k: int = 10,
        *,
        encoder: str | None = None,
        exact: bool = False,
        labels: Sequence[str] = (),
        categories: int = CATEGORIES,
    ) -> Results:
        """Search for images like a gallery image, which is left out of the results; see `search` for the parameters."""
        part = QueryPart(image_id=image_id)
        return self.search([part], k, encoder=encoder, exact=exact, labels=labels, categories=categories)

    def embed_texts(self, texts: Sequence[str], *, encoder: str | None = None) -> Vectors:
        """The unit vectors of texts, (n, dim) float32, by default by the first encoder that reads text.

        Raises ConfigError as `search` does, and for a single text in place of a list.
        """
        if isinstance(texts, str):
            raise ConfigError(f"texts: expected a list of them, found the text {texts!r}")
        return self._embed_all([QueryPart(text=text) for text in texts], encoder)

    def embed_images(self, images: Sequence[ImageInput], *, encoder: str | None = None) -> Vectors:
        """The unit vectors of images, (n, dim) float32; each as `image` takes it.  Raises as `search` does."""
        if isinstance(images, str | bytes | Path):
            raise ConfigError(f"images: expected a list of them, found one {type(images).__name__}")
        return self._embed_all([image_part(image) for image in images], encoder)

    def _embed_all(self, parts: Sequence[QueryPart], encoder: str | None) -> Vectors:
        artifacts = self._artifacts_of(self.default_encoder if encoder is None else encoder)
        self._check_modalities(artifacts, parts)
        dim = artifacts.vectors().passport["dim"]
        rows = [self._embed(artifacts, part) for part in parts]
        return np.stack(rows) if rows else np.empty((0, dim), np.float32)

    def search(
        self,
        parts: Sequence[QueryPart],
        k: int = 10,
        *,
        encoder: str | None = None,
        exact: bool = False,
        labels: Sequence[str] = (),
        categories: int = CATEGORIES,
    ) -> Results:
        """Return the (at most) k gallery images nearest to the weighted sum of the unit vectors of the parts.

        Gallery images among the parts are left out of the results.
        encoder : by default the first that reads text.  exact : search by brute force instead of with the index.
        labels : search only images of these classes, given by label or by name, always by brute force.
        categories : the number of nearest classes to return.
        Raises ConfigError for an unknown encoder, a text or image that the encoder does not embed, k below 1, an unknown class
        or image_id, and parts that cancel each other out; DataError for an image that cannot be decoded; PassportError if
        artifacts come from different encoders or galleries.
        """
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise ConfigError(f"k: expected a whole number, 1 or more, found {k!r}")
        artifacts = self._artifacts_of(self.default_encoder if encoder is None else encoder)
        weights, excluded = relative_weights(parts), self._gallery_positions(parts)
        candidates = self._candidates(labels, excluded) if labels else None
        self._check_modalities(artifacts, parts)
        vectors = artifacts.vectors()
        use_index = not exact and not labels
        towers = {"image" if part.text is None else "text" for part in parts if part.image_id is None}
        artifacts.open(towers, use_index, class_means=categories > 0 and bool(self._gallery.classes.labels))
        index = artifacts.index() if use_index else None
        start = perf_counter()
        query = weighted_sum(np.stack([self._embed(artifacts, part) for part in parts]), weights)
        embedded = perf_counter()
        if candidates is not None:
            scores, positions = exact_neighbours(query, vectors.parts, min(k, int(candidates.sum())), candidates)
        else:
            depth = min(k + len(excluded), self.size)
            if index is None:
                scores, positions = exact_neighbours(query, vectors.parts, depth)
            else:
                threads = cores() if index.ntotal * index.d >= _PRODUCTS_FOR_THREADS else 1
                scores, positions = (row[0] for row in search(index, query[None], depth, self._params, threads))
            kept = ~np.isin(positions, [*excluded, MISSING])
            scores, positions = scores[kept][:k], positions[kept][:k]
        hits = tuple(
            self._gallery.hit(rank, score, int(position))
            for rank, (score, position) in enumerate(zip(scores, positions, strict=True), 1)
        )
        end = perf_counter()
        by = EXACT if index is None else kind_of(index).name
        times = (1e3 * (embedded - start), 1e3 * (end - embedded))
        return Results(artifacts.name, by, hits, self._categories(artifacts, query, categories), *times)

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
        positions = np.random.default_rng(seed).permutation(self.size)[:count]
        return [self._gallery.ids[int(position)].as_py() for position in positions]

    def _artifacts_of(self, encoder: str) -> EncoderArtifacts:
        if encoder not in self._artifacts:
            raise ConfigError(
                f"encoder: expected one of {', '.join(self._artifacts)}, found {encoder!r}; "
                "`dvc repro` builds the indexes of all encoders"
            )
        return self._artifacts[encoder]

    def _gallery_positions(self, parts: Sequence[QueryPart]) -> list[int]:
        """The positions of the gallery images among the parts."""
        return sorted({self._gallery.position(part.image_id) for part in parts if part.image_id is not None})

    def _check_modalities(self, artifacts: EncoderArtifacts, parts: Sequence[QueryPart]) -> None:
        kinds = {"image" if part.text is None else "text" for part in parts if part.image_id is None}
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

    def _embed(self, artifacts: EncoderArtifacts, part: QueryPart) -> Vectors:
        """The unit vector of a part, (dim,) float32."""
        row: Vectors
        if part.image_id is not None:
            row = artifacts.vectors().rows([part.image_id], "search")[0]
        elif part.text is not None:
            row = artifacts.encoder().embed_texts([part.text])[0]
        else:
            packed = self._gallery.pack(part.image or b"", part.name)
            encoder = artifacts.encoder()
            row = encoder.embed_images(np.stack([encoder.card.preprocessing.prepare_packed(packed)]))[0]
        return row

    def _candidates(self, labels: Sequence[str], excluded: Sequence[int]) -> npt.NDArray[np.bool_]:
        """(n_gallery,) whether an image belongs to one of the classes, given by label or by name, and is not excluded."""
        classes = self._gallery.classes
        if isinstance(labels, str):
            raise ConfigError(f"classes: expected a list of them, found the text {labels!r}")
        labels = [nfc(label) for label in labels]
        if not classes.labels:
            raise ConfigError("class: the gallery has no classes: none of its images has a label")
        known = {*classes.labels, *classes.names}
        for label in labels:
            if label not in known:
                close = get_close_matches(label, sorted(known), n=3, cutoff=0.0)
                raise ConfigError(f"class: the gallery has no {label!r}; nearest: {', '.join(close)}")
        chosen = sorted(label for label, name in self.labels.items() if label in labels or name in labels)
        belongs = pc.is_in(self._gallery.labels, value_set=pa.array(chosen, pa.string()))
        candidates: npt.NDArray[np.bool_] = belongs.to_numpy(zero_copy_only=False).copy()
        candidates[list(excluded)] = False
        return candidates

    def _categories(self, artifacts: EncoderArtifacts, query: Vectors, count: int) -> tuple[Category, ...]:
        """The classes nearest to the query, nearest first."""
        classes = self._gallery.classes
        if not classes.labels or count < 1:
            return ()
        distances = 1 - artifacts.class_means() @ query
        order = np.lexsort((np.arange(len(distances)), distances))[:count]
        return tuple(Category(classes.labels[row], classes.names[row], float(distances[row])) for row in order)


def pipeline_has_run(data: Path) -> bool:
    """Whether `data` holds an index to search."""
    paths = DataPaths(data)
    names = read_encoder_names(paths.encoders) if paths.encoders.is_file() else []
    return any(paths.index_passport(name).is_file() for name in names)
