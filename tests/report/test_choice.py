"""The section of the report that says which encoder to take: tables in Markdown and HTML, against the comparison."""

from dataclasses import replace
from pathlib import Path

import pytest
from markupsafe import Markup

from cbir.artifacts.comparison import EncoderComparison, EncoderCost
from cbir.report.choice import choices
from cbir.report.choice_table import COST_HEADS, choice_markdown, choice_table
from cbir.report.page import write_page
from tests.support.compared import COST, metric_of
from tests.support.html import Element, read
from tests.support.markdown import tables

MEANS = {"a": 0.83, "b": 0.826, "c": 0.7}
METRICS = [metric_of(MEANS, {"a b": 0.21}), metric_of({"c": 0.6, "b": 0.5, "a": 0.4}, metric="map_at_r")]
COSTS = {
    "a": COST,
    "b": replace(COST, images_per_s=None, weights_bytes=None, parameters=None),
    "c": EncoderCost(1024, 4_096_000, 4096.4, 1_250_000_000, 302_000_000, 1234.5, "H100"),
}
COMPARISON = EncoderComparison({"cbir": METRICS, "tbir": [metric_of({"a": 0.5}, classes=3)]}, COSTS, {})


def in_page(comparison: EncoderComparison, folder: Path) -> Element:
    """The section in HTML."""
    write_page(folder / "choice.html", "choice.html.j2", {}, {}, choices=choices(comparison), pictures={})
    return read(f"<main>{(folder / 'choice.html').read_text(encoding='utf-8')}</main>")


def cells_of(table: Element) -> list[list[str]]:
    rows = [row for row in table.walk() if row.tag == "tr"]
    return [[cell.text for cell in row.inside if isinstance(cell, Element)] for row in rows]


EXPECTED = [
    ["rank", "encoder", "precision@10", "group", "map_at_r", *COST_HEADS],
    ["1", "a", "0.830 [0.800, 0.860]", "a", "0.400 [0.370, 0.430]", "40.0", "512", "2,048", "350.0", "87.0"],
    ["2", "b", "0.826 [0.796, 0.856]", "a", "0.500 [0.470, 0.530]", "-", "512", "2,048", "-", "-"],
    ["3", "c", "0.700 [0.670, 0.730]", "b", "0.600 [0.570, 0.630]", "1,234.5", "1,024", "4,096", "1,250.0", "302.0"],
]
SINGLE = [
    ["encoder", "precision@10", *COST_HEADS],
    ["a", "0.500", "40.0", "512", "2,048", "350.0", "87.0"],
]


def test_the_markdown_table_has_all_encoders_in_order() -> None:
    assert tables(choice_markdown(choice_table("cbir", METRICS, COSTS))) == [EXPECTED]


def test_the_page_has_the_same_table_and_each_pair(tmp_path: Path) -> None:
    page = in_page(COMPARISON, tmp_path)
    first, pairs, single = [cells_of(element) for element in page.walk() if element.tag == "table"]
    assert first == EXPECTED
    assert [row[:2] for row in pairs[1:]] == [["a", "b"], ["a", "c"], ["b", "c"]]
    assert pairs[1][2:] == ["0.004 [-0.026, 0.034]", "0.1050", "0.2100", "no"]
    assert [row[-1] for row in pairs[1:]] == ["no", "yes", "yes"]
    assert single == SINGLE


def test_a_single_encoder_has_neither_rank_nor_group() -> None:
    assert tables(choice_markdown(choice_table("tbir", COMPARISON.tasks["tbir"], COSTS))) == [SINGLE]


def test_sentences_are_above_each_table_of_the_markdown() -> None:
    for task, choice in choices(COMPARISON).items():
        assert choice.markdown.startswith(
            f"{' '.join(choice.sentences)}\n\n| {'rank' if task == 'cbir' else 'encoder'} |"
        )
        assert f"For {'image' if task == 'cbir' else 'text'} queries" in choice.sentences[0]


def test_each_task_has_its_charts_drawn(tmp_path: Path) -> None:
    charts = [element for element in in_page(COMPARISON, tmp_path).walk() if element.tag == "svg"]
    assert [chart.attributes["aria-label"] for chart in charts] == [
        "cbir: precision@10 and speed of embedding",
        "cbir: precision@10 and size in the index",
    ]
    assert all(isinstance(chart, Markup) for choice in choices(COMPARISON).values() for chart in choice.charts)


def test_the_note_says_what_a_letter_means() -> None:
    note, _ = choice_table("cbir", METRICS, COSTS).notes
    assert (
        "share a letter cannot be told apart in precision@10: paired randomisation tests of all 3 pairs, with Holm"
        in note
    )
    assert "overlap says nothing" in note
    (two,) = choice_table("cbir", [metric_of({"a": 0.8, "b": 0.7})], {}).notes
    assert "a paired randomisation test, level 5 %" in two
    assert "Holm" not in two
    assert choice_table("cbir", [metric_of({"a": 0.8})], {"a": COST}).notes == []


def test_the_note_says_why_a_speed_is_absent() -> None:
    (note,) = choice_table("cbir", [metric_of({"b": 0.8})], COSTS).notes
    assert note.startswith("Without images/s: the run embedded fewer than 100 images")


def test_too_few_classes_have_neither_tests_nor_letters_explained(tmp_path: Path) -> None:
    few = EncoderComparison({"cbir": [metric_of(MEANS, classes=4)]}, COSTS, {})
    assert choices(few)["cbir"].table.notes[0].startswith("There are too few classes for tests")
    page = in_page(few, tmp_path)
    assert [element.tag for element in page.walk() if element.tag == "table"] == ["table"]


def test_an_encoder_without_cost_or_value_has_dashes() -> None:
    table = choice_table("cbir", [metric_of(MEANS), metric_of({"a": 0.5}, metric="map_at_r")], {})
    assert [row.costs for row in table.rows] == [["-"] * len(COST_HEADS)] * 3
    (shown,) = tables(choice_markdown(table))
    assert [row[4] for row in shown[1:]] == ["0.500 [0.470, 0.530]", "-", "-"]


@pytest.mark.parametrize("name", ["<b>x", "a|b", "a_b_c", "*x*"])
def test_a_name_is_text_in_both_forms(name: str, tmp_path: Path) -> None:
    hostile = EncoderComparison({"cbir": [metric_of({name: 0.8, "b": 0.7})]}, {name: COST, "b": COST}, {})
    (shown,) = tables(choice_markdown(choices(hostile)["cbir"].table))
    assert shown[1][1] == name
    first, *_ = [cells_of(element) for element in in_page(hostile, tmp_path).walk() if element.tag == "table"]
    assert first[1][1] == name


def test_a_run_without_metrics_has_no_section(tmp_path: Path) -> None:
    assert choices(EncoderComparison({}, COSTS, {})) == {}
    assert in_page(EncoderComparison({}, COSTS, {}), tmp_path).text == ""
