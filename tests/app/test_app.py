"""The page without a browser: what Streamlit is told to show, deep links, what is refused, and how the server is started."""

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from html import escape
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from cbir import Searcher
from cbir.app import serving
from cbir.app.address import MOST_CHARACTERS, Offer, SearchState, read_address, write_address
from cbir.app.cards import as_markdown
from cbir.app.state import CardImage, fingerprint, open_gallery
from cbir.artifacts.images import PackedImage
from cbir.artifacts.maps import MAP_SCHEMA, write_map
from cbir.cli import main as cli
from cbir.compose import composed
from cbir.core.errors import ConfigError
from cbir.search import searcher as search
from tests.support import world as worlds
from tests.support.imports import ROOT, imported_files
from tests.support.world import DIMS, make_world

MAIN = ROOT / "cbir" / "app" / "main.py"
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "**bold** _it_ `code`",
    ":smile: :red[x] :material/search:",
    "$x^2$ -> <- [a](http://a.b)",
    "www.example.com #1 | a~~b~~",
    "right\u202eleft\x1b[31m",
    "plain",
)


def _hostile(row: tuple[str, str | None]) -> PackedImage:
    packed = _packed(row)
    name = None if row[1] is None else HOSTILE[int(row[1][1:]) % len(HOSTILE)]
    return PackedImage(**{**packed.__dict__, "label_name": name})


_packed = worlds._packed


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pipeline's artifacts with known vectors and the worst names of classes; its encoders are stand-ins."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worlds, "_packed", _hostile)
        patch.setattr(search._Side, "_open_encoder", lambda side: StandIn(side.name))
        made = make_world(tmp_path_factory.mktemp("app")).write().root
        (made / "params.yaml").write_text(composed([], ROOT / "conf"), encoding="utf-8")
        yield made


class StandIn:
    """Embeds any text and any image as a vector of its own."""

    def __init__(self, name: str) -> None:
        self.reads_text = name == "clip"
        self.card = SimpleNamespace(preprocessing=SimpleNamespace(prepare_packed=lambda data: np.array([len(data)])))
        self._dim = DIMS[name]

    def open_tower(self, kind: str) -> None:
        pass

    def embed_texts(self, texts: list[str]) -> Any:
        return self._rows(len(texts[0]))

    def embed_images(self, images: Any) -> Any:
        return self._rows(int(images[0][0]))

    def _rows(self, seed: int) -> Any:
        row = np.random.default_rng(seed).normal(size=(1, self._dim))
        return (row / np.linalg.norm(row)).astype(np.float32)


@pytest.fixture
def page(root: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    return open_page(root, monkeypatch)


def open_page(root: Path, monkeypatch: pytest.MonkeyPatch, urls: bool = False) -> AppTest:
    monkeypatch.setenv(serving.DATA, str(root / "data"))
    monkeypatch.setenv(serving.URLS, str(int(urls)))
    return AppTest.from_file(str(MAIN), default_timeout=30)


def at_address(page: AppTest, **values: str | list[str]) -> AppTest:
    for name, value in values.items():
        page.query_params[name] = value
    return run(page)


def run(page: AppTest) -> AppTest:
    page.run()
    assert not page.exception
    return page


def goto(page: AppTest, name: str) -> AppTest:
    page._page_hash = calc_hash(name)  # AppTest.switch_page knows pages in files only
    return run(page)


def html(page: AppTest) -> str:
    return "".join(element.body for element in page.html)


def found_ids(page: AppTest) -> list[str]:
    """The ids of the results, in their order."""
    keys = [str(button.key) for button in page.button if str(button.key).startswith("like ")]
    return [key.split(" ", 2)[2] for key in keys if " example " not in key]


def warnings(page: AppTest) -> list[str]:
    return [warning.value.replace("\\", "").replace("\u2060", "") for warning in page.warning]


def address(page: AppTest) -> dict[str, list[str]]:
    return {name: [found] if isinstance(found, str) else found for name, found in page.query_params.items()}


def press(page: AppTest, label: str) -> AppTest:
    next(button for button in page.button if button.label == label).click()
    return run(page)


def jpeg(width: int = 40, height: int = 30) -> bytes:
    file = BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "JPEG")
    return file.getvalue()


