"""The evaluations of all encoders of a run, read together: with one, two and three of them, in any order."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cbir.artifacts import evaluations
from cbir.artifacts.metrics import Metrics, evaluated
from cbir.artifacts.names import write_encoder_names
from cbir.artifacts.paths import EvaluationPaths, ReportPaths
from cbir.artifacts.runs import (
    CONFUSION_SCHEMA,
    DUPLICATE_SCHEMA,
    read_confusions,
    write_confusions,
    write_duplicates,
)
from cbir.artifacts.tables import read_open_table, write_open_table
from cbir.core.errors import DataError
from cbir.core.files import read_json, write_json
from tests.support.evaluated import list_in_passport
from tests.support.world import DIMS, make_world

IMAGE_ENCODERS, TEXT_ENCODER = ("mobilenet", "third"), "clip"
RUNS = [("mobilenet",), ("clip",), ("mobilenet", "clip"), ("clip", "third", "mobilenet")]
TIMES = {"single_ms": {"p50": 1.0, "p95": 2.0, "p99": 3.0}, "batch_queries_per_s": 4.0, "queries": 5}

each_run = pytest.mark.parametrize("encoders", RUNS, ids="+".join)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    """The evaluations of three encoders, of which a test chooses some by name."""
    world = make_world(tmp_path_factory.mktemp("world"), seed=0)
    world.vectors["third"] = world.vectors["mobilenet"]
    paths = ReportPaths(world.root / "reports")
    with mock.patch.dict(DIMS, third=DIMS["mobilenet"]):
        world.write()
    world.evaluate(paths.root)
    world.compare_prompts(paths.root)
    for number, encoder in enumerate(world.vectors):
        times = {"image": {"index": {**TIMES, "queries": number}}}
        write_json(paths.latency(encoder), {"encoders": {encoder: times}, "k": 10, "threads": 2})
    return paths


def select(reports: ReportPaths, encoders: Sequence[str]) -> list[EvaluationPaths]:
    """Make these the run's encoders; return the paths of their evaluations."""
    write_encoder_names(reports.encoders, encoders)
    return [reports.evaluation(encoder) for encoder in encoders]


