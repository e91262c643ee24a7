"""The page Search: queries, controls, hostile class names, and links."""

from html import escape
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from cbir import Searcher
from cbir.app.address import MAX_TEXT_CHARACTERS
from cbir.app.cards import as_markdown
from cbir.search.query import QueryPart
from tests.support.page import (
    HOSTILE,
    address,
    at_address,
    example_buttons,
    goto,
    html,
    jpeg,
    page,  # noqa: F401  (a fixture)
    press,
    result_ids,
    root,  # noqa: F401  (a fixture)
    run,
    warnings,
)

# ---- queries


def test_the_empty_page_offers_examples(page: AppTest) -> None:
    run(page)
    assert [title.value for title in page.title] == ["Search"]
    assert [box.label for box in page.text_input] == ["Search by text"]
    assert "280 images" in page.markdown[0].value
    assert "8 classes" in page.markdown[0].value
    assert len(example_buttons(page)) == 6
    assert len([button for button in page.button if button.label == "More like this"]) == 6
    assert address(page) == {}


@pytest.mark.parametrize(
    ("reads_text", "embeds_images", "advice"),
    [
        (False, True, "Search by image, or start with an example:"),
        (False, False, "Start with an example:"),
    ],
)
def test_inputs_that_no_encoder_reads_are_absent(
    page: AppTest, monkeypatch: pytest.MonkeyPatch, reads_text: bool, embeds_images: bool, advice: str
) -> None:
    monkeypatch.setattr(Searcher, "reads_text", lambda *_: reads_text)
    monkeypatch.setattr(Searcher, "embeds_images", lambda *_: embeds_images)
    run(page)
    assert len(page.text_input) == reads_text
    assert len(page.get("file_uploader")) == embeds_images
    assert page.markdown[0].value.endswith(advice)
    assert example_buttons(page) == {}
    press(page, "More like this")
    assert len(result_ids(page)) == 20


def test_an_example_fills_text_box_and_address(page: AppTest) -> None:
    run(page)
    next(button for button in page.button if button.key == f"example {HOSTILE[2]}").click()
    run(page)
    assert page.text_input[0].value == HOSTILE[2]
    assert address(page) == {"q": [HOSTILE[2]]}
    assert len(result_ids(page)) == 20


@pytest.mark.parametrize("text", ["a red star", "\N{GRINNING FACE}" * 200, "<script>alert(1)</script>", "'; DROP"])
def test_a_text_has_the_results_of_the_searcher(page: AppTest, root: Path, text: str) -> None:
    run(page).text_input[0].set_value(text)
    press(page, "Search")
    assert result_ids(page) == [hit.image_id for hit in Searcher.open(root / "data").text(text, k=20)]
    assert address(page) == {"q": [text]}
    assert "<script" not in html(page)


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_text_shows_a_warning_once(page: AppTest, text: str) -> None:
    run(page).text_input[0].set_value(text)
    press(page, "Search")
    assert warnings(page) == ["Nothing to search for: enter a text or choose an image."]
    run(page)
    assert warnings(page) == []


def test_more_like_this_searches_for_the_clicked_image(page: AppTest, root: Path) -> None:
    at_address(page, q="words")
    third = result_ids(page)[2]
    next(button for button in page.button if str(button.key).endswith(third)).click()
    run(page)
    assert address(page) == {"like": [third]}
    assert page.text_input[0].value == ""
    assert result_ids(page) == [hit.image_id for hit in Searcher.open(root / "data").like(third, k=20)]


def test_an_upload_stays_the_query_while_the_uploader_empties(page: AppTest, root: Path) -> None:
    run(page).file_uploader[0].set_value(("my <b>cat</b>.jpg", jpeg(), "image/jpeg"))
    run(page)
    assert result_ids(page) == [hit.image_id for hit in Searcher.open(root / "data").image(jpeg(), k=20)]
    assert "Query: my &lt;b&gt;cat" in html(page)
    assert not page.file_uploader[0].value
    page.number_input[0].set_value(3)
    run(page)
    assert len(result_ids(page)) == 3
    assert address(page) == {"k": ["3"]}


@pytest.mark.parametrize("data", [b"", b"no image", jpeg()[:200]])
def test_a_broken_upload_shows_a_warning_and_keeps_results(page: AppTest, data: bytes) -> None:
    at_address(page, q="words")
    before = result_ids(page)
    page.file_uploader[0].set_value(("broken.jpg", data, "image/jpeg"))
    run(page)
    assert len(warnings(page)) == 1
    assert warnings(page)[0].startswith("'broken.jpg' cannot be decoded: ")
    assert result_ids(page) == before


def test_an_upload_of_too_many_pixels_shows_a_warning(page: AppTest) -> None:
    file = BytesIO()
    Image.new("1", (8000, 8000)).save(file, "PNG")
    run(page).file_uploader[0].set_value(("large.png", file.getvalue(), "image/png"))
    run(page)
    assert "too many pixels" in warnings(page)[0]