# ---- searching


def test_the_empty_page_offers_examples(page: AppTest) -> None:
    run(page)
    assert [title.value for title in page.title] == ["Search"]
    assert "280 images" in page.markdown[0].value
    assert "8 classes" in page.markdown[0].value
    assert len([button for button in page.button if str(button.key).startswith("example ")]) == 6
    assert len([button for button in page.button if button.label == "More like this"]) == 6
    assert address(page) == {}


def test_an_example_is_searched_for_and_stands_in_text_box_and_address(page: AppTest) -> None:
    run(page)
    next(button for button in page.button if button.key == f"example {HOSTILE[2]}").click()
    run(page)
    assert page.text_input[0].value == HOSTILE[2]
    assert address(page) == {"q": [HOSTILE[2]]}
    assert len(found_ids(page)) == 20


@pytest.mark.parametrize("text", ["a red star", "\N{GRINNING FACE}" * 200, "<script>alert(1)</script>", "'; DROP"])
def test_a_text_finds_what_the_searcher_finds(page: AppTest, root: Path, text: str) -> None:
    run(page).text_input[0].set_value(text)
    press(page, "Search")
    assert found_ids(page) == [hit.image_id for hit in Searcher.open(root / "data").text(text, k=20)]
    assert address(page) == {"q": [text]}
    assert "<script" not in html(page)


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_text_gets_a_sentence(page: AppTest, text: str) -> None:
    run(page).text_input[0].set_value(text)
    press(page, "Search")
    assert warnings(page) == ["Nothing to search for: type a few words, or choose an image."]
    run(page)
    assert warnings(page) == []  # told once


def test_more_like_this_searches_by_the_image_that_was_clicked(page: AppTest, root: Path) -> None:
    at_address(page, q="words")
    third = found_ids(page)[2]
    next(button for button in page.button if str(button.key).endswith(third)).click()
    run(page)
    assert address(page) == {"like": [third]}
    assert page.text_input[0].value == ""
    assert found_ids(page) == [hit.image_id for hit in Searcher.open(root / "data").like(third, k=20)]


def test_an_upload_is_searched_for_and_the_uploader_lets_go_of_it(page: AppTest, root: Path) -> None:
    run(page).file_uploader[0].set_value(("my <b>cat</b>.jpg", jpeg(), "image/jpeg"))
    run(page)
    assert found_ids(page) == [hit.image_id for hit in Searcher.open(root / "data").image(jpeg(), k=20)]
    assert "Images like my &lt;b&gt;cat" in html(page)
    assert not page.file_uploader[0].value
    page.number_input[0].set_value(3)
    run(page)
    assert len(found_ids(page)) == 3  # the image is still what is asked
    assert address(page) == {"k": ["3"]}


@pytest.mark.parametrize("data", [b"", b"no image", jpeg()[:200]])
def test_a_broken_upload_gets_a_sentence_and_leaves_what_was_found(page: AppTest, data: bytes) -> None:
    at_address(page, q="words")
    before = found_ids(page)
    page.file_uploader[0].set_value(("broken.jpg", data, "image/jpeg"))
    run(page)
    assert len(warnings(page)) == 1
    assert warnings(page)[0].startswith("'broken.jpg': the image cannot be decoded: ")
    assert found_ids(page) == before


def test_an_upload_of_too_many_pixels_gets_a_sentence(page: AppTest) -> None:
    file = BytesIO()
    Image.new("1", (8000, 8000)).save(file, "PNG")
    run(page).file_uploader[0].set_value(("large.png", file.getvalue(), "image/png"))
    run(page)
    assert "too many pixels" in warnings(page)[0]


def test_encoders_side_by_side(page: AppTest, root: Path) -> None:
    at_address(page, like="img003", both="1", k="4")
    searcher = Searcher.open(root / "data")
    assert [header.value for header in page.subheader] == ["CLIP", "MobileNetV3"]
    expected = [hit.image_id for name in ("clip", "mobilenet") for hit in searcher.like("img003", k=4, encoder=name)]
    assert found_ids(page) == expected


