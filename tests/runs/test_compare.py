"""Comparisons of runs: each value recomputed from per_query.parquet, refusals, and the printed tables."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from cbir.artifacts.tables import read_open_table, write_open_table
from cbir.cli import main as cli
from cbir.core.errors import ConfigError, DataError
from cbir.core.files import read_json, write_json
from cbir.runs.compare import COMPARED_METRICS, IDENTICAL, Change, Comparison, compare
from cbir.runs.comparison_tables import as_markdown, print_tables
from cbir.runs.opening import Run, open_run
from tests.support.evaluated import list_in_passport, rows_of_all
from tests.support.imports import ROOT
from tests.support.world import PARAMS, World, make_world, unit


def run_of(world: World, folder: Path) -> Path:
    world.evaluate(folder, params=replace(PARAMS, ks=[1, 10]))
    return folder


def better(world: World, root: Path, step: float) -> World:
    """The same world, with clip's gallery vectors moved towards the mean of their class."""
    vectors = {name: {kind: dict(rows) for kind, rows in kinds.items()} for name, kinds in world.vectors.items()}
    gallery = vectors["clip"]["gallery"]
    for label in {*world.gallery.values()} - {None}:
        ids = [image_id for image_id, of_image in world.gallery.items() if of_image == label]
        centre = np.mean([gallery[image_id] for image_id in ids], axis=0)
        for image_id in ids:
            gallery[image_id] = unit(gallery[image_id] + step * centre)
    return World(root, world.gallery, world.held_out, world.queries, vectors, world.qrels).write()


def key_of(comparison: Comparison) -> tuple[str, ...]:
    return (*comparison.group, comparison.metric)


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
def comparisons(folders: tuple[Path, Path]) -> list[Comparison]:
    return compare([open_run(str(folder)) for folder in folders], COMPARED_METRICS, 1000, 0)


def test_each_comparison_is_the_mean_of_query_differences(
    comparisons: list[Comparison], folders: tuple[Path, Path]
) -> None:
    rows = [rows_of_all(folder, "per_query") for folder in folders]
    assert {key_of(comparison) for comparison in comparisons} >= {
        ("cbir", "mobilenet", "exact", "precision@10"),
        ("cbir", "clip", "exact", "map_at_r"),
        ("tbir", "clip", "index", "ndcg@10"),
    }
    for comparison in comparisons:
        key = (comparison.task, comparison.encoder, comparison.search)
        before, after = (
            {
                row["query_id"]: row[comparison.metric]
                for row in side
                if (row["task"], row["encoder"], row["search"]) == key
            }
            for side in rows
        )
        change = {q: after[q] - before[q] for q in before if before[q] is not None}
        assert comparison.queries == len(change)
        assert comparison.difference == pytest.approx(np.mean(list(change.values())), abs=1e-12)
        assert comparison.base_mean == pytest.approx(np.mean([before[q] for q in change]), abs=1e-12)
        assert comparison.run_mean == pytest.approx(np.mean([after[q] for q in change]), abs=1e-12)
        assert [query.change for query in comparison.won] == sorted(c for c in change.values() if c > 0)[::-1][:5]
        assert [query.change for query in comparison.lost] == sorted(c for c in change.values() if c < 0)[:5]
        assert all(change[query.name] == query.change for query in (*comparison.won, *comparison.lost))


def test_classes_hold_the_mean_change_of_their_queries(
    comparisons: list[Comparison], folders: tuple[Path, Path]
) -> None:
    (comparison,) = [each for each in comparisons if key_of(each) == ("cbir", "clip", "exact", "precision@10")]
    sides = [
        {
            (row["label"], row["query_id"]): row["precision@10"]
            for row in rows_of_all(folder, "per_query")
            if (row["task"], row["encoder"], row["search"]) == ("cbir", "clip", "exact")
        }
        for folder in folders
    ]
    for label, mean in {change.name: change.change for change in comparison.classes}.items():
        expected = [sides[1][key] - sides[0][key] for key in sides[0] if key[0] == label and sides[0][key] is not None]
        assert mean == pytest.approx(np.mean(expected))
    assert [change.change for change in comparison.classes] == sorted(change.change for change in comparison.classes)