def leaves(value: Any, *path: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """The path and text of each value that is no mapping."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from leaves(part, *path, name)
    else:
        yield path, repr(value)


# ---- metrics


@each_run
def test_metrics_of_each_encoder_are_those_of_its_file(reports: ReportPaths, encoders: Sequence[str]) -> None:
    files = [read_json(paths.metrics) for paths in select(reports, encoders)]
    metrics = evaluations.read_metrics(reports)
    for encoder, values in zip(encoders, files, strict=True):
        for group in ("cbir", "tbir", "categories", "ann", "ann_cost"):
            assert getattr(metrics, group).get(encoder) == values[group].get(encoder)
        for task in metrics.subsets:
            assert metrics.subsets[task].get(encoder) == values["subsets"].get(task, {}).get(encoder)
        assert metrics.data.index_bytes[encoder] == values["data"]["index_bytes"][encoder] > 0
        assert metrics.data.duplicates[encoder] == values["data"]["duplicates"][encoder]
        assert metrics.chance.items() >= values["chance"].items()
        assert metrics.ceilings.items() >= values["ceilings"].items()
    assert list(metrics.data.index_bytes) == list(encoders)


@each_run
def test_tasks_with_their_encoders_stand_in_order(reports: ReportPaths, encoders: Sequence[str]) -> None:
    select(reports, encoders)
    reads_text = [("tbir", TEXT_ENCODER)] if TEXT_ENCODER in encoders else []
    expected = [*(("cbir", encoder) for encoder in encoders), *reads_text]
    assert evaluated(evaluations.read_metrics(reports)) == expected
    assert evaluated(evaluations.read_intervals(reports)) == expected


@each_run
def test_intervals_of_each_encoder_are_those_of_its_file(reports: ReportPaths, encoders: Sequence[str]) -> None:
    files = [read_json(paths.intervals) for paths in select(reports, encoders)]
    intervals = evaluations.read_intervals(reports)
    for encoder, values in zip(encoders, files, strict=True):
        assert intervals.cbir[encoder] == values["cbir"][encoder]
        assert intervals.ann[encoder] == values["ann"][encoder]
        assert intervals.about == values["about"]


@each_run
def test_the_metrics_read_are_those_that_one_file_would_hold(reports: ReportPaths, encoders: Sequence[str]) -> None:
    select(reports, encoders)
    metrics = evaluations.read_metrics(reports)
    assert Metrics.from_json(metrics.to_json(), Path("metrics.json")) == metrics


# ---- other files


@each_run
def test_search_times_of_each_encoder_are_those_of_its_file(reports: ReportPaths, encoders: Sequence[str]) -> None:
    select(reports, encoders)
    latency = evaluations.read_latency(reports)
    assert (latency.k, latency.threads) == (10, 2)
    queries = {encoder: times["image"]["index"].queries for encoder, times in latency.encoders.items()}
    assert list(queries.items()) == [(name, ["mobilenet", "clip", "third"].index(name)) for name in encoders]


@each_run
def test_prompts_are_those_of_encoders_that_read_text(reports: ReportPaths, encoders: Sequence[str]) -> None:
    select(reports, encoders)
    prompts = evaluations.read_prompts(reports)
    assert list(prompts) == [name for name in encoders if name == TEXT_ENCODER]
    for of_sets in prompts.values():
        assert list(of_sets) == ["bare", "photo", "synonyms"]


@each_run
def test_every_metric_that_some_encoder_has_is_defined(reports: ReportPaths, encoders: Sequence[str]) -> None:
    files = [read_json(paths.definitions) for paths in select(reports, encoders)]
    definitions = evaluations.read_definitions(reports)
    assert list(definitions) == list(dict.fromkeys(name for file in files for name in file))
    for file in files:
        assert set(leaves(file)) <= set(leaves(definitions))
    assert set(leaves(definitions)) == {leaf for file in files for leaf in leaves(file)}
    assert "map_at_r" in definitions


@each_run
def test_the_collection_is_the_one_that_all_encoders_share(reports: ReportPaths, encoders: Sequence[str]) -> None:
    for paths in select(reports, encoders):
        assert evaluations.read_collection(reports) == read_json(paths.test_collection)


# ---- tables


@each_run
def test_rows_of_each_encoder_are_those_of_its_tables(reports: ReportPaths, encoders: Sequence[str]) -> None:
    selected = select(reports, encoders)
    for read_all, tables in (
        (evaluations.read_per_query, [read_open_table(paths.per_query) for paths in selected]),
        (evaluations.read_classes, [read_open_table(paths.classes) for paths in selected]),
        (evaluations.read_all_confusions, [read_confusions(paths.confusions) for paths in selected]),
    ):
        together = read_all(reports)
        assert together.num_rows == sum(table.num_rows for table in tables)
        assert list(dict.fromkeys(together["encoder"].to_pylist())) == list(encoders)
        of_each = zip(encoders, tables, strict=True)
        for encoder, table in of_each:
            rows = together.filter(pc.equal(together["encoder"], encoder))
            assert rows.select(table.column_names).equals(table)


def test_a_metric_that_an_encoder_lacks_is_null(reports: ReportPaths, tmp_path: Path) -> None:
    copies = ReportPaths(tmp_path)
    select(copies, ["a", "b"])
    for encoder, metric in (("a", "map"), ("b", "mrr")):
        path = copies.evaluation(encoder).per_query
        path.parent.mkdir(parents=True)
        others = {name: ["x"] for name in ("task", "search", "subset", "label")}
        write_open_table(path, pa.table({"query_id": ["q"], "encoder": [encoder], **others, metric: [0.5]}))
        list_in_passport(path.parent)
    rows = evaluations.read_per_query(copies).select(["query_id", "encoder", "map", "mrr"]).to_pylist()
    assert rows == [
        {"query_id": "q", "encoder": "a", "map": 0.5, "mrr": None},
        {"query_id": "q", "encoder": "b", "map": None, "mrr": 0.5},
    ]


def test_a_pair_of_equal_pictures_is_listed_once(tmp_path: Path) -> None:
    reports = ReportPaths(tmp_path)
    same = [("q1", "i1", "bytes", 1.0), ("q2", "i1", "pixels", 0.5)]
    own = {"a": [("q1", "i1", "a", 0.999)], "b": [], "c": [("q1", "i1", "c", 0.999), ("q3", "i3", "c", 1.0)]}
    for encoder, rows in own.items():
        columns = zip(*same, *rows, strict=True)
        table = pa.table([pa.array(column) for column in columns], schema=DUPLICATE_SCHEMA)
        write_duplicates(reports.evaluation(encoder).duplicates, table)
        list_in_passport(reports.evaluation(encoder).root)
    for encoders in (["a"], ["b", "a"], ["a", "b", "c"]):
        select(reports, encoders)
        pairs = [tuple(row.values()) for row in evaluations.read_all_duplicates(reports).to_pylist()]
        assert sorted(pairs) == sorted([*same, *(row for name in encoders for row in own[name])])


def test_without_duplicates_and_confusions_the_tables_are_empty(tmp_path: Path) -> None:
    reports = ReportPaths(tmp_path)
    for paths in select(reports, ["a", "b"]):
        write_duplicates(paths.duplicates, DUPLICATE_SCHEMA.empty_table())
        write_confusions(paths.confusions, CONFUSION_SCHEMA.empty_table())
        list_in_passport(paths.root)
    assert evaluations.read_all_duplicates(reports).num_rows == 0
    assert evaluations.read_all_confusions(reports).num_rows == 0


# ---- files that are absent or spoiled


@pytest.fixture
def spoiled(reports: ReportPaths, tmp_path: Path) -> ReportPaths:
    """The results of two encoders, to be spoiled."""
    copies = ReportPaths(tmp_path)
    select(copies, ["mobilenet", "clip"])
    for encoder in ("mobilenet", "clip"):
        for source, copy in (
            (reports.latency(encoder), copies.latency(encoder)),
            (reports.evaluation(encoder).metrics, copies.evaluation(encoder).metrics),
            (reports.evaluation(encoder).intervals, copies.evaluation(encoder).intervals),
        ):
            write_json(copy, read_json(source))
        list_in_passport(copies.evaluation(encoder).root)
    return copies


READERS: list[tuple[Any, str, str]] = [
    (evaluations.read_metrics, "evaluation/{}/metrics.json", "ann"),
    (evaluations.read_intervals, "evaluation/{}/intervals.json", "cbir"),
    (evaluations.read_latency, "latency/{}.json", "threads"),
]


@pytest.mark.parametrize("encoder", ["mobilenet", "clip"])
@pytest.mark.parametrize(("read_all", "name", "group"), READERS)
def test_a_file_of_another_version_is_named(
    spoiled: ReportPaths, encoder: str, read_all: Any, name: str, group: str
) -> None:
    """Whatever the other encoders' files have."""
    read_all(spoiled)
    path = spoiled.root / name.format(encoder)
    write_json(path, {key: value for key, value in read_json(path).items() if key != group})
    list_in_passport(spoiled.evaluation(encoder).root)
    with pytest.raises(DataError, match=rf"^{path}: expected .*{group}.*: run `cbir repair`, then `dvc repro`"):
        read_all(spoiled)


@pytest.mark.parametrize("encoder", ["mobilenet", "clip"])
@pytest.mark.parametrize(("read_all", "name", "group"), READERS)
def test_an_absent_or_damaged_file_is_named(
    spoiled: ReportPaths, encoder: str, read_all: Any, name: str, group: str
) -> None:
    path = spoiled.root / name.format(encoder)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=rf"^{path}(: expected the file that evaluate wrote| is not readable as JSON)"):
        read_all(spoiled)
    list_in_passport(spoiled.evaluation(encoder).root)
    with pytest.raises(DataError, match=rf"^{path} is not readable as JSON"):
        read_all(spoiled)
    path.unlink()
    with pytest.raises(DataError, match=rf"^{path} is not here"):
        read_all(spoiled)


@pytest.mark.parametrize(
    "read_all", [*(reader[0] for reader in READERS), evaluations.read_prompts, evaluations.read_per_query]
)
def test_without_the_names_no_result_is_read(spoiled: ReportPaths, read_all: Any) -> None:
    spoiled.encoders.unlink()
    with pytest.raises(DataError, match=r"encoders\.json is not here"):
        read_all(spoiled)
