"""Queries and artifacts that the Searcher refuses."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cbir import Searcher
from cbir.artifacts.images import IMAGE_SCHEMA, read_columns
from cbir.artifacts.tables import write_table
from cbir.core.errors import CbirError, ConfigError, DataError, PassportError
from cbir.core.files import read_json, write_json
from cbir.search.query import QueryPart
from tests.support.searchable import (
    copy_run,
    finished_run,  # noqa: F401  (a fixture)
    photo,  # noqa: F401  (a fixture)
    searchable,  # noqa: F401  (a fixture)
    searcher,  # noqa: F401  (a fixture)
)


@pytest.mark.parametrize(
    ("search", "error", "message"),
    [
        (
            lambda s: s.text("x", encoder="mobilenet_demo"),
            ConfigError,
            "^the encoder mobilenet_demo reads no text: search for an image, or use the encoder clip_demo$",
        ),
        (
            lambda s: s.text("x", encoder="vit"),
            ConfigError,
            "^encoder: expected one of clip_demo, mobilenet_demo, found 'vit'",
        ),
        (lambda s: s.text("x", k=0), ConfigError, "^k: expected a whole number, 1 or more, found 0"),
        (lambda s: s.text("x", k=2.5), ConfigError, r"^k: expected a whole number, 1 or more, found 2\.5"),
        (lambda s: s.text(5), ConfigError, "^text: expected str, found int$"),
        (lambda s: s.like(5), ConfigError, "^image_id: expected str, found int$"),
        (
            lambda s: s.image(5),
            ConfigError,
            "^the image: expected a path, the bytes of a file, .*, found int$",
        ),
        (
            lambda s: s.image(np.zeros((4, 4, 2), np.uint8)),
            ConfigError,
            r"^the image: expected pixels of uint8 and shape .*, found uint8 of shape \(4, 4, 2\)$",
        ),
        (
            lambda s: s.image(np.zeros((4, 4))),
            ConfigError,
            r"^the image: expected pixels of uint8 .*, found float64 of",
        ),
        (lambda s: s.embed_texts("a star"), ConfigError, "^texts: expected a list of them, found one str$"),
        (lambda s: s.embed_images("a.jpg"), ConfigError, "^images: expected a list of them, found one str$"),
        (lambda s: s.texts("a star"), ConfigError, "^texts: expected a list of them, found one str$"),
        (lambda s: s.texts(5), ConfigError, "^texts: expected a list of them, found one int$"),
        (lambda s: s.texts(["a star", 5]), ConfigError, "^text: expected str, found int$"),
        (lambda s: s.text(["a star"]), ConfigError, "^text: expected str, found list$"),
        (lambda s: s.images(Path("a.jpg")), ConfigError, "^images: expected a list of them, found one PosixPath$"),
        (lambda s: s.images(Image.new("L", (9, 9))), ConfigError, "^images: expected a list of them, found one Image$"),
        (
            lambda s: s.images(np.zeros((9, 9, 3), np.uint8)),
            ConfigError,
            "^images: expected a list of them, found one ndarray$",
        ),
        (
            lambda s: s.images([b"", 5]),
            ConfigError,
            r"^images\[1\]: expected a path, the bytes of a file, .*, found int$",
        ),
        (lambda s: s.images([b"no image"]), DataError, r"^images\[0\] cannot be decoded: "),
        (lambda s: s.search(QueryPart("x")), ConfigError, "^a query: expected a list of QueryPart, found QueryPart$"),
        (lambda s: s.search(["x"]), ConfigError, "^a query: expected a list of QueryPart, found str in it$"),
        (lambda s: s.batch([QueryPart("x")]), ConfigError, "^a query: expected a list of QueryPart, found QueryPart$"),
        (
            lambda s: s.batch([[QueryPart("x")], []]),
            ConfigError,
            "^expected a text, an image or the id of a gallery image",
        ),
        (lambda s: QueryPart("x", weight="1"), ConfigError, "^weight: expected a number, found str$"),
        (
            lambda s: s.text("x", encoder=["clip_demo"]),
            ConfigError,
            "^encoder: expected one of clip_demo, mobilenet_demo, f",
        ),
        (lambda s: s.text("x", labels=5), ConfigError, "^labels: expected a list of classes, found 5$"),
        (lambda s: s.text("x", labels=[5]), ConfigError, "^class: the gallery has no 5; nearest: "),
        (
            lambda s: s.text("x", categories=None),
            ConfigError,
            "^categories: expected a whole number, 0 or more, found None$",
        ),
        (lambda s: s.text("x", k=True), ConfigError, "^k: expected a whole number, 1 or more, found True$"),
        (lambda s: s.image_bytes(5), ConfigError, "^the gallery has no image 5; "),
        (lambda s: s.label_name(None), ConfigError, "^the gallery has no image None; "),
        (lambda s: s.sample(-1), ConfigError, "^count: expected a whole number, 0 or more, found -1$"),
        (lambda s: Searcher.open(5), ConfigError, "^data: expected the path of a folder, found int$"),
        (
            lambda s: s.text("x", k=-1, labels=["red star"]),
            ConfigError,
            "^k: expected a whole number, 1 or more, found -1",
        ),
        (
            lambda s: s.text("x", labels="red star"),
            ConfigError,
            "^labels: expected a list of classes, found 'red star'",
        ),
        (lambda s: s.text(" "), ConfigError, "^expected words to search for, found an empty text"),
        (
            lambda s: s.search([QueryPart("x", weight=0.0)]),
            ConfigError,
            "^weights: expected finite numbers, at least one",
        ),
        (
            lambda s: QueryPart("x", image_id="y"),
            ConfigError,
            "^a part of a query: expected one of a text, an image and",
        ),
        (lambda s: QueryPart(), ConfigError, "^a part of a query: expected one of"),
        (
            lambda s: s.text("x", labels=["red strar"]),
            ConfigError,
            "^class: the gallery has no 'red strar'; nearest: red",
        ),
        (lambda s: s.like("nowhere.jpg"), ConfigError, "^the gallery has no image 'nowhere.jpg'"),
        (lambda s: s.search([]), ConfigError, "^expected a text, an image or the id"),
        (
            lambda s: s.search([QueryPart("x"), QueryPart("x", weight=-1)]),
            ConfigError,
            "^the parts of the query cancel each other",
        ),
        (lambda s: s.search([QueryPart("x", weight=float("nan"))]), ConfigError, "^weights: expected finite numbers"),
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
def test_invalid_queries_are_refused(
    searcher: Searcher, search: Callable[[Searcher], Any], error: type[CbirError], message: str
) -> None:
    with pytest.raises(error, match=message):
        search(searcher)


def test_too_many_pixels_are_refused_before_decoding(searchable: Path, photo: bytes) -> None:
    strict = Searcher.open(searchable / "data")
    limits = {**strict._gallery.limits, "max_pixels": 59_999}
    object.__setattr__(strict._gallery, "limits", limits)
    with pytest.raises(DataError, match=r"too many pixels: 300 x 200 is more than dataset\.max_pixels = 59999"):
        strict.image(photo)


def change(path: Path, **values: Any) -> None:
    write_json(path, {**read_json(path), **values})


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            lambda data: change(data / "weights/clip_demo/encoder.json", weights_sha256="0"),
            PassportError,
            "'weights_sha256'",
        ),
        (
            lambda data: change(data / "embeddings/clip_demo/gallery/passport.json", encoder="other"),
            PassportError,
            "'encoder': expected 'clip_demo', found 'other'",
        ),
        (
            lambda data: change(data / "embeddings/clip_demo/gallery/passport.json", versions={"torch": "0"}),
            PassportError,
            "passport field 'torch': expected '0'",
        ),
        (
            lambda data: (data / "index/clip_demo/index.faiss").write_bytes(b"x"),
            PassportError,
            "index.faiss: expected sha",
        ),
        (lambda data: (data / "embeddings/clip_demo/gallery/passport.json").unlink(), DataError, "run `dvc repro`"),
        (lambda data: shutil.rmtree(data / "index"), DataError, "index holds no index: run `dvc repro`"),
        (
            lambda data: shutil.rmtree(data / "images"),
            DataError,
            "expected the artifacts of a pipeline that has run, found none: go to the root",
        ),
        (lambda data: (data.parent / "params.yaml").unlink(), ConfigError, "params.yaml is not here"),
    ],
    ids=["weights", "encoder", "versions", "index", "no passport", "no index", "no images", "no params"],
)
def test_artifacts_that_do_not_match_are_refused(
    searchable: Path, tmp_path: Path, spoil: Callable[[Path], Any], error: type[CbirError], message: str
) -> None:
    data = copy_run(searchable, tmp_path)
    spoil(data)
    with pytest.raises(error, match=message):
        Searcher.open(data).text("a red star")


def test_other_images_under_the_same_ids_are_refused(searchable: Path, tmp_path: Path) -> None:
    """As after images were replaced, preprocess ran and embed was interrupted."""
    data = copy_run(searchable, tmp_path)
    (path,) = (data / "images/gallery").glob("*.parquet")
    table = pq.read_table(path)
    rolled = table.take(pa.array(np.roll(np.arange(table.num_rows), 1)))
    for name in ("image", "sha256", "label", "label_name"):
        table = table.set_column(table.column_names.index(name), name, rolled[name])
    write_table(path, table, IMAGE_SCHEMA)
    with pytest.raises(PassportError, match=r"rows: passport field 'content_sha256'"):
        Searcher.open(data).text("a red star")


def test_vectors_of_another_gallery_are_refused(searchable: Path, tmp_path: Path) -> None:
    data = copy_run(searchable, tmp_path)
    table = read_columns(data / "images/gallery", None)  # type: ignore[arg-type]
    for path in (data / "images/gallery").glob("*.parquet"):
        path.unlink()
    write_table(data / "images/gallery/part-00000.parquet", table.slice(1), IMAGE_SCHEMA)
    with pytest.raises(PassportError, match=r"clip_demo beside .*: rows: passport field 'count'"):
        Searcher.open(data).text("a red star")
