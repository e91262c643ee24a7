"""Results in notebooks, and copies of them."""

import pickle
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from cbir.core.errors import DataError
from cbir.search.results import MAX_THUMBNAILS, THUMBNAIL_PX, Category, Hit, Results
from tests.support.html import read

HOSTILE = "<script>alert(1)</script>\"' onerror=x \x1b[31m"


def image_file(width: int, height: int, kind: str = "PNG") -> bytes:
    file = BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


def results(count: int, data: bytes = b"", text: str = HOSTILE) -> Results:
    hits = tuple(Hit(rank, 1 / rank, text, text, f"{text}{rank}", text, None) for rank in range(1, count + 1))
    return Results("clip", "flat", hits, (Category(text, text, 0.5),), 1.0, 2.0, lambda _: data)


def test_a_notebook_shows_small_images_with_escaped_texts() -> None:
    html = results(2, image_file(900, 600))._repr_html_()
    assert "<script" not in html
    assert "\x1b" not in html
    images = [element for element in read(f"<main>{html}</main>").walk() if element.tag == "img"]
    assert len(images) == 2
    for image in images:
        assert image.attributes["src"].startswith("data:image/jpeg;base64,")
        assert image.attributes["width"] == str(THUMBNAIL_PX)
    assert "2 results by clip, flat" in html


def test_a_notebook_bounds_number_and_size_of_images() -> None:
    html = results(500, image_file(2000, 2000))._repr_html_()
    assert html.count("<img") == MAX_THUMBNAILS
    assert f"500 results by clip, flat; the first {MAX_THUMBNAILS}:" in html
    assert len(html) < 1_000_000


def test_a_notebook_shows_results_whose_images_are_gone() -> None:
    def gone(_: str) -> bytes:
        raise DataError("another gallery")

    html = Results("clip", "flat", results(1).hits, (), 1.0, 2.0, gone)._repr_html_()
    assert "<img" not in html
    assert "<b>1.000</b>" in html
    assert "0 results by clip, flat" in results(0)._repr_html_()


def test_copies_of_results_are_equal_and_plain() -> None:
    original = results(3)
    copy = pickle.loads(pickle.dumps(original))
    assert copy == original
    assert "<img" not in copy._repr_html_()
    assert original.to_json() == copy.to_json()
    assert [*original.to_json()] == ["encoder", "by", "hits", "categories", "encode_ms", "search_ms"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_small_images_are_embedded_as_they_are(kind: str) -> None:
    html = results(1, image_file(20, 10, kind))._repr_html_()
    assert f"data:image/{kind.lower()};base64," in html
    assert 'width="20"' in html
