"""report.html in a real browser, headless Chromium without a network: of a small world, of hostile text, of the last run.

The console must stay empty, and nothing but the file itself may be asked for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from cbir.artifacts.maps import read_map
from cbir.report.examples import Example, Ranking
from cbir.report.facts import Facts
from tests.runs.test_comparison_page import names_of, worlds, written  # noqa: F401  (a fixture)
from tests.support.browser import PATIENCE_MS, browser, needs_chromium  # noqa: F401  (browser is a fixture)
from tests.support.html import displayed, read, structure
from tests.support.imports import ROOT
from tests.support.reported import (
    HARMLESS,
    MAP_SIDE,
    WORDS,
    Reported,
    class_on_map,
    colour_of,
    reported,
    worded,
)
from tests.support.world import World

LAST_RUN = ROOT / "reports" / "report.html"
WIDTHS, SCHEMES = (1000, 400), ("light", "dark")
PAPER = (718, 696)  # CSS pixels of A4 between the margins of Chromium, and of Firefox
MARGIN, SIDE = 20, 900  # of a map, in its own pixels
SELECTED = ("task", "encoder", "kind", "result")

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Reported, Path]]:
    """small, hostile or harmless -> that world and its page, written once."""
    worlds: dict[str, Callable[[Path], Reported]] = {
        "small": reported,
        "hostile": lambda root: worded(root, WORDS),
        "harmless": lambda root: worded(root, HARMLESS),
    }
    found: dict[str, tuple[Reported, Path]] = {}

    def made(name: str) -> tuple[Reported, Path]:
        if name not in found:
            root = tmp_path_factory.mktemp("browsed")
            one = worlds[name](root)
            one.write(root / "report.html")
            found[name] = one, root / "report.html"
        return found[name]

    return made


@pytest.fixture
def path(request: pytest.FixtureRequest, make: Callable[[str], tuple[Reported, Path]]) -> Path:
    """The page of the world, or of the last run in this repository."""
    if request.param != "last run":
        return make(request.param)[1]
    if not LAST_RUN.is_file():
        pytest.skip("no reports/report.html here: run `make repro`")
    return LAST_RUN


of_every_page = pytest.mark.parametrize("path", ["small", "hostile", "last run"], indirect=True)
of_both_worlds = pytest.mark.parametrize("path", ["small", "hostile"], indirect=True)
at_both_widths = pytest.mark.parametrize("width", WIDTHS)


@contextmanager
def opened(browser: Browser, path: Path, width: int = 1000, scheme: Any = "light", **options: Any) -> Iterator[Page]:
    """Open the page offline; at the end, check its messages and requests."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, accept_downloads=False, **options
    )
    said: list[str] = []
    asked: set[str] = set()
    try:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
        context.on("page", lambda other: said.append(f"a window: {other.url}") if other is not page else None)
        context.on("request", lambda request: asked.add(request.url[:200]))
        page.goto(path.as_uri())
        yield page
        there = urlsplit(page.url)._replace(fragment="").geturl()
    finally:
        context.close()
    assert said == []
    assert {urlsplit(url).scheme for url in asked} <= {"file", "data"}
    assert [url for url in asked if url.startswith("file:")] == [path.as_uri()] == [there]


def overflow(page: Page) -> list[str]:
    """What makes the page wider than its window."""
    found: list[str] = page.evaluate(
        """() => document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll('body *')]
            .filter(one => one.getBoundingClientRect().right > innerWidth + 1)
            .filter(one => !one.parentElement.closest('.wide, .example ol'))
            .map(one => `${one.localName}.${one.className} to ${one.getBoundingClientRect().right}`).slice(0, 5)"""
    )
    return found


# --- quiet, whole, and in its place -----------------------------------------------------------------------------------


@of_every_page
@at_both_widths
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page_opens_without_messages_requests_or_missing_pictures(
    browser: Browser, path: Path, width: int, scheme: str
) -> None:
    with opened(browser, path, width, scheme) as page:
        assert page.evaluate("[...document.images].filter(one => !(one.complete && one.naturalWidth > 0)).length") == 0
        assert page.evaluate("document.images.length") > 100
        assert page.evaluate("[...document.querySelectorAll('canvas')].every(one => one.clientWidth > 300)")
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
        assert overflow(page) == []


