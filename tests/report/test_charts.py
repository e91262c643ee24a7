"""Charts: positions and colours of their marks; names from data are nothing but text."""

import hashlib
import itertools
import re
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from math import log10
from pathlib import Path
from textwrap import wrap
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbir.report import charts as module
from cbir.report.charts import PALETTE, Dot, Series, bar_chart, line_chart, scatter_chart
from tests.support.charts import BARS, CHANGES, DOTS, LINES, chart_of_each_kind
from tests.support.imports import ROOT

Element = ElementTree.Element
SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"


@pytest.fixture(scope="module")
def charts() -> dict[str, str]:
    return chart_of_each_kind()


def parsed(chart: str) -> Element:
    """The chart, after checking it: one well-formed element in which each reference has a target."""
    root = ElementTree.fromstring(chart)
    assert root.tag == f"{SVG}svg"
    ids = [element.get("id") for element in root.iter() if element.get("id") is not None]
    assert len(ids) == len(set(ids))
    targets = [str(element.get(HREF)).removeprefix("#") for element in root.iter(f"{SVG}use")]
    targets += [
        name for element in root.iter() for name in re.findall(r"url\(#([^)]*)\)", element.get("clip-path", ""))
    ]
    assert set(targets) == set(ids)
    return root


def texts(root: Element) -> list[str]:
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def style(element: Element) -> dict[str, str]:
    pairs = (rule.split(":", 1) for rule in element.get("style", "").split(";") if rule.strip())
    return {name.strip(): value.strip() for name, value in pairs}


def coordinates(path: str, x: float = 0, y: float = 0) -> list[tuple[float, float]]:
    found = re.findall(r"[ML] (\S+) (\S+)", path)
    return [(float(across) + x, float(down) + y) for across, down in found]


def ticks(root: Element, axis: str) -> list[tuple[float, float]]:
    """(value, pixel) of each tick that has a number."""
    found = []
    for group in root.iter(f"{SVG}g"):
        marks, labels = list(group.iter(f"{SVG}use")), list(group.iter(f"{SVG}text"))
        anchor = style(labels[0])["text-anchor"] if len(marks) == len(labels) == 1 else None
        if anchor == {"x": "middle", "y": "end"}[axis]:
            number = str(labels[0].text).replace("\N{MINUS SIGN}", "-")
            found.append((float(number), float(marks[0].get(axis, ""))))
    assert len(found) >= 2
    return found


def scale(root: Element, axis: str, by: Callable[[float], float] = float) -> Callable[[float], float]:
    """value -> its place in the drawing, computed from the tick labels of the axis."""
    (first, at_first), *_, (last, at_last) = sorted(ticks(root, axis))
    step = (at_last - at_first) / (by(last) - by(first))
    return lambda value: at_first + (by(value) - by(first)) * step


def drawn(root: Element, colour: str) -> list[Element]:
    """The marks of this colour inside the axes, without the legend."""
    clipped = [element for element in root.iter() if element.get("clip-path") is not None]
    inside = [each for element in clipped for each in element.iter() if each.tag in (f"{SVG}path", f"{SVG}use")]
    return [element for element in inside if f"var({colour})" in style(element).values()]


def marks(root: Element, colour: str) -> list[tuple[float, float]]:
    """The places of markers."""
    uses = [
        element
        for element in drawn(root, colour)
        if element.tag == f"{SVG}use" and "fill-opacity" not in style(element)
    ]
    return [(float(element.get("x", "")), float(element.get("y", ""))) for element in uses]


def strokes(root: Element, colour: str, dotted: bool = False) -> list[list[tuple[float, float]]]:
    found = [element for element in drawn(root, colour) if "stroke" in style(element) and element.tag == f"{SVG}path"]
    return [coordinates(element.get("d", "")) for element in found if ("stroke-dasharray" in style(element)) == dotted]


