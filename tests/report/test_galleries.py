"""The pictures of examples: their files, and their content, recognised by colour and place."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.report.examples import EXAMPLES_PER_KIND, SAMPLE, Example, Ranking, choose_examples
from cbir.report.facts import Facts
from cbir.report.galleries import write_galleries
from cbir.report.judged import MAX_HITS, JudgedCollection
from tests.support import oracles
from tests.support import world as worlds
from tests.support.finished import HOSTILE, finish
from tests.support.world import World, make_world

SAMPLED, PX = 2, 32
SIDE = (24, 48)  # of the images, which are larger than PX
FOLDERS = ["cbir_clip", "cbir_mobilenet", "tbir_clip"]
FRAME = 3


def grey_of(label: str | None) -> int:
    """Of the world's images."""
    return 0 if label is None else 25 * int(label[1:])


def picture(label: str | None) -> bytes:
    file = BytesIO()
    Image.new("L", SIDE, grey_of(label)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    with mock.patch.object(worlds, "_jpeg", picture):
        return make_world(tmp_path_factory.mktemp("galleries"), graded=True).write()


@pytest.fixture(scope="module")
def facts(world: World) -> Facts:
    return finish(world)


@pytest.fixture(scope="module")
def examples(world: World, facts: Facts) -> list[Example]:
    return choose_examples(JudgedCollection(DataPaths(world.data)), ReportPaths(world.root / "reports"), SAMPLED, 0)


@pytest.fixture(scope="module")
def drawn(world: World, facts: Facts, examples: list[Example], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn") / "galleries"
    write_galleries(out, facts, examples, DataPaths(world.data), PX)
    return out


def pictured(examples: Sequence[Example]) -> list[tuple[Example, Ranking]]:
    """Each ranking with its example, in the order in which they are drawn."""
    return [(example, ranking) for example in examples for ranking in example.rankings]


def pages(drawn: Path, examples: Sequence[Example]) -> list[tuple[Example, Ranking, Image.Image]]:
    """Each ranking with its example and its picture."""
    counts: Counter[str] = Counter()
    found = []
    for example in examples:
        for ranking in example.rankings:
            path = drawn / f"{example.task}_{ranking.encoder}" / f"{counts[example.task]}.png"
            found.append((example, ranking, Image.open(path).convert("RGB")))
        counts[example.task] += 1
    return found


def of_one_encoder(example: Example, **changes: Any) -> Example:
    """The example with its first ranking alone, changed."""
    return replace(example, rankings=(replace(example.rankings[0], **changes),))


class Framed(NamedTuple):
    """A picture in its frame: left, right, top and bottom of the frame, and its colour."""

    left: int
    right: int
    top: int
    bottom: int
    colour: str
    inside: Any


def frames(page: Image.Image) -> list[Framed]:
    """From the left, by the row that has the most long strokes of one colour."""
    pixels = np.asarray(page)
    rows = [[*strokes(row)] for row in pixels]
    top = max(range(len(rows)), key=lambda y: (len(rows[y]), -y))
    found = []
    for left, right, colour in rows[top]:
        bottom = top
        while bottom < len(pixels) and tuple(pixels[bottom, left].tolist()) == colour:
            bottom += 1
        inside = pixels[top + FRAME : bottom - FRAME, left + FRAME : right - FRAME]
        found.append(Framed(left, right, top, bottom, name_of(colour), inside))
    return found


def strokes(row: Any) -> list[tuple[int, int, tuple[int, ...]]]:
    """Runs of one colour that is not white and too long for writing."""
    ends = [0, *(np.flatnonzero((row[1:] != row[:-1]).any(1)) + 1).tolist(), len(row)]
    runs = [(left, right, tuple(row[left].tolist())) for left, right in pairwise(ends) if right - left > 20]
    return [run for run in runs if run[2] != (255, 255, 255)]


def name_of(colour: tuple[int, ...]) -> str:
    red, green, blue = colour
    if max(colour) - min(colour) < 20:
        return "grey" if min(colour) > 100 else "ink"
    return "green" if green > max(red, blue) + 50 else "red" if red > max(green, blue) + 50 else "other"


def written(world: World, facts: Facts, examples: Sequence[Example], out: Path, px: int = PX) -> list[list[tuple]]:
    """Every text of each picture: place, text, colour."""
    texts: list[list[tuple]] = []
    new, text = ImageDraw.Draw, ImageDraw.ImageDraw.text

    def begun(*arguments: Any) -> Any:
        texts.append([])
        return new(*arguments)

    def noted(pen: Any, place: tuple[int, int], words: str, colour: str, font: Any) -> None:
        texts[-1].append((place, words, colour))
        text(pen, place, words, colour, font)

    with mock.patch.object(ImageDraw, "Draw", begun), mock.patch.object(ImageDraw.ImageDraw, "text", noted):
        write_galleries(out, facts, examples, DataPaths(world.data), px)
    return texts


# ---- the files


def test_each_task_and_encoder_has_numbered_pictures(drawn: Path, examples: list[Example]) -> None:
    assert sorted(path.name for path in drawn.iterdir()) == FOLDERS
    for folder in FOLDERS:
        n = sum(f"{example.task}_{ranking.encoder}" == folder for example, ranking in pictured(examples))
        assert n >= EXAMPLES_PER_KIND["best"] + EXAMPLES_PER_KIND["worst"] + SAMPLED
        assert {path.name for path in (drawn / folder).iterdir()} == {f"{number}.png" for number in range(n)}


def test_all_files_are_pngs_of_the_same_size(drawn: Path) -> None:
    sizes = set()
    for path in drawn.rglob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG"
            sizes.add(image.size)
    assert len(sizes) == 1


def test_pictures_of_an_earlier_run_are_gone(
    world: World, facts: Facts, examples: list[Example], tmp_path: Path
) -> None:
    for name in ("cbir_clip/77.png", "cbir_old/0.png", "stray.txt", "tbir_clip/.0.png.writing"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("old")
    write_galleries(tmp_path / "out", facts, examples[:2], DataPaths(world.data), PX)
    found = [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(found) == [f"cbir_{encoder}/{number}.png" for encoder in ("clip", "mobilenet") for number in (0, 1)]


def test_the_same_examples_give_the_same_bytes(
    world: World, facts: Facts, examples: list[Example], drawn: Path, tmp_path: Path
) -> None:
    write_galleries(tmp_path / "out", facts, examples, DataPaths(world.data), PX)
    for path in drawn.rglob("*.png"):
        assert (tmp_path / "out" / path.relative_to(drawn)).read_bytes() == path.read_bytes()


def test_without_examples_there_is_an_empty_folder(world: World, facts: Facts, tmp_path: Path) -> None:
    write_galleries(tmp_path / "out", facts, [], DataPaths(world.data), PX)
    assert list((tmp_path / "out").iterdir()) == []


# ---- what is seen


def test_frames_are_green_red_or_grey_by_relevance(world: World, drawn: Path, examples: list[Example]) -> None:
    queries, seen = {query.query_id: query for query in world.queries}, Counter[str]()
    for example, ranking, page in pages(drawn, examples):
        query = queries[example.query.query_id]
        relevance = world.relevance(query)
        expected = [
            ("green" if oracles.is_relevant(image_id, relevance) else "red")
            if oracles.number_of_relevant(relevance)
            else "grey"
            for image_id in world.ranking(ranking.encoder, query)[:MAX_HITS]
        ]
        query_frame = ["ink"] if query.image_id is not None else []
        assert [framed.colour for framed in frames(page)] == query_frame + expected
        seen += Counter(expected)
    assert min(seen["green"], seen["red"]) > 20


def test_hits_of_unjudged_queries_are_framed_grey(world: World, facts: Facts, tmp_path: Path) -> None:
    every = choose_examples(JudgedCollection(DataPaths(world.data)), ReportPaths(world.root / "reports"), 1000, 0)
    unjudged = [example for example in every if example.rankings[0].map_at_r is None]
    assert len(unjudged) >= 2
    write_galleries(tmp_path / "out", facts, unjudged, DataPaths(world.data), PX)
    for example, _, page in pages(tmp_path / "out", unjudged):
        colours = [framed.colour for framed in frames(page)]
        assert colours[-MAX_HITS:] == ["grey"] * MAX_HITS
        assert colours[:-MAX_HITS] == (["ink"] if example.query.image_id is not None else [])


def test_frames_hold_the_query_and_the_images_by_rank(world: World, drawn: Path, examples: list[Example]) -> None:
    labels = world.gallery | world.held_out
    for example, ranking, page in pages(drawn, examples):
        ids = [example.query.image_id] if example.query.image_id is not None else []
        ids += [hit.image_id for hit in ranking.hits]
        for image_id, framed in zip(ids, frames(page), strict=True):
            assert framed.inside.shape == (PX, PX // 2, 3)  # half as wide as high
            assert framed.inside.mean() == pytest.approx(grey_of(labels[str(image_id)]), abs=2)
            assert framed.inside.std() < 2


def test_a_text_query_leaves_the_place_of_its_picture_empty(drawn: Path, examples: list[Example]) -> None:
    by_task: dict[str, list[list[int]]] = {"cbir": [], "tbir": []}
    for example, _, page in pages(drawn, examples):
        by_task[example.task].append([framed.left for framed in frames(page)][-MAX_HITS:])
    assert len({tuple(lefts) for each in by_task.values() for lefts in each}) == 1
    for example, _, page in pages(drawn, examples):
        if example.task == "tbir":
            first = frames(page)[0]
            below_title = np.asarray(page)[first.top :, : first.left]
            assert (below_title == 255).all()


@pytest.mark.parametrize("px", [8, 32, 200])
def test_pictures_of_any_size_are_side_by_side(
    world: World, facts: Facts, examples: list[Example], tmp_path: Path, px: int
) -> None:
    few = [of_one_encoder(examples[0])]
    write_galleries(tmp_path / "out", facts, few, DataPaths(world.data), px)
    ((_, _, page),) = pages(tmp_path / "out", few)
    size = (min(px // 2, SIDE[0]), min(px, SIDE[1]))
    pixels = np.asarray(page)
    if px >= 32:
        found = frames(page)
        assert len(found) == 1 + MAX_HITS
        steps = {right.left - left.left for left, right in pairwise(found)}
        assert len(steps) == 1
        assert steps.pop() >= px + 2 * FRAME
        for framed in found:
            assert (framed.right - framed.left, framed.bottom - framed.top) == (size[0] + 6, size[1] + 6)
            assert 0 <= framed.left < framed.right <= page.width
    assert (pixels[:, -2:] == 255).all()
    assert page.height > px + 2 * FRAME


def test_a_picture_that_no_shard_holds_is_left_out(
    world: World, facts: Facts, examples: list[Example], tmp_path: Path
) -> None:
    example = examples[0]
    first, *others = example.rankings[0].hits
    gone = of_one_encoder(example, hits=(first._replace(image_id="gone"), *others))
    gone = replace(gone, query=example.query._replace(image_id="gone, too"))
    write_galleries(tmp_path / "out", facts, [gone], DataPaths(world.data), PX)
    ((_, _, page),) = pages(tmp_path / "out", [gone])
    assert len(frames(page)) == MAX_HITS - 1


def test_there_is_one_frame_per_result(world: World, facts: Facts, examples: list[Example], tmp_path: Path) -> None:
    short = [of_one_encoder(examples[0], hits=examples[0].rankings[0].hits[:n]) for n in (0, 1, 3)]
    write_galleries(tmp_path / "out", facts, short, DataPaths(world.data), PX)
    assert [len(frames(page)) for *_, page in pages(tmp_path / "out", short)] == [1, 2, 4]
    assert len({page.size for *_, page in pages(tmp_path / "out", short)}) == 1


# ---- what is written


def test_the_first_line_names_kind_metric_and_query(
    world: World, facts: Facts, examples: list[Example], tmp_path: Path
) -> None:
    queries = {query.query_id: query for query in world.queries}
    kinds = Counter[str]()
    texts = written(world, facts, examples, tmp_path / "out")
    for (example, ranking), ((_, words, _), *_) in zip(pictured(examples), texts, strict=True):
        query = queries[example.query.query_id]
        relevance = world.relevance(query)
        value = oracles.average_precision_at_r(world.ranking(ranking.encoder, query), relevance)
        metric = "" if np.isnan(value) else f", MAP@R {round(value, 9):.3f}"
        shown = query.query_id if query.text is None else f"“{query.text}”"
        label = "" if query.label is None else f" ({query.label})"
        assert words == f"{example.kind}{metric}: {shown}{label}"
        kinds[example.kind] += 1
    assert kinds[SAMPLE] == len(FOLDERS) * SAMPLED
    assert kinds.keys() == {*EXAMPLES_PER_KIND, SAMPLE}


def test_rank_score_judgement_and_class_are_below_each_result(
    world: World, facts: Facts, examples: list[Example], tmp_path: Path
) -> None:
    named = replace(facts, names={"c1": "goldfish", "c2": "a name that is longer than there is room"})
    every = written(world, named, examples, tmp_path / "out")
    for (example, ranking), texts in zip(pictured(examples), every, strict=True):
        lines = [text for text in texts[1:] if text[1] != "query"]
        assert len(lines) == 2 * len(ranking.hits)
        assert [text[1] for text in texts].count("query") == (example.query.image_id is not None)
        for hit, (first, second) in zip(ranking.hits, zip(lines[::2], lines[1::2], strict=True), strict=True):
            word = {True: "relevant", False: "not relevant", None: ""}[hit.is_relevant]
            assert first[1].split() == [f"{hit.rank}.", f"{hit.score:.3f}", *word.split()]
            label = world.gallery[hit.image_id]
            name = hit.image_id if label is None else {"c1": "goldfish", "c2": "a name that is lo…"}.get(label, label)
            assert second[1] == name
            assert first[0][0] == second[0][0]
            assert first[0][1] < second[0][1]


def test_a_results_text_has_its_frames_colour_and_is_below(
    world: World, facts: Facts, examples: list[Example], tmp_path: Path
) -> None:
    few = examples[:3]
    texts = written(world, facts, few, tmp_path / "out")
    for (*_, page), each in zip(pages(tmp_path / "out", few), texts, strict=True):
        lines = [text for text in each[1:] if text[1] != "query"][::2]
        for framed, ((left, top), _, colour) in zip(frames(page)[-MAX_HITS:], lines, strict=True):
            assert left == framed.left
            assert framed.bottom <= top < page.height - 20
            assert name_of(tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))) == framed.colour


def hostile(example: Example, words: str) -> Example:
    """A text query, and results without a class, called so."""
    query = example.query._replace(query_id=words, text=words, label=words, image_id=None)
    hits = tuple(hit._replace(label=words if hit.rank % 2 else None) for hit in example.rankings[0].hits)
    return replace(of_one_encoder(example, hits=hits), kind="best", query=query)


def test_hostile_names_are_drawn_and_change_no_size(
    world: World, facts: Facts, examples: list[Example], drawn: Path, tmp_path: Path
) -> None:
    words = [*HOSTILE.values(), "\ud800", "W" * 300, "\N{COMBINING ACUTE ACCENT}" * 300]
    every = [hostile(examples[0], example) for example in words]
    named = replace(facts, names={example: example for example in words})
    texts = written(world, named, every, tmp_path / "out")
    font = ImageFont.truetype(findfont("DejaVu Sans"), 11)
    with Image.open(drawn / "cbir_clip" / "0.png") as image:
        expected = image.size
    for (*_, page), each in zip(pages(tmp_path / "out", every), texts, strict=True):
        assert page.size == expected
        assert len(frames(page)) == MAX_HITS
        for _, text, _ in each:
            assert text.isprintable()
        names = [text for (_, top), text, _ in each[1:] if top > each[1][0][1]]
        judgements = [text for (_, top), text, _ in each[1:] if top == each[1][0][1]]
        assert len(names) == len(judgements) == MAX_HITS
        assert max(len(re.sub(r"U\+[0-9A-F]{4}", "_", name)) for name in names) <= 18
        places = [framed.left for framed in frames(page)]
        assert max(map(font.getlength, judgements)) < places[1] - places[0]
        assert len(each[0][1]) <= 200


def test_a_hostile_image_query_is_named_by_its_id(
    world: World, facts: Facts, examples: list[Example], tmp_path: Path
) -> None:
    words = "a\n\x1b[31m\u202eb/../../c"
    example = replace(of_one_encoder(examples[0]), query=examples[0].query._replace(query_id=words))
    ((first, *_),) = written(world, facts, [example], tmp_path / "out")
    assert "a U+001B[31mU+202Eb/../../c" in first[1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cbir_mobilenet"]
