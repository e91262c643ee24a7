"""report.html, read by a strict reader of HTML and compared with report.md and the artifacts."""

import itertools
import json
import re
import warnings
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from markdown_it.token import Token
from PIL import Image

from cbir.artifacts.evaluations import read_definitions
from cbir.artifacts.images import Quarantined
from cbir.artifacts.names import TASKS
from cbir.evaluation.definitions import FAMILIES
from cbir.index.params import SearchParams
from cbir.report.charts import bar_chart
from cbir.report.figures import figure, flatten
from cbir.report.notes import notes
from cbir.report.provenance import Provenance
from cbir.report.verdict import verdict
from tests.support.evaluated import rows_of_all
from tests.support.finished import HOSTILE, finish, markdown_of, search_times
from tests.support.html import Element, displayed, read, structure
from tests.support.markdown import parsed, tables
from tests.support.reported import (
    COPIED,
    COPY,
    HARMLESS,
    MAP_SIDE,
    PICTURE_PX,
    WORDS,
    Reported,
    class_on_map,
    colour_of,
    reported,
    worded,
    write_maps,
)
from tests.support.world import World, make_world

Table = list[list[str]]
METRIC = re.compile(r"[a-z_]+(@\d+)?")


class Pages(NamedTuple):
    """A world with facts, and its report as HTML, as a tree, and as Markdown."""

    reported: Reported
    page: str
    tree: Element
    markdown: str


def without_queries(world: World) -> None:
    world.queries = []
    for found in world.vectors.values():
        found["queries"] = {}
    world.vectors["clip"]["texts"] = {}


def without_texts(world: World) -> None:
    world.queries = world.queries_of("cbir")
    del world.vectors["clip"]["texts"]


def without_images(world: World) -> None:
    """Leave only text queries."""
    world.queries = world.queries_of("tbir")
    for found in world.vectors.values():
        found["queries"] = {}


def without_labels(world: World) -> None:
    world.gallery = dict.fromkeys(world.gallery)


def without_map(root: Path) -> Reported:
    small = reported(root)
    write_maps(small.world, side=0)
    return small


WORLDS: dict[str, Callable[[Path], Reported]] = {
    "small": reported,
    "graded": lambda root: reported(root, graded=True),
    "hostile": lambda root: worded(root, WORDS),
    "harmless": lambda root: worded(root, HARMLESS),
    "no queries": lambda root: reported(root, without_queries),
    "no texts": lambda root: reported(root, without_texts),
    "no images": lambda root: reported(root, without_images),
    "no labels": lambda root: reported(root, without_labels),
    "no map": without_map,
}
FULL = ("small", "graded", "hostile", "no map")


@pytest.fixture(scope="module")
def pages_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pages]:
    """Name of a world -> its pages, written once."""

    @cache
    def pages(name: str) -> Pages:
        root = tmp_path_factory.mktemp("html")
        world = WORLDS[name](root)
        page = world.write(root / "report.html")
        return Pages(world, page, read(page), markdown_of(world.facts, root))

    return pages


@pytest.fixture(params=[name for name in WORLDS if name != "harmless"])
def every(request: pytest.FixtureRequest, pages_of: Callable[[str], Pages]) -> Pages:
    return pages_of(request.param)


@pytest.fixture(params=FULL)
def full(request: pytest.FixtureRequest, pages_of: Callable[[str], Pages]) -> Pages:
    return pages_of(request.param)


@pytest.fixture
def small(pages_of: Callable[[str], Pages]) -> Pages:
    return pages_of("small")


@pytest.fixture
def hostile(pages_of: Callable[[str], Pages]) -> Pages:
    return pages_of("hostile")


def rows_of(table: Element) -> list[Element]:
    return table.all("tr")


def cells_of(row: Element) -> list[Element]:
    return row.all("th", "td")


def table_of(table: Element) -> Table:
    """The text of its cells, without the ceilings of the headline, which report.md shows elsewhere."""
    rows = [
        [cell.text or "-" if "ceiling" in row.classes else cell.text for cell in cells_of(row)]
        for row in rows_of(table)
    ]
    return [row for row in rows if rows[0][0] != "task" or row[1] != "ceiling"]


def tables_of(tree: Element) -> list[Table]:
    return [table_of(table) for table in tree.all("table")]


def table_below(tree: Element, *header: str) -> Table:
    """The rows of the only table whose header begins like this."""
    (table,) = [table for table in tables_of(tree) if tuple(table[0][: len(header)]) == header]
    return table[1:]


def by_id(tree: Element, name: str) -> Element:
    (match,) = [element for element in tree.walk() if element.attributes.get("id") == name]
    return match