def bands(root: Element, colour: str) -> list[list[tuple[float, float]]]:
    paths = {f"#{element.get('id')}": element.get("d", "") for element in root.iter(f"{SVG}path")}
    return [
        coordinates(
            paths.get(element.get(HREF, ""), element.get("d", "")),
            float(element.get("x", 0)),
            float(element.get("y", 0)),
        )
        for element in drawn(root, colour)
        if "fill-opacity" in style(element)
    ]


def rectangles(root: Element, colour: str) -> list[tuple[float, float, float, float]]:
    """left, right, top, bottom."""
    found = []
    for element in drawn(root, colour):
        xs, ys = zip(*coordinates(element.get("d", "")), strict=True)
        found.append((min(xs), max(xs), min(ys), max(ys)))
    return found


def frame(root: Element) -> tuple[float, float, float, float]:
    (element,) = root.iter(f"{SVG}rect")
    left, top, width, height = (float(element.get(name, "")) for name in ("x", "y", "width", "height"))
    return left, left + width, top, top + height


def near(expected: Any) -> Any:
    return pytest.approx(expected, abs=0.01)


# ---- a chart as an element of a page


def test_each_chart_is_an_svg_element_with_an_accessible_title(charts: dict[str, str]) -> None:
    titles = [
        "precision@k by exact search", "recall@k by exact search", "what the index finds",
        "cbir clip: worst classes", "cbir clip: best classes", "cbir clip: classes that changed most",
    ]  # fmt: skip
    for chart, title in zip(charts.values(), titles, strict=True):
        root = parsed(chart)
        assert (root.get("role"), root.get("aria-label"), root.get("class")) == ("img", title, "chart")
        assert texts(root).count(title) == 1
        assert chart.startswith("<svg ")
        assert chart.strip().endswith("</svg>")
        assert chart.count("<svg") == chart.count("</svg>") == 1


@pytest.mark.parametrize("words", [5, 14, 30])
def test_a_title_of_any_length_is_inside_the_drawing(words: int) -> None:
    title = " ".join(["siglip"] * words)
    root = parsed(bar_chart([("a long name beside the bar", 0.5)], title, "precision"))
    width = float(root.attrib["viewBox"].split()[2])
    lines = [text for text in root.iter(f"{SVG}text") if "siglip" in "".join(text.itertext())]
    assert " ".join("".join(line.itertext()) for line in lines) == title
    for line in lines:  # one line is anchored at its middle, several at their left ends
        x = float(line.get("x") or re.findall(r"translate\(([-0-9.]+)", line.get("transform", ""))[0])
        length = 10 * 0.62 * len("".join(line.itertext()))  # at most, in DejaVu Sans
        if "text-anchor: middle" in line.get("style", ""):
            assert length / 2 <= x <= width - length / 2
        else:
            assert 0 <= x < width / 2


def test_ids_are_unique_in_a_page_with_all_charts(charts: dict[str, str]) -> None:
    page = ElementTree.fromstring(f"<body>{''.join(charts.values())}</body>")
    ids = Counter(element.get("id") for element in page.iter() if element.get("id") is not None)
    assert len(ids) > len(charts)
    assert set(ids.values()) == {1}


def test_a_chart_loads_nothing_and_runs_nothing(charts: dict[str, str]) -> None:
    expected = {"svg", "defs", "g", "path", "use", "text", "clipPath", "rect"}
    for chart in charts.values():
        assert {
            element.tag.removeprefix(SVG) for element in parsed(chart).iter()
        } == expected  # no <style>: it would apply to the whole page
        assert set(re.findall(r"https?://[^\"]*", chart)) == {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }
        assert not re.search(r"<[?!]|\son\w+=|@import|javascript:", chart)


