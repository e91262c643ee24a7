"""The Searcher, against brute force over the stored vectors and the encoders in torch.  What it refuses: test_errors.py."""

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from cbir import Searcher
from cbir.artifacts.images import IMAGE_SCHEMA, read_columns
from cbir.artifacts.tables import write_table
from cbir.artifacts.vectors import open_vectors
from cbir.core.errors import ConfigError, DataError
from cbir.encoders.opening import load_encoder
from cbir.encoders.params import Family
from cbir.encoders.runtime import Runtime
from cbir.search.query import QueryPart
from cbir.search.results import RESULT_SCHEMA, Results
from tests.support.imports import ROOT
from tests.support.searchable import (
    copy_run,
    finished_run,  # noqa: F401  (a fixture)
    photo,  # noqa: F401  (a fixture)
    searchable,  # noqa: F401  (a fixture)
    searcher,  # noqa: F401  (a fixture)
)

Floats = NDArray[np.float64]
FAMILIES = {"mobilenet_demo": Family.torchvision, "clip_demo": Family.open_clip}


class Oracle:
    """The stored vectors with their labels, and vectors of queries computed by torch."""

    def __init__(self, data: Path, encoder: str) -> None:
        vectors = open_vectors(data / "embeddings" / encoder, encoder, "gallery")
        self.ids = vectors.ids.to_pylist()
        self.rows = np.concatenate(vectors.parts).astype(np.float64)
        self.labels = read_columns(data / "images/gallery", ["label"])["label"].to_pylist()
        self._encoder = load_encoder(data / "weights" / encoder, FAMILIES[encoder], Runtime())

    def text(self, text: str) -> Floats:
        return self._encoder.embed_texts([text])[0].astype(np.float64)

    def image(self, data: bytes) -> Floats:
        pixels = self._encoder.card.preprocessing.prepare(Image.open(BytesIO(data)).convert("RGB"))
        return self._encoder.embed_images(np.stack([pixels]))[0].astype(np.float64)

    def gallery(self, image_id: str) -> Floats:
        row: Floats = self.rows[self.ids.index(image_id)]
        return row

    def check(self, results: Results, query: Floats, k: int, keep: Callable[[int], bool] = lambda _: True) -> None:
        """Check that the scores are the k best of the kept rows, and that each belongs to its image."""
        scores = self.rows @ (query / np.linalg.norm(query))
        best = sorted((scores[position] for position in range(len(scores)) if keep(position)), reverse=True)[:k]
        assert [hit.rank for hit in results] == list(range(1, len(best) + 1))
        np.testing.assert_allclose([hit.score for hit in results], best, rtol=0, atol=2e-5)
        for hit in results:
            position = self.ids.index(hit.image_id)
            assert keep(position)
            assert hit.score == pytest.approx(scores[position], abs=2e-5)
            assert (hit.label, hit.label_name) == (self.labels[position], self.labels[position])
        assert len({hit.image_id for hit in results}) == len(results)


@pytest.fixture(scope="module")
def oracles(searchable: Path) -> dict[str, Oracle]:
    return {name: Oracle(searchable / "data", name) for name in FAMILIES}


# ---- one query


@pytest.mark.parametrize("exact", [True, False])
def test_a_text_query_agrees_with_brute_force(searcher: Searcher, oracles: dict[str, Oracle], exact: bool) -> None:
    results = searcher.text("a red star", k=7, exact=exact)
    assert (results.encoder, results.by) == ("clip_demo", "exact" if exact else "hnsw")
    oracles["clip_demo"].check(results, oracles["clip_demo"].text("a red star"), 7)
    assert [hit.label for hit in results][:4] == ["red star"] * 4


@pytest.mark.parametrize("encoder", FAMILIES)
@pytest.mark.parametrize("exact", [True, False])
def test_an_image_query_agrees_with_brute_force(
    searcher: Searcher, oracles: dict[str, Oracle], photo: bytes, encoder: str, exact: bool, tmp_path: Path
) -> None:
    results = searcher.image(photo, k=9, encoder=encoder, exact=exact)
    oracles[encoder].check(results, oracles[encoder].image(photo), 9)
    (tmp_path / "photo.png").write_bytes(photo)
    assert searcher.image(tmp_path / "photo.png", k=9, encoder=encoder, exact=exact).hits == results.hits