@of_both_worlds
def test_with_all_details_open_the_page_fits_a_telephone(browser: Browser, path: Path) -> None:
    with opened(browser, path, 400) as page:
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        assert overflow(page) == []


def test_hostile_text_gives_the_same_elements_in_a_browser(
    browser: Browser, make: Callable[[str], tuple[Reported, Path]]
) -> None:
    """And our strict reader of HTML sees what the browser sees."""
    found = []
    context = browser.new_context(offline=True)
    page = context.new_page()
    for name in ("hostile", "harmless"):
        text = make(name)[1].read_text(encoding="utf-8")
        seen = page.evaluate(
            """text => [...new DOMParser().parseFromString(text, 'text/html').querySelectorAll('*')]
                .filter(one => one.localName !== 'tbody' && (!one.closest('.chart') || one.matches('.chart')))
                .map(one => [one.localName, ...[...one.attributes].map(of => of.name.toLowerCase()).sort()])""",
            text,
        )
        assert [tuple(one) for one in seen] == structure(read(text))
        found.append(seen)
    context.close()
    assert found[0] == found[1]


def test_without_scripts_all_content_is_visible(browser: Browser, make: Callable[[str], tuple[Reported, Path]]) -> None:
    made, path = make("small")
    with opened(browser, path, java_script_enabled=False) as page:
        assert page.locator("article:visible").count() == len(made.examples)
        expect(page.locator("svg.chart").first).to_be_visible()


@at_both_widths
def test_a_link_to_a_section_shows_its_heading(
    browser: Browser, make: Callable[[str], tuple[Reported, Path]], width: int
) -> None:
    hidden = []
    with opened(browser, make("small")[1], width) as page:
        for link in page.locator("nav a").all():
            link.click()
            top, bottom, bar = page.evaluate(
                """() => { const aim = document.querySelector(':target'), box = (aim.querySelector('h2') ?? aim)
                    .getBoundingClientRect(), nav = document.querySelector('nav').getBoundingClientRect();
                    return [box.top, box.bottom, getComputedStyle(document.querySelector('nav')).position == 'sticky'
                        ? nav.bottom : 0]; }"""
            )
            if top < bar - 1 or bottom > 900:
                hidden.append(f"{link.inner_text()}: {top:.0f} to {bottom:.0f}, below a bar of {bar:.0f}")
    assert hidden == []


@at_both_widths
def test_a_metric_leads_to_its_definition(
    browser: Browser, make: Callable[[str], tuple[Reported, Path]], width: int
) -> None:
    wrong = []
    with opened(browser, make("small")[1], width) as page:
        page.evaluate("for (const one of document.querySelectorAll('details:not(#definitions > *)')) one.open = true")
        links = page.locator("table a:visible").all()
        names = dict.fromkeys((link.inner_text(), link.get_attribute("href")) for link in links)
        assert len(names) > 8
        for name, address in names:
            page.locator(f'table a[href="{address}"]:visible').first.click()
            tag, text, top, bar = page.evaluate(
                """() => { const aim = document.querySelector(':target');
                    const nav = document.querySelector('nav');
                    return [aim.localName, aim.innerText, aim.getBoundingClientRect().top,
                        getComputedStyle(nav).position == 'sticky' ? nav.getBoundingClientRect().bottom : 0]; }"""
            )
            if tag != "dt" or not text.startswith(name.partition("@")[0]) or top < bar - 1:
                wrong.append(f"{name}: <{tag}> {text[:20]!r} at {top:.0f}, below a bar of {bar:.0f}")
    assert wrong == []