def test_every_colour_is_one_of_the_pages(charts: dict[str, str]) -> None:
    known = {"--ink", "--faint", *(f"--c{number}" for number in range(PALETTE))}
    for chart in charts.values():
        assert not re.search(r"#[0-9a-fA-F]{3,8}(?![0-9a-fA-F])[;\"]", chart)
        assert set(re.findall(r"var\(([^)]*)\)", chart)) <= known
        for element in parsed(chart).iter():
            for name in {"fill", "stroke"} & style(element).keys():
                assert style(element)[name] == "none" or style(element)[name].startswith("var(--")


def test_nothing_is_black_for_lack_of_a_colour(charts: dict[str, str]) -> None:
    for chart in charts.values():
        for element in parsed(chart).iter():
            if element.tag in (f"{SVG}text", f"{SVG}use"):
                assert style(element)["fill"].startswith("var(--")
            if element.tag == f"{SVG}path" and element.get("id") is None:
                assert "fill" in style(element)


def test_the_background_is_that_of_the_page(charts: dict[str, str]) -> None:
    for chart in charts.values():
        first, second = list(parsed(chart).iter(f"{SVG}path"))[:2]
        assert style(first) == style(second) == {"fill": "none", "opacity": "0"}


@pytest.mark.parametrize("number", [0, PALETTE - 1, PALETTE, 2 * PALETTE - 1])
def test_series_have_the_pages_colours_in_turn(number: int) -> None:
    colour = f"--c{number % PALETTE}"
    lines = [Series(f"series {n}", [1, 2], [0.5, 0.6]) for n in range(number + 1)]
    # a legend below the axes is drawn after them, from lines of its own
    assert len(strokes(parsed(line_chart(lines, "title", "x", "y")), colour)) == number // PALETTE + 1
    dots = [Dot(f"series {n}", 1, 0.95, True, n) for n in range(number + 1)]
    assert len(marks(parsed(scatter_chart(dots, "title", "x", "y")), colour)) == number // PALETTE + 1
    assert len(rectangles(parsed(bar_chart(BARS, "title", "x", number)), colour)) == len(BARS)


def test_settings_of_matplotlib_are_left_as_they_were(charts: dict[str, str]) -> None:
    before = dict(mpl.rcParams)
    assert chart_of_each_kind() == charts
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("of_user", ["", "lines.linewidth: 5\naxes.facecolor: black\n"], ids=["plain", "matplotlibrc"])
def test_the_same_values_give_the_same_bytes_in_every_process(
    charts: dict[str, str], tmp_path: Path, of_user: str
) -> None:
    script = "import hashlib; from tests.support.charts import chart_of_each_kind; "
    script += "print(hashlib.sha256(''.join(chart_of_each_kind().values()).encode()).hexdigest())"
    expected = hashlib.sha256("".join(charts.values()).encode()).hexdigest()
    (tmp_path / "matplotlibrc").write_text(of_user)
    environment = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1", "MATPLOTLIBRC": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


# ---- the places of marks


def test_the_points_of_a_line_are_at_its_values() -> None:
    root = parsed(line_chart(LINES, "title", "k", "precision"))
    x, y = scale(root, "x"), scale(root, "y")
    for number, line in enumerate(LINES):
        expected = [near((x(across), y(up))) for across, up in zip(line.xs, line.ys, strict=True)]
        assert strokes(root, f"--c{number}") == [expected]
        assert marks(root, f"--c{number}") == expected
    assert y(1) < y(0)
    assert x(10) > x(1)


def test_a_band_lies_between_the_bounds_of_its_points() -> None:
    root = parsed(line_chart(LINES, "title", "k", "precision"))
    x, y = scale(root, "x"), scale(root, "y")
    ((*band,),) = bands(root, "--c0")
    expected = {(x(k), y(bound)) for k, pair in zip(LINES[0].xs, LINES[0].bounds, strict=True) for bound in pair or ()}
    assert {(round(across, 1), round(down, 1)) for across, down in band} == {
        (round(across, 1), round(down, 1)) for across, down in expected
    }
    ((*band,),) = bands(root, "--c1")
    assert {round(across, 1) for across, _ in band} == {round(x(5), 1)}
    assert bands(root, "--c2") == []


