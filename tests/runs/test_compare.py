"""Runs against each other: every figure worked out once more from per_query.parquet, refusals, and what is printed."""

import json
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from cbir.cli import main as cli
from cbir.core.errors import ConfigError, DataError
from cbir.runs.compare import IDENTICAL, METRICS, Change, Comparison, compare
from cbir.runs.comparison_tables import as_markdown, print_tables
from cbir.runs.opening import Run, open_run
from tests.support.world import PARAMS, World, make_world, unit


def run_of(world: World, folder: Path) -> Path:
    world.evaluate(folder, params=replace(PARAMS, ks=[1, 10]))
    return folder


def better(world: World, root: Path, step: float) -> World:
    """The same queries over the same gallery, by a clip that sees each image a step nearer to its class."""
    vectors = {name: {kind: dict(rows) for kind, rows in kinds.items()} for name, kinds in world.vectors.items()}
    gallery = vectors["clip"]["gallery"]
    for label in {*world.gallery.values()} - {None}:
        ids = [image_id for image_id, found in world.gallery.items() if found == label]
        centre = np.mean([gallery[image_id] for image_id in ids], axis=0)
        for image_id in ids:
            gallery[image_id] = unit(gallery[image_id] + step * centre)
    return World(root, world.gallery, world.held_out, world.queries, vectors, world.qrels).write()


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, World]:
    root = tmp_path_factory.mktemp("worlds")
    world = make_world(root / "plain").write()
    return world, better(world, root / "better", 1.0)


@pytest.fixture(scope="module")
def folders(worlds: tuple[World, World]) -> tuple[Path, Path]:
    plain, other = worlds
    return run_of(plain, plain.root / "reports"), run_of(other, other.root / "reports")


@pytest.fixture(scope="module")
def found(folders: tuple[Path, Path]) -> list[Comparison]:
    return compare([open_run(str(folder)) for folder in folders], METRICS, 1000, 0)


def test_every_line_is_the_mean_of_the_queries_differences(found: list[Comparison], folders: tuple[Path, Path]) -> None:
    rows = [pq.read_table(folder / "per_query.parquet").to_pylist() for folder in folders]
    assert {(one.task, one.encoder, one.search, one.metric) for one in found} >= {
        ("cbir", "mobilenet", "exact", "precision@10"),
        ("cbir", "clip", "exact", "map_at_r"),
        ("tbir", "clip", "index", "ndcg@10"),
    }
    for one in found:
        key = (one.task, one.encoder, one.search)
        before, after = (
            {row["query_id"]: row[one.metric] for row in side if (row["task"], row["encoder"], row["search"]) == key}
            for side in rows
        )
        change = {q: after[q] - before[q] for q in before if before[q] is not None}
        assert one.queries == len(change)
        assert one.difference == pytest.approx(np.mean(list(change.values())), abs=1e-12)
        assert one.base_mean == pytest.approx(np.mean([before[q] for q in change]), abs=1e-12)
        assert one.run_mean == pytest.approx(np.mean([after[q] for q in change]), abs=1e-12)
        assert [one_query.change for one_query in one.won] == sorted(c for c in change.values() if c > 0)[::-1][:5]
        assert [one_query.change for one_query in one.lost] == sorted(c for c in change.values() if c < 0)[:5]
        assert all(change[one_query.name] == one_query.change for one_query in (*one.won, *one.lost))


def test_classes_hold_the_mean_change_of_their_queries(found: list[Comparison], folders: tuple[Path, Path]) -> None:
    (one,) = [o for o in found if (o.task, o.encoder, o.search, o.metric) == ("cbir", "clip", "exact", "precision@10")]
    sides = [
        {
            (row["label"], row["query_id"]): row["precision@10"]
            for row in pq.read_table(folder / "per_query.parquet").to_pylist()
            if (row["task"], row["encoder"], row["search"]) == ("cbir", "clip", "exact")
        }
        for folder in folders
    ]
    for label, mean in {change.name: change.change for change in one.classes}.items():
        expected = [sides[1][key] - sides[0][key] for key in sides[0] if key[0] == label and sides[0][key] is not None]
        assert mean == pytest.approx(np.mean(expected))
    assert [change.change for change in one.classes] == sorted(change.change for change in one.classes)