def section_of(tree: Element, heading: str) -> Element:
    """The section with this heading."""
    (match,) = [section for section in tree.all("section") if heading in [head.text for head in section.all("h2")]]
    return match


def pixels(address: str) -> Image.Image:
    kind, data = address.split(",", 1)
    assert kind == "data:image/jpeg;base64"
    return Image.open(BytesIO(b64decode(data, validate=True)), formats=("JPEG",))


def is_coloured(image: Image.Image, image_id: str) -> bool:
    """Whether the picture has the one colour of that image, within the error of JPEG."""
    seen = np.asarray(image.convert("RGB")).astype(int)
    return bool((np.abs(seen - colour_of(image_id)) <= 6).all())


# --- one valid, self-contained file -----------------------------------------------------------------------------------


def test_the_page_loads_nothing_from_outside(every: Pages) -> None:
    for element in every.tree.walk():
        for name, value in element.attributes.items():
            if name in ("src", "srcset", "action", "poster", "data", "background", "ping", "cite", "formaction"):
                assert value.startswith("data:image/"), (element.tag, name, value[:80])
            if name in ("href", "xlink:href"):
                assert value.startswith("#"), (element.tag, name, value[:80])
            if name == "style":
                assert all(found.startswith("#") for found in re.findall(r"url\(\s*['\"]?([^)]{0,40})", value)), value[
                    :80
                ]
        assert element.tag not in ("link", "base", "iframe", "object", "embed", "image", "foreignobject", "animate"), (
            element.tag
        )
    for style in every.tree.all("style"):
        assert "@import" not in style.raw
        for address in re.findall(r"url\(\s*['\"]?([^)]{0,40})", style.raw):
            assert address.startswith("data:image/"), address
    assert not [
        element for element in every.tree.all("meta") if "refresh" in element.attributes.get("http-equiv", "").lower()
    ]


def test_the_page_says_what_it_is_and_forbids_the_rest(every: Pages) -> None:
    assert every.page.startswith("<!doctype html>\n")
    assert every.tree.attributes["lang"] == "en"
    (policy,) = [
        element.attributes["content"]
        for element in every.tree.all("meta")
        if element.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";") if rule.strip()}
    assert rules["default-src"] == ["'none'"]
    assert rules["img-src"] == ["data:"]
    allowed = {source for sources in rules.values() for source in sources}
    assert not [
        source
        for source in allowed
        if source not in ("'none'", "'unsafe-inline'", "data:") and "'sha256-" not in source
    ]
    (title,) = every.tree.all("title")
    (heading,) = every.tree.all("h1")
    assert (
        title.text == heading.text == f"Retrieval report: {displayed(every.reported.facts.summary['title'])}".rstrip()
    )
    assert every.page.index("charset") < 1024


def test_ids_are_unique(every: Pages) -> None:
    counts = Counter(element.attributes["id"] for element in every.tree.walk() if "id" in element.attributes)
    assert [name for name, count in counts.items() if count > 1] == []


def test_each_link_and_reference_has_a_target(every: Pages) -> None:
    ids = {element.attributes["id"] for element in every.tree.walk() if "id" in element.attributes}
    references = {
        value[1:]
        for element in every.tree.walk()
        for name, value in element.attributes.items()
        if name in ("href", "xlink:href") and value.startswith("#")
    }
    references |= set(re.findall(r"url\(#([^)]*)\)", every.page))
    references |= {element.attributes["for"] for element in every.tree.all("label") if "for" in element.attributes}
    assert sorted(references - ids) == []


def test_every_picture_says_what_it_shows(every: Pages) -> None:
    for element in every.tree.walk():
        if element.tag == "img":
            assert element.attributes["alt"].strip(), element.attributes
            assert int(element.attributes["width"]) > 0
            assert int(element.attributes["height"]) > 0
        if element.tag in ("svg", "canvas") or element.attributes.get("role") == "img":
            assert element.attributes["aria-label"].strip()


def test_every_control_has_a_name(every: Pages) -> None:
    labels = [label for label in every.tree.all("label") if label.text]
    named = {id(control) for label in labels for control in label.all("select", "input")}
    for control in every.tree.all("select", "input", "button", "textarea"):
        assert id(control) in named or control.attributes.get("aria-label"), control.attributes


def test_headings_go_down_one_step_at_a_time(every: Pages) -> None:
    steps = [int(element.tag[1]) for element in every.tree.all("h1", "h2", "h3", "h4", "h5")]
    assert steps[0] == 1
    assert steps.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(steps))