@pytest.mark.parametrize("value", [0.0, 0.02, 0.1, 0.45, 0.55, 1.0])
def test_a_band_is_whole_whatever_the_values(value: float) -> None:
    line = Series("a", [1, 5], [value, value / 2], [(0.0, min(1.0, value + 0.4)), (0.0, value)])
    root = parsed(line_chart([line], "title", "k", "precision"))
    _, _, top, bottom = frame(root)
    ((*band,),) = bands(root, "--c0")
    assert all(top - 0.01 <= down <= bottom + 0.01 for _, down in band)
    assert all(top - 0.01 <= down <= bottom + 0.01 for _, down in marks(root, "--c0"))


@pytest.mark.parametrize("bounds", [(), (None, None), [None] * 2])
def test_without_intervals_there_is_no_band(bounds: Sequence[None]) -> None:
    root = parsed(line_chart([Series("a", [1, 5], [0.5, 0.25], bounds)], "title", "k", "precision"))
    assert bands(root, "--c0") == []
    assert len(marks(root, "--c0")) == 2


def test_ceilings_are_dotted_at_their_values() -> None:
    root = parsed(line_chart(LINES[1:], "title", "k", "precision"))
    x, y = scale(root, "x"), scale(root, "y")
    (ceiling,) = strokes(root, "--ink", dotted=True)
    assert ceiling == [near((x(k), y(best))) for k, best in zip(LINES[1].xs, LINES[1].ceiling, strict=True)]
    assert strokes(parsed(line_chart(LINES[2:], "title", "k", "precision")), "--ink", dotted=True) == []


def test_a_single_point_is_shown() -> None:
    root = parsed(line_chart([Series("a", [5], [0.25], [(0.125, 0.5)], [1.0])], "title", "k", "precision"))
    left, right, top, bottom = frame(root)
    ((across, down),) = marks(root, "--c0")
    assert down == near(scale(root, "y")(0.25))
    assert left < across < right
    assert top < down < bottom


def test_the_quality_axis_has_room_for_each_possible_value() -> None:
    root = parsed(line_chart([Series("a", [1, 2], [0.0, 1.0])], "title", "k", "precision"))
    _, _, top, bottom = frame(root)
    y = scale(root, "y")
    assert y(0) == near(bottom)
    assert top < y(1) < top + 0.05 * (bottom - top)


def test_dots_are_at_their_values_on_a_logarithmic_axis() -> None:
    root = parsed(scatter_chart(DOTS, "title", "ms", "recall"))
    x, y = scale(root, "x", log10), scale(root, "y")
    assert marks(root, "--c0") == [near((x(0.5), y(0.97)))]
    assert marks(root, "--c1") == [near((x(40), y(0.94)))]
    ((hollow,),) = [[element] for element in drawn(root, "--c0") if element.tag == f"{SVG}path"]
    assert style(hollow)["fill"] == "none"
    outline = re.findall(r"(-?[\d.]+) (-?[\d.]+)", hollow.get("d", ""))
    xs, ys = (sorted(float(pair[place]) for pair in outline) for place in (0, 1))
    assert ((xs[0] + xs[-1]) / 2, (ys[0] + ys[-1]) / 2) == near((x(8), y(1.0)))


@settings(deadline=None, max_examples=10)
@given(ys=st.lists(st.floats(0, 1), min_size=1, max_size=4), first=st.floats(0.001, 50), ratio=st.floats(1, 100))
def test_no_dot_is_outside_the_axes(ys: list[float], first: float, ratio: float) -> None:
    dots = [Dot(f"series {number}", first * ratio**number, y, True, number) for number, y in enumerate(ys)]
    root = parsed(scatter_chart(dots, "title", "ms", "recall"))
    left, right, top, bottom = frame(root)
    for number in range(len(ys)):
        ((across, down),) = marks(root, f"--c{number}")
        assert left < across < right
        assert top < down < bottom


