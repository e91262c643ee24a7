"""Export in TREC's format: ir_measures computes from the files the metrics of metrics.json."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.artifacts.trec import percent_encoded
from cbir.cli import main as cli
from cbir.core.errors import ConfigError, DataError
from cbir.core.files import read_json, write_json
from cbir.evaluation.relevance import Relevance
from cbir.evaluation.trec import evaluate_run
from cbir.export.trec import ExportedFile, export, strictly_falling
from tests.support.evaluated import list_in_passport, rows_of_all
from tests.support.trec import by_ir_measures, measures, reproducible
from tests.support.world import PARAMS, World, make_world

DEEP = replace(PARAMS, run_depth=279)  # the gallery but for one image: some queries are gallery images
ANSWERS = (("cbir", "mobilenet"), ("cbir", "clip"), ("tbir", "clip"))
HOSTILE = (
    "{} a.jpg",
    "é/{}\u3000猫.jpg",
    "#{}\t%20.jpg",
    "{}\u00a0%.jpg",
)  # blanks of all kinds, comments, our own escapes


@dataclass(frozen=True)
class Exported:
    world: World
    metrics: dict[str, Any]
    written: list[ExportedFile]
    out: Path

    @property
    def depth(self) -> int:
        return int(
            pq.read_table(self.reports / "evaluation" / "clip" / "runs" / "cbir_exact.parquet")["rank"].to_numpy().max()
        )

    @property
    def reports(self) -> Path:
        return self.world.root / "reports"

    def files(self, task: str, encoder: str, search: str) -> tuple[Path, Path]:
        """Run and qrels."""
        return self.out / f"{task}_{encoder}_{search}.run", self.out / f"{task}.qrels"

    def per_query(self, task: str, encoder: str, search: str) -> dict[str, dict[str, float]]:
        """query_id -> metric -> value, without queries that have none."""
        rows = rows_of_all(self.reports, "per_query")
        chosen = [row for row in rows if (row["task"], row["encoder"], row["search"]) == (task, encoder, search)]
        return {row["query_id"]: row for row in chosen if row["mrr"] is not None}


def hostile(world: World) -> World:
    """The same world under names that trec_eval's format cannot hold."""
    names = {
        id_: HOSTILE[number % len(HOSTILE)].format(id_)
        for number, id_ in enumerate({**world.gallery, **world.held_out})
    }
    asked = {query.query_id: HOSTILE[number % 4].format(query.query_id) for number, query in enumerate(world.queries)}
    queries = [
        replace(query, query_id=asked[query.query_id], image_id=query.image_id and names[query.image_id])
        for query in world.queries
    ]
    vectors = {
        encoder: {
            kind: {{"texts": asked, "prompts": {}}.get(kind, names).get(id_, id_): row for id_, row in rows.items()}
            for kind, rows in kinds.items()
        }
        for encoder, kinds in world.vectors.items()
    }
    qrels = world.qrels and {
        asked[query_id]: {names.get(id_, id_): grade for id_, grade in grades.items()}
        for query_id, grades in world.qrels.items()
    }
    gallery, held_out = ({names[id_]: label for id_, label in ids.items()} for ids in (world.gallery, world.held_out))
    return World(world.root, gallery, held_out, queries, vectors, qrels)


def tied(world: World) -> World:
    """The same world, its gallery of only 40 different images: every score stands there seven times."""
    for kinds in world.vectors.values():
        rows = list(kinds["gallery"].values())
        kinds["gallery"] = {id_: rows[number % 40] for number, id_ in enumerate(kinds["gallery"])}
        kinds["queries"] |= {id_: row for id_, row in kinds["gallery"].items() if id_ in kinds["queries"]}
    return world