def test_links_lead_to_sections_inside_a_frame_too(
    browser: Browser, make: Callable[[str], tuple[Reported, Path]], tmp_path: Path
) -> None:
    """`cbir app` shows the page in a frame with srcdoc, where a link to "#x" would load the app."""
    framing = tmp_path / "framing.html"
    text = escape(make("small")[1].read_text(encoding="utf-8"))
    framing.write_text(f'<iframe style="width: 900px; height: 700px" srcdoc="{text}"></iframe>', encoding="utf-8")
    with opened(browser, framing) as page:
        frame = page.frame_locator("iframe")
        for link, heading in (("Timings", "Timings"), ("Headline", "Headline metrics")):
            frame.get_by_role("link", name=link, exact=True).click()
            expect(frame.get_by_role("heading", name=heading, exact=True)).to_be_in_viewport()
        expect(frame.get_by_role("heading", name="Timings", exact=True)).not_to_be_in_viewport()


# --- filters ----------------------------------------------------------------------------------------------------------


def fits(example: Example, facts: Facts, task: str, encoder: str, kind: str, result: str, word: str) -> bool:
    """The definition of the filters."""

    def has_result(ranking: Ranking) -> bool:
        first = ranking.hits[0].is_relevant
        return {
            "": True,
            "relevant": first is True,
            "not-relevant": first is False,
            "miss": any(hit.is_relevant is False for hit in ranking.hits),
        }[result]

    return (
        task in ("", example.task)
        and kind in ("", example.kind)
        and any(encoder in ("", ranking.encoder) and has_result(ranking) for ranking in example.rankings)
        and word.lower() in displayed(facts.class_name(example.query.label)).lower()
    )


def control(page: Page, name: str) -> Locator:
    """The filter of this name."""
    return page.get_by_role("form", name="Filters").get_by_label(name)


def visible(page: Page) -> list[int]:
    """The places of the examples that are seen."""
    found: list[int] = page.evaluate(
        "[...document.querySelectorAll('article')].flatMap((one, n) => one.getClientRects().length ? [n] : [])"
    )
    return found


def test_each_combination_of_filters_shows_and_counts_its_matches(
    browser: Browser, make: Callable[[str], tuple[Reported, Path]]
) -> None:
    made, path = make("small")
    examples = made.examples
    with opened(browser, path) as page:
        options = [
            page.locator(f"select[name={name}] option").evaluate_all("all => all.map(one => one.value)")
            for name in SELECTED
        ]
        assert [found[0] for found in options] == [""] * 4
        assert [len(found) for found in options] == [3, 3, 6, 4]
        chosen = list(product(*options, ("", "c1", "C", "nothing")))
        seen = page.evaluate(
            """([names, chosen]) => { const form = document.forms[0], articles = [...document.querySelectorAll('article')];
                return chosen.map(values => {
                    names.forEach((name, place) => { form.elements[name].value = values[place]; });
                    form.elements[0].dispatchEvent(new Event('input', {bubbles: true}));
                    const encoders = [...document.querySelectorAll('.ranking')].filter(one => one.getClientRects().length)
                        .map(one => one.dataset.encoder);
                    return [articles.flatMap((one, n) => one.getClientRects().length ? [n] : []),
                        form.querySelector('output').textContent, [...new Set(encoders)]]; }); }""",
            [[*SELECTED, "label"], chosen],
        )
    sizes = set()
    for values, (shown, told, encoders) in zip(chosen, seen, strict=True):
        assert not values[1] or set(encoders) <= {values[1]}
        expected = [n for n, example in enumerate(examples) if fits(example, made.facts, *values)]
        assert shown == expected, values
        assert told == f"{len(expected)} of {len(examples)}" + ("" if expected else ": no match")
        sizes.add(len(expected))
    assert len(sizes) > 15  # the combinations differ