def test_verdicts_are_identical_or_better_as_constructed(
    comparisons: list[Comparison], folders: tuple[Path, Path]
) -> None:
    verdicts = {
        (comparison.encoder, comparison.metric): comparison.verdict
        for comparison in comparisons
        if (comparison.task, comparison.search) == ("cbir", "exact")
    }
    assert {verdicts["mobilenet", metric] for metric in COMPARED_METRICS} == {"identical"}
    # of one metric alone: nine classes have 512 signs, so that p cannot be small enough for many comparisons
    alone = compare([open_run(str(folder)) for folder in folders], ["map_at_r"], 5000, 0)
    (map_at_r,) = [comparison for comparison in alone if comparison.group == ("cbir", "clip", "exact")]
    assert map_at_r.difference > 0.05
    assert map_at_r.interval is not None
    assert map_at_r.interval.low < map_at_r.difference < map_at_r.interval.high
    assert map_at_r.p < 0.05
    assert map_at_r.verdict == f"{map_at_r.run} is better"


def test_swapping_the_runs_changes_the_sign_of_differences(
    comparisons: list[Comparison], folders: tuple[Path, Path]
) -> None:
    back = compare([open_run(str(folder)) for folder in folders[::-1]], COMPARED_METRICS, 1000, 0)
    for comparison, swapped in zip(comparisons, back, strict=True):
        assert (comparison.metric, comparison.p) == (swapped.metric, swapped.p)
        assert comparison.difference == pytest.approx(-swapped.difference)
        assert [change.change for change in comparison.won] == [-change.change for change in swapped.lost]


def test_a_run_against_itself_differs_nowhere(folders: tuple[Path, Path]) -> None:
    run = open_run(str(folders[0]))
    again = compare([run, run], COMPARED_METRICS, 200, 0)
    assert {comparison.verdict for comparison in again} == {"identical"}
    assert {comparison.p for comparison in again} == {1.0}


def test_p_is_corrected_over_metrics_and_runs(folders: tuple[Path, Path]) -> None:
    runs = [open_run(str(folder)) for folder in folders]
    (alone,) = [
        comparison for comparison in compare(runs, ["mrr"], 2000, 0) if comparison.group == ("cbir", "clip", "exact")
    ]
    of_three = [
        comparison
        for comparison in compare([*runs, runs[1], runs[1]], COMPARED_METRICS, 2000, 0)
        if key_of(comparison) == ("cbir", "clip", "exact", "mrr")
    ]
    assert len(of_three) == 3
    assert all(comparison.p >= alone.p for comparison in of_three)


def test_the_correction_counts_equal_tests_once(folders: tuple[Path, Path]) -> None:
    runs = [open_run(str(folder)) for folder in folders]
    with mock.patch("cbir.runs.compare.holm", lambda p: p):
        raw = compare(runs, COMPARED_METRICS, 5000, 0)
    comparisons = compare(runs, COMPARED_METRICS, 5000, 0)
    tests = {(each.task, each.encoder, each.metric): each.p for each in raw if each.verdict != IDENTICAL}
    smallest = min(tests.values())
    least = next(each for each in raw if each.verdict != IDENTICAL and each.p == smallest)
    corrected = {(each.task, each.encoder, each.metric, each.search): each.p for each in comparisons}
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
def test_too_few_classes_give_no_verdict(n_classes: int, verdict: str) -> None:
    runs = [few_classes(n_classes, value) for value in (0.1, 0.9)]
    comparisons = compare(runs, ["precision@10", "map_at_r"], 100, 0)
    assert [comparison.verdict for comparison in comparisons] == [verdict] * 2


@pytest.mark.parametrize("what", ["gallery", "queries", "judgements"])
def test_runs_over_other_data_are_refused_naming_the_part(folders: tuple[Path, Path], what: str) -> None:
    base, run = (open_run(str(folder)) for folder in folders)
    fewer = Run("other", {**run.collection, what: {"rows": 7, "sha256": "0"}}, run.per_query)
    with pytest.raises(DataError, match=rf"cannot be compared: their {what} differ \([\d,]+ rows against 7\)"):
        compare([base, fewer], COMPARED_METRICS, 200, 0)
    changed = Run("other", {**run.collection, what: {**run.collection[what], "sha256": "0"}}, run.per_query)
    with pytest.raises(DataError, match=rf"their {what} differ .*with other contents\); run both over the same data"):
        compare([base, changed], COMPARED_METRICS, 200, 0)