@pytest.fixture(scope="module", params=["labels", "graded", "labels-deep", "graded-deep"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root = tmp_path_factory.mktemp(request.param)
    world = hostile(tied(make_world(root, graded="graded" in request.param))).write()
    metrics = world.evaluate(root / "reports", params=DEEP if "deep" in request.param else PARAMS)
    return Exported(
        world, metrics, export(DataPaths(world.data), ReportPaths(root / "reports"), root / "trec"), root / "trec"
    )


def means(rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    first = next(iter(rows.values()))
    return {name: math.fsum(row[name] for row in rows.values()) / len(rows) for name in first}


@pytest.mark.parametrize(("task", "encoder"), ANSWERS)
def test_ir_measures_computes_the_metrics_of_exact_search(exported: Exported, task: str, encoder: str) -> None:
    found = by_ir_measures(*exported.files(task, encoder, "exact"), [*PARAMS.ks, exported.depth])
    expected = exported.per_query(task, encoder, "exact")
    assert {unquote(query_id) for query_id in found} == set(expected)
    # metrics.json knows the whole ranking, the run may end before the last relevant image, or even before the first
    reached = {"map": [id_ for id_, row in found.items() if row[f"recall@{exported.depth}"] == 1]}
    reached["mrr"] = [id_ for id_, row in found.items() if row["mrr"] > 0]
    for name in measures(PARAMS.ks):
        compared = reached.get(name, list(found))
        for query_id in compared:
            assert found[query_id][name] == pytest.approx(expected[unquote(query_id)][name], abs=1e-9), (query_id, name)
        if len(compared) == len(found):
            assert means(found)[name] == pytest.approx(exported.metrics[task][encoder][name], abs=1e-9), name
    assert len(reached["mrr"]) > 0.8 * len(found)
    assert len(reached["map"]) > 0.8 * len(found) or exported.depth < DEEP.run_depth


@pytest.mark.parametrize(("task", "encoder"), ANSWERS)
def test_ir_measures_computes_the_metrics_of_index_search(exported: Exported, task: str, encoder: str) -> None:
    found = means(by_ir_measures(*exported.files(task, encoder, "index"), PARAMS.ks))
    rows = list(exported.per_query(task, encoder, "index").values())
    columns = {name: [row[name] for row in rows if row[name] is not None] for name in rows[0] if name in found}
    mine = {name: np.mean(column) for name, column in columns.items() if column and name != "map_at_r"}
    compared = [name for name in found if name in mine]
    assert len(compared) == 4 * len(PARAMS.ks) + 1
    assert {name: found[name] for name in compared} == pytest.approx({name: mine[name] for name in compared}, abs=1e-9)


@pytest.mark.parametrize(("task", "encoder"), ANSWERS)
@pytest.mark.parametrize("search", ["exact", "index"])
def test_cbir_evaluate_computes_the_same_metrics(exported: Exported, task: str, encoder: str, search: str) -> None:
    found = evaluate_run(*exported.files(task, encoder, search), PARAMS.ks, 100, 0)
    theirs = by_ir_measures(*exported.files(task, encoder, search), PARAMS.ks)
    assert found.query_ids == list(theirs)
    for name in measures(PARAMS.ks):
        np.testing.assert_allclose(found.values[name], [row[name] for row in theirs.values()], rtol=0, atol=1e-9)
    assert found.counts.unanswered == found.counts.without_relevant == found.counts.float32_ties == 0
    assert found.counts.unjudged == exported.metrics["data"]["queries_without_relevant"][task]
    mine = exported.per_query(task, encoder, search)
    same = [name for name in found.values if "@" in name or (search == "exact" and name not in ("map", "mrr"))]
    for name in same:
        np.testing.assert_allclose(found.values[name], [row[name] for row in mine.values()], rtol=0, atol=1e-9)


def test_runs_keep_ranks_and_ids_and_lower_equal_scores(exported: Exported) -> None:
    for one in (one for one in exported.written if one.lowered is not None):
        task, encoder, search = one.path.stem.split("_")
        path = exported.reports / "evaluation" / encoder / "runs" / f"{task}_{search}.parquet"
        table = pq.read_table(path).to_pylist()
        lines = [line.split(" ") for line in one.path.read_text("ascii").splitlines()]
        assert len(lines) == one.lines == len(table)
        for (query_id, q0, image_id, rank, score, tag), row in zip(lines, table, strict=True):
            assert (q0, tag) == ("Q0", one.path.stem)
            assert (unquote(query_id), unquote(image_id), int(rank)) == (row["query_id"], row["image_id"], row["rank"])
            assert float(score) == pytest.approx(row["score"], abs=1e-5)
        scores = np.array([float(line[4]) for line in lines], np.float32)
        same = np.array([line[0] for line in lines])
        assert (np.diff(scores)[same[1:] == same[:-1]] < 0).all()
        assert one.lowered > len(lines) / 2


def test_qrels_hold_relevant_images_except_the_querys_own(exported: Exported) -> None:
    for task in ("cbir", "tbir"):
        found: dict[str, dict[str, int]] = {}
        for line in (exported.out / f"{task}.qrels").read_text("ascii").splitlines():
            query_id, zero, image_id, grade = line.split(" ")
            assert zero == "0"
            found.setdefault(unquote(query_id), {})[unquote(image_id)] = int(grade)
        expected = {query.query_id: exported.world.relevance(query) for query in exported.world.queries_of(task)}
        expected = {id_: {i: grade for i, grade in grades.items() if grade > 0} for id_, grades in expected.items()}
        assert found == {query_id: grades for query_id, grades in expected.items() if grades}
        assert {grade for grades in found.values() for grade in grades.values()} == (
            {1} if exported.world.qrels is None else {1, 2, 3}
        )


def test_a_second_export_writes_the_same_files(exported: Exported, tmp_path: Path) -> None:
    export(DataPaths(exported.world.data), ReportPaths(exported.reports), tmp_path)
    names = ["cbir.qrels", "cbir_clip_exact.run", "cbir_clip_index.run", "cbir_mobilenet_exact.run"]
    names += ["cbir_mobilenet_index.run", "tbir.qrels", "tbir_clip_exact.run", "tbir_clip_index.run"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "cbir_export_trec.json"])
    assert sorted(one.path.name for one in exported.written) == names
    for name in names:
        assert (tmp_path / name).read_bytes() == (exported.out / name).read_bytes()


def test_only_files_of_an_earlier_export_are_deleted(exported: Exported, tmp_path: Path) -> None:
    for name in ("tbir_mobilenet_index.run", "cbir_gone_exact.run", "mine.run"):
        (tmp_path / name).write_text("")
    write_json(tmp_path / "cbir_export_trec.json", {"files": ["tbir_mobilenet_index.run", "cbir_gone_exact.run"]})
    written = export(DataPaths(exported.world.data), ReportPaths(exported.reports), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "mine.run",
        "cbir_export_trec.json",
        *(one.path.name for one in written),
    }


def test_a_failed_write_keeps_the_earlier_file(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cbir.qrels").write_text("earlier")
    of, calls = Relevance.of, iter(range(3))

    def failing(*args: Any) -> Any:
        next(calls)
        return of(*args)

    monkeypatch.setattr(Relevance, "of", failing)
    with pytest.raises((RuntimeError, StopIteration)):
        export(DataPaths(exported.world.data), ReportPaths(exported.reports), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"cbir.qrels", "cbir_export_trec.json"}
    assert (tmp_path / "cbir.qrels").read_text() == "earlier"


def test_runs_over_other_data_are_not_written(exported: Exported, tmp_path: Path) -> None:
    collection = read_json(exported.reports / "evaluation" / "clip" / "test_collection.json")
    write_json(tmp_path / "encoders.json", {"encoders": ["clip"]})
    recorded = tmp_path / "evaluation" / "clip" / "test_collection.json"
    write_json(recorded, collection)
    list_in_passport(recorded.parent)
    with pytest.raises(DataError, match=r"evaluation holds no run: run `dvc repro`"):
        export(DataPaths(exported.world.data), ReportPaths(tmp_path), tmp_path / "trec")
    write_json(recorded, collection | {"queries": {"rows": 1, "sha256": "0"}})
    list_in_passport(recorded.parent)
    with pytest.raises(DataError, match=r"expected runs over the present queries of data/, found other queries: run"):
        export(DataPaths(exported.world.data), ReportPaths(tmp_path), tmp_path / "trec")
    recorded.unlink()
    with pytest.raises(DataError, match=r"test_collection\.json is not here: run `dvc repro`"):
        export(DataPaths(exported.world.data), ReportPaths(tmp_path), tmp_path / "trec")
    with pytest.raises(DataError, match=r"encoders\.json is not here: run `dvc repro`"):
        export(DataPaths(exported.world.data), ReportPaths(tmp_path / "none"), tmp_path / "trec")
    assert not (tmp_path / "trec").exists()


def test_an_output_path_that_is_a_file_is_refused(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=r"--out: expected a folder to write into, found .*file.*: (Not|File) "):
            export(DataPaths(exported.world.data), ReportPaths(exported.reports), out)


def test_the_command_prints_the_paths(
    exported: Exported, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(exported.world.root)
    cli.main(["trec", "--out", str(tmp_path / "my out")])
    printed = capsys.readouterr().out
    assert "cbir_clip_exact.run" in printed.replace("\n", "")
    command = (
        printed.strip().split("\n")[-1].split("cbir evaluate ")[1].replace(f"'{tmp_path}/my out", "").replace("'", "")
    )
    assert command == "--qrels /tbir.qrels --run /tbir_clip_exact.run"


@reproducible
@given(st.text(min_size=1))
def test_an_escaped_id_is_ascii_and_can_be_decoded(text: str) -> None:
    field = percent_encoded(text)
    assert unquote(field) == text
    assert field.isascii()
    assert field.split() == [field]
    assert not set(field) & set("#\0\x7f")


few_scores = st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.0, 1e-45, -1e-45])
score_lists = st.lists(few_scores | st.floats(-1, 1, width=32), max_size=60)


@reproducible
@given(score_lists, st.booleans())
def test_lowered_scores_fall_strictly(scores: list[float], descending: bool) -> None:
    given_scores = np.array(sorted(scores, reverse=True) if descending else scores, np.float32)
    found = strictly_falling(given_scores)
    assert found.dtype == np.float32
    assert (found <= given_scores).all()
    assert (np.diff(found.astype(np.float64)) < 0).all()
    # as text, as trec_eval reads it: into a double or into a float
    text = np.array([float(f"{score:.9g}") for score in found.tolist()])
    assert (text.astype(np.float32) == found).all()
    assert (np.diff(text) < 0).all()
    expected: list[np.float32] = []
    for score in given_scores:
        below = np.nextafter(expected[-1], np.float32(-np.inf)) if expected else score
        expected.append(min(score, below))
    assert found.tolist() == expected