def test_filters_work_by_mouse_and_keyboard(browser: Browser, make: Callable[[str], tuple[Reported, Path]]) -> None:
    made, path = make("small")

    def expected(**chosen: str) -> list[int]:
        values = {"task": "", "encoder": "", "kind": "", "result": "", "word": ""} | chosen
        return [n for n, example in enumerate(made.examples) if fits(example, made.facts, **values)]

    with opened(browser, path) as page:
        assert visible(page) == expected()
        control(page, "task").select_option("tbir")
        assert visible(page) == expected(task="tbir") != []
        control(page, "task").press("Home")
        assert visible(page) == expected()
        control(page, "encoder").select_option("mobilenet")
        control(page, "chosen as").select_option("worst")
        assert visible(page) == expected(encoder="mobilenet", kind="worst") != []
        control(page, "result").select_option(label="first is not relevant")
        assert visible(page) == expected(encoder="mobilenet", kind="worst", result="not-relevant")
        page.reload()
        box = control(page, "class")
        box.press_sequentially("C3")
        box.press("Enter")  # sends nothing
        assert visible(page) == expected(word="C3") != []
        expect(page.locator("#filters output")).to_have_text(f"{len(visible(page))} of {len(made.examples)}")
        box.fill("")
        assert visible(page) == expected()


def test_a_hostile_class_is_found_by_its_displayed_name(
    browser: Browser, make: Callable[[str], tuple[Reported, Path]]
) -> None:
    made, path = make("hostile")
    names = {displayed(made.facts.class_name(example.query.label)) for example in made.examples}
    assert len(names) > 5
    with opened(browser, path) as page:
        for name in sorted(names):
            control(page, "class").fill(name)
            expected = [n for n, one in enumerate(made.examples) if fits(one, made.facts, "", "", "", "", name)]
            assert visible(page) == expected != []


# --- keyboard ---------------------------------------------------------------------------------------------------------


def test_tab_reaches_everything_in_order_and_shows_where_it_is(
    browser: Browser, make: Callable[[str], tuple[Reported, Path]]
) -> None:
    with opened(browser, make("small")[1]) as page:
        expected = page.evaluate(
            """() => [...document.querySelectorAll('a, summary, select, input, canvas, button, [tabindex="0"]')]
                .filter(one => one.checkVisibility()).map(one => [one.localName, one.name || one.href || ''])"""
        )
        reached, without_mark = [], []
        for _ in range(len(expected) + 5):
            page.keyboard.press("Tab")
            name, where, mark = page.evaluate(
                """() => { const one = document.activeElement, style = getComputedStyle(one);
                    const mark = style.outlineStyle != 'none' && parseFloat(style.outlineWidth);
                    return [one.localName, one.name || one.href || '', mark]; }"""
            )
            if name == "body":
                break
            reached.append([name, where])
            if not mark:
                without_mark.append(where or name)
    assert reached == expected
    assert without_mark == []
    assert [where for name, where in reached if name in ("select", "input")][:5] == [
        "task",
        "encoder",
        "kind",
        "label",
        "result",
    ]
    assert [name for name, _ in reached].count("canvas") == 1


def test_what_scrolls_sideways_can_be_scrolled_by_keyboard(
    browser: Browser, make: Callable[[str], tuple[Reported, Path]]
) -> None:
    with opened(browser, make("small")[1], 400) as page:
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        stuck = page.evaluate(
            """() => [...document.querySelectorAll('main *')].filter(one => one.scrollWidth > one.clientWidth + 1
                && ['auto', 'scroll'].includes(getComputedStyle(one).overflowX) && one.tabIndex < 0)
                .map(one => one.innerText.slice(0, 60))"""
        )
        first = page.locator(".wide[tabindex]").first
        first.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("one => one.scrollLeft > 0", arg=first.element_handle())
    assert stuck == []


# --- the map ----------------------------------------------------------------------------------------------------------