@pytest.mark.parametrize("span", [(1, 1), (1, 1.2), (0.3, 0.9), (0.08, 20), (0.05, 4), (0.9, 1.1), (0.001, 1000)])
def test_the_numbers_below_dots_do_not_overlap(span: tuple[float, float]) -> None:
    root = parsed(scatter_chart([Dot("a", ms, 0.95, True, 0) for ms in span], "title", "ms", "recall"))
    places = sorted((pixel, len(f"{value:g}")) for value, pixel in ticks(root, "x"))
    for (left, n_left), (right, n_right) in itertools.pairwise(places):
        assert right - left >= 5.5 * (n_left + n_right) / 2  # a digit is 6.4 wide


def test_bars_reach_from_0_to_their_values_in_order() -> None:
    root = parsed(bar_chart(BARS, "title", "precision", 3))
    x = scale(root, "x")
    found = rectangles(root, "--c3")
    assert [(left, right) for left, right, _, _ in found] == [near((x(0), x(value))) for _, value in BARS]
    middles = [(top + bottom) / 2 for _, _, top, bottom in found]
    assert middles == sorted(middles)
    names = {"".join(element.itertext()): float(element.get("y", "")) for element in root.iter(f"{SVG}text")}
    for (name, value), middle in zip(BARS, middles, strict=True):
        assert names[name] == pytest.approx(middle, abs=6)
        assert names[f"{value:.2f}"] == pytest.approx(middle, abs=6)
    left, right, _, _ = frame(root)
    assert left == near(x(0))
    assert x(1) < right


def test_changes_reach_to_both_sides_of_0_with_signs() -> None:
    root = parsed(bar_chart(CHANGES, "title", "change", is_change=True))
    x = scale(root, "x")
    expected = [near(tuple(sorted((x(0), x(value))))) for _, value in CHANGES]
    assert [(left, right) for left, right, _, _ in rectangles(root, "--c0")] == expected
    left, right, top, bottom = frame(root)
    assert (left + right) / 2 == near(x(0))
    assert [near((x(0), bottom)), near((x(0), top))] in strokes(root, "--faint")
    signs = {"-0.400": ("end", x(-0.4) - 3), "-0.050": ("end", x(-0.05) - 3), "+0.200": ("start", x(0.2) + 3)}
    for element in root.iter(f"{SVG}text"):
        if element.text in signs:
            anchor, place = signs.pop(element.text)
            assert (style(element)["text-anchor"], float(element.get("x", ""))) == (anchor, near(place))
    assert signs == {}


@pytest.mark.parametrize("values", [[0.25, 0.5], [0.0, 0.25], [-0.5], [1e-6, -1e-6], [1.0, -1.0]])
def test_changes_of_any_size_fill_the_axes_around_0(values: list[float]) -> None:
    root = parsed(bar_chart([(f"class {n}", value) for n, value in enumerate(values)], "t", "x", is_change=True))
    left, right, _, _ = frame(root)
    found = rectangles(root, "--c0")
    for low, high, _, _ in found:
        assert left <= low <= high <= right
        assert min(abs(low - (left + right) / 2), abs(high - (left + right) / 2)) < 0.01
    assert max(high - low for low, high, _, _ in found) > 0.25 * (right - left)


@pytest.mark.parametrize("is_change", [False, True])
@pytest.mark.parametrize("name", ["cat", "an ordinary name of a class, as long as"])
def test_the_values_of_bars_are_inside_the_drawing(name: str, is_change: bool) -> None:
    bars = [(name, 1.0), ("b", -1.0 if is_change else 0.0)]
    root = parsed(bar_chart(bars, "title", "x", is_change=is_change))
    for element in root.iter(f"{SVG}text"):
        rules, across = style(element), float(element.get("x", ""))
        width = 0.5 * float(rules["font-size"].removesuffix("px")) * len("".join(element.itertext()))
        left = across - width * {"start": 0, "middle": 0.5, "end": 1}[rules["text-anchor"]]
        assert 0 <= left <= left + width <= float(str(root.get("width")).removesuffix("pt"))


