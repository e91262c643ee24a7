"""Searching: against brute force over the stored vectors and torch's encoders; the command line; what is refused."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from cbir import Searcher
from cbir.artifacts.images import IMAGE_SCHEMA, read_columns
from cbir.artifacts.tables import write_table
from cbir.artifacts.vectors import open_vectors
from cbir.cli import main as cli
from cbir.core.errors import CbirError, ConfigError, DataError, PassportError
from cbir.core.files import read_json, write_json
from cbir.encoders.opening import load_encoder
from cbir.encoders.params import Family
from cbir.encoders.runtime import Runtime
from cbir.index.exact import exact_neighbours, exact_search
from cbir.search.arguments import Given
from cbir.search.searcher import RESULT_SCHEMA, Part, Results
from tests.support.imports import ROOT
from tests.support.searchable import searchable  # noqa: F401  (a fixture)

Floats = NDArray[np.float64]
FAMILIES = {"mobilenet": Family.torchvision, "clip": Family.open_clip}


@pytest.fixture(scope="module")
def searcher(searchable: Path) -> Searcher:
    return Searcher.open(searchable / "data")


class Oracle:
    """The stored vectors, their labels, and vectors of queries by torch."""

    def __init__(self, data: Path, encoder: str) -> None:
        found = open_vectors(data / "embeddings" / encoder, encoder, "gallery")
        self.ids = found.ids.to_pylist()
        self.rows = np.concatenate(found.parts).astype(np.float64)
        self.labels = read_columns(data / "images/gallery", ["label"])["label"].to_pylist()
        self._encoder = load_encoder(data / "weights" / encoder, FAMILIES[encoder], Runtime())

    def text(self, text: str) -> Floats:
        return self._encoder.embed_texts([text])[0].astype(np.float64)

    def image(self, data: bytes) -> Floats:
        pixels = self._encoder.card.preprocessing.prepare(Image.open(BytesIO(data)).convert("RGB"))
        return self._encoder.embed_images(np.stack([pixels]))[0].astype(np.float64)

    def of(self, image_id: str) -> Floats:
        row: Floats = self.rows[self.ids.index(image_id)]
        return row

    def agrees(self, found: Results, query: Floats, k: int, keep: Callable[[int], bool] = lambda _: True) -> None:
        """Scores are the k best of the rows kept, and each belongs to its image."""
        scores = self.rows @ (query / np.linalg.norm(query))
        best = sorted((scores[n] for n in range(len(scores)) if keep(n)), reverse=True)[:k]
        assert [hit.rank for hit in found] == list(range(1, len(best) + 1))
        np.testing.assert_allclose([hit.score for hit in found], best, rtol=0, atol=2e-5)
        for hit in found:
            place = self.ids.index(hit.image_id)
            assert keep(place)
            assert hit.score == pytest.approx(scores[place], abs=2e-5)
            assert (hit.label, hit.label_name) == (self.labels[place], self.labels[place])
        assert len({hit.image_id for hit in found}) == len(found)


@pytest.fixture(scope="module")
def oracles(searchable: Path) -> dict[str, Oracle]:
    return {name: Oracle(searchable / "data", name) for name in FAMILIES}


@pytest.fixture(scope="module")
def photo(searchable: Path) -> bytes:
    """A drawing that is not in the gallery, larger than any there, as a PNG."""
    image = Image.new("RGB", (300, 200), "white")
    image.paste("red", (100, 50, 200, 150))
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


# ---- one query


@pytest.mark.parametrize("exact", [True, False])
def test_a_text_finds_what_brute_force_finds(searcher: Searcher, oracles: dict[str, Oracle], exact: bool) -> None:
    found = searcher.text("a red star", k=7, exact=exact)
    assert (found.encoder, found.by) == ("clip", "exact" if exact else "hnsw")
    oracles["clip"].agrees(found, oracles["clip"].text("a red star"), 7)
    assert [hit.label for hit in found][:4] == ["red star"] * 4


@pytest.mark.parametrize("encoder", FAMILIES)
@pytest.mark.parametrize("exact", [True, False])
def test_an_image_finds_what_brute_force_finds(
    searcher: Searcher, oracles: dict[str, Oracle], photo: bytes, encoder: str, exact: bool, tmp_path: Path
) -> None:
    found = searcher.image(photo, k=9, encoder=encoder, exact=exact)
    oracles[encoder].agrees(found, oracles[encoder].image(photo), 9)
    (tmp_path / "photo.png").write_bytes(photo)
    assert searcher.image(tmp_path / "photo.png", k=9, encoder=encoder, exact=exact).hits == found.hits


@pytest.mark.parametrize("encoder", FAMILIES)
@pytest.mark.parametrize("exact", [True, False])
def test_a_gallery_image_finds_its_like_but_not_itself(
    searcher: Searcher, oracles: dict[str, Oracle], encoder: str, exact: bool
) -> None:
    oracle = oracles[encoder]
    own = oracle.ids[123]
    found = searcher.like(own, k=8, encoder=encoder, exact=exact)
    oracle.agrees(found, oracle.of(own), 8, keep=lambda place: oracle.ids[place] != own)


def test_a_file_of_the_gallery_finds_itself_with_the_score_1(searcher: Searcher, oracles: dict[str, Oracle]) -> None:
    image_id = oracles["clip"].ids[5]
    for encoder in FAMILIES:
        first = searcher.image(searcher.image_bytes(image_id), k=1, encoder=encoder).hits[0]
        assert (first.image_id, round(first.score, 4)) == (image_id, 1.0)


def test_the_query_goes_the_same_way_as_the_gallery(searcher: Searcher, searchable: Path) -> None:
    """A large, turned, transparent picture is packed first, as the stage preprocess packs."""
    image = Image.effect_noise((900, 700), 80).convert("RGBA")
    image.putalpha(128)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = BytesIO()
    image.save(file, "PNG", exif=exif)
    packed = searcher.picture_of(Part(image=file.getvalue()))
    assert packed is not None
    assert max(Image.open(BytesIO(packed)).size) == 512
    assert Image.open(BytesIO(packed)).size == (398, 512)
    assert searcher.image(file.getvalue(), k=5).hits == searcher.image(packed, k=5).hits


# ---- several parts, classes, categories


def test_parts_are_added_up_with_their_weights(searcher: Searcher, oracles: dict[str, Oracle], photo: bytes) -> None:
    oracle = oracles["clip"]
    own = oracle.ids[40]
    parts = [
        Part(text="a blue ring"),
        Part(image=photo, weight=0.5),
        Part(text="green", weight=-0.7),
        Part(image_id=own),
    ]
    query = oracle.text("a blue ring") + 0.5 * oracle.image(photo) - 0.7 * oracle.text("green") + oracle.of(own)
    for exact in (True, False):
        oracle.agrees(searcher.search(parts, 10, exact=exact), query, 10, lambda place: oracle.ids[place] != own)


def test_only_the_classes_asked_for_are_searched_and_all_of_them(
    searcher: Searcher, oracles: dict[str, Oracle]
) -> None:
    oracle, wanted = oracles["clip"], ("red star", "blue ring")
    found = searcher.text("a green heart", k=100, labels=wanted)
    oracle.agrees(found, oracle.text("a green heart"), 100, keep=lambda place: oracle.labels[place] in wanted)
    assert (len(found), found.by) == (10, "exact")
    assert len(searcher.like(found.hits[0].image_id, k=100, labels=["red star", "blue ring"])) == 9


def test_at_most_k_are_found(searcher: Searcher) -> None:
    for exact in (True, False):
        assert len(searcher.text("a red star", k=10_000, exact=exact)) == 400
        assert len(searcher.like(searcher.sample(1)[0], k=400, exact=exact)) == 399
    assert len(searcher.text("a red star", k=400, labels=["red star"])) == 5


def test_a_class_is_known_by_its_name_too(searchable: Path) -> None:
    searcher = Searcher.open(searchable / "data")
    names = pa.array([f"name of {label}" for label in searcher._gallery.labels.to_pylist()], pa.string())
    object.__setattr__(searcher._gallery, "names", names)
    by_name, by_label = (searcher.text("a star", labels=[label]) for label in ("name of red star", "red star"))
    assert by_name.hits == by_label.hits
    assert {hit.label for hit in by_name} == {"red star"}
    with pytest.raises(ConfigError, match="the gallery has no 'name of red strar'; nearest: name of red star, "):
        searcher.text("a star", labels=["name of red strar"])


def test_a_gallery_without_classes_says_so(searchable: Path) -> None:
    searcher = Searcher.open(searchable / "data")
    object.__setattr__(searcher._gallery, "labels", pa.nulls(400, pa.string()))
    object.__setattr__(searcher._gallery, "names", pa.nulls(400, pa.string()))
    found = searcher.text("a star")
    assert (found.categories, {hit.label for hit in found}) == ((), {None})
    with pytest.raises(ConfigError, match=r"^class: the gallery has no classes"):
        searcher.text("a star", labels=["red star"])


def test_the_size_of_weights_says_nothing_only_their_proportions(searcher: Searcher) -> None:
    one = searcher.search([Part("a star"), Part("red", weight=0.5)])
    for scale in (1e-300, 1e-4, 1e300):
        assert searcher.search([Part("a star", weight=scale), Part("red", weight=0.5 * scale)]).hits == one.hits


def test_a_searcher_whose_gallery_was_replaced_says_so(searchable: Path, tmp_path: Path) -> None:
    data = copy_of(searchable, tmp_path)
    searcher = Searcher.open(data)
    first, last = searcher.sample(400)[0], "gallery/gallery-000399.jpg"
    assert searcher.image_bytes(first)
    shards = sorted((data / "images/gallery").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(path) for path in shards])
    write_table(shards[0], table.slice(1), IMAGE_SCHEMA, stored=("image",), group_rows=64)
    for image_id in (first, last):
        with pytest.raises(DataError, match="expected the gallery that was opened, found another one: open it again"):
            searcher.image_bytes(image_id)


def test_similar_categories_are_by_cosine_distance_to_the_mean_vector(
    searcher: Searcher, oracles: dict[str, Oracle]
) -> None:
    oracle = oracles["clip"]
    query = oracle.text("a purple cross")
    expected = {}
    for label in set(oracle.labels):
        mean = oracle.rows[[one == label for one in oracle.labels]].mean(axis=0)
        expected[label] = 1 - query @ mean / np.linalg.norm(mean) / np.linalg.norm(query)
    found = searcher.text("a purple cross", categories=6).categories
    assert [one.label for one in found] == sorted(expected, key=lambda label: expected[label])[:6]
    np.testing.assert_allclose([one.distance for one in found], [expected[one.label] for one in found], atol=1e-5)
    assert found[0].label == "purple cross"
    assert searcher.text("a purple cross", categories=0).categories == ()


def test_results_are_a_typed_table(searcher: Searcher) -> None:
    found = searcher.text("a red star", k=3)
    table = found.to_arrow()
    assert (table.schema, table.num_rows) == (RESULT_SCHEMA, 3)
    assert found.to_pandas()["image_id"].tolist() == [hit.image_id for hit in found]
    assert pa.Table.from_pylist(found.to_json()["hits"], RESULT_SCHEMA) == table
    assert json.loads(json.dumps(found.to_json()))["encoder"] == "clip"


def test_every_image_is_read_by_its_id(searcher: Searcher, searchable: Path) -> None:
    table = read_columns(searchable / "data/images/gallery", ["image_id", "sha256"])
    from hashlib import sha256

    for row in table.to_pylist()[::37]:
        assert sha256(searcher.image_bytes(row["image_id"])).hexdigest() == row["sha256"]


def test_a_sample_is_drawn_by_its_seed(searcher: Searcher) -> None:
    assert searcher.sample(5, seed=1) == searcher.sample(5, seed=1) != searcher.sample(5, seed=2)
    assert len(set(searcher.sample(1000))) == searcher.size == 400


# ---- what is refused


@pytest.mark.parametrize(
    ("asked", "kind", "told"),
    [
        (
            lambda s: s.text("x", encoder="mobilenet"),
            ConfigError,
            "^mobilenet reads no text: search for an image, or use",
        ),
        (lambda s: s.text("x", encoder="vit"), ConfigError, "^encoder: expected one of mobilenet, clip, found 'vit'"),
        (lambda s: s.text("x", k=0), ConfigError, "^k: expected 1 or more, found 0"),
        (lambda s: s.text("x", k=-1, labels=["red star"]), ConfigError, "^k: expected 1 or more, found -1"),
        (lambda s: s.text("x", labels="red star"), ConfigError, "^classes: expected a list of them, found the text"),
        (lambda s: s.text(" "), ConfigError, "^expected words to search for, found an empty text"),
        (lambda s: s.search([Part("x", weight=0.0)]), ConfigError, "^weights: expected finite numbers, at least one"),
        (lambda s: Part("x", image_id="y"), ConfigError, "^a part of a query: expected one of a text, an image and"),
        (lambda s: Part(), ConfigError, "^a part of a query: expected one of"),
        (
            lambda s: s.text("x", labels=["red strar"]),
            ConfigError,
            "^class: the gallery has no 'red strar'; nearest: red",
        ),
        (lambda s: s.like("nowhere.jpg"), ConfigError, "^the gallery has no image 'nowhere.jpg'"),
        (lambda s: s.search([]), ConfigError, "^expected a text, an image or the id"),
        (
            lambda s: s.search([Part("x"), Part("x", weight=-1)]),
            ConfigError,
            "^the parts of the query cancel each other",
        ),
        (lambda s: s.search([Part("x", weight=float("nan"))]), ConfigError, "^weights: expected finite numbers"),
        (lambda s: s.image(b"GIF89a"), DataError, "^the image cannot be decoded: "),
        (lambda s: s.image(b""), DataError, "^the image cannot be decoded: empty file"),
        (
            lambda s: s.image("/no/such/file.jpg"),
            DataError,
            "^/no/such/file.jpg: expected an image file, found: unreadable",
        ),
        (lambda s: s.image("/"), DataError, "^/: expected an image file, found: not a plain file$"),
    ],
)
def test_what_cannot_be_searched_for_is_told(
    searcher: Searcher, asked: Callable[[Searcher], Any], kind: type[CbirError], told: str
) -> None:
    with pytest.raises(kind, match=told):
        asked(searcher)


def test_too_many_pixels_are_refused_before_they_are_decoded(searchable: Path, photo: bytes) -> None:
    strict = Searcher.open(searchable / "data")
    strict._limits = {**strict._limits, "max_pixels": 59_999}
    with pytest.raises(DataError, match=r"too many pixels: 300 x 200 is more than dataset\.max_pixels = 59999"):
        strict.image(photo)


def copy_of(root: Path, out: Path) -> Path:
    shutil.copytree(root / "data", out / "data")
    shutil.copy(root / "params.yaml", out)
    return out / "data"


def change(path: Path, **values: Any) -> None:
    write_json(path, {**read_json(path), **values})


@pytest.mark.parametrize(
    ("spoil", "kind", "told"),
    [
        (
            lambda data: change(data / "weights/clip/encoder.json", weights_sha256="0"),
            PassportError,
            "'weights_sha256'",
        ),
        (
            lambda data: change(data / "embeddings/clip/gallery/passport.json", encoder="other"),
            PassportError,
            "'encoder': expected 'clip', found 'other'",
        ),
        (
            lambda data: change(data / "embeddings/clip/gallery/passport.json", versions={"torch": "0"}),
            PassportError,
            "passport field 'torch': expected '0'",
        ),
        (lambda data: (data / "index/clip/index.faiss").write_bytes(b"x"), DataError, "expected a whole index"),
        (lambda data: (data / "embeddings/clip/gallery/passport.json").unlink(), DataError, "run `dvc repro`"),
        (lambda data: shutil.rmtree(data / "index"), DataError, "index holds no index: run `dvc repro`"),
        (
            lambda data: shutil.rmtree(data / "images"),
            DataError,
            "expected the artifacts of a pipeline that has run, found none: run `dvc repro`",
        ),
        (lambda data: (data.parent / "params.yaml").unlink(), ConfigError, "params.yaml is not here"),
    ],
    ids=["weights", "encoder", "versions", "index", "no passport", "no index", "no images", "no params"],
)
def test_artifacts_that_do_not_belong_together_are_refused(
    searchable: Path, tmp_path: Path, spoil: Callable[[Path], Any], kind: type[CbirError], told: str
) -> None:
    data = copy_of(searchable, tmp_path)
    spoil(data)
    with pytest.raises(kind, match=told):
        Searcher.open(data).text("a red star")


def test_the_same_names_with_other_images_are_refused(searchable: Path, tmp_path: Path) -> None:
    """What is left where images were replaced, preprocess has run and embed was interrupted."""
    data = copy_of(searchable, tmp_path)
    (path,) = (data / "images/gallery").glob("*.parquet")
    table = pq.read_table(path)
    turned = table.take(pa.array(np.roll(np.arange(table.num_rows), 1)))
    for name in ("image", "sha256", "label", "label_name"):
        table = table.set_column(table.column_names.index(name), name, turned[name])
    write_table(path, table, IMAGE_SCHEMA)
    with pytest.raises(PassportError, match=r"rows: passport field 'content_sha256'"):
        Searcher.open(data).text("a red star")


def test_vectors_of_another_gallery_are_refused(searchable: Path, tmp_path: Path) -> None:
    data = copy_of(searchable, tmp_path)
    table = read_columns(data / "images/gallery", None)  # type: ignore[arg-type]
    for path in (data / "images/gallery").glob("*.parquet"):
        path.unlink()
    write_table(data / "images/gallery/part-00000.parquet", table.slice(1), IMAGE_SCHEMA)
    with pytest.raises(PassportError, match=r"clip beside .*: rows: passport field 'count'"):
        Searcher.open(data).text("a red star")


# ---- exact neighbours of one query


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_one_querys_exact_neighbours_are_exact_searchs(data: st.DataObject) -> None:
    """Copies and near copies, whose float32 products differ in their last bits, among them."""
    seed, dim = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.integers(1, 40))
    sizes = data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=5).filter(any))
    random = np.random.default_rng(seed)
    rows = random.normal(size=(sum(sizes), dim)) + 1e-3
    copied = random.random(len(rows)) < 0.5
    rows[copied] = rows[0] + random.choice([0, 1e-7, 1e-4], size=(int(copied.sum()), 1))
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    parts = np.split(unit, np.cumsum(sizes)[:-1])
    query = unit[random.integers(len(unit))] if data.draw(st.booleans()) else -unit[0]
    k = data.draw(st.integers(1, len(unit)))
    scores, positions = exact_neighbours(query, parts, k)
    expected = exact_search(query[None], parts, k)
    np.testing.assert_array_equal(positions, expected[1][0])
    np.testing.assert_array_equal(scores, expected[0][0])


def test_exact_neighbours_refuse_what_exact_search_refuses() -> None:
    parts = [np.eye(3, dtype=np.float32)]
    for query, broken, k in (
        (np.ones(3, np.float32), parts, 4),
        (np.ones(2, np.float32), parts, 1),
        (np.full(3, np.nan, np.float32), parts, 1),
        (np.ones(3, np.float32), [np.full((2, 3), np.nan, np.float32)], 1),
    ):
        with pytest.raises(CbirError):
            exact_neighbours(query, broken, k)


# ---- the command


def run(*arguments: str) -> None:
    cli.main(["search", *arguments])


def hits(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    run(*arguments, "--json")
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def photo_file(photo: bytes, tmp_path: Path) -> str:
    (tmp_path / "my photo.png").write_bytes(photo)
    return str(tmp_path / "my photo.png")


def test_the_command_says_what_the_searcher_says(
    searchable: Path, searcher: Searcher, capsys: pytest.CaptureFixture[str], photo_file: str, photo: bytes
) -> None:
    for arguments, expected in (
        (["a red star"], searcher.text("a red star")),
        (["a", "red", "star"], searcher.text("a red star")),
        (["clip", "a red star", "-k", "3"], searcher.text("a red star", 3)),
        (["--text", "a red star", "--exact"], searcher.text("a red star", exact=True)),
        ([photo_file], searcher.image(photo)),
        (["mobilenet", photo_file], searcher.image(photo, encoder="mobilenet")),
        (["clip", photo_file, "--class", "red star"], searcher.image(photo, labels=["red star"])),
        (["--encoder", "mobilenet", "--like", "gallery/gallery-000001.jpg"],
         searcher.like("gallery/gallery-000001.jpg", encoder="mobilenet")),
        (["--text", "a star", "--weight", "2", "--image", photo_file, "--not", "red", "--weight", "0.5"],
         searcher.search([Part("a star", weight=2.0), Part(image=photo), Part("red", weight=-0.5)])),
        (["mobilenet", "-k", "4", photo_file], searcher.image(photo, 4, encoder="mobilenet")),
        (["a star", "--weight", "2", "--text", "red"], searcher.search([Part("a star", weight=2.0), Part("red")])),
        (["a star", "--not-image", photo_file], searcher.search([Part("a star"), Part(image=photo, weight=-1.0)])),
    ):  # fmt: skip
        found = hits(capsys, *arguments)
        plain = json.loads(json.dumps(expected.to_json()))
        assert (found["hits"], found["categories"]) == (plain["hits"], plain["categories"]), arguments


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["mobilenet", "a red star"],
            "error: a red star: expected an image file, found none there",
        ),
        (["clip", "gone.JPG"], "error: gone.JPG: expected an image file"),
        (["clip"], "error: expected a text, an image or the id of a gallery image to search for, found none"),
        ([], "error: expected a text, an image"),
        (["clip", "x", "--encoder", "mobilenet"], "error: expected one encoder, found clip and --encoder mobilenet"),
        (
            ["x", "--data", "elsewhere"],
            "error: elsewhere: expected the artifacts of a pipeline that has run, found none: run `dvc repro`",
        ),
    ],
)
def test_a_command_that_cannot_be_run_is_told_in_one_line(searchable: Path, arguments: list[str], told: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert str(ended.value).startswith(told)
    assert "\n" not in str(ended.value)


def test_words_longer_than_a_files_name_are_words(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(hits(capsys, *["red"] * 100)["hits"]) == 10


@pytest.mark.parametrize("data", [".", "data/..//data", "link"])
def test_the_artifacts_are_found_however_they_are_named(
    searchable: Path, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if data == ".":
        monkeypatch.chdir(searchable / "data")
    if data == "link":
        (tmp_path / "link").symlink_to(searchable / "data")
        data = str(tmp_path / "link")
    assert hits(capsys, "a red star", "--data", data)["hits"][0]["label"] == "red star"


def test_an_option_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["search", "a star", "--colour", "red"], ["cache", "more"]):
        with pytest.raises(SystemExit):
            cli.main(arguments)
        assert "unrecognized arguments: " in capsys.readouterr().err


def test_a_contact_sheet_that_cannot_be_written_is_told_in_one_line(searchable: Path, tmp_path: Path) -> None:
    data = copy_of(searchable, tmp_path)
    (tmp_path / "reports").write_text("")
    with pytest.raises(SystemExit, match=r"^error: .*reports"):
        run("a red star", "--open", "--data", str(data))


def test_a_weight_without_a_part_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--weight", "2")
    assert "--weight: expected a part of the query before it" in capsys.readouterr().err


def test_the_table_shows_rank_score_label_and_id(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("a red star", "-k", "2")
    printed = capsys.readouterr().out
    first, second = searchable_hits = Searcher.open("data").text("a red star", 2).hits
    for hit in searchable_hits:
        (line,) = [line for line in printed.splitlines() if hit.image_id in line]
        assert line.split() == [str(hit.rank), f"{hit.score:.3f}", "red", "star", hit.image_id]
    assert first.score >= second.score
    assert "similar categories, with their cosine distance:" in printed
    assert "clip, hnsw: " in printed


def test_labels_that_would_move_the_cursor_are_shown_as_text(searchable: Path, tmp_path: Path) -> None:
    """And in the contact sheet, markup is text."""
    from rich.console import Console

    from cbir.search.command import _print
    from cbir.search.contact_sheet import write_sheet

    hostile = "\x1b[2J<script>alert(1)</script>[bold]\u202egnp"
    searcher = Searcher.open("data")
    gallery = searcher._gallery
    names = pa.array([hostile] * len(gallery.names), pa.string())
    object.__setattr__(gallery, "names", names)
    found = searcher.text("a red star", 2)
    console = Console(file=None, width=200, record=True)
    _print(found, 3, searcher, console)
    printed = console.export_text()
    assert "\x1b" not in printed
    assert "\u202e" not in printed
    assert "no more than 2 were found" in printed
    assert "U+001B[2J<script>alert(1)</script>[bold]U+202Egnp" in printed
    write_sheet(tmp_path / "sheet.html", "<b>asked</b>", [Part(image_id=found.hits[0].image_id)], found, searcher)
    page = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;asked" in page
    assert page.count("data:image/jpeg;base64,") + page.count("data:image/png;base64,") == 3
    assert "http" not in page


def test_the_contact_sheet_is_opened(
    searchable: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: (opened.append(address), False)[1])
    run("a red star", "-k", "3", "--open")
    sheet = searchable / "reports/search/contact_sheet.html"
    assert opened == [sheet.resolve().as_uri()]
    assert sheet.read_text(encoding="utf-8").count("<li>") == 3
    assert "contact sheet: reports/search/contact_sheet.html (no browser was found here)" in capsys.readouterr().err


def test_parts_keep_their_order_and_signs() -> None:
    import argparse

    from cbir.search.arguments import add_arguments, query_of

    parser = argparse.ArgumentParser()
    add_arguments(parser, Path("data"))
    asked = ["a star", "--not", "red", "--weight", "0.5", "--like", "i", "--weight", "2", "--weight", "-1"]
    options = parser.parse_args(asked)
    assert query_of(options) == (
        "clip",
        [Given("text", "a star", 1.0), Given("text", "red", -0.5), Given("like", "i", -2.0)],
    )


LIGHT = """
import sys
from cbir.cli.main import main
main(["search", "a red star", "-k", "1"])
print(sorted({"torch", "torchvision", "open_clip", "transformers", "scipy", "hydra", "dvc"} & set(sys.modules)))
"""


def test_a_search_imports_nothing_heavy(searchable: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", LIGHT], cwd=searchable, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


def test_the_package_offers_the_searcher_on_demand() -> None:
    loaded = "'cbir.search.searcher' in sys.modules"
    script = f"import sys, cbir; print({loaded}, cbir.Searcher.__name__, {loaded})"
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", "Searcher", "True"]
    import cbir

    with pytest.raises(AttributeError, match="has no attribute 'searcher'"):
        cbir.searcher  # noqa: B018


def test_many_threads_that_search_first_at_once_do_not_wait_for_each_other(searchable: Path) -> None:
    """OpenVINO's first inferences lock up the process when they meet; in a fresh one, with threads that change often."""
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
            timeout=60,
            check=True,
        )