def test_a_text_side_by_side_says_that_mobilenet_reads_none(page: AppTest) -> None:
    at_address(page, q="words", both="1", k="4")
    assert len(found_ids(page)) == 4
    assert warnings(page) == ["Mobilenet reads no text: search for an image, or use the encoder clip."]


def test_controls_change_results_and_address(page: AppTest, root: Path) -> None:
    at_address(page, like="img003")
    page.number_input[0].set_value(7)
    page.toggle(key="exact").set_value(True)
    page.multiselect[0].set_value(["c1", "c2"])
    run(page)
    found = Searcher.open(root / "data").like("img003", k=7, exact=True, labels=["c1", "c2"])
    assert found_ids(page) == [hit.image_id for hit in found]
    assert address(page) == {"like": ["img003"], "k": ["7"], "exact": ["1"], "label": ["c1", "c2"]}
    assert "exact search" in page.caption[0].value


def test_scores_and_categories_are_shown(page: AppTest, root: Path) -> None:
    at_address(page, like="img003", k="2")
    found = Searcher.open(root / "data").like("img003", k=2)
    for hit in found:
        assert f"{hit.rank}. <b>{hit.score:.3f}</b>" in html(page)
    for category in found.categories:
        assert f"{category.distance:.3f}" in html(page)
    assert "cosine similarity" in page.expander[0].markdown[0].value


# ---- hostile names


def test_names_of_classes_are_shown_as_text(page: AppTest) -> None:
    at_address(page, like="img003", k="100", label=["c0", "c1", "c6"])
    shown = html(page)
    assert "<script" not in shown
    assert "<img src=x" not in shown
    assert escape(HOSTILE[0]) in shown
    assert escape(HOSTILE[1]) in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_every_name_on_a_button_is_escaped(page: AppTest) -> None:
    run(page)
    labels = {str(button.key): button.label for button in page.button if str(button.key).startswith("example ")}
    assert labels == {f"example {name}": as_markdown(name) for name in HOSTILE[:6]}
    assert ":smile:" not in as_markdown(HOSTILE[3])


@given(st.text(st.characters(max_codepoint=126, min_codepoint=33), max_size=30))
def test_every_mark_is_escaped_in_markdown(text: str) -> None:
    written = as_markdown(text)
    assert written.replace("\u2060", "").replace("\\\\", "\0").replace("\\", "").replace("\0", "\\") == text
    for place, character in enumerate(written):
        if not character.isalnum() and character not in "\\\u2060":
            assert written[place - 1] == "\\"


# ---- deep links


def test_a_deep_link_sets_everything(page: AppTest) -> None:
    at_address(page, q="a star", encoder="clip", k="5", exact="1", label=["c2"], both="0")
    assert page.text_input[0].value == "a star"
    assert page.number_input[0].value == 5
    assert page.toggle(key="exact").value
    assert page.multiselect[0].value == ["c2"]
    assert len(found_ids(page)) == 5
    assert not page.warning


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("k", "nine", "The address's k: expected a number from 1 to 100, found 'nine'; 20 is used."),
        ("k", "0", "The address's k: expected a number from 1 to 100, found '0'; 20 is used."),
        ("k", "-3", "The address's k: expected a number from 1 to 100, found '-3'; 20 is used."),
        ("k", "9" * 5000, f"The address's k: expected a number from 1 to 100, found '{'9' * 60}...'; 20 is used."),
        ("k", "٣", "The address's k: expected a number from 1 to 100, found '٣'; 20 is used."),
        ("encoder", "<b>", "The address's encoder: expected clip or mobilenet, found '<b>'; clip is used."),
        ("label", "c99", "The address's label: the gallery has no 'c99'; nearest: c7."),
        ("exact", "yes", "The address's exact: expected 0 or 1, found 'yes'; 0 is used."),
        ("both", "", "The address's both: expected 0 or 1, found ''; 0 is used."),
        ("colour", "red", "The address has an unknown 'colour'."),
        ("q", "x" * (MOST_CHARACTERS + 1), "The address's q: expected at most 1,000 characters, found 1,001."),
        ("like", "img003", "The address has both q and like: q is searched for."),
    ],
)
def test_a_wrong_value_gets_a_sentence_and_the_default(page: AppTest, name: str, value: str, told: str) -> None:
    at_address(page, **{"q": "words", name: value})
    [warning] = warnings(page)
    assert warning.startswith(told.partition("nearest")[0])
    assert len(found_ids(page)) == (0 if name == "q" else 20)
    assert address(page) == ({} if name == "q" else {"q": ["words"]})