def test_all_rows_of_a_table_are_equally_long(every: Pages) -> None:
    for table in every.tree.all("table"):
        assert len(table.all("thead")) == 1
        for row in rows_of(table):
            assert sum(int(element.attributes.get("colspan", "1")) for element in cells_of(row)) == len(
                table_of(table)[0]
            )


def test_no_character_that_turns_or_hides_text_reaches_the_page(every: Pages) -> None:
    assert {character for character in every.page if not character.isprintable()} <= {"\n"}


def test_the_data_for_scripts_is_json_and_ends_no_script(every: Pages) -> None:
    for script in every.tree.all("script"):
        if script.attributes.get("type") == "application/json":
            data = json.loads(script.raw)
            assert not re.search("[<>&]", script.raw)
            assert json.loads(json.dumps(data)) == data
        else:
            assert script.attributes == {}
    assert len(every.tree.all("script")) == every.page.count("<script") == every.page.count("</script>")


@pytest.mark.parametrize("name", ["graded", "hostile"])
def test_the_same_facts_give_the_same_bytes(pages_of: Callable[[str], Pages], name: str, tmp_path: Path) -> None:
    assert pages_of(name).reported.write(tmp_path / "again.html") == pages_of(name).page


# --- the same facts as report.md --------------------------------------------------------------------------------------

PICTURED = {("class", "queries"), ("query", "class")}  # the worst, which the page shows as charts and examples
ONLY_HERE = {  # the last has the passports
    ("parameter", "value"),
    ("stage", "file"),
    ("encoder", "against"),
    ("", "mobilenet"),
}


def test_tables_are_those_of_the_markdown_report(every: Pages) -> None:
    def by_header(all_tables: list[Table]) -> dict[tuple[str, ...], list[Table]]:
        kinds: dict[tuple[str, ...], list[Table]] = {}
        for table in all_tables:
            kinds.setdefault(tuple(table[0]), []).append(table)
        return kinds

    in_markdown, in_page = by_header(tables(every.markdown)), by_header(tables_of(every.tree))
    for header, expected in in_markdown.items():
        if header[:2] not in PICTURED:
            assert in_page.get(header, []) == expected, header
    more = {header for header in in_page if header not in in_markdown}
    assert {header[:2] for header in more} <= ONLY_HERE


def said(markdown: str) -> list[str]:
    """The texts of report.md outside its tables."""
    sentences = []
    for before, token in itertools.pairwise(parsed(markdown)):
        if token.type == "inline" and before.type not in ("th_open", "td_open"):
            sentences.append(" ".join(flowing(token).split()))
    return sentences


def flowing(token: Token) -> str:
    return "".join(" " if child.type == "softbreak" else child.content for child in token.children or [])


@pytest.mark.parametrize(
    "beginning",
    ["Data set", "Machine:", "Git revision:", "DVC:", "No ", "There ", "All images were decoded", "... and "],
)
def test_sentences_on_the_run_are_those_of_the_markdown_report(every: Pages, beginning: str) -> None:
    here = [element.text for element in every.tree.all("p", "li")]
    for text in said(every.markdown):
        if text.startswith(beginning):
            assert text in here


def test_verdict_and_notes_are_those_of_the_markdown_report(every: Pages) -> None:
    sentences = said(every.markdown)
    (first,) = [element.text for element in every.tree.all("p") if "verdict" in element.classes]
    assert first == " ".join(verdict(every.reported.facts))
    assert first in sentences
    shown = [element.text for element in every.tree.all("p") if "note" in element.classes]
    assert shown == [text for text in sentences if text.startswith(("Read this first:", "Note:"))]
    assert len(shown) == len(notes(every.reported.facts))


def test_notes_come_before_the_verdict_and_tables(every: Pages) -> None:
    texts = [
        element
        for element in every.tree.all("p", "table")
        if element.tag == "table" or {"note", "verdict"} & set(element.classes)
    ]
    places = [place for place, element in enumerate(texts) if "note" in element.classes]
    assert places == list(range(len(places)))


def test_headline_metrics_are_those_of_the_artifacts(full: Pages) -> None:
    metrics, intervals = full.reported.facts.metrics, full.reported.facts.intervals
    answered = [("cbir", "mobilenet"), ("cbir", "clip"), ("tbir", "clip")]
    (table,) = by_id(full.tree, "headline").all("table")
    head, *rows = [[cell.text for cell in cells_of(row)] for row in rows_of(table)]
    names = ["precision@10", "success@1", "map_at_r", "ndcg@10"]
    assert head[:6] == ["task", "encoder", *names]
    by_encoder = {tuple(row[:2]): row[2:6] for row in rows}
    for task, encoder in answered:
        means, bounds = metrics.of_task(task)[encoder], intervals.of_task(task)[encoder]
        assert by_encoder[task, encoder] == [
            "{:.3f} [{:.3f}, {:.3f}]".format(*(round(value, 9) for value in (means[name], *bounds[name])))
            for name in names
        ]
    for task in ("cbir", "tbir"):
        assert by_encoder[task, "by chance"] == [f"{round(metrics.chance[task]['precision'], 9):.3f}", "", "", ""]
        ceilings = [metrics.ceilings[task].get(name, 1.0) for name in names]
        shown = ["" if ceiling == 1.0 else f"{round(ceiling, 9):.3f}" for ceiling in ceilings]
        assert by_encoder.get((task, "ceiling"), [""] * 4) == shown
    assert [tuple(row[:2]) for row in rows if row[1] not in ("by chance", "ceiling")] == answered