@pytest.mark.parametrize("encoder", FAMILIES)
@pytest.mark.parametrize("exact", [True, False])
def test_a_gallery_image_query_leaves_its_own_image_out(
    searcher: Searcher, oracles: dict[str, Oracle], encoder: str, exact: bool
) -> None:
    oracle = oracles[encoder]
    image_id = oracle.ids[123]
    results = searcher.like(image_id, k=8, encoder=encoder, exact=exact)
    oracle.check(results, oracle.gallery(image_id), 8, keep=lambda position: oracle.ids[position] != image_id)


def test_the_file_of_a_gallery_image_scores_1(searcher: Searcher, oracles: dict[str, Oracle]) -> None:
    image_id = oracles["clip_demo"].ids[5]
    for encoder in FAMILIES:
        first = searcher.image(searcher.image_bytes(image_id), k=1, encoder=encoder).hits[0]
        assert (first.image_id, round(first.score, 4)) == (image_id, 1.0)


def test_query_images_are_packed_like_gallery_images(searcher: Searcher, searchable: Path) -> None:
    """The image is large, rotated and transparent."""
    image = Image.effect_noise((900, 700), 80).convert("RGBA")
    image.putalpha(128)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = BytesIO()
    image.save(file, "PNG", exif=exif)
    packed = searcher.query_image(QueryPart(image=file.getvalue()))
    assert packed is not None
    assert Image.open(BytesIO(packed)).size == (511, 657)  # exactly 7 : 9
    assert searcher.image(file.getvalue(), k=5).hits == searcher.image(packed, k=5).hits


# ---- several parts, classes, categories


def test_the_query_is_the_weighted_sum_of_its_parts(
    searcher: Searcher, oracles: dict[str, Oracle], photo: bytes
) -> None:
    oracle = oracles["clip_demo"]
    image_id = oracle.ids[40]
    parts = [
        QueryPart(text="a blue ring"),
        QueryPart(image=photo, weight=0.5),
        QueryPart(text="green", weight=-0.7),
        QueryPart(image_id=image_id),
    ]
    query = (
        oracle.text("a blue ring") + 0.5 * oracle.image(photo) - 0.7 * oracle.text("green") + oracle.gallery(image_id)
    )
    for exact in (True, False):
        oracle.check(
            searcher.search(parts, 10, exact=exact), query, 10, lambda position: oracle.ids[position] != image_id
        )


def test_labels_restrict_the_search_to_all_images_of_classes(searcher: Searcher, oracles: dict[str, Oracle]) -> None:
    oracle, wanted = oracles["clip_demo"], ("red star", "blue ring")
    results = searcher.text("a green heart", k=100, labels=wanted)
    oracle.check(results, oracle.text("a green heart"), 100, keep=lambda position: oracle.labels[position] in wanted)
    assert (len(results), results.by) == (10, "exact")
    assert len(searcher.like(results.hits[0].image_id, k=100, labels=["red star", "blue ring"])) == 9


def test_at_most_k_results_are_returned(searcher: Searcher) -> None:
    for exact in (True, False):
        assert len(searcher.text("a red star", k=10_000, exact=exact)) == 400
        assert len(searcher.like(searcher.sample(1)[0], k=400, exact=exact)) == 399
    assert len(searcher.text("a red star", k=400, labels=["red star"])) == 5


def test_labels_may_be_names_of_classes(searchable: Path) -> None:
    searcher = Searcher.open(searchable / "data")
    names = pa.array([f"name of {label}" for label in searcher._gallery.labels.to_pylist()], pa.string())
    object.__setattr__(searcher._gallery, "names", names)
    by_name, by_label = (searcher.text("a star", labels=[label]) for label in ("name of red star", "red star"))
    assert by_name.hits == by_label.hits
    assert {hit.label for hit in by_name} == {"red star"}
    with pytest.raises(ConfigError, match="the gallery has no 'name of red strar'; nearest: name of red star, "):
        searcher.text("a star", labels=["name of red strar"])


def test_classes_may_be_given_in_either_form_of_unicode(searchable: Path) -> None:
    searcher = Searcher.open(searchable / "data")
    names = pa.array([f"größe {label}" for label in searcher._gallery.labels.to_pylist()], pa.string())
    object.__setattr__(searcher._gallery, "names", names)
    forms = [unicodedata.normalize(form, "größe red star") for form in ("NFC", "NFD")]
    by_form = [searcher.text("a star", labels=[name]).hits for name in forms]
    assert by_form[0] == by_form[1]


def test_a_gallery_without_classes(searchable: Path) -> None:
    searcher = Searcher.open(searchable / "data")
    object.__setattr__(searcher._gallery, "labels", pa.nulls(400, pa.string()))
    object.__setattr__(searcher._gallery, "names", pa.nulls(400, pa.string()))
    results = searcher.text("a star")
    assert (results.categories, {hit.label for hit in results}) == ((), {None})
    with pytest.raises(ConfigError, match=r"^class: the gallery has no classes"):
        searcher.text("a star", labels=["red star"])


