"""The summary on the terminal."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from cbir.report import summary
from cbir.report.facts import Facts
from tests.support.finished import finish, summary_of
from tests.support.world import make_world


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return finish(make_world(tmp_path_factory.mktemp("summary")).write())


def test_the_metrics_fit_a_terminal_of_80_columns(facts: Facts) -> None:
    lines = summary_of(facts).splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines]
    names = ("precision@1", "precision@10", "success@10", "ndcg@10", "map_at_r", "mrr")
    for task, encoder in (("cbir", "mobilenet"), ("cbir", "clip"), ("tbir", "clip")):
        values = [facts.metrics.of_task(task)[encoder][name] for name in names]
        assert [encoder, *(f"{round(value, 9):.3f}" for value in values)] in rows
        assert any(row[:4] == [encoder, task, "flat", "1.000"] and row[-1] == "random:0" for row in rows)
    assert [line.partition(":")[0] for line in lines if " -> " in line] == ["cbir", "tbir"]


def test_ten_encoders_of_long_names_fit_too(facts: Facts) -> None:
    names = [f"siglip2_so400m_14_{number}" for number in range(10)]
    metrics = replace(facts.metrics, cbir=dict.fromkeys(names, facts.metrics.cbir["clip"]), tbir={})
    metrics = replace(
        metrics, **{key: dict.fromkeys(names, getattr(metrics, key)["clip"]) for key in ("ann", "ann_cost")}
    )
    of_all = {key: dict.fromkeys(names, getattr(facts.intervals, key)["clip"]) for key in ("ann", "ann_cost")}
    many = replace(facts, encoders=names, metrics=metrics, intervals=replace(facts.intervals, **of_all))
    many = replace(many, passports=dict.fromkeys(names, facts.passports["clip"]))
    lines = summary_of(many).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(sum(line.startswith(f"{name} ") for line in lines) == 2 for name in names)


def test_a_path_that_looks_like_markup_is_printed_as_text(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.origin = "[/red][bold]a.pt"
    assert "[/red][bold]a.pt" in summary_of(finish(world.write()), width=120)


def test_notes_table_and_paths_are_printed(
    facts: Facts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(summary, "gather_facts", lambda data, reports: facts)
    summary.main()
    words = " ".join(capsys.readouterr().out.split())
    assert words.startswith("note: The weights of mobilenet and clip are random, not trained")
    assert "pictures: 280 gallery images" in words
    first = shlex.quote(min(facts.names.values()))
    assert f"`.venv/bin/cbir search {first}` in this terminal" in words
    assert (
        "report reports/report.html metrics reports/metrics/, all of them in reports/evaluation/ search `make app` in a"
        in words
    )


def test_without_relevant_images_there_is_no_empty_table(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.gallery = dict.fromkeys(world.gallery)
    printed = summary_of(finish(world.write()))
    assert "cbir: image query" not in printed
    assert "Search with the index" in printed