def test_a_metric_in_a_heading_links_to_its_definition(every: Pages) -> None:
    definitions = read_definitions(every.reported.reports)
    families = {definition["family"].removesuffix("@k") for definition in definitions.values()}
    for table in every.tree.all("table"):
        if table_of(table)[0][0] in ("parameter", "stage"):
            continue
        heads = [(row, cell) for row in rows_of(table) for cell in row.all("th")]
        for row, head in heads:
            if "ceiling" in row.classes:
                continue
            in_thead = any(row is element for thead in table.all("thead") for element in rows_of(thead))
            words = [word.group() for word in METRIC.finditer(head.text)] if in_thead else [head.text]
            named = [word for word in words if word in definitions or (word in families and word == head.text)]
            links = [link for link in head.all("a") if link.text in named]
            assert [link.text for link in links] == named, head.text
            for link in links:
                aims = [
                    element
                    for element in every.tree.walk()
                    if element.attributes.get("id") == link.attributes["href"][1:]
                ]
                assert [aim.tag for aim in aims] == ["dt"], link.attributes["href"]
                assert aims[0].text.removesuffix("@k") == link.text.partition("@")[0]


def test_each_metric_is_defined_with_its_other_names(small: Pages) -> None:
    definitions = read_definitions(small.reported.reports)
    (listed,) = by_id(small.tree, "definitions").all("dl")
    terms, texts = listed.all("dt"), listed.all("dd")
    texts_by_family = {term.text: text.text for term, text in zip(terms, texts, strict=True)}
    assert set(texts_by_family) == {definition["family"] for definition in definitions.values()}
    for family, text in texts_by_family.items():
        defined = FAMILIES[family]
        assert text.startswith(defined.definition)
        assert defined.denominator in text
        assert defined.ties in text
        for where, name in defined.also_called.items():
            assert f"{where}: {name}" in text, family  # for every k, not for the first


def test_a_loss_of_zero_has_no_sign() -> None:
    assert [figure(value) for value in (0.0, -0.0, -1e-7, 1e-7)] == ["0.000"] * 4
    assert figure(-0.0004, [-0.0004, 0.0]) == "0.000 [0.000, 0.000]"


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_every_example_shows_its_query_and_its_results_in_order(full: Pages) -> None:
    facts, examples = full.reported.facts, full.reported.examples
    articles = full.tree.all("article")
    assert len(articles) == len(examples) > 20
    for article, example in zip(articles, examples, strict=True):
        (query,) = [div for div in article.all("div") if "query" in div.classes]
        if example.query.image_id is None:
            (quote,) = query.all("blockquote")
            assert quote.text == displayed(example.query.text, 300)
        else:
            (image,) = query.all("img")
            assert is_coloured(pixels(image.attributes["src"]), example.query.image_id)
        words = query.text
        assert f"{example.task}, {example.kind}" in words
        assert displayed(example.query.query_id, 80) in words
        shown = [div for div in article.all("div") if "ranking" in div.classes]
        for part, ranking in zip(shown, example.rankings, strict=True):
            assert part.attributes["data-encoder"] == ranking.encoder
            if ranking.map_at_r is not None:
                assert f"{ranking.encoder}, map_at_r {round(ranking.map_at_r, 9):.3f}" in part.text
            assert [hit.rank for hit in ranking.hits] == list(range(1, 11)) == list(range(1, len(part.all("li")) + 1))
        for result, hit in zip(article.all("li"), example.hits, strict=True):
            (image,) = result.all("img")
            assert is_coloured(pixels(image.attributes["src"]), hit.image_id)
            word = {True: "relevant", False: "not relevant", None: ""}[hit.is_relevant]
            mark = {True: "✓ ", False: "✗ ", None: ""}[hit.is_relevant]
            assert result.text.startswith(f"{hit.rank}. {mark}{hit.score:.3f}")
            assert ("relevant" in result.classes, "not-relevant" in result.classes) == (
                word == "relevant",
                word == "not relevant",
            )
            assert image.attributes["alt"].endswith(f", {word}" if word else displayed(facts.class_name(hit.label)))
            name = hit.image_id if not hit.label else facts.names.get(hit.label, hit.label)
            assert displayed(name, 40) in result.text