def test_only_the_proportions_of_weights_matter(searcher: Searcher) -> None:
    expected = searcher.search([QueryPart("a star"), QueryPart("red", weight=0.5)])
    for scale in (1e-300, 1e-4, 1e300):
        results = searcher.search([QueryPart("a star", weight=scale), QueryPart("red", weight=0.5 * scale)])
        assert results.hits == expected.hits


def test_a_replaced_gallery_is_noticed(searchable: Path, tmp_path: Path) -> None:
    data = copy_run(searchable, tmp_path)
    searcher = Searcher.open(data)
    first, last = searcher.sample(400)[0], "gallery/gallery-000399.jpg"
    assert searcher.image_bytes(first)
    shards = sorted((data / "images/gallery").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(path) for path in shards])
    write_table(shards[0], table.slice(1), IMAGE_SCHEMA, stored=("image",), group_rows=64)
    for image_id in (first, last):
        with pytest.raises(DataError, match="expected the gallery that was opened, found another one: open it again"):
            searcher.image_bytes(image_id)


def test_categories_are_ranked_by_distance_to_class_means(searcher: Searcher, oracles: dict[str, Oracle]) -> None:
    oracle = oracles["clip_demo"]
    query = oracle.text("a purple cross")
    expected = {}
    for label in set(oracle.labels):
        mean = oracle.rows[[other == label for other in oracle.labels]].mean(axis=0)
        expected[label] = 1 - query @ mean / np.linalg.norm(mean) / np.linalg.norm(query)
    categories = searcher.text("a purple cross", categories=6).categories
    assert [category.label for category in categories] == sorted(expected, key=lambda label: expected[label])[:6]
    np.testing.assert_allclose(
        [category.distance for category in categories],
        [expected[category.label] for category in categories],
        atol=1e-5,
    )
    assert categories[0].label == "purple cross"
    assert searcher.text("a purple cross", categories=0).categories == ()


def test_results_as_tables_and_json(searcher: Searcher) -> None:
    results = searcher.text("a red star", k=3)
    table = results.to_arrow()
    assert (table.schema, table.num_rows) == (RESULT_SCHEMA, 3)
    assert results.to_pandas()["image_id"].tolist() == [hit.image_id for hit in results]
    assert pa.Table.from_pylist(results.to_json()["hits"], RESULT_SCHEMA) == table
    assert json.loads(json.dumps(results.to_json()))["encoder"] == "clip_demo"


def test_image_bytes_are_read_by_id(searcher: Searcher, searchable: Path) -> None:
    table = read_columns(searchable / "data/images/gallery", ["image_id", "sha256"])
    for row in table.to_pylist()[::37]:
        assert sha256(searcher.image_bytes(row["image_id"])).hexdigest() == row["sha256"]


def test_a_sample_depends_on_its_seed(searcher: Searcher) -> None:
    assert searcher.sample(5, seed=1) == searcher.sample(5, seed=1) != searcher.sample(5, seed=2)
    assert len(set(searcher.sample(1000))) == searcher.size == 400


# ---- encoders


def test_encoders_that_read_text_come_first(searcher: Searcher) -> None:
    assert searcher.encoders == ["clip_demo", "mobilenet_demo"]
    assert searcher.default_encoder == "clip_demo"
    assert [searcher.reads_text(name) for name in searcher.encoders] == [True, False]


def test_without_a_text_encoder_the_first_is_the_default(searchable: Path, photo: bytes, tmp_path: Path) -> None:
    data = copy_run(searchable, tmp_path)
    shutil.rmtree(data / "embeddings/clip_demo/texts")
    searcher = Searcher.open(data)
    assert searcher.image(photo).encoder == searcher.default_encoder == searcher.encoders[0] == "mobilenet_demo"
    with pytest.raises(ConfigError, match=r"^the encoder mobilenet_demo reads no text: search for an image$"):
        searcher.text("a star")


# ---- imports and threads


def test_the_package_imports_the_searcher_on_demand() -> None:
    loaded = "'cbir.search.searcher' in sys.modules"
    script = f"import sys, cbir; print({loaded}, cbir.Searcher.__name__, {loaded})"
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", "Searcher", "True"]
    import cbir

    with pytest.raises(AttributeError, match="has no attribute 'searcher'"):
        cbir.searcher  # noqa: B018