@pytest.mark.parametrize("draw", [line_chart, scatter_chart])
def test_a_legend_names_each_series_beside_its_colour(draw: Callable[..., str]) -> None:
    names = ["cbir mobilenet", "cbir clip", "tbir clip"]
    series: list[Any] = LINES if draw is line_chart else [Dot(name, 1, 0.95, n != 1, n) for n, name in enumerate(names)]
    root = parsed(draw(series, "title", "x", "y"))
    places = {"".join(element.itertext()): float(element.get("y", "")) for element in root.iter(f"{SVG}text")}
    for number, name in enumerate(names):
        clipped = {id(element) for element in drawn(root, f"--c{number}")}
        samples = [
            float(element.get("y", ""))
            for element in root.iter(f"{SVG}use")
            if id(element) not in clipped and f"var(--c{number})" in style(element).values()
        ]
        assert samples == [pytest.approx(places[name], abs=5)]


@pytest.mark.parametrize("n", [1, 2, 3, 8, 16])
def test_more_bars_make_a_higher_chart_with_equally_thick_bars(n: int) -> None:
    root = parsed(bar_chart([(f"class {number}", 0.5) for number in range(n)], "title", "x"))
    thick = [bottom - top for _, _, top, bottom in rectangles(root, "--c0")]
    assert len(thick) == n
    assert min(thick) > 7.5
    assert min(thick) == pytest.approx(max(thick), abs=0.1)


