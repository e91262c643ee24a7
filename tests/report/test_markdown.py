"""The report of a small world, as a Markdown viewer shows it."""

import itertools
import re
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from cbir.artifacts.images import Quarantined
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.core.errors import DataError
from cbir.core.files import read_json, write_json
from cbir.index.params import SearchParams
from cbir.report.facts import Facts
from cbir.report.gathering import gather_facts
from cbir.report.markdown import escaped
from cbir.report.notes import notes
from tests.support import world as worlds
from tests.support.evaluated import rows_of_all
from tests.support.finished import HOSTILE, finish, markdown_of, search_times, summary_of
from tests.support.html import displayed
from tests.support.markdown import parsed, tables, text_of
from tests.support.world import DIMS, PARAMS, PROMPT_SETS, World, make_world

FAMILIES = ("precision", "success", "recall", "ndcg")
WHOLE = ("r_precision", "map_at_r", "map", "mrr")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("report")).write()


@pytest.fixture(scope="module")
def facts(made: World) -> Facts:
    return finish(made)


@pytest.fixture(scope="module")
def page(facts: Facts, tmp_path_factory: pytest.TempPathFactory) -> str:
    return markdown_of(facts, tmp_path_factory.mktemp("page"))


def table_of(page: str, *header: str) -> list[list[str]]:
    """The rows of the only table whose header begins like this."""
    (found,) = [table for table in tables(page) if tuple(table[0][: len(header)]) == header]
    return found[1:]


def headings(page: str) -> list[str]:
    tokens = parsed(page)
    return [text_of(after) for token, after in itertools.pairwise(tokens) if token.type == "heading_open"]


def section(page: str, heading: str) -> str:
    """The part of the page below a heading, to the next one."""
    _, _, rest = page.partition(f"# {heading}\n")
    return re.split(r"^#", rest, flags=re.M)[0]


def shown(value: float | None, interval: list[float] | None = None) -> str:
    bounds = "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    return "-" if value is None else f"{round(value, 9):.3f}{bounds}"


def all_shown(values: dict[str, float], intervals: dict[str, list[float]], names: Iterable[str]) -> list[str]:
    """Each of these metrics has a value, and an interval if there are enough classes."""
    return [shown(values[name], intervals.get(name)) for name in names]


# --- what the report shows --------------------------------------------------------------------------------------------


def test_random_weights_are_noted_in_the_first_line(page: str) -> None:
    assert page.startswith("> **Read this first:** The weights of mobilenet and clip are random, not trained")