def test_examples_are_of_each_kind_with_all_encoders(small: Pages) -> None:
    for task, encoders in (("cbir", ["mobilenet", "clip"]), ("tbir", ["clip"])):
        articles = [article for article in small.tree.all("article") if article.attributes["data-task"] == task]
        kinds = Counter(article.attributes["data-kind"] for article in articles)
        assert list(kinds) == ["best", "worst", "confused", *(["disputed"] if len(encoders) > 1 else []), "sample"]
        assert kinds["sample"] == small.reported.sampled
        for article in articles:
            shown = [div for div in article.all("div") if "ranking" in div.classes]
            assert [part.attributes["data-encoder"] for part in shown] == encoders


def test_a_larger_sample_adds_only_its_queries_and_pictures(small: Pages, tmp_path: Path) -> None:
    larger = replace(small.reported, sampled=50)
    page = larger.write(tmp_path / "larger.html")
    articles = read(page).all("article")
    assert Counter(article.attributes["data-task"] for article in articles) == {"cbir": 22, "tbir": 14}
    more = len(articles) - len(small.tree.all("article"))
    largest = max(len(image.attributes["src"]) for image in small.tree.all("img"))
    assert 0 < len(page) - len(small.page) < more * 21 * (largest + 1000)
    assert len(page) < 2_000_000


def test_no_thumbnail_is_larger_than_thumbnail_px(small: Pages, tmp_path: Path) -> None:
    page = read(replace(small.reported, thumbnail_px=24).write(tmp_path / "smaller.html"))
    for tree, px in ((small.tree, PICTURE_PX), (page, 24)):
        for image in tree.all("img"):
            size = (int(image.attributes["width"]), int(image.attributes["height"]))
            assert pixels(image.attributes["src"]).size == size == (px, px)


def test_the_map_has_each_point_with_class_and_tile(full: Pages) -> None:
    world, maps = full.reported.world, [figure for figure in full.tree.all("figure") if "map" in figure.classes]
    addresses = re.findall(r"\.sheet-(\d+) \{ background-image: url\(([^)]*)\)", full.page)
    if not maps:
        assert "There is no map" in section_of(full.tree, "Map of the gallery").text
        assert addresses == []
        return
    (map_,) = maps
    assert [option.text for option in map_.all("option")] == ["mobilenet", "clip"]
    assert [number for number, _ in addresses] == ["0"]  # both maps are of the same images
    sheet = pixels(addresses[0][1])
    (script,) = map_.all("script")
    for encoder, data in zip(("mobilenet", "clip"), json.loads(script.raw), strict=True):
        rows = pq.read_table(world.data / "map" / f"{encoder}.parquet").to_pylist()
        assert len(rows) == MAP_SIDE**2
        assert [point[:2] for point in data["points"]] == [[round(row["x"], 3), round(row["y"], 3)] for row in rows]
        names = [data["names"][point[2]] for point in data["points"]]
        assert names == [displayed(class_on_map(row["label"], full.reported.facts)) for row in rows]
        assert data["ids"] == [displayed(row["image_id"]) for row in rows]
        px, columns = data["tile"], data["columns"]
        assert data["sheet"] == 0
        for number, row in enumerate(rows):
            left, top = number % columns * px, number // columns * px
            assert is_coloured(sheet.crop((left + 4, top + 4, left + px - 4, top + px - 4)), row["image_id"])


def test_duplicates_are_shown_side_by_side(pages_of: Callable[[str], Pages]) -> None:
    pages = pages_of("hostile")
    ids = {
        image_id.split()[0]: image_id for image_id in (*pages.reported.world.gallery, *pages.reported.world.held_out)
    }
    query_id = next(query.query_id for query in pages.reported.world.queries if query.image_id == ids[COPY])
    (table,) = [
        element for element in by_id(pages.tree, "duplicates").all("table") if table_of(element)[0][0] == "query"
    ]
    rows = rows_of(table)[1:]
    assert [[cell.text for cell in cells_of(row)] for row in rows] == [
        [displayed(query_id), displayed(ids[COPIED]), by, likeness]
        for by, likeness in (("clip", "1.000"), ("mobilenet", "1.000"), ("pixels", "0.000"))
    ]
    for row in rows:
        left, right = row.all("img")
        assert is_coloured(pixels(left.attributes["src"]), ids[COPY])
        assert is_coloured(pixels(right.attributes["src"]), ids[COPIED])
        assert displayed(query_id) in left.attributes["alt"]
        assert displayed(ids[COPIED]) in right.attributes["alt"]
    assert "(0 by bytes, 1 by pixels, 1 by mobilenet, 1 by clip)" in by_id(pages.tree, "duplicates").text