# ---- refinements


def refine(page: AppTest, add: str, without: str) -> None:
    page.text_input(key="add").set_value(add)
    page.text_input(key="without").set_value(without)
    press(page, "Apply")


def test_words_are_added_and_left_out(page: AppTest, root: Path) -> None:
    at_address(page, q="a star", k="5")
    refine(page, " at  night ", "people")
    parts = [QueryPart("a star"), QueryPart("at night"), QueryPart("people", weight=-1)]
    assert result_ids(page) == [hit.image_id for hit in Searcher.open(root / "data").search(parts, 5)]
    assert address(page) == {"q": ["a star"], "add": ["at night"], "not": ["people"], "k": ["5"]}
    assert "<li>a star</li><li>+ at night</li><li>\N{MINUS SIGN} people</li>" in html(page)
    refine(page, "", "")
    assert address(page) == {"q": ["a star"], "k": ["5"]}
    assert "<li>a star</li>" not in html(page)


def test_an_image_is_added_to_a_text(page: AppTest, root: Path) -> None:
    at_address(page, q="a star", k="5")
    page.file_uploader[1].set_value(("mine.jpg", jpeg(), "image/jpeg"))
    run(page)
    searcher = Searcher.open(root / "data")
    both = [hit.image_id for hit in searcher.search([QueryPart("a star"), QueryPart(image=jpeg())], 5)]
    assert result_ids(page) == both
    assert "<li>a star</li><li>+ mine.jpg</li>" in html(page)
    press(page, "Remove all refinements")
    assert result_ids(page) == [hit.image_id for hit in searcher.text("a star", 5)]


def test_words_refine_an_upload_and_a_gallery_image(page: AppTest, root: Path) -> None:
    run(page).file_uploader[0].set_value(("mine.jpg", jpeg(), "image/jpeg"))
    run(page)
    refine(page, "at night", "")
    searcher = Searcher.open(root / "data")
    upload = searcher.search([QueryPart(image=jpeg()), QueryPart("at night")], 20)
    assert result_ids(page) == [hit.image_id for hit in upload]
    assert address(page) == {}  # which cannot hold an uploaded image
    at_address(page, like="img003", add="at night", k="5")
    like = searcher.search([QueryPart(image_id="img003"), QueryPart("at night")], 5)
    assert result_ids(page) == [hit.image_id for hit in like]


def test_a_new_search_has_no_refinements(page: AppTest) -> None:
    at_address(page, q="a star", add="at night", **{"not": "people"})
    assert [box.value for box in page.text_input] == ["a star", "at night", "people"]
    page.text_input[0].set_value("a cross")
    press(page, "Search")
    assert address(page) == {"q": ["a cross"]}
    assert [box.value for box in page.text_input] == ["a cross", "", ""]


def test_parts_that_cancel_each_other_out_show_a_warning(page: AppTest) -> None:
    at_address(page, q="a star", **{"not": "a star"})
    assert warnings(page) == ["The parts of the query cancel each other out: change them or their weights."]


def test_refinements_of_nothing_are_ignored(page: AppTest) -> None:
    at_address(page, add="at night")
    assert warnings(page) == ["Page address, add: expected q or like beside it, found neither; ignoring it."]
    assert not result_ids(page)


# ---- controls


def test_encoders_side_by_side(page: AppTest, root: Path) -> None:
    at_address(page, like="img003", k="4", **{"with": "mobilenet"})
    searcher = Searcher.open(root / "data")
    assert [header.value for header in page.subheader] == ["clip", "mobilenet"]
    expected = [hit.image_id for name in ("clip", "mobilenet") for hit in searcher.like("img003", k=4, encoder=name)]
    assert result_ids(page) == expected


def test_side_by_side_says_which_encoder_reads_no_text(page: AppTest) -> None:
    at_address(page, q="words", k="4", **{"with": "mobilenet"})
    assert len(result_ids(page)) == 4
    assert warnings(page) == ["The encoder mobilenet reads no text: search for an image, or use the encoder clip."]


def test_controls_change_results_and_address(page: AppTest, root: Path) -> None:
    at_address(page, like="img003")
    page.number_input[0].set_value(7)
    page.toggle(key="exact").set_value(True)
    page.multiselect(key="labels").set_value(["c1", "c2"])
    run(page)
    results = Searcher.open(root / "data").like("img003", k=7, exact=True, labels=["c1", "c2"])
    assert result_ids(page) == [hit.image_id for hit in results]
    assert address(page) == {"like": ["img003"], "k": ["7"], "exact": ["1"], "label": ["c1", "c2"]}
    assert "exact search" in page.caption[0].value