def test_what_did_not_change_is_identical_and_what_grew_is_better(
    found: list[Comparison], folders: tuple[Path, Path]
) -> None:
    verdicts = {(one.encoder, one.metric): one.verdict for one in found if (one.task, one.search) == ("cbir", "exact")}
    assert {verdicts["mobilenet", metric] for metric in METRICS} == {"identical"}
    # of one metric alone: nine classes have 512 signs, so that p cannot be small enough for many comparisons
    alone = compare([open_run(str(folder)) for folder in folders], ["map_at_r"], 5000, 0)
    (map_at_r,) = [one for one in alone if (one.task, one.encoder, one.search) == ("cbir", "clip", "exact")]
    assert map_at_r.difference > 0.05
    assert map_at_r.interval is not None
    assert map_at_r.interval.low < map_at_r.difference < map_at_r.interval.high
    assert map_at_r.p < 0.05
    assert map_at_r.verdict == f"{map_at_r.run} is better"


def test_the_other_way_round_differences_change_their_sign(found: list[Comparison], folders: tuple[Path, Path]) -> None:
    back = compare([open_run(str(folder)) for folder in folders[::-1]], METRICS, 1000, 0)
    for one, other in zip(found, back, strict=True):
        assert (one.metric, one.difference, one.p) == (other.metric, pytest.approx(-other.difference), other.p)
        assert [change.change for change in one.won] == [-change.change for change in other.lost]


def test_a_run_against_itself_differs_nowhere(folders: tuple[Path, Path]) -> None:
    run = open_run(str(folders[0]))
    again = compare([run, run], METRICS, 200, 0)
    assert {one.verdict for one in again} == {"identical"}
    assert {one.p for one in again} == {1.0}


def test_p_is_corrected_over_metrics_and_runs(folders: tuple[Path, Path]) -> None:
    runs = [open_run(str(folder)) for folder in folders]
    (alone,) = [
        one
        for one in compare(runs, ["mrr"], 2000, 0)
        if (one.task, one.encoder, one.search) == ("cbir", "clip", "exact")
    ]
    many = [
        one
        for one in compare([*runs, runs[1], runs[1]], METRICS, 2000, 0)
        if (one.task, one.encoder, one.search, one.metric) == ("cbir", "clip", "exact", "mrr")
    ]
    assert len(many) == 3
    assert all(one.p >= alone.p for one in many)


def test_every_test_is_corrected_for_all_and_twins_count_once(folders: tuple[Path, Path]) -> None:
    runs = [open_run(str(folder)) for folder in folders]
    with mock.patch("cbir.runs.compare.holm", lambda p: p):
        raw = compare(runs, METRICS, 5000, 0)
    found = compare(runs, METRICS, 5000, 0)
    tests = {(one.task, one.encoder, one.metric): one.p for one in raw if one.verdict != IDENTICAL}
    smallest = min(tests.values())
    least = next(one for one in raw if one.verdict != IDENTICAL and one.p == smallest)
    corrected = {(one.task, one.encoder, one.metric, one.search): one.p for one in found}
    # a flat index answers as exact search does
    for search in ("exact", "index"):
        p = corrected[least.task, least.encoder, least.metric, search]
        assert p == pytest.approx(min(1.0, smallest * len(tests)))


def few_classes(n_classes: int, value: float) -> Run:
    rows = [
        {
            "query_id": f"q{number}",
            "task": "cbir",
            "encoder": "clip",
            "search": "exact",
            "subset": None,
            "label": f"c{number % n_classes}",
            "precision@10": value,
            "map_at_r": value,
        }
        for number in range(10 * n_classes)
    ]
    return Run(str(value), {"gallery": {"rows": 1, "sha256": ""}}, pa.Table.from_pylist(rows))


@pytest.mark.parametrize(
    ("n_classes", "verdict"), [(5, "cannot tell: too few classes for so many comparisons"), (12, "0.9 is better")]
)
def test_where_no_difference_could_be_told_that_is_said(n_classes: int, verdict: str) -> None:
    found = compare([few_classes(n_classes, 0.1), few_classes(n_classes, 0.9)], ["precision@10", "map_at_r"], 100, 0)
    assert [one.verdict for one in found] == [verdict] * 2


@pytest.mark.parametrize("what", ["gallery", "queries", "judgements"])
def test_runs_over_other_data_are_refused_naming_what_differs(folders: tuple[Path, Path], what: str) -> None:
    base, run = (open_run(str(folder)) for folder in folders)
    fewer = Run("other", {**run.collection, what: {"rows": 7, "sha256": "0"}}, run.per_query)
    with pytest.raises(DataError, match=rf"cannot be compared: their {what} differ \([\d,]+ rows against 7\)"):
        compare([base, fewer], METRICS, 200, 0)
    changed = Run("other", {**run.collection, what: {**run.collection[what], "sha256": "0"}}, run.per_query)
    with pytest.raises(DataError, match=rf"their {what} differ .*with other contents\); run both over the same data"):
        compare([base, changed], METRICS, 200, 0)