class Map:
    """The map of a page, of which `ids` are the images, row by row."""

    def __init__(self, page: Page, made: Reported) -> None:
        self.page, self.ids = page, list(made.world.gallery)[: MAP_SIDE**2]
        labels = read_map(made.world.data / "map" / "mobilenet.parquet")["label"].to_pylist()
        self.names = [displayed(class_on_map(label, made.facts)) for label in labels]
        self.captions = [f"{name}, {displayed(one)}" for name, one in zip(self.names, self.ids, strict=True)]
        self.caption = page.locator(".map output").first
        self.canvas, self.peek = page.locator("canvas").first, page.locator(".peek").first
        self.canvas.scroll_into_view_if_needed()

    def place(self, number: int) -> tuple[float, float]:
        """Where the image's point is drawn, in the map's own pixels."""
        row, column = divmod(number, MAP_SIDE)
        step = (SIDE - 2 * MARGIN) / (MAP_SIDE - 1)
        return MARGIN + column * step, MARGIN + row * step

    def on_screen(self, number: int) -> tuple[float, float]:
        box = self.canvas.bounding_box()
        assert box
        x, y = self.place(number)
        return box["x"] + x * box["width"] / SIDE, box["y"] + y * box["width"] / SIDE

    def drawn(self) -> list[tuple[int, ...]]:
        """The colour of each image's point: red, green, blue, opacity."""
        found = self.canvas.evaluate(
            """(one, places) => {
                const copy = new OffscreenCanvas(one.width, one.height).getContext('2d', {willReadFrequently: true});
                copy.drawImage(one, 0, 0);
                return places.map(([x, y]) => [...copy.getImageData(x, y, 1, 1).data]);
            }""",
            [list(self.place(number)) for number in range(len(self.ids))],
        )
        return [tuple(colour) for colour in found]

    def shown(self) -> int:
        """The number of the image that the tile shows, by its colour on the screen."""
        box = self.peek.locator("span").bounding_box()
        assert box
        clip = {"x": box["x"] + 4, "y": box["y"] + 4, "width": box["width"] - 8, "height": box["height"] - 8}
        seen = np.asarray(Image.open(BytesIO(self.page.screenshot(clip=clip))).convert("RGB")).astype(int)  # type: ignore[arg-type]
        assert np.ptp(seen.reshape(-1, 3), axis=0).max() <= 8  # one picture, not the edges of two
        distances = [np.abs(seen.mean((0, 1)) - colour_of(one)).max() for one in self.ids]
        assert min(distances) <= 6
        return int(np.argmin(distances))


@pytest.fixture
def window(browser: Browser, make: Callable[[str], tuple[Reported, Path]]) -> Iterator[Map]:
    made, path = make("small")
    with opened(browser, path) as page:
        page.set_viewport_size({"width": 1000, "height": 1200})
        yield Map(page, made)


def test_pointing_at_a_point_shows_the_image_and_its_class(window: Map) -> None:
    expect(window.peek).to_be_hidden()
    for number in (0, 1, 10, MAP_SIDE - 1, 24, MAP_SIDE**2 - MAP_SIDE, MAP_SIDE**2 - 1):
        x, y = window.on_screen(number)
        window.page.mouse.move(x + 2, y - 2)
        expect(window.peek).to_be_visible()
        assert window.shown() == number
        expect(window.caption).to_have_text(window.captions[number])
        box = window.peek.bounding_box()
        assert box
        assert 0 <= box["x"] <= box["x"] + box["width"] <= 1000
    step = window.on_screen(1)[0] - window.on_screen(0)[0]
    window.page.mouse.move(x - step / 2, y - step / 2)  # between the points
    expect(window.peek).to_be_hidden()
    window.page.mouse.move(x, y)
    expect(window.peek).to_be_visible()
    window.page.mouse.move(2, 2)
    expect(window.peek).to_be_hidden()


def test_arrow_keys_move_over_the_map(window: Map) -> None:
    window.canvas.focus()
    for key, number in (
        ("ArrowRight", 0),  # the first key shows the first image
        ("ArrowRight", 1),
        ("ArrowDown", 1 + MAP_SIDE),
        ("ArrowDown", 1 + 2 * MAP_SIDE),
        ("ArrowLeft", 2 * MAP_SIDE),
        ("ArrowLeft", 2 * MAP_SIDE),  # the edge
        ("ArrowUp", MAP_SIDE),
        ("ArrowUp", 0),
        ("ArrowUp", 0),
    ):
        window.page.keyboard.press(key)
        expect(window.peek).to_be_visible()
        assert window.shown() == number
        expect(window.caption).to_have_text(window.captions[number])
    before = window.page.evaluate("scrollY")
    window.page.keyboard.press("ArrowDown")
    assert window.page.evaluate("scrollY") == before  # the page stays where it is
    window.page.keyboard.press("Tab")
    assert window.page.evaluate("document.activeElement.localName") == "button"  # of the legend: no trap