def test_a_link_to_an_image_that_is_gone_gets_a_sentence_and_examples(page: AppTest) -> None:
    at_address(page, like="gone.jpg")
    assert "the gallery has no image 'gone.jpg'" in warnings(page)[0].lower()
    assert not found_ids(page)
    assert [button for button in page.button if str(button.key).startswith("example ")]


def test_a_new_address_in_the_same_session_is_followed(page: AppTest) -> None:
    at_address(page, q="one")
    page.query_params.clear()
    at_address(page, like="img001", k="3")  # the browser's Back
    assert page.text_input[0].value == ""
    assert len(found_ids(page)) == 3


OFFER = Offer.of(["mobilenet", "clip"], {"a": "A", "b&c=1": "B", "ü": "Ü"}, 500)


@given(
    st.builds(
        SearchState,
        st.sampled_from(["clip", "mobilenet"]),
        st.integers(1, 100),
        st.one_of(st.none(), st.text(min_size=1, max_size=50).map(str.strip).filter(bool)),
        st.none(),
        st.booleans(),
        st.lists(st.sampled_from(list(OFFER.labels)), unique=True).map(tuple),
        st.booleans(),
    )
)
def test_an_address_is_read_as_it_was_written(asked: SearchState) -> None:
    written = {k: [v] if isinstance(v, str) else v for k, v in write_address(asked, OFFER).items()}
    assert read_address(written, OFFER) == (asked, [])


@given(st.dictionaries(st.sampled_from(["q", "like", "encoder", "k", "exact", "label", "both"]), st.lists(st.text())))
def test_no_address_is_too_wrong(values: dict[str, list[str]]) -> None:
    asked, _ = read_address(values, OFFER)
    assert asked.encoder in OFFER.encoders
    assert 1 <= asked.k <= OFFER.most_k


# ---- the other pages, and no pipeline


def test_no_pipeline_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = run(open_page(tmp_path, monkeypatch))
    assert [title.value for title in page.title] == ["Nothing to search yet"]
    assert page.code[0].value == "make repro"
    assert [title.value for title in goto(page, "map").title] == ["Nothing to search yet"]
    assert [title.value for title in goto(page, "report").title] == ["No report yet"]