# --- charts -----------------------------------------------------------------------------------------------------------


def charts(pages: Pages) -> dict[str, list[str]]:
    """Name of a chart -> the texts in it."""
    elements = [element for element in pages.tree.all("svg") if "chart" in element.classes]
    texts = {element.attributes["aria-label"]: [text.text for text in element.all("text")] for element in elements}
    assert len(texts) == len(elements)
    return texts


def test_charts_name_themselves_their_axes_and_their_lines(small: Pages) -> None:
    texts_of = charts(small)
    for task, encoders in (("cbir", {"mobilenet", "clip"}), ("tbir", {"clip"})):
        for family in ("precision", "recall"):
            title = f"{task}: {family}@k with exact search"
            assert {title, "k", family} | encoders <= set(texts_of[title])
        (over_time,) = [name for name in texts_of if name.startswith(f"{task}: ann_recall@10 over search time")]
        assert {"median time of one search, ms", "ann_recall@10"} | encoders <= set(texts_of[over_time])


def test_an_encoder_has_the_same_colour_in_each_chart(small: Pages) -> None:
    """Also where it is the only one: that of clip, the second encoder."""
    lines = {}
    for svg in small.tree.all("svg"):
        if (title := svg.attributes.get("aria-label", "")).startswith(("cbir: precision@k", "tbir: precision@k")):
            strokes = [
                re.search(r"stroke: var\((--c\d)\)", path.attributes.get("style", "")) for path in svg.all("path")
            ]
            lines[title[:4]] = {stroke[1] for stroke in strokes if stroke}
    assert lines == {"cbir": {"--c0", "--c1"}, "tbir": {"--c1"}}


def test_the_classes_of_the_best_encoder_are_open(full: Pages) -> None:
    (section,) = [element for element in full.tree.all("section") if element.attributes.get("id") == "classes"]
    (fold,) = section.all("details")[:1]
    folds = [element for element in fold.inside if isinstance(element, Element) and element.tag == "details"]
    comparison = full.reported.facts.comparison
    best = {f"{task} {metrics[0].ranking[0].encoder}" for task, metrics in comparison.tasks.items()}
    opened = {fold.all("summary")[0].text for fold in folds if "open" in fold.attributes}
    assert opened == best
    assert [fold.all("summary")[0].text for fold in folds] == [
        f"{task} {encoder}" for task, encoder in full.reported.facts.evaluated
    ]


def test_class_charts_show_worst_and_best_with_values(full: Pages) -> None:
    facts = full.reported.facts
    classes = rows_of_all(full.reported.reports.root, "classes")
    texts_of = charts(full)
    for task, encoder in facts.evaluated:
        rows = [row for row in classes if (row["task"], row["encoder"]) == (task, encoder)]
        drawn = [
            texts_of[name]
            for name in (f"{task} {encoder}: worst classes", f"{task} {encoder}: best classes")
            if name in texts_of
        ]
        all_texts = [text for texts in drawn for text in texts]
        assert drawn
        for row in rows:
            if row["precision@10"] is not None and len(rows) <= 16:
                beginning = displayed(facts.class_name(row["label"]), 40)[:20]
                assert any(text.startswith(beginning.strip()) for text in all_texts)
                assert f"{row['precision@10']:.2f}" in all_texts


@pytest.mark.parametrize(
    "name", ["#010203", "#040506", "#0a0b00", "#0a0b05", '<g id="a">', "$x^2$", "var(--ink)", "&amp;"]
)
def test_class_names_that_look_like_markup_survive_in_charts(name: str) -> None:
    (drawn,) = [read(f"<html>{bar_chart([(name, 0.5), ('b', 0.25)], 'classes', 'precision')}</html>")]
    assert name in [text.text for text in drawn.all("text")]