@pytest.mark.parametrize("draw", [line_chart, scatter_chart, bar_chart])
def test_a_chart_without_values_is_still_a_chart(draw: Callable[..., str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = parsed(draw([], "title", *(["x"] if draw is bar_chart else ["x", "y"])))
    assert root.get("aria-label") == "title"


# ---- a metric at every k


def test_a_line_over_k_is_in_order_of_k() -> None:
    values = {"precision@10": 0.5, "precision@2": 0.75, "r_precision": 0.1, "precision@1": None, "recall@2": 0.3}
    values |= {"ann_recall@7": 0.2}
    ceilings = {"precision@2": 1.0, "precision@10": 0.9, "precision@1": 1.0, "recall@2": 0.4}
    line = Series.over_k("name", "precision", values, {"precision@10": [0.25, 0.625]}, ceilings)
    assert (line.name, list(line.xs), list(line.ys)) == ("name", [2, 10], [0.75, 0.5])
    assert (list(line.bounds), list(line.ceiling)) == ([None, (0.25, 0.625)], [1.0, 0.9])
    assert Series.over_k("name", "ndcg", values, {}, ceilings) == Series("name", [], [], [], [])
    assert list(Series.over_k("name", "recall", values, {}, ceilings).ys) == [0.3]


@pytest.mark.parametrize("ceilings", [{}, {"recall@1": 0.5}, {"precision@1": 1.0, "precision@10": 0.9}])
def test_a_line_over_k_is_drawn_whatever_ceilings_are_known(ceilings: dict[str, float]) -> None:
    line = Series.over_k("name", "precision", {"precision@1": 0.5, "precision@10": 0.25}, {}, ceilings)
    root = parsed(line_chart([line], "title", "k", "precision"))
    assert len(strokes(root, "--ink", dotted=True)) == (len(ceilings) == 2)


# ---- names from data

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "end": "</text></svg><img src=x onerror=a()>",
    "quotes": "'single' \"double\" `back`",
    "entities": "&lt;b&gt; &amp; &#60;",
    "formula": "$x^2$ \\frac{1}{2} $\\alpha$",
    "half a formula": "5$ to \\$6",
    "arabic": "صورة قطة",
    "emoji": "\N{GRINNING FACE} \N{FLAG IN HOLE}",
    "chinese": "图像检索",
    "hidden": "_hidden",
    "no handle": "_nolegend_",
    "colour": "#010203",
    "other colour": "a #0a0b03 b",
    "group": '<g id="a">',
    "comment": "<!-- --> ]]> -->",
    "percent": "100 % {x:g} %s",
    "attribute": 'a style="fill: #010203" b',
    "address": "url(#a) var(--ink)",
}


KINDS = ("lines", "dots", "bars", "changes")


def drawn_with(kind: str, names: Sequence[str], title: str) -> str:
    """A chart with these names."""
    if kind == "lines":
        return line_chart([Series(name, [1, 2], [0.5, 0.25]) for name in names], title, f"x {title}", f"y {title}")
    if kind == "dots":
        return scatter_chart(
            [Dot(name, 1, 0.95, True, n) for n, name in enumerate(names)], title, f"x {title}", f"y {title}"
        )
    return bar_chart([(name, 0.5) for name in names], title, f"x {title}", is_change=kind == "changes")


def shape(root: Element) -> set[str]:
    """Which elements there are, and which attributes."""
    return {element.tag for element in root.iter()} | {name for element in root.iter() for name in element.attrib}


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_name_is_text_and_nothing_else(kind: str) -> None:
    root = parsed(drawn_with(kind, list(HOSTILE.values()), "title"))
    told = Counter(texts(root))
    assert {name: told[name] for name in HOSTILE.values()} == dict.fromkeys(HOSTILE.values(), 1)
    assert shape(root) == shape(parsed(drawn_with(kind, ["name"], "title")))


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_title_is_text_and_nothing_else(kind: str) -> None:
    title = " ".join(HOSTILE.values())
    root = parsed(drawn_with(kind, ["name"], title))
    assert root.get("aria-label") == title
    assert {*wrap(title, 60), f"x {title}"} <= set(texts(root))
    assert shape(root) == shape(parsed(drawn_with(kind, ["name"], "a title " * 20)))


LONG = {"empty": "", "space": " ", "long": "x" * 10_000, "wide": "W" * 300, "wider": "图" * 300}


@pytest.mark.parametrize("name", LONG.values(), ids=LONG)
def test_a_name_of_any_length_leaves_its_bar_room(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as where the layout has no room
        root = parsed(bar_chart([(name, 0.5), ("other", 1.0)], "title", "x"))
    left, right, _, _ = frame(root)
    assert right - left > 70
    assert len(rectangles(root, "--c0")) == 2
    shown = texts(root)
    assert name.strip() in ("", *shown) or any(text.endswith("…") and name.startswith(text[:-1]) for text in shown)


@pytest.mark.parametrize("name", ["cat", "x" * 40, "a name of some length that has forty let"])
def test_a_name_that_fits_is_not_cut(name: str) -> None:
    assert name in texts(parsed(bar_chart([(name, 0.5)], "title", "x")))


@pytest.mark.parametrize("name", ["نص", "\N{GRINNING FACE}", "图像"])
def test_a_script_missing_in_matplotlibs_font_causes_no_warning(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn_with("bars", [name], name)


def test_two_classes_of_one_name_have_a_bar_each() -> None:
    root = parsed(bar_chart([("cat", 0.25), ("cat", 0.75)], "title", "x"))
    assert len(rectangles(root, "--c0")) == 2
    assert texts(root).count("cat") == 2


def test_matplotlib_uses_none_of_the_placeholder_colours() -> None:
    placeholders = {module.INK, module.FAINT, *module.COLOURS}
    assert len(placeholders) == 2 + PALETTE
    assert placeholders.isdisjoint({str(value) for value in mpl.rcParamsDefault.values()})