def test_a_changed_gallery_is_detected(worlds: tuple[World, World], tmp_path: Path) -> None:
    world = worlds[0]
    ids = list(world.gallery)
    gallery = {**world.gallery, ids[0]: world.gallery[ids[1]]}
    changed = World(tmp_path, gallery, world.held_out, world.queries, world.vectors, world.qrels).write()
    runs = [open_run(str(run_of(of_run, tmp_path / name))) for name, of_run in (("a", world), ("b", changed))]
    with pytest.raises(DataError, match=r"their gallery differ .*with other contents"):
        compare(runs, COMPARED_METRICS, 200, 0)


def test_wrong_requests_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    run = open_run(str(folders[0]))
    with pytest.raises(ConfigError, match="expected two runs or more, found 1"):
        compare([run], COMPARED_METRICS, 200, 0)
    for name in ("precision@11", "query_id", "label"):
        with pytest.raises(
            ConfigError, match=rf"^--metrics: no run has '{name}'; (nearest: precision@1|expected one of)"
        ):
            compare([run, run], ["map_at_r", name], 200, 0)
    other = Run("other", run.collection, run.per_query.slice(0, 0))
    with pytest.raises(DataError, match="share no task, encoder and metric among map_at_r"):
        compare([run, other], ["map_at_r"], 200, 0)
    with pytest.raises(DataError, match="only one of them records its queries; run `dvc repro` in both"):
        compare([run, replace(run, collection={"gallery": run.collection["gallery"]})], COMPARED_METRICS, 200, 0)


def test_an_absent_or_damaged_file_of_a_run_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"encoders\.json is not here: run `dvc repro`"):
        open_run(str(tmp_path))
    write_json(tmp_path / "encoders.json", {"encoders": ["mobilenet", "clip"]})
    with pytest.raises(DataError, match=r"mobilenet/test_collection\.json is not here: run `dvc repro`"):
        open_run(str(tmp_path))
    shutil.copytree(folders[0] / "evaluation", tmp_path / "evaluation")
    assert open_run(str(tmp_path)).collection == open_run(str(folders[0])).collection
    for encoder in ("mobilenet", "clip"):
        evaluation = tmp_path / "evaluation" / encoder
        kept = (evaluation / "test_collection.json").read_text()
        for content in ({}, {"gallery": 3}):
            write_json(evaluation / "test_collection.json", content)
            list_in_passport(evaluation)
            with pytest.raises(
                DataError,
                match=rf"{encoder}/test_collection\.json: expected the gallery's rows and hash, found (None|3)",
            ):
                open_run(str(tmp_path))
        (evaluation / "test_collection.json").write_text(kept)
        list_in_passport(evaluation)
        kept_rows = (evaluation / "per_query.parquet").read_bytes()
        (evaluation / "per_query.parquet").unlink()
        with pytest.raises(DataError, match=rf"{encoder}/per_query\.parquet is not here"):
            open_run(str(tmp_path))
        (evaluation / "per_query.parquet").write_text("no")
        list_in_passport(evaluation)
        with pytest.raises(DataError, match=rf"{encoder}/per_query\.parquet is not readable as Parquet"):
            open_run(str(tmp_path))
        (evaluation / "per_query.parquet").write_bytes(kept_rows)
        per_query = read_open_table(evaluation / "per_query.parquet")
        write_open_table(evaluation / "per_query.parquet", per_query.drop_columns(["label"]))
        list_in_passport(evaluation)
        with pytest.raises(
            DataError, match=rf"{encoder}/per_query\.parquet: expected a column 'label', found query_id, "
        ):
            open_run(str(tmp_path))
        (evaluation / "per_query.parquet").write_bytes(kept_rows)
        list_in_passport(evaluation)


