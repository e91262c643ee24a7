"""The page in headless Chromium: a real server over a small run of the real stages."""

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, WebSocketRoute, expect

from cbir import Searcher
from tests.support.browser import WINDOW_PX, browser, needs_chromium, open_page  # noqa: F401  (browser is a fixture)
from tests.support.searchable import run_stages
from tests.support.watched_app import serving, stored_bytes

HOSTILE = ("<img src=x onerror=alert(1)>", "**bold** :smile: $x^2$", ":red[x] -> www.example.com", "[a](http:b) `c`")
PLAIN = ("red", "green", "blue", "white")
TIED = 1e-6  # scores
# a script that is not the report's own, such as one that Streamlit adds to measure it, is an error in the console
REPORT = (
    "<!doctype html><meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    f"<h1>The figures</h1>{'<p>line</p>' * 100}"
)

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run over random pictures of eight classes; the names of four of them look like markup."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("page")
        photos = root / "photos"
        for number, name in enumerate((*PLAIN, *HOSTILE)):
            (photos / name).mkdir(parents=True)
            for image in range(8):
                (photos / name / f"{image}.png").write_bytes(picture(10 * number + image))
        patch.chdir(root)
        patch.setenv("CBIR_CACHE", str(root / "cache"))
        run_stages(root, "dataset=image_folder", f"dataset.url={photos}", "dataset.queries_per_class=1")
        yield root


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).resize((72, 72), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[str]:
    with serving(root) as address:
        yield address


@pytest.fixture(params=[1280, 400])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    with open_page(browser, request.param) as opened:
        yield opened


@pytest.fixture
def wide(browser: Browser) -> Iterator[Page]:
    with open_page(browser, 1280) as opened:
        yield opened


def cards(page: Page) -> list[str]:
    """The ids of the results."""
    return [text.strip() for text in page.locator(".cbir-card .id").all_inner_texts()]


def search_text(page: Page, text: str) -> None:
    box = page.get_by_label("Search by text")
    box.fill(text)
    box.press("Enter")


def upload(page: Page, label: str, name: str, data: bytes) -> None:
    box = page.get_by_test_id("stFileUploader").filter(has_text=label).locator("input[type=file]")
    box.set_input_files({"name": name, "mimeType": "image/png", "buffer": data})


def expect_cards(page: Page, ranking: list[set[str]]) -> None:
    """ranking : for each rank the ids of the images that may have it."""
    any_of = [re.compile(f"^({'|'.join(map(re.escape, sorted(allowed)))})$") for allowed in ranking]
    expect(page.locator(".cbir-card .id")).to_have_text(any_of)
    assert len(set(cards(page))) == len(ranking)


def expected_ranking(root: Path, **query: str) -> list[set[str]]:
    """The first 20 results, each with all images of nearly the same score: the random weights give many images one score,
    and the vectors of the server may differ from ours in their last bits."""
    searcher = Searcher.open(root / "data")
    search = searcher.text if "text" in query else searcher.like
    hits = list(search(next(iter(query.values())), k=searcher.size))
    return [{hit.image_id for hit in hits if abs(hit.score - ranked.score) <= TIED} for ranked in hits[:20]]


def test_text_then_click_then_back(page: Page, server: str, root: Path) -> None:
    page.goto(server)
    search_text(page, "something red")
    first = expected_ranking(root, text="something red")
    expect_cards(page, first)
    third = cards(page)[2]
    assert parse_qs(urlsplit(page.url).query) == {"q": ["something red"]}
    page.get_by_role("button", name="More like this").nth(2).click()
    expect_cards(page, expected_ranking(root, like=third))
    assert parse_qs(urlsplit(page.url).query) == {"like": [third]}
    page.go_back()
    expect_cards(page, first)
    expect(page.get_by_label("Search by text")).to_have_value("something red")


def test_upload_then_broken_upload(page: Page, server: str, root: Path) -> None:
    page.goto(server)
    upload(page, "Search by image", "mine.png", picture(1000))
    expect(page.get_by_text("Query: mine.png")).to_be_visible()
    expect(page.locator(".cbir-card .id")).to_have_count(20)
    upload(page, "Search by image", "broken.png", picture(1000)[:60])
    expect(page.get_by_role("alert")).to_contain_text("'broken.png' cannot be decoded")
    assert stored_bytes(root)[-4:] == [len(picture(1000)), 0, 60, 0]  # of the server's store of uploads


def test_refining_a_search_then_back(page: Page, server: str, root: Path) -> None:
    page.goto(f"{server}/?q=red&k=5")
    page.get_by_text("Refine").click()
    page.get_by_label("Add words").fill("at night")
    page.get_by_label("Leave out words").fill("blue")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("list", name="Query")).to_have_text("red+ at night\N{MINUS SIGN} blue")
    assert parse_qs(urlsplit(page.url).query) == {"q": ["red"], "k": ["5"], "add": ["at night"], "not": ["blue"]}
    upload(page, "Add an image", "mine.png", picture(1000))
    expect(page.get_by_text("Query: mine.png")).to_be_visible()
    assert stored_bytes(root)[-2:] == [len(picture(1000)), 0]
    page.go_back()
    expect(page.get_by_role("list", name="Query")).to_have_count(0)
    expect(page.get_by_label("Add words")).to_have_value("")


def test_an_empty_text_and_two_hundred_emoji(wide: Page, server: str, root: Path) -> None:
    wide.goto(server)
    search_text(wide, " ")
    expect(wide.get_by_role("alert")).to_contain_text("Nothing to search for")
    emoji = "\N{GRINNING FACE}" * 200
    search_text(wide, emoji)
    expect_cards(wide, expected_ranking(root, text=emoji))
    assert parse_qs(urlsplit(wide.url).query) == {"q": [emoji]}
    expect(wide.get_by_role("alert")).to_have_count(0)