def test_a_real_change_of_the_gallery_is_seen(worlds: tuple[World, World], tmp_path: Path) -> None:
    world = worlds[0]
    ids = list(world.gallery)
    gallery = {**world.gallery, ids[0]: world.gallery[ids[1]]}
    changed = World(tmp_path, gallery, world.held_out, world.queries, world.vectors, world.qrels).write()
    runs = [open_run(str(run_of(one, tmp_path / name))) for name, one in (("a", world), ("b", changed))]
    with pytest.raises(DataError, match=r"their gallery differ .*with other contents"):
        compare(runs, METRICS, 200, 0)


def test_bad_requests_are_told(folders: tuple[Path, Path], tmp_path: Path) -> None:
    run = open_run(str(folders[0]))
    with pytest.raises(ConfigError, match="expected two runs or more, found 1"):
        compare([run], METRICS, 200, 0)
    for name in ("precision@11", "query_id", "label"):
        with pytest.raises(
            ConfigError, match=rf"^--metrics: no run has '{name}'; (nearest: precision@1|expected one of)"
        ):
            compare([run, run], ["map_at_r", name], 200, 0)
    other = Run("other", run.collection, run.per_query.slice(0, 0))
    with pytest.raises(DataError, match="share no task, encoder and metric among map_at_r"):
        compare([run, other], ["map_at_r"], 200, 0)
    with pytest.raises(DataError, match="only one of them records its queries; run `dvc repro` in both"):
        compare([run, replace(run, collection={"gallery": run.collection["gallery"]})], METRICS, 200, 0)
    with pytest.raises(DataError, match=r"test_collection\.json is not here: run `dvc repro`"):
        open_run(str(tmp_path))
    for content in ("{}", '{"gallery": 3}'):
        (tmp_path / "test_collection.json").write_text(content)
        (tmp_path / "per_query.parquet").write_bytes((folders[0] / "per_query.parquet").read_bytes())
        with pytest.raises(
            DataError, match=r"test_collection\.json: expected the gallery's rows and hash, found (None|3)"
        ):
            open_run(str(tmp_path))
    (tmp_path / "per_query.parquet").unlink()
    with pytest.raises(DataError, match=r"per_query\.parquet is not here"):
        open_run(str(tmp_path))
    (tmp_path / "per_query.parquet").write_text("no")
    with pytest.raises(DataError, match="is not readable as Parquet"):
        open_run(str(tmp_path))


def printed(found: list[Comparison], width: int = 140) -> str:
    console = Console(width=width, record=True, force_terminal=False)
    print_tables(found, console)
    return console.export_text()


def test_the_table_shows_what_changed_and_says_what_did_not(found: list[Comparison]) -> None:
    text = printed(found)
    assert "cbir mobilenet, exact search: identical for every query" in text
    (one,) = [o for o in found if (o.task, o.encoder, o.search, o.metric) == ("cbir", "clip", "exact", "map_at_r")]
    assert f"{one.difference:+.4f}" in text
    assert "Holm" in text


def test_markdown_escapes_names(found: list[Comparison]) -> None:
    hostile = replace(found[-1], run="<b>|x", won=(Change("a|b<script>", 1.0),), classes=(Change("*c*", 1.0),), p=0.001)
    page = as_markdown([hostile])
    assert "<script>" not in page
    assert "a\\|b\\<script\\>" in page
    assert "\\*c\\*" in page


def test_the_command_prints_json(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["compare", *map(str, folders), "--json", "--resamples", "200", "--metrics", "mrr"])
    values = json.loads(capsys.readouterr().out)
    assert {value["metric"] for value in values} == {"mrr"}
    assert {"difference", "interval", "p", "verdict", "won", "lost", "classes"} <= set(values[0])


def test_the_command_tells_a_mistake_in_one_line(folders: tuple[Path, Path]) -> None:
    with pytest.raises(SystemExit, match="error: --resamples: expected at least 100, found 5"):
        cli.main(["compare", *map(str, folders), "--resamples", "5"])
    with pytest.raises(SystemExit, match="error: no-such-run: neither a folder nor a git revision nor an experiment"):
        cli.main(["compare", "no-such-run", str(folders[0])])