def test_first_searches_of_many_threads_do_not_deadlock(searchable: Path) -> None:
    """OpenVINO can deadlock when its first inferences run at the same time; a new process for each try, frequent switches."""
    code = (
        "import sys, threading; from cbir import Searcher; sys.setswitchinterval(1e-6)\n"
        "searcher, gate = Searcher.open('data'), threading.Barrier(16)\n"
        "def go(n): gate.wait(); searcher.text(f'red star {n}', k=3)\n"
        "threads = [threading.Thread(target=go, args=(n,)) for n in range(16)]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]"
    )
    for _ in range(3):
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=searchable,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            timeout=600,
            check=True,
        )


def test_an_image_may_be_a_file_bytes_pil_or_pixels(searcher: Searcher, photo: bytes, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(photo)
    opened = Image.open(BytesIO(photo))
    expected = searcher.image(photo, 5).hits
    for image in (
        path,
        str(path),
        opened,
        np.asarray(opened),
        opened.convert("RGBA"),
        np.asarray(opened.convert("RGBA")),
    ):
        assert searcher.image(image, 5).hits == expected


# ---- several queries at once


@pytest.mark.parametrize("options", [{}, {"exact": True}, {"labels": ["red star", "blue ring"], "categories": 2}])
def test_a_batch_has_the_results_of_its_queries(searcher: Searcher, photo: bytes, options: Any) -> None:
    own = searcher.text("a red star", 1).hits[0].image_id
    queries = [
        [QueryPart("a red star")],
        [QueryPart(image=photo), QueryPart("blue", weight=-0.5), QueryPart("at night")],
        [QueryPart(image_id=own)],
        [QueryPart("a ring"), QueryPart(image_id=own), QueryPart(image=photo)],
        *([QueryPart(f"star {number}")] for number in range(40)),  # more than a tower embeds at once
        *([QueryPart(image=searcher.image_bytes(image_id))] for image_id in searcher.sample(20)),
    ]
    for query, results in zip(queries, searcher.batch(queries, 7, **options), strict=True):
        alone = searcher.search(query, 7, **options)
        assert (results.encoder, results.by) == (alone.encoder, alone.by)
        np.testing.assert_allclose([hit.score for hit in results], [hit.score for hit in alone], atol=1e-5)
        assert [hit.rank for hit in results] == list(range(1, len(alone) + 1))
        distances = [[category.distance for category in each.categories] for each in (results, alone)]
        np.testing.assert_allclose(*distances, atol=1e-5)
        assert own not in {hit.image_id for hit in results} or query[-1].image_id != own


def test_texts_and_images_are_searched_in_their_order(searcher: Searcher, photo: bytes) -> None:
    by_text = searcher.texts(["a red star", "a blue ring"], 3)
    assert [results.hits[0].label for results in by_text] == ["red star", "blue ring"]
    ids = searcher.sample(18, seed=3)
    by_image = searcher.images([searcher.image_bytes(image_id) for image_id in ids], 1, encoder="mobilenet_demo")
    assert [results.hits[0].image_id for results in by_image] == ids
    pixels = np.stack([np.asarray(Image.open(BytesIO(photo)))] * 2)
    assert [results.hits for results in searcher.images(pixels, 2)] == [searcher.image(photo, 2).hits] * 2
    assert searcher.texts([]) == searcher.images([]) == searcher.batch([]) == []


def test_the_only_image_of_a_class_has_no_others(searcher: Searcher) -> None:
    image_id = searcher.sample(1)[0]
    label = searcher.label_name(image_id)
    assert label is not None
    others = searcher.like(image_id, labels=[label])
    assert len(others) == 4
    first, *rest = (QueryPart(image_id=each) for each in (image_id, *(hit.image_id for hit in others)))
    assert len(searcher.search([first, *rest], labels=[label])) == 0


def test_texts_and_images_are_embedded_without_a_search(searcher: Searcher, photo: bytes) -> None:
    texts = searcher.embed_texts(["a red star", "a blue cross"])
    images = searcher.embed_images([photo, Image.open(BytesIO(photo))], encoder="clip_demo")
    for vectors in (texts, images):
        assert (vectors.shape, vectors.dtype) == ((2, 128), np.float32)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (images[0] == images[1]).all()
    assert searcher.embed_texts([]).shape == (0, 128)
    first = searcher.text("a red star", 1, exact=True).hits[0]
    gallery = searcher.embed_images([searcher.image_bytes(first.image_id)])
    assert float(texts[0] @ gallery[0]) == pytest.approx(first.score, abs=1e-3)