def test_one_class_is_coloured_alone(window: Map) -> None:
    legend = window.page.locator(".legend button")
    assert legend.all_inner_texts() == sorted(set(window.names))
    everything = window.drawn()
    assert all(max(colour[:3]) - min(colour[:3]) > 60 and colour[3] == 255 for colour in everything)
    colours = dict(zip(window.names, everything, strict=True))
    assert len(set(everything)) == len(colours)  # a class, a colour
    assert [colours[name] for name in window.names] == everything
    in_legend = legend.locator("i").evaluate_all("all => all.map(one => getComputedStyle(one).backgroundColor)")
    assert len(set(in_legend)) == len(colours)
    legend.get_by_text("c3", exact=True).click()
    assert legend.evaluate_all("all => all.filter(one => one.ariaPressed == 'true').map(one => one.textContent)") == [
        "c3"
    ]
    for name, colour in zip(window.names, window.drawn(), strict=True):
        assert (colour == colours[name]) == (name == "c3")
        assert (max(colour[:3]) - min(colour[:3]) <= 2) == (name != "c3")  # grey
    legend.get_by_text("c3", exact=True).click()
    assert window.drawn() == everything


def test_the_switch_shows_the_map_of_another_encoder(window: Map, make: Callable[[str], tuple[Reported, Path]]) -> None:
    made, _ = make("small")
    window.page.locator(".legend button").get_by_text("c3", exact=True).click()
    before = window.drawn()
    window.page.locator(".map select").select_option(label="clip")
    rows = read_map(made.world.data / "map" / "clip.parquet").to_pylist()
    inside = SIDE - 2 * MARGIN
    for number in (0, 5, len(rows) - 1):
        x = MARGIN + (rows[number]["x"] + 1) / 2 * inside
        y = MARGIN + (1 - rows[number]["y"]) / 2 * inside
        box = window.canvas.bounding_box()
        assert box
        window.page.mouse.move(box["x"] + x * box["width"] / SIDE, box["y"] + y * box["width"] / SIDE)
        expect(window.caption).to_have_text(f"{window.names[number]}, {displayed(rows[number]['image_id'])}")
    pressed = window.page.locator(".legend button[aria-pressed=true]")
    expect(pressed).to_have_text("c3")  # the class that is seen alone stays
    window.page.locator(".map select").select_option(label="mobilenet")
    assert window.drawn() == before


@of_both_worlds
def test_at_most_three_screens_are_above_the_examples(browser: Browser, path: Path) -> None:
    with opened(browser, path, 1200) as page:
        assert page.evaluate("document.querySelector('#queries').getBoundingClientRect().top") <= 3 * 900
        folded = page.evaluate("[...document.querySelectorAll('.fold')].map(one => one.open)")
        assert folded == [False] * 9


def test_every_hostile_name_on_the_map_is_text(browser: Browser, make: Callable[[str], tuple[Reported, Path]]) -> None:
    made, path = make("hostile")
    with opened(browser, path) as page:
        page.set_viewport_size({"width": 1000, "height": 1200})
        shown = Map(page, made)
        for number, told in enumerate(shown.captions):
            page.mouse.move(*shown.on_screen(number))
            expect(shown.caption).to_have_text(told, use_inner_text=True)
            assert shown.caption.locator("*").count() == 0
        names = page.locator(".legend button").evaluate_all("all => all.map(one => one.textContent)")
        assert set(names) == set(shown.names)
        assert page.locator(".legend button > *:not(i)").count() == 0


