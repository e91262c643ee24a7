"""Charts of quality against cost: the places of points and intervals, and names that do not cover each other."""

import re
from dataclasses import replace
from itertools import combinations
from math import log10
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser

from cbir.report.charts import PALETTE
from cbir.report.cost_chart import CostPoint, cost_chart, cost_charts
from tests.report.test_charts import HREF, SVG, drawn, frame, near, parsed, scale, strokes, style, texts
from tests.support.browser import browser, needs_chromium, open_page  # noqa: F401  (browser is a fixture)
from tests.support.compared import COST, metric_of
from tests.support.imports import ROOT

SIX = [
    CostPoint("clip_vit_b_32", 0, 41, 0.83, (0.80, 0.86), True),
    CostPoint("dinov2_vit_s14", 1, 28, 0.824, (0.795, 0.853), True),
    CostPoint("dinov2_vit_b14", 2, 9, 0.822, (0.79, 0.85), True),
    CostPoint("convnext_tiny", 3, 22, 0.78, (0.74, 0.81), False),
    CostPoint("resnet50", 4, 30, 0.74, (0.70, 0.77), False),
    CostPoint("mobilenet_v3_large", 5, 190, 0.71, (0.67, 0.75), False),
]
CLOSE = [CostPoint(f"encoder_name_{n}", n, 30 + n, 0.8 + n / 500, (0.77, 0.83), True) for n in range(6)]
EQUAL = [CostPoint(f"siglip2_{n}", n, 512, 0.8, (0.75, 0.85), n == 0) for n in range(6)]
CHARACTER = 0.62  # mean width of a letter of matplotlib's font, as a share of its size

Box = tuple[float, float, float, float]  # left, right, top, bottom


def chart(points: list[CostPoint]) -> ElementTree.Element:
    svg = cost_chart(points, "title", "images per second", "precision@10")
    root = parsed(svg)
    description = root.find(f"{SVG}desc")
    assert description is not None
    root.remove(description)
    return root


def centre_of(element: ElementTree.Element) -> tuple[float, float]:
    return float(element.get("x", "")), float(element.get("y", ""))


def mark_of(root: ElementTree.Element, number: int, point: CostPoint) -> ElementTree.Element:
    """The marker of a point."""
    x, y = scale(root, "x", log10), scale(root, "y")
    place = near((x(point.x), y(point.y)))
    (mark,) = [
        element for element in drawn(root, f"--c{number}") if element.tag == f"{SVG}use" and centre_of(element) == place
    ]
    return mark


def label_boxes(root: ElementTree.Element, names: list[str]) -> list[Box]:
    boxes = []
    for element in root.iter(f"{SVG}text"):
        text = "".join(element.itertext())
        if text in names:
            rules = style(element)
            size = float(rules["font-size"].removesuffix("px"))
            assert rules["text-anchor"] == "middle"
            x, y = centre_of(element)
            half = CHARACTER * size * len(text) / 2
            boxes.append((x - half, x + half, y - 0.75 * size, y + 0.2 * size))
    assert len(boxes) == len(names)
    return boxes


def overlaps(first: Box, second: Box) -> bool:
    return min(first[1], second[1]) > max(first[0], second[0]) and min(first[3], second[3]) > max(first[2], second[2])


def test_points_and_intervals_are_at_their_values() -> None:
    root = chart(SIX)
    x, y = scale(root, "x", log10), scale(root, "y")
    for number, point in enumerate(SIX):
        assert mark_of(root, number, point) is not None
        assert point.interval is not None
        ends = [(x(point.x), y(bound)) for bound in point.interval]
        assert [near(end) for end in ends] in strokes(root, f"--c{number}")


def test_the_best_are_filled_and_the_others_hollow() -> None:
    root = chart(SIX)
    for number, point in enumerate(SIX):
        rules = style(mark_of(root, number, point))
        assert (rules.get("fill"), rules.get("fill-opacity")) == (
            (f"var(--c{number})", None) if point.is_best else (None, "0")
        )


def test_each_encoder_has_a_marker_of_its_own() -> None:
    root = chart(SIX)
    outlines = {f"#{path.get('id')}": path.get("d") for path in root.iter(f"{SVG}path")}
    marks = [mark_of(root, number, point).get(HREF, "") for number, point in enumerate(SIX)]
    assert len({outlines[mark] for mark in marks}) == len(SIX)


def test_every_colour_is_one_of_the_pages() -> None:
    svg = cost_chart(CLOSE, "title", "x", "y")
    assert not re.search(r"#[0-9a-fA-F]{3,8}(?![0-9a-fA-F])[;\"]", svg)
    known = {"--ink", "--faint", *(f"--c{number}" for number in range(PALETTE))}
    assert set(re.findall(r"var\(([^)]*)\)", svg)) <= known
    for element in parsed(svg).iter():
        if element.tag in (f"{SVG}text", f"{SVG}use"):
            assert {"fill", "fill-opacity"} & style(element).keys()  # not black for lack of a colour