def test_scores_and_categories_are_displayed(page: AppTest, root: Path) -> None:
    at_address(page, like="img003", k="2")
    results = Searcher.open(root / "data").like("img003", k=2)
    for hit in results:
        assert f"{hit.rank}. <b>{hit.score:.3f}</b>" in html(page)
    for category in results.categories:
        assert f"{category.distance:.3f}" in html(page)
    [explanation] = [expander for expander in page.expander if expander.label.startswith("What do score")]
    assert "cosine similarity" in explanation.markdown[0].value


# ---- hostile names


def test_class_names_are_displayed_as_text(page: AppTest) -> None:
    at_address(page, like="img003", k="100", label=["c0", "c1", "c6"])
    body = html(page)
    assert "<script" not in body
    assert "<img src=x" not in body
    assert escape(HOSTILE[0]) in body
    assert escape(HOSTILE[1]) in body
    assert "\x1b" not in body
    assert "\u202e" not in body


def test_class_names_on_buttons_are_escaped(page: AppTest) -> None:
    run(page)
    assert example_buttons(page) == {f"example {name}": as_markdown(name) for name in HOSTILE[:6]}
    assert ":smile:" not in as_markdown(HOSTILE[3])


# ---- links


def test_a_link_sets_query_and_controls(page: AppTest) -> None:
    at_address(page, q="a star", encoder="clip", k="5", exact="1", label=["c2"])
    assert page.text_input[0].value == "a star"
    assert page.number_input[0].value == 5
    assert page.toggle(key="exact").value
    assert page.multiselect(key="labels").value == ["c2"]
    assert page.multiselect(key="beside").value == []
    assert len(result_ids(page)) == 5
    assert not page.warning


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("k", "nine", "Page address, k: expected a number from 1 to 100, found 'nine'; using 20."),
        ("k", "0", "Page address, k: expected a number from 1 to 100, found '0'; using 20."),
        ("k", "-3", "Page address, k: expected a number from 1 to 100, found '-3'; using 20."),
        ("k", "9" * 5000, f"Page address, k: expected a number from 1 to 100, found '{'9' * 60}...'; using 20."),
        ("k", "٣", "Page address, k: expected a number from 1 to 100, found '٣'; using 20."),
        ("encoder", "<b>", "Page address, encoder: expected clip or mobilenet, found '<b>'; using clip."),
        ("label", "c99", "Page address, label: the gallery has no 'c99'; nearest: c7."),
        ("exact", "yes", "Page address, exact: expected 0 or 1, found 'yes'; using 0."),
        ("both", "1", "Page address: there is no parameter 'both'."),
        ("with", "<i>", "Page address, with: the run has no encoder '<i>'; expected one of clip, mobilenet."),
        ("colour", "red", "Page address: there is no parameter 'colour'."),
        (
            "q",
            "x" * (MAX_TEXT_CHARACTERS + 1),
            "Page address, q: expected at most 1,000 characters, found 1,001; ignoring it.",
        ),
        ("like", "img003", "Page address: expected q or like, found both; using q."),
    ],
)
def test_the_default_replaces_an_invalid_value(page: AppTest, name: str, value: str, message: str) -> None:
    at_address(page, **{"q": "words", name: value})
    [warning] = warnings(page)
    assert warning.startswith(message.partition("nearest")[0])
    assert len(result_ids(page)) == (0 if name == "q" else 20)
    assert address(page) == {"q": ["words"], name: [value]}  # Back would lead to it from another one
    page.number_input[0].set_value(3)
    run(page)
    assert address(page) == ({} if name == "q" else {"q": ["words"]}) | {"k": ["3"]}


def test_a_link_to_a_missing_image_shows_examples(page: AppTest) -> None:
    at_address(page, like="gone.jpg")
    assert "the gallery has no image 'gone.jpg'" in warnings(page)[0].lower()
    assert not result_ids(page)
    assert example_buttons(page)


def test_a_new_address_in_the_same_session_is_followed(page: AppTest) -> None:
    at_address(page, q="one")
    page.query_params.clear()
    at_address(page, like="img001", k="3")  # the browser's Back
    assert page.text_input[0].value == ""
    assert len(result_ids(page)) == 3


@pytest.mark.parametrize("by", ["menu", "back"])
def test_returning_from_another_page_restores_the_search(page: AppTest, by: str) -> None:
    at_address(page, q="words", add="at night", k="7", exact="1")
    page.file_uploader[1].set_value(("mine.jpg", jpeg(), "image/jpeg"))
    run(page)
    before, left = result_ids(page), address(page)
    page.query_params.clear()
    goto(page, "map")
    for name, value in left.items() if by == "back" else ():
        page.query_params[name] = value
    goto(page, "")
    assert result_ids(page) == before
    assert address(page) == {"q": ["words"], "add": ["at night"], "k": ["7"], "exact": ["1"]}
    assert [box.value for box in page.text_input] == ["words", "at night", ""]