@of_both_worlds
def test_the_names_of_the_map_fit_a_telephone(browser: Browser, path: Path) -> None:
    with opened(browser, path, 400) as page:
        canvas = page.locator("canvas").first
        canvas.focus()
        for key in ("ArrowRight", *["ArrowRight"] * (MAP_SIDE - 1), *["ArrowDown"] * (MAP_SIDE - 1)):
            page.keyboard.press(key)
            box = page.locator(".peek").first.bounding_box()
            assert box
            assert 0 <= box["x"] <= box["x"] + box["width"] <= 400
            assert overflow(page) == []


def test_a_finger_on_a_point_shows_the_image(browser: Browser, make: Callable[[str], tuple[Reported, Path]]) -> None:
    made, path = make("small")
    with opened(browser, path, 400, has_touch=True, is_mobile=True) as page:
        shown = Map(page, made)
        for number in (24, 30):
            page.touchscreen.tap(*shown.on_screen(number))
            expect(shown.peek).to_be_visible()
            expect(shown.caption).to_have_text(shown.captions[number])


# --- paper ------------------------------------------------------------------------------------------------------------


@contextmanager
def printed(browser: Browser, path: Path, width: int) -> Iterator[Page]:
    with opened(browser, path, width) as page:
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        yield page


@of_both_worlds
def test_on_paper_everything_but_controls_is_visible(browser: Browser, path: Path) -> None:
    with printed(browser, path, PAPER[0]) as page:
        expect(page.locator("nav")).to_be_hidden()
        expect(page.locator("form")).to_be_hidden()
        folded = page.evaluate("[...document.querySelectorAll('#metrics details')].map(one => !one.open)")
        assert folded == [False] * len(folded) != []  # parameters and the like may stay folded
        assert page.locator("article:visible").count() == page.locator("article").count()
        assert page.pdf(format="A4").startswith(b"%PDF-")


@of_both_worlds
@pytest.mark.parametrize("width", PAPER)
def test_on_paper_nothing_is_cut_off(browser: Browser, path: Path, width: int) -> None:
    """What scrolls on a screen is lost on paper."""
    with printed(browser, path, width) as page:
        lost = page.evaluate(
            """() => [...document.querySelectorAll('.wide, .example ol')]
                .filter(one => one.scrollWidth > one.clientWidth + 1)
                .map(one => `${one.innerText.slice(0, 40)}: ${one.scrollWidth} px in ${one.clientWidth}`)"""
        )
    assert lost == []


@of_both_worlds
def test_small_print_is_smaller_on_paper_too(browser: Browser, path: Path) -> None:
    with printed(browser, path, PAPER[0]) as page:
        larger = page.evaluate(
            """() => [...new Set([...document.querySelectorAll('small, .small, .id, li')].filter(one =>
                parseFloat(getComputedStyle(one).fontSize) > parseFloat(getComputedStyle(document.body).fontSize))
                .map(one => `${one.localName}.${one.className} ${getComputedStyle(one).fontSize}`))]"""
        )
    assert larger == []


# --- light and dark ---------------------------------------------------------------------------------------------------

# How many texts were looked at, and those that are too faint, with their contrast.
CONTRASTS = r"""() => {
    const parse = text => {
        const [red, green, blue, opacity] = text.match(/^rgba?\((.*)\)$/)[1].split(/[ ,/]+/).map(Number);
        return [red, green, blue, opacity ?? 1];
    };
    const over = (top, below) => [0, 1, 2].map(n => top[n] * top[3] + below[n] * (1 - top[3])).concat(1);
    const luminance = colour => {
        const linear = one => one <= .04045 ? one / 12.92 : ((one + .055) / 1.055) ** 2.4;
        const [red, green, blue] = colour.map(one => linear(one / 255));
        return .2126 * red + .7152 * green + .0722 * blue;
    };
    const ratio = (one, other) => {
        const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
        return (high + .05) / (low + .05);
    };
    const chain = one => one ? [...chain(one.parentElement), one] : [];
    const ground = one => chain(one).map(of => parse(getComputedStyle(of).backgroundColor))
        .reduce((below, top) => over(top, below), [255, 255, 255, 1]);
    const opacity = one => chain(one).reduce((product, of) => product * parseFloat(getComputedStyle(of).opacity), 1);
    const found = {};
    const look = (what, one, ink, share, least) => {
        const below = ground(one), value = ratio(over([ink[0], ink[1], ink[2], ink[3] * share], below), below);
        if (!(value >= least)) found[what] = Math.round(value * 100) / 100;
    };
    let counted = 0;
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const one = node.parentElement, range = document.createRange(), style = getComputedStyle(one);
        range.selectNodeContents(node);
        if (!node.data.trim() || one.closest('script, style, option, title') || !range.getClientRects().length) continue;
        const size = parseFloat(style.fontSize), isLarge = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
        const what = `${one.localName} ${one.getAttribute('class') ?? ''}: ${node.data.trim().slice(0, 30)}`;
        look(what, one, parse(one.closest('svg') ? style.fill : style.color), opacity(one), isLarge ? 3 : 4.5);
        counted++;
    }
    for (const one of document.querySelectorAll('select, input')) {
        look(`${one.localName} ${one.name}`, one, parse(getComputedStyle(one).color), opacity(one), 4.5);
        const hint = getComputedStyle(one, '::placeholder');
        if (one.placeholder) look(`hint in ${one.name}`, one, parse(hint.color), parseFloat(hint.opacity), 4.5);
    }
    return [counted, found];
}"""