@pytest.mark.parametrize("letter", ["i", "W", "\N{CJK UNIFIED IDEOGRAPH-732B}"], ids=["i", "W", "Chinese"])
def test_long_class_names_leave_room_for_their_bars(letter: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # matplotlib's, that it could not lay out the chart
        warnings.filterwarnings("ignore", "Glyph")
        pages = worded(tmp_path, [f"{letter * 60}{number:02d}" for number in range(len(WORDS))])
        pages.write(tmp_path / "report.html")


# --- where the figures come from --------------------------------------------------------------------------------------


def test_revision_changed_and_differing_files_are_named(hostile: Pages) -> None:
    past = hostile.reported.facts.provenance
    (revision,) = [
        element.text for element in by_id(hostile.tree, "run").all("li") if element.text.startswith("Git revision:")
    ]
    named = ", ".join(displayed(path) for path in past.changed[:10])
    assert revision == " ".join(
        f"Git revision: {past.revision}, with uncommitted changes in {named} and 7 more files.".split()
    )
    (lock,) = [element.text for element in by_id(hostile.tree, "run").all("li") if element.text.startswith("DVC:")]
    named = ", ".join(displayed(path) for path in past.differing)
    assert lock == " ".join(
        f"DVC: missing, or different from dvc.lock: {named}; to update them, run dvc repro.".split()
    )


def test_one_more_file_is_in_the_singular(small: Pages, tmp_path: Path) -> None:
    past = Provenance("0123", tuple(f"cbir/{number:02d}.py" for number in range(11)), {}, (), ())
    pages = replace(small.reported, facts=replace(small.reported.facts, provenance=past))
    page, markdown = pages.write(tmp_path / "report.html"), markdown_of(pages.facts, tmp_path)
    for text in (by_id(read(page), "run").text, " ".join(markdown.split())):
        assert "cbir/09.py and 1 more file." in text.replace("\\", "")


def test_all_parameters_passports_and_outputs_are_listed(hostile: Pages) -> None:
    facts = hostile.reported.facts
    assert table_below(hostile.tree, "parameter", "value") == [
        [displayed(name), displayed(value, 300)] for name, value in flatten(facts.provenance.params).items()
    ]
    assert table_below(hostile.tree, "stage", "file") == [
        [displayed(output.stage), displayed(output.path), output.md5, "0.0 MB"] for output in facts.provenance.outputs
    ]
    (table,) = [table for table in tables_of(hostile.tree) if table[0] == ["", "mobilenet", "clip"]]
    passport = {row[0]: row[1:] for row in table[1:]}
    assert passport["kind"] == ["flat", "flat"]
    weights = [facts.vectors(name)["weights_sha256"] for name in ("mobilenet", "clip")]
    assert passport["vectors.weights_sha256"] == weights
    assert passport["vectors.origin"] == [displayed(hostile.reported.world.origin)] * 2
    assert len(passport) == len(table) - 1 == len(flatten(facts.passports["clip"]))


def test_missing_git_lock_and_timings_are_reported(small: Pages) -> None:
    text = by_id(small.tree, "run").text
    assert "Machine: unknown." in text
    assert "Git revision: unknown (fatal: not a git repository" in text
    assert "DVC: dvc.lock is absent or empty." in text
    assert [element.text for element in by_id(small.tree, "run").all("summary")] == [
        "What was run", "Passports of indexes and vectors",
    ]  # fmt: skip
    assert "No stage was timed." in by_id(small.tree, "timings").text


def test_timings_are_human_readable(hostile: Pages) -> None:
    rows = table_below(hostile.tree, "stage", "time")
    assert rows == [
        [stage, "1 min 15 s", "12.3 s", "1,234 MB", "1,234 vectors from the cache"]
        for stage in ("embed@clip", "evaluate@clip")
    ]


# --- little to report -------------------------------------------------------------------------------------------------


def test_without_queries_the_page_says_so(pages_of: Callable[[str], Pages]) -> None:
    pages = pages_of("no queries")
    text = pages.tree.text
    assert "The query list is empty, so there are no metrics." in text
    for task in TASKS:
        assert f"There are no {task} queries." in text
    assert pages.tree.all("article") == []
    assert pages.tree.all("form") == []
    assert [element.attributes["aria-label"] for element in pages.tree.all("canvas")]  # the map needs none


def test_without_text_queries_only_the_text_task_is_empty(pages_of: Callable[[str], Pages]) -> None:
    pages = pages_of("no texts")
    assert "There are no tbir queries." in pages.tree.text
    assert {element.attributes["data-task"] for element in pages.tree.all("article")} == {"cbir"}
    assert "There are no cbir queries." not in pages.tree.text


def test_without_image_queries_only_the_image_task_is_empty(pages_of: Callable[[str], Pages]) -> None:
    pages = pages_of("no images")
    assert "There are no cbir queries." in pages.tree.text
    assert {element.attributes["data-task"] for element in pages.tree.all("article")} == {"tbir"}


def test_without_labels_results_are_unjudged(pages_of: Callable[[str], Pages]) -> None:
    pages = pages_of("no labels")
    assert pages.tree.text.count("No query has a relevant image: for metrics, provide class folders") == 2
    results = pages.tree.all("li")
    assert {word for element in results for word in element.classes} == {"unjudged"}
    rankings = [element for element in pages.tree.all("div") if "ranking" in element.classes]
    assert {element.attributes["data-result"].strip() for element in rankings} == {""}
    assert not re.search(r"[✓✗]|relevant", " ".join(element.text for element in pages.tree.all("article")))
    assert not re.search("[✓✗]|Best|Confused|Disputed", by_id(pages.tree, "queries").text)


def test_a_large_quarantine_is_cut_and_counted(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.quarantine = [Quarantined(f"bad{number:04d}", None, "truncated", "", 7) for number in range(1234)]
    facts = finish(world.write())
    write_maps(world)
    tree = read(Reported(world, facts, ()).write(tmp_path / "report.html"))
    rows = table_below(tree, "image", "reason")
    assert rows == [[f"bad{number:04d}", "truncated", ""] for number in range(50)]
    assert "... and 1,184 more in data/images/quarantine.parquet." in tree.text


def test_an_approximate_index_that_is_no_faster_is_noted(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    facts = finish(world.write("flat", "ivf_flat"), kind="ivf_flat", search=SearchParams(nprobe=1))
    write_maps(world)
    passed = {name: {**passport, "kind": "ivf_flat"} for name, passport in facts.passports.items()}
    slow = search_times(1.0, 1.05)
    times = {"mobilenet": {"image": slow}, "clip": {"image": slow, "text": slow}}
    facts = replace(facts, passports=passed, latency=replace(facts.latency, encoders=times))
    tree = read(Reported(world, facts, ()).write(tmp_path / "report.html"))
    text = "exact search is as fast (p50 1.050 ms, with the index 1.000 ms) and misses nothing."
    assert by_id(tree, "index").text.count(text) == 3


# --- text from data ---------------------------------------------------------------------------------------------------


def test_hostile_text_gives_the_same_elements_as_harmless_text(pages_of: Callable[[str], Pages]) -> None:
    hostile, harmless = pages_of("hostile"), pages_of("harmless")
    assert structure(hostile.tree) == structure(harmless.tree)
    assert hostile.page.count("</script") == harmless.page.count("</script")


def test_charts_of_hostile_text_have_no_additional_elements(pages_of: Callable[[str], Pages]) -> None:
    def inside(pages: Pages) -> Iterator[tuple[str, ...]]:
        for chart in pages.tree.all("svg"):
            yield from ((element.tag, *sorted(element.attributes)) for element in chart.walk())

    hostile, harmless = pages_of("hostile"), pages_of("harmless")
    assert set(inside(hostile)) == set(inside(harmless))
    assert [element.tag for element in hostile.tree.all("svg")] == [element.tag for element in harmless.tree.all("svg")]


def test_hostile_text_is_displayed_as_text(hostile: Pages) -> None:
    quarantine = hostile.reported.facts.quarantine
    assert table_below(hostile.tree, "image", "reason") == [
        [displayed(row["source"]), displayed(row["reason"]), displayed(row["detail"])] for row in quarantine
    ]
    assert len(quarantine) == len(HOSTILE)
    shown = {displayed(word, 80) for word in WORDS}
    everything = hostile.tree.text
    assert all(word in everything for word in shown)
    for article, example in zip(hostile.tree.all("article"), hostile.reported.examples, strict=True):
        assert article.attributes["data-label"] == displayed(hostile.reported.facts.class_name(example.query.label))


def test_no_attribute_holds_a_script(hostile: Pages) -> None:
    for element in hostile.tree.walk():
        for name, value in element.attributes.items():
            assert not name.startswith("on"), name
            if "alert" in value:
                assert name in ("alt", "data-label", "title"), (element.tag, name)
            assert not re.match(r"\s*(javascript|vbscript):", value, re.I)


def test_the_text_of_a_long_label_is_cut_everywhere(hostile: Pages) -> None:
    assert "x" * 300 not in hostile.page
    assert "|&lt;" * 150 not in hostile.page
    values = [
        value
        for element in hostile.tree.walk()
        for name, value in element.attributes.items()
        if name in ("alt", "data-label")
    ]
    assert max(map(len, values)) < 300


def test_hostile_text_does_not_enlarge_the_page_much(pages_of: Callable[[str], Pages]) -> None:
    assert len(pages_of("hostile").page) < 1.3 * len(pages_of("harmless").page)


def test_intervals_are_explained_as_in_the_markdown_report(small: Pages) -> None:
    (told,) = [text for text in said(small.markdown) if text.startswith("Brackets contain the 95 % interval")]
    here = [element.text for element in by_id(small.tree, "definitions").all("p")]
    assert any(text.startswith(told.removesuffix(".")) for text in here)