def test_a_pipeline_without_params_is_told_in_one_sentence(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(root / "data", tmp_path / "data")
    page = run(open_page(tmp_path, monkeypatch))
    assert len(page.error) == 1
    assert "params" in page.error[0].value


def test_the_gallery_is_opened_once_and_anew_when_the_pipeline_has_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = root / "data"
    first = open_gallery(data, fingerprint(data))
    assert open_gallery(data, fingerprint(data)) is first
    passport = data / "index" / "clip" / "passport.json"
    os.utime(passport, ns=(1, 1))
    assert open_gallery(data, fingerprint(data)) is not first


def test_no_map_yet(page: AppTest) -> None:
    run(page)
    goto(page, "map")
    assert page.info[0].value == "There is no map of this gallery yet: `dvc repro` makes it."


@pytest.mark.parametrize("classes", [3, 40])
def test_the_map_is_drawn(page: AppTest, root: Path, classes: int) -> None:
    folder = root / "data" / "map"
    folder.mkdir(exist_ok=True)
    rows = [
        {"image_id": f"img{n:03d}", "label": f"c{n % classes}", "label_name": None, "x": n * 0.1, "y": 1.0}
        for n in range(80)
    ]
    for encoder in ("clip", "mobilenet"):
        write_map(folder / f"{encoder}.parquet", pa.Table.from_pylist(rows, MAP_SCHEMA))
    try:
        run(page)
        goto(page, "map")
        assert "80 images" in page.caption[0].value
        assert [box.label for box in page.multiselect] == (["Colour these classes"] if classes > 20 else [])
        assert len(page.get("arrow_vega_lite_chart") or page.get("vega_lite_chart")) == 1
    finally:
        for path in folder.iterdir():
            path.unlink()


def test_back_from_another_page_all_is_as_it_was(page: AppTest) -> None:
    at_address(page, q="words", k="7", exact="1")
    before = found_ids(page)
    page.query_params.clear()
    goto(page, "map")
    goto(page, "")
    assert found_ids(page) == before
    assert address(page) == {"q": ["words"], "k": ["7"], "exact": ["1"]}


def test_the_report_is_shown_and_its_html_is_text(page: AppTest, root: Path) -> None:
    (root / "reports").mkdir(exist_ok=True)
    (root / "reports" / "report.md").write_text("# Retrieval\n\n<script>alert(1)</script>", encoding="utf-8")
    run(page)
    goto(page, "report")
    assert page.markdown[0].value.startswith("# Retrieval")
    assert not page.markdown[0].allow_html
    (root / "reports" / "report.html").write_text("<h1>Retrieval</h1>", encoding="utf-8")
    goto(page, "report")
    assert not page.markdown
    (root / "reports" / "report.html").unlink()


# ---- pictures


def test_a_large_image_is_sent_small() -> None:
    large = CardImage.of(jpeg(512, 256))
    assert (large.kind, large.width) == ("jpeg", 320)
    assert CardImage.of(jpeg(64, 64)) == CardImage(jpeg(64, 64), "jpeg", 64)


def test_a_comment_that_no_jpeg_can_hold_is_left_out_of_the_small_image() -> None:
    said, packed = PngInfo(), BytesIO()
    said.add_text("comment", "x" * 70_000)
    Image.new("RGB", (512, 256)).save(packed, "PNG", pnginfo=said)
    assert len(CardImage.of(packed.getvalue()).data) < 10_000


# ---- the server


def test_only_with_allow_urls_there_is_a_box_for_an_address(
    page: AppTest, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [box.label for box in run(page).text_input] == ["Search by text"]
    page = run(open_page(root, monkeypatch, urls=True))
    assert [box.label for box in page.text_input] == ["Search by text", "Search by an image's address"]
    page.text_input[1].set_value("http://127.0.0.1:1/a.jpg")
    press(page, "Fetch")
    assert warnings(page) == ["127.0.0.1 is not on the public internet: upload the image instead."]


def test_the_server_is_closed_to_others_and_bounded() -> None:
    options = serving.options(8501, "127.0.0.1", browser=False)
    for expected in (
        "--server.address=127.0.0.1",
        "--server.maxUploadSize=20",
        "--server.enableXsrfProtection=true",
        "--browser.gatherUsageStats=false",
        "--server.fileWatcherType=none",
        "--server.headless=true",
        "--server.allowedHosts=localhost",
    ):
        assert expected in options
    assert "--server.allowedHosts=localhost" not in serving.options(8501, "0.0.0.0", browser=True)


def test_a_port_that_is_taken_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(SystemExit) as ended:
        cli.main(["app", "--no-browser", "--port", str(other.getsockname()[1])])
    assert "is taken: give another" in str(ended.value)


@pytest.mark.parametrize(("port", "address"), [(0, "127.0.0.1"), (70_000, "127.0.0.1"), (8501, "no.such.invalid")])
def test_a_place_where_nothing_can_listen_is_told(port: int, address: str) -> None:
    with pytest.raises(ConfigError, match=r"--port|--address"):
        serving.run(Path("data"), port, address, allow_urls=False, browser=False)


def test_without_streamlit_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "streamlit.web.cli", None)
    with pytest.raises(SystemExit, match=r"error: the page needs Streamlit: pip install \.\[app\]"):
        cli.main(["app"])


def test_no_stage_imports_the_page() -> None:
    for stage in (ROOT / "stages").glob("*.py"):
        assert not [file for file in imported_files(f"stages.{stage.stem}") if file.startswith("cbir/app/")]