@of_every_page
@pytest.mark.parametrize("scheme", SCHEMES)
def test_all_text_has_enough_contrast(browser: Browser, path: Path, scheme: str) -> None:
    """WCAG 2.1, 1.4.3: 4.5, or 3 for large text; words in charts and controls, too."""
    with opened(browser, path, 1000, scheme) as page:
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        counted, faint = page.evaluate(CONTRASTS)
    assert counted > 1000
    assert faint == {}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_lines_and_frames_have_enough_contrast(
    browser: Browser, make: Callable[[str], tuple[Reported, Path]], scheme: str
) -> None:
    """WCAG 2.1, 1.4.11: 3."""
    names = [*(f"--c{number}" for number in range(6)), "--relevant", "--not-relevant", "--link"]
    with opened(browser, make("small")[1], 1000, scheme) as page:
        colours = page.evaluate(
            """names => names.map(name => { document.body.style.outlineColor = `var(${name})`;
                return getComputedStyle(document.body).outlineColor.match(/[0-9]+/g).map(Number); })""",
            ["--paper", *names],
        )
        page.evaluate("document.body.removeAttribute('style')")
        filled = page.evaluate(
            """() => [...document.querySelectorAll('svg.chart [style*="--c"]')].map(one => getComputedStyle(one).stroke)"""
        )
    paper, *others = (luminance(colour) for colour in colours)
    ratios = {
        name: (max(one, paper) + 0.05) / (min(one, paper) + 0.05) for name, one in zip(names, others, strict=True)
    }
    assert {name: ratio for name, ratio in ratios.items() if ratio < 3} == {}
    assert {f"rgb({', '.join(map(str, colour))})" for colour in colours[1:3]} <= set(
        filled
    )  # the charts have those of both encoders


def luminance(colour: list[int]) -> float:
    """Of sRGB, 0 to 1."""
    shares = np.asarray(colour[:3]) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


# --- two runs ---------------------------------------------------------------------------------------------------------


@at_both_widths
def test_the_page_of_two_runs_is_quiet_fits_and_filters(
    browser: Browser,
    worlds: tuple[World, World],
    tmp_path: Path,
    width: int,
) -> None:
    written(tmp_path, names_of(worlds), worlds[0].root)
    with opened(browser, tmp_path / "page.html", width) as page:
        assert page.evaluate("[...document.images].filter(one => !(one.complete && one.naturalWidth > 0)).length") == 0
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        assert overflow(page) == []
        shown = page.locator("article:visible")
        everything = shown.count()
        assert everything > 10
        page.locator("#filters [name=kind]").select_option("won")
        won = shown.count()
        page.locator("#filters [name=kind]").select_option("lost")
        assert 0 < won < everything
        assert shown.count() == everything - won
        expect(page.locator("#filters output")).to_have_text(f"{everything - won} of {everything}")