def test_encoders_evaluated_on_different_data_are_no_run(folders: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(folders[0], tmp_path / "reports")
    path = tmp_path / "reports" / "evaluation" / "clip" / "test_collection.json"
    value = read_json(path)
    value["queries"]["sha256"] = "0"
    write_json(path, value)
    list_in_passport(path.parent)
    with pytest.raises(
        DataError, match=r"clip/test_collection\.json: expected the data that .*mobilenet/test_coll.*, found other data"
    ):
        open_run(str(tmp_path))


@pytest.mark.parametrize("encoders", [["clip"], ["clip", "mobilenet"]])
def test_only_the_encoders_of_the_run_are_compared(
    folders: tuple[Path, Path], tmp_path: Path, encoders: list[str]
) -> None:
    """Evaluations of encoders that left may still be there."""
    shutil.copytree(folders[1], tmp_path / "reports")
    write_json(tmp_path / "reports" / "encoders.json", {"encoders": encoders})
    run = open_run(str(tmp_path))
    assert list(dict.fromkeys(run.per_query["encoder"].to_pylist())) == encoders
    comparisons = compare([open_run(str(folders[0])), run], ["mrr"], 200, 0)
    assert {comparison.encoder for comparison in comparisons} == set(encoders)


def printed(comparisons: list[Comparison], width: int = 140) -> str:
    console = Console(width=width, record=True, force_terminal=False)
    print_tables(comparisons, console)
    return console.export_text()


def test_the_table_shows_changes_and_names_identical_results(comparisons: list[Comparison]) -> None:
    text = printed(comparisons)
    assert "cbir mobilenet, exact search" in text
    assert "identical for every query" in text
    (comparison,) = [each for each in comparisons if key_of(each) == ("cbir", "clip", "exact", "map_at_r")]
    assert f"{comparison.difference:+.4f}" in text
    assert "Holm" in text


def test_eighty_columns_break_no_word(comparisons: list[Comparison]) -> None:
    long = [
        replace(comparison, encoder="mobilenet_v3_large", base="." * 60, run="x" * 60) for comparison in comparisons
    ]
    lines = printed(long, 80).splitlines()
    assert max(map(len, lines)) <= 80
    words = {word for line in lines for word in line.split()}
    for comparison in long:
        if comparison.verdict != "identical":
            verdict = comparison.verdict.replace(comparison.run, "other").replace(comparison.base, "first")
            assert {comparison.metric, f"{comparison.difference:+.4f}", *verdict.split()} <= words


def test_an_index_that_changes_nothing_has_no_line(comparisons: list[Comparison]) -> None:
    exact = [comparison for comparison in comparisons if comparison.search == "exact"]
    flat = [
        replace(each, search=search, is_repeated=search == "index") for search in ("exact", "index") for each in exact
    ]
    text = printed(flat)
    titles = [line.strip() for line in text.splitlines() if line.startswith(("cbir ", "tbir "))]
    assert titles
    assert {title.partition(", ")[2].partition(":")[0] for title in titles} == {"exact search and index alike"}
    assert len(titles) == len(set(titles))
    assert as_markdown(flat).count("exact search and index alike") == len(titles)


def test_outside_a_repository_a_revision_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cbir", "compare", "main", "."]  # DVC leaves files open
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: main: expected a folder of reports, found none, and no repository here")
    assert ended.stderr.endswith("go to the repository's root, or name a folder\n")


def test_markdown_escapes_names(comparisons: list[Comparison]) -> None:
    hostile = replace(
        comparisons[-1], run="<b>|x", won=(Change("a|b<script>", 1.0),), classes=(Change("*c*", 1.0),), p=0.001
    )
    page = as_markdown([hostile])
    assert "<script>" not in page
    assert "a\\|b\\<script\\>" in page
    assert "\\*c\\*" in page


def test_the_command_prints_json(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["compare", *map(str, folders), "--json", "--resamples", "200", "--metrics", "mrr"])
    values = json.loads(capsys.readouterr().out)
    assert {value["metric"] for value in values} == {"mrr"}
    assert {"difference", "interval", "p", "verdict", "won", "lost", "classes"} <= set(values[0])


def test_the_command_refuses_wrong_arguments_in_one_line(folders: tuple[Path, Path]) -> None:
    with pytest.raises(SystemExit, match="error: --resamples: expected at least 100, found 5"):
        cli.main(["compare", *map(str, folders), "--resamples", "5"])
    with pytest.raises(SystemExit, match="error: no-such-run: neither a folder nor a git revision nor an experiment"):
        cli.main(["compare", "no-such-run", str(folders[0])])