def test_controls_keep_their_values_when_the_browser_lags(wide: Page, server: str) -> None:
    """The browser draws the first two runs at once: it gets the first controls together with those of the second run."""
    late: list[str | bytes] = []
    second_run = b"Nothing to search for"

    def delay(browser_side: WebSocketRoute) -> None:
        server_side = browser_side.connect_to_server()
        delivered = False

        def deliver(message: str | bytes) -> None:
            nonlocal delivered
            data = message if isinstance(message, bytes) else message.encode()
            if delivered or not (late or b"Results" in data):
                browser_side.send(message)
                return
            late.append(message)
            if second_run in data:
                delivered = True
                for each in late:
                    browser_side.send(each)

        server_side.on_message(deliver)

    wide.route_web_socket("**/_stcore/stream*", delay)
    wide.goto(f"{server}/?k=7&exact=1")
    search_text(wide, " ")
    expect(wide.get_by_role("alert")).to_contain_text(second_run.decode())
    assert late
    expect(wide.get_by_label("Results")).to_have_value("7")
    search_text(wide, "red")
    expect(wide.locator(".cbir-card .id")).to_have_count(7)
    assert parse_qs(urlsplit(wide.url).query) == {"q": ["red"], "k": ["7"], "exact": ["1"]}


def test_class_names_are_displayed_as_text(page: Page, server: str) -> None:
    page.goto(f"{server}/?q=x&k=48&exact=1")
    expect(page.locator(".cbir-card .id")).to_have_count(48)
    body = page.inner_text("body")
    for name in HOSTILE:
        assert name in body
    page.goto(server)
    for name in HOSTILE[:2]:  # as examples
        button = page.get_by_role("button").filter(has_text=name[:6]).first
        expect(button).to_be_visible()
        assert button.inner_text().replace("\u2060", "") == name
    assert page.locator("img[src=x]").count() == 0


def test_an_example_a_class_and_both_encoders(wide: Page, server: str) -> None:
    wide.goto(server)
    wide.get_by_role("button", name="More like this").first.click()
    expect(wide.locator(".cbir-card .id")).to_have_count(20)
    wide.get_by_label("Side by side with").click()
    wide.get_by_role("option").first.click()
    expect(wide.locator(".cbir-card .id")).to_have_count(40)
    wide.get_by_label("Only these classes").click()
    wide.get_by_role("option", name="green").click()
    expect(wide.locator(".cbir-card .id").first).to_contain_text("green/")
    assert parse_qs(urlsplit(wide.url).query)["label"] == ["green"]
    expect(wide.locator(".cbir-card .id").filter(has_not_text=re.compile("^green/"))).to_have_count(0)


def test_a_result_opens_large_and_names_its_file(wide: Page, server: str, root: Path) -> None:
    wide.goto(f"{server}/?q=red&k=2")
    first = wide.locator(".cbir-card .id").first.inner_text().strip()
    wide.get_by_role("button", name="Enlarge", exact=True).first.click()
    dialog = wide.get_by_role("dialog")
    expect(dialog.locator("img")).to_be_visible()
    expect(dialog).to_contain_text(str(root / "photos" / first))


def test_invalid_link(wide: Page, server: str) -> None:
    wide.goto(f"{server}/?q=red&k=many&encoder=<b>x</b>&colour=1")
    alert = wide.get_by_role("alert")
    expect(alert).to_contain_text("encoder: expected clip_demo or mobilenet_demo, found '<b>x</b>'; using clip_demo.")
    expect(wide.locator(".cbir-card .id")).to_have_count(20)
    wide.go_back()
    assert wide.url == "about:blank"  # the page has not added a step to the history


def test_the_other_pages(page: Page, server: str, root: Path) -> None:
    (root / "reports").mkdir(exist_ok=True)
    (root / "reports" / "report.html").write_text(REPORT, encoding="utf-8")
    page.goto(f"{server}/?q=red")
    expect(page.locator(".cbir-card .id")).to_have_count(20)
    page.get_by_role("link", name="Report").click()
    expect(page.frame_locator("iframe").get_by_role("heading", name="The figures")).to_be_visible()
    box = page.locator("iframe").bounding_box()
    assert box is not None
    assert box["height"] > 0.8 * WINDOW_PX
    assert box["y"] + box["height"] <= WINDOW_PX  # one scroll bar, the report's own
    page.get_by_role("link", name="Map").click()
    expect(page.get_by_role("heading", name="Map")).to_be_visible()
    page.get_by_role("link", name="Search").click()
    expect(page.locator(".cbir-card .id")).to_have_count(20)  # as it was left


def test_every_control_has_a_name(wide: Page, server: str) -> None:
    wide.goto(f"{server}/?q=red")
    expect(wide.locator(".cbir-card .id")).to_have_count(20)
    nameless = wide.evaluate(
        """() => [...document.querySelectorAll('main input, main button, main textarea, section.stMain input')]
            .filter(e => e.type !== 'file' && e.offsetParent && !e.getAttribute('aria-label') && !e.labels?.length
                && !e.textContent.trim() && !e.getAttribute('aria-labelledby') && !e.title)
            .map(e => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
    assert wide.locator(".cbir-card img:not([alt])").count() == 0


def test_before_the_first_run(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path) as address, open_page(browser, 400) as page:
        page.goto(address)
        expect(page.get_by_role("heading", name="Nothing to search yet")).to_be_visible()
        expect(page.get_by_text("make repro").first).to_be_visible()
