"""The summary on the terminal."""

import re
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
    rows = {
        cells[0]: cells[1:] for line in lines if len(cells := [c.strip() for c in re.split("[│┃]", line)[1:-1]]) > 1
    }
    assert rows[""] == ["cbir mobilenet", "cbir clip", "tbir clip"]
    evaluated = [("cbir", "mobilenet"), ("cbir", "clip"), ("tbir", "clip")]
    for name in ("precision@1", "precision@10", "success@10", "ndcg@10", "map_at_r", "mrr"):
        values = [facts.metrics.of_task(task)[encoder][name] for task, encoder in evaluated]
        assert rows[name] == [f"{round(value, 9):.3f}" for value in values]
    assert rows["ann_recall@50"] == ["1.000"] * 3
    assert rows["index"] == ["flat"] * 3
    assert rows["weights"] == ["random:0"] * 3


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
    assert "image_folder: 280 gallery images" in words
    assert (
        "report reports/report.html metrics reports/metrics/, all of them in reports/evaluation/ search `make app` in a"
        in words
    )