def test_demo_weights_are_noted_with_the_way_to_real_ones(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.origin = "demo:clip"
    first = markdown_of(finish(world.write()), tmp_path).splitlines()[0]
    assert first.startswith(
        "> **Read this first:** The demo weights of mobilenet and clip were trained only on this project's drawn shapes: "
    )
    assert first.endswith(
        "For real encoders, add `'encoders=[mobilenet_v3_large,clip_vit_b_32]'` to your `cbir compose ...`, then `make repro`."
    )


def test_trained_weights_have_no_note(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.origin = "https://weights.example/a_b.safetensors"
    page = markdown_of(finish(world.write()), tmp_path)
    assert "weights of mobilenet" not in page
    settings = table_of(page, "encoder", "architecture", "weights")
    assert [row[2].split()[0] for row in settings] == [world.origin] * 2


def test_the_headline_comes_first_with_the_values_of_metrics_json(facts: Facts, page: str) -> None:
    assert headings(page)[0] == "Retrieval report: pictures"
    first = tables(page)[0]
    names = ["precision@10", "success@1", "map_at_r", "ndcg@10"]
    assert first[0] == ["task", "encoder", *names, "ann_recall@10", "p50 of one search, ms"]
    assert page.index("| precision@10 |") < page.index("## What was run")
    metrics, intervals, times = facts.metrics, facts.intervals, facts.latency.encoders
    rows = []
    for task, modality, encoders in (("cbir", "image", ["mobilenet", "clip"]), ("tbir", "text", ["clip"])):
        for encoder in encoders:
            means, bounds = metrics.of_task(task)[encoder], intervals.of_task(task)[encoder]
            found, found_bounds = metrics.ann[encoder][modality], intervals.ann[encoder][modality]
            rows.append(
                [
                    *(task, encoder),
                    *(shown(means[name], bounds[name]) for name in names),
                    shown(found["ann_recall@10"], found_bounds["ann_recall@10"]),
                    shown(times[encoder][modality]["index"].p50_ms),
                ]
            )
        rows.append([task, "by chance", shown(metrics.chance[task]["precision"]), *"-----"])
    assert first[1:] == rows


@pytest.mark.parametrize(("task", "encoders"), [("cbir", ["mobilenet", "clip"]), ("tbir", ["clip"])])
def test_each_task_shows_all_metrics_in_the_files_order(
    facts: Facts, page: str, task: str, encoders: list[str]
) -> None:
    part = section(page, next(heading for heading in headings(page) if heading.startswith(task)))
    by_k, whole = tables(part)
    assert by_k[0] == ["metric", "encoder", *(f"@{k}" for k in PARAMS.ks)]
    expected = []
    for family in FAMILIES:
        names = [f"{family}@{k}" for k in PARAMS.ks]
        expected += [
            [family, e, *all_shown(facts.metrics.of_task(task)[e], facts.intervals.of_task(task)[e], names)]
            for e in encoders
        ]
        if family in ("precision", "recall"):
            expected.append([family, "ceiling", *(shown(facts.metrics.ceilings[task][name]) for name in names)])
    assert by_k[1:] == expected
    assert whole[0] == ["encoder", *WHOLE]
    assert whole[1:] == [
        [e, *all_shown(facts.metrics.of_task(task)[e], facts.intervals.of_task(task)[e], WHOLE)] for e in encoders
    ]
    n_shown = (len(by_k[0]) - 2) * len(FAMILIES) + len(WHOLE)
    assert n_shown == len(facts.metrics.of_task(task)[encoders[0]])  # nothing in metrics.json is left out


def test_subsets_of_text_queries_are_shown_separately(facts: Facts, page: str) -> None:
    by_k, whole = tables(section(page, "clip, by subset of queries"))
    subsets, intervals = (groups.subsets["tbir"]["clip"] for groups in (facts.metrics, facts.intervals))
    expected = []
    for family in FAMILIES:
        for name in ("captions", "class prompts"):
            names = [f"{family}@{k}" for k in PARAMS.ks]
            expected.append([family, name, *all_shown(subsets[name], intervals[name], names)])
    assert by_k[1:] == expected
    assert whole[1:] == [[name, *all_shown(subsets[name], intervals[name], WHOLE)] for name in subsets]


def test_recall_cost_and_speed_of_the_index_are_shown(tmp_path: Path) -> None:
    facts = finish(make_world(tmp_path).write("flat", "ivf_flat"), kind="ivf_flat", search=SearchParams(nprobe=1))
    page = markdown_of(facts, tmp_path)
    rows = table_of(page, "encoder", "queries", "ann_recall@1", "ann_recall@10", "ann_recall@50")
    kinds = [(encoder, kind) for encoder in DIMS for kind in ("image", "gallery image")]
    for (encoder, kind), row in zip([*kinds, ("clip", "text")], rows, strict=True):
        found, intervals = (groups.ann[encoder][kind] for groups in (facts.metrics, facts.intervals))
        recalls = all_shown(found, intervals, [f"ann_recall@{k}" for k in PARAMS.ann_ks])
        cost = (facts.metrics.ann_cost[encoder][kind], facts.intervals.ann_cost[encoder][kind])
        assert row == [
            encoder,
            f"{kind.replace(' ', '-')} queries",
            *recalls,
            *all_shown(*cost, ["precision@10", "map_at_r"]),
        ]
    times = table_of(page, "encoder", "queries", "search")
    assert [row[:3] for row in times] == [
        [encoder, f"{modality} queries", search]
        for encoder, modality in (("mobilenet", "image"), ("clip", "image"), ("clip", "text"))
        for search in ("index", "exact")
    ]
    measured = facts.latency.encoders["clip"]["text"]["index"]
    assert times[4][3:6] == [shown(ms) for ms in (measured.p50_ms, measured.p95_ms, measured.p99_ms)]
    assert measured.batch_queries_per_s is None  # of three queries
    assert times[4][6] == "-"
    builds = table_of(page, "encoder", "build, s")
    assert [row[0] for row in builds] == ["mobilenet", "clip"]
    assert builds[0][1] == str(facts.builds["mobilenet"]["build_s"])
    assert builds[0][3] == f"{facts.builds['mobilenet']['bytes_per_vector']:,.0f}"


def test_equally_fast_exact_search_is_noted_for_approximate_indexes(tmp_path: Path) -> None:
    facts = finish(make_world(tmp_path).write("flat", "hnsw"), kind="hnsw")
    times = {
        "mobilenet": {"image": search_times(1.0, 1.05)},
        "clip": {"image": search_times(1.0, 2.0), "text": search_times(2.0, 1.0)},
    }
    passports = {"mobilenet": {**facts.passports["mobilenet"], "kind": "hnsw"}, "clip": {**facts.passports["clip"]}}
    found = replace(facts, latency=replace(facts.latency, encoders=times), passports=passports)
    told = (
        "mobilenet, image queries: exact search is as fast (p50 1.050 ms, with the index 1.000 ms) and misses nothing."
    )
    assert found.as_fast == [told]
    assert told in " ".join(text_of(token) for token in parsed(markdown_of(found, tmp_path)) if token.type == "inline")
    passports["clip"]["kind"] = "ivf_flat"
    assert [line.split(":")[0] for line in found.as_fast] == ["mobilenet, image queries", "clip, text queries"]


def test_failures_are_shown_worst_first(made: World, page: str) -> None:
    for task, encoder in (("cbir", "mobilenet"), ("cbir", "clip"), ("tbir", "clip")):
        classes, confused, queries = tables(section(page, f"{task} {encoder}"))
        per_query = rows_of_all(made.root / "reports", "per_query")
        rows = [
            row
            for row in per_query
            if (row["task"], row["encoder"], row["search"]) == (task, encoder, "exact") and row["map_at_r"] is not None
        ]
        by_class: dict[str, list[float]] = {}
        for row in rows:
            by_class.setdefault(row["label"], []).append(row["map_at_r"])
        worst = sorted((sum(values) / len(values), label) for label, values in by_class.items())
        assert [row[0] for row in classes[1:]] == [label for _, label in worst[:5]]
        assert [row[3] for row in classes[1:]] == [shown(value) for value, _ in worst[:5]]
        assert [row[3] for row in queries[1:]] == [
            shown(value) for value in sorted(row["map_at_r"] for row in rows)[:5]
        ]
        shares = [float(row[2]) for row in confused[1:]]
        assert shares == sorted(shares, reverse=True)
        assert len(shares) == 5


def test_duplicates_are_shown_with_the_metrics_without_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(tmp_path)
    for found in world.vectors.values():
        found["queries"]["ask01"] = found["gallery"]["img005"]
    packed = worlds._packed
    monkeypatch.setattr(
        worlds,
        "_packed",
        lambda row: replace(
            packed(row), fingerprint=packed(("img005" if row[0] == "ask01" else row[0], None)).fingerprint
        ),
    )
    facts = finish(world.write())
    page = markdown_of(facts, tmp_path)
    assert "> **Note:** 1 image query has a copy in the gallery: *Duplicates* shows the metrics without it." in page
    part = section(page, "Duplicates")
    assert "(0 by bytes, 1 by pixels, 1 by mobilenet, 1 by clip)" in part
    figures, pairs = tables(part)
    place = figures[0].index("map_at_r")
    metrics, intervals = facts.metrics, facts.intervals
    assert [[*row[:2], row[place]] for row in figures[1:]] == [
        [encoder, queries, shown(means[encoder]["map_at_r"], bounds[encoder]["map_at_r"])]
        for encoder in ("mobilenet", "clip")
        for queries, means, bounds in (
            ("all", metrics.cbir, intervals.cbir),
            ("without duplicates", metrics.without_duplicates, intervals.without_duplicates),
        )
    ]
    assert [row[2:] for row in pairs[1:]] == [["clip", "1.000"], ["mobilenet", "1.000"], ["pixels", "0.000"]]
    assert {tuple(row[:2]) for row in pairs[1:]} == {("ask01", "img005")}


def test_classes_are_shown_by_name(facts: Facts, tmp_path: Path) -> None:
    named = replace(facts, names={"c1": "gold|fish", "c2": "c2"})
    assert [named.class_name(label) for label in ("c1", "c2", "c3", None)] == ["gold|fish (c1)", "c2", "c3", "-"]
    assert "gold\\|fish (c1)" in markdown_of(named, tmp_path)


def test_without_duplicates_the_report_says_so(page: str) -> None:
    assert "No image query has a copy in the gallery, by bytes, by pixels or by vectors." in page


def test_classification_accuracies_are_shown(facts: Facts, page: str) -> None:
    (table,) = tables(section(page, "Classification"))
    names = ["prototype_accuracy@1", "prototype_accuracy@5", "knn_accuracy@1", "knn_accuracy@5"]
    assert table[0] == ["encoder", *names]
    for row in table[1:]:
        values, intervals = (groups.categories[row[0]] for groups in (facts.metrics, facts.intervals))
        assert row[1:] == all_shown(values, intervals, names)


def test_prompt_sets_are_compared(facts: Facts, page: str) -> None:
    (table,) = tables(section(page, "clip, by prompt set"))
    assert list(facts.prompts) == ["clip"]
    assert [row[0] for row in table[1:]] == list(facts.prompts["clip"]) == PROMPT_SETS
    for row in table[1:]:
        found = facts.prompts["clip"][row[0]]
        assert row[1] == {"synonyms": "2"}.get(row[0], "1")
        assert row[2:4] == all_shown(found.mean, found.mean_intervals, ["success@1", "precision@10"])
        assert row[4] == shown(found.spread["precision@10"])
        assert row[5:7] == all_shown(found.ensemble, found.ensemble_intervals, ["precision@10", "map_at_r"])
        assert row[7] == f"{found.worst_label} ({shown(found.worst_class['precision@10'])})"


def test_counts_of_images_and_queries_are_shown(page: str) -> None:
    words = " ".join(page.split())
    assert "image_folder" in text_of(next(t for t in parsed(page) if t.type == "inline" and "Data set" in t.content))
    assert (
        "280 gallery images in 8 classes (34 per class), 8 without a label; 22 cbir queries, 14 tbir queries;" in words
    )
    assert "relevance: same label; 0 images in quarantine." in words
    assert "> **Note:** 2 cbir queries have no relevant image in the gallery and are left out of the means." in page
    assert "> **Note:** 1 tbir query has no relevant image in the gallery and is left out of the means." in page


def test_other_ks_change_columns_and_headline(tmp_path: Path) -> None:
    params = type(PARAMS)(
        ks=[3, 7, 20], ann_ks=[5], run_depth=30, duplicate_cosine=0.9999, resamples=100, latency_queries=3, seed=0
    )
    facts = finish(make_world(tmp_path, graded=True).write(), params)
    page = markdown_of(facts, tmp_path)
    names = tables(page)[0][0][2:]
    assert names == ["precision@7", "success@3", "map_at_r", "ndcg@7", "ann_recall@5", "p50 of one search, ms"]
    assert tables(section(page, "tbir: text query -> images"))[0][0][2:] == ["@3", "@7", "@20"]
    assert "relevance: graded judgements" in page


def test_the_same_facts_give_the_same_bytes(facts: Facts, page: str, tmp_path: Path) -> None:
    assert markdown_of(facts, tmp_path) == page


# --- little to report -------------------------------------------------------------------------------------------------


def test_without_queries_the_report_says_so(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.queries = []
    for found in world.vectors.values():
        found["queries"] = {}
    world.vectors["clip"]["texts"] = {}
    facts = finish(world.write())
    page = markdown_of(facts, tmp_path)
    assert "> **Note:** The query list is empty, so there are no metrics." in page
    assert "no queries;" in page
    assert "There are no cbir queries." in page
    assert "There are no tbir queries." in page
    assert [table[0][:2] for table in tables(page)] == [
        ["prompt set", "prompts per class"],
        ["encoder", "build, s"],
        ["encoder", "architecture"],
    ]
    assert "cbir" not in summary_of(facts)


def test_without_text_queries_only_the_text_task_is_empty(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.queries = world.queries_of("cbir")
    del world.vectors["clip"]["texts"]
    page = markdown_of(finish(world.write()), tmp_path)
    assert [row[:2] for row in tables(page)[0][1:3]] == [["cbir", "mobilenet"], ["cbir", "clip"]]
    assert "There are no tbir queries." in page
    assert "by subset of queries" not in page


def test_without_labels_the_report_still_shows_the_index(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.gallery = dict.fromkeys(world.gallery)
    facts = finish(world.write())
    page = markdown_of(facts, tmp_path)
    assert "left out of the means." not in page  # there are none
    assert (
        page.count(
            "No query has a relevant image: for metrics, provide class folders, or a query list with labels or qrels"
        )
        == 2
    )
    assert tables(page)[0][0] == ["task", "encoder", "ann_recall@10", "p50 of one search, ms"]
    rows = table_of(page, "encoder", "queries", "ann_recall@1")
    assert [[cell.split()[0] for cell in row[2:]] for row in rows] == [["1.000"] * 3 + ["-"] * 2] * 5
    assert "280 gallery images, 280 without a label" in page
    assert "by subset of queries" not in page
    assert "precision" not in summary_of(facts)


@pytest.mark.parametrize(
    "file",
    [
        "encoders.json",
        "evaluation/mobilenet/metrics.json",
        "evaluation/clip/metrics.json",
        "evaluation/clip/intervals.json",
        "evaluation/mobilenet/classes.parquet",
        "evaluation/clip/duplicates.parquet",
        "latency/clip.json",
    ],
)
def test_an_absent_artifact_is_named_with_the_next_command(
    made: World, facts: Facts, tmp_path: Path, file: str
) -> None:
    shutil.copytree(made.root / "reports", tmp_path / "reports")
    (tmp_path / "reports" / file).unlink()
    with pytest.raises(DataError, match=rf"reports/{re.escape(file)} is not here: run `dvc repro`"):
        gather_facts(DataPaths(made.data), ReportPaths(tmp_path / "reports"))


# --- text from data ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Quarantined]]:
    world = make_world(tmp_path_factory.mktemp("hostile"))
    world.quarantine = [
        Quarantined(f"{number:02d} {text}", None, text, text[::-1], 7) for number, text in enumerate(HOSTILE.values())
    ]
    return markdown_of(finish(world.write()), world.root), world.quarantine


def test_hostile_text_in_the_quarantine_is_shown_as_text(
    hostile: tuple[str, list[Quarantined]],
) -> None:
    page, rows = hostile
    expected = [[displayed(row.source), displayed(row.reason), displayed(row.detail)] for row in rows]
    assert table_of(page, "image", "reason", "detail") == expected
    assert len(headings(page)) == len(set(headings(page))) == 18
    assert f"> **Note:** {len(rows)} images could not be decoded: they are in quarantine and in no metric." in page


def test_no_character_that_turns_or_hides_text_reaches_the_page(hostile: tuple[str, list[Quarantined]]) -> None:
    page, _ = hostile
    assert {character for character in page if not character.isprintable()} == {"\n"}
    assert "gpj.U+202Eexe.pngU+2066" in table_of(page, "image", "reason", "detail")[10][1]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_an_escaped_text_reads_unchanged_in_lines_and_cells(text: str) -> None:
    assert len(escaped(text)) <= 400  # each character escaped at most
    line = MarkdownIt("commonmark").parse(f"> *before* {escaped(text)}")
    assert text_of(next(token for token in line if token.type == "inline")) == f"before {displayed(text)}".rstrip()
    ((_, row),) = tables(f"| a | b |\n|---|---|\n| {escaped(text)} | end |\n")
    assert row == [displayed(text), "end"]


@pytest.mark.parametrize("address", ["http://a.example", "https://a.example", "ftp://a.example", "www.a.example"])
def test_addresses_that_github_would_link_are_broken_up(address: str) -> None:
    assert not re.search(r"(?<!\\)://|www\.", escaped(address))


def test_a_long_text_is_cut_with_an_ellipsis() -> None:
    assert escaped("y" * 200) == "y" * 200
    assert escaped("y" * 201) == "y" * 199 + "…"


def test_a_large_quarantine_is_cut_and_counted(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.quarantine = [Quarantined(f"bad{number:04d}", None, "truncated", "", 7) for number in range(1234)]
    page = markdown_of(finish(world.write()), tmp_path)
    assert [row[0] for row in table_of(page, "image", "reason", "detail")] == [f"bad{n:04d}" for n in range(20)]
    assert "... and 1,214 more in `data/images/quarantine.parquet`." in page
    assert "> **Note:** 1,234 images could not be decoded" in page


def test_one_bad_image_is_noted_in_the_singular(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.quarantine = [Quarantined("bad", None, "truncated", "", 7)]
    page = markdown_of(finish(world.write()), tmp_path)
    assert "> **Note:** 1 image could not be decoded: it is in quarantine and in no metric." in page


def test_ignored_files_are_noted(tmp_path: Path) -> None:
    world = make_world(tmp_path).write()
    finish(world)
    path = world.data / "images" / "summary.json"
    write_json(path, {**read_json(path), "ignored_files": {"": 1, ".heic": 5, ".<img src=x>": 2, ".`|**b**": 1}})
    facts = gather_facts(DataPaths(world.data), ReportPaths(tmp_path / "reports"))
    assert any("no suffix: 1, .heic: 5, other suffixes: 3" in note for note in notes(facts))
    parsed(markdown_of(facts, tmp_path))