@pytest.mark.parametrize("points", [SIX, CLOSE, EQUAL, SIX[:1]], ids=["six", "close", "equal", "one"])
def test_names_cover_neither_each_other_nor_the_frame(points: list[CostPoint]) -> None:
    root = chart(points)
    boxes = label_boxes(root, [point.name for point in points])
    assert not [pair for pair in combinations(boxes, 2) if overlaps(*pair)]
    left, right, top, bottom = frame(root)
    for box in boxes:
        assert left - 2 <= box[0] <= box[1] <= right + 2
        assert top <= box[2] <= box[3] <= bottom


@given(
    places=st.lists(st.tuples(st.floats(0.5, 3000), st.floats(0.05, 0.95)), min_size=1, max_size=6),
    half=st.sampled_from([0.0, 0.01, 0.05]),
)
@settings(max_examples=12, deadline=None)
def test_names_of_any_six_encoders_do_not_overlap(places: list[tuple[float, float]], half: float) -> None:
    points = [
        CostPoint(f"encoder_name_{n}", n, x, y, (y - half, y + half) if half else None, n == 0)
        for n, (x, y) in enumerate(places)
    ]
    boxes = label_boxes(chart(points), [point.name for point in points])
    assert not [pair for pair in combinations(boxes, 2) if overlaps(*pair)]


def test_the_values_are_in_the_description() -> None:
    svg = cost_chart(SIX[:1] + SIX[-1:], "title & more", "images per second", "precision@10")
    description = ElementTree.fromstring(svg).findtext(f"{SVG}desc")
    assert description == (
        "precision@10 and images per second. clip_vit_b_32: 0.830 [0.800, 0.860], 41, among the best; "
        "mobilenet_v3_large: 0.710 [0.670, 0.750], 190."
    )


def test_a_name_is_text_whatever_it_holds() -> None:
    point = replace(SIX[0], name='<script>$x$ & "quoted"')
    svg = cost_chart([point, SIX[1]], "title", "x", "y")
    assert point.name in texts(parsed(svg))


def test_a_chart_of_quality_against_each_cost() -> None:
    comparison = metric_of({"a": 0.8, "b": 0.7, "c": 0.6}, {"a b": 0.3})
    costs = {"a": COST, "b": replace(COST, images_per_s=None, bytes_per_vector=512.0), "c": COST}
    speed, size = (ElementTree.fromstring(svg) for svg in cost_charts("cbir", comparison, costs))
    assert [root.get("aria-label") for root in (speed, size)] == [
        "cbir: precision@10 and speed of embedding",
        "cbir: precision@10 and size in the index",
    ]
    assert {"a", "c"} == {"a", "b", "c"} & set(texts(speed))
    assert {"a", "b", "c"} <= set(texts(size))
    assert "b: 0.700 [0.670, 0.730], 512, among the best" in str(size.findtext(f"{SVG}desc"))


def test_a_chart_has_at_least_two_encoders() -> None:
    comparison = metric_of({"a": 0.8, "b": 0.7})
    (only,) = cost_charts("tbir", comparison, {"a": replace(COST, images_per_s=None), "b": COST})
    assert "size in the index" in only
    assert cost_charts("tbir", comparison, {"a": COST}) == []
    assert cost_charts("tbir", metric_of({"a": 0.8}), {"a": COST}) == []


def test_the_same_values_give_the_same_bytes() -> None:
    assert cost_chart(SIX, "title", "x", "y") == cost_chart(SIX, "title", "x", "y")


@needs_chromium
@pytest.mark.parametrize("points", [SIX, CLOSE, EQUAL], ids=["six", "close", "equal"])
def test_a_browser_draws_names_that_do_not_overlap(
    points: list[CostPoint],
    browser: Browser,
    tmp_path: Path,
) -> None:
    css = (ROOT / "cbir/report/templates/page.css").read_text(encoding="utf-8")
    svg = cost_chart(points, "title", "images per second", "precision@10")
    (tmp_path / "chart.html").write_text(f"<meta charset=utf-8><style>{css}</style>{svg}", encoding="utf-8")
    with open_page(browser, 600) as page:
        page.goto((tmp_path / "chart.html").as_uri())
        found: list[Any] = page.evaluate(
            """names => [...document.querySelectorAll('svg text')].filter(text => names.includes(text.textContent))
                .map(text => text.getBoundingClientRect()).map(box => [box.left, box.right, box.top, box.bottom])""",
            [point.name for point in points],
        )
    boxes = [(left, right, top + 3, bottom - 3) for left, right, top, bottom in found]  # without the space of the font
    assert len(boxes) == len(points)
    assert not [pair for pair in combinations(boxes, 2) if overlaps(*pair)]
