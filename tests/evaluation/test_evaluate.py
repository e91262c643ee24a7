"""evaluate_encoder and ResultsWriter against naive metrics of a full ranking (tests.support.world)."""

import dataclasses
import math
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import faiss
import ir_measures
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from cbir.artifacts.paths import EvaluationPaths, ReportPaths
from cbir.artifacts.queries import QRELS_SCHEMA, QUERY_SCHEMA
from cbir.artifacts.runs import read_run
from cbir.artifacts.vectors import MISSING, open_vectors, write_part, write_vectors_passport
from cbir.core.errors import DataError, PassportError
from cbir.core.files import hash_ids, read_json, write_json
from cbir.datasets.base import Query
from cbir.evaluation import index_search
from cbir.evaluation.classes import Classes
from cbir.evaluation.collection import Collection, TaskQueries
from cbir.evaluation.depths import depth_of_runs, leave_out_large_ks
from cbir.evaluation.evaluate import evaluate_task
from cbir.evaluation.params import EvaluateParams
from cbir.evaluation.relevance import Relevance
from cbir.evaluation.statistics import classes_of, interval_of_means
from cbir.index import exact as exact_search
from cbir.index.build import build_index
from cbir.index.params import BuildParams, SearchParams
from tests.support import oracles
from tests.support.imports import ROOT
from tests.support.world import DIMS, KINDS, PARAMS, World, make_world, smallest_gap, unit

KS, ANN_KS = PARAMS.ks, PARAMS.ann_ks
DEPTH = 100  # of the runs, where evaluate.run_depth is null
EVALUATED = [("cbir", "mobilenet"), ("cbir", "clip"), ("tbir", "clip")]
NARROW = {"ivf_flat": SearchParams(nprobe=1), "ivf_pq": SearchParams(nprobe=2), "hnsw": SearchParams(ef_search=1)}

each_kind = pytest.mark.parametrize("kind", KINDS)
each_search = pytest.mark.parametrize("kind", [*KINDS, "by_grade"])
each_evaluation = pytest.mark.parametrize(("task", "encoder"), EVALUATED)


@dataclasses.dataclass(frozen=True)
class Done:
    """A world that has been evaluated into `out`."""

    world: World
    out: Path
    metrics: dict[str, Any]

    def of(self, encoder: str) -> EvaluationPaths:
        return ReportPaths(self.out).evaluation(encoder)

    def run(self, task: str, encoder: str, suffix: str = "") -> dict[str, list[tuple[str, int, float]]]:
        """query_id -> (image_id, rank, score), in the order of the file."""
        results: dict[str, list[tuple[str, int, float]]] = {}
        for row in read_run(self.of(encoder).run(task, suffix.removeprefix("_") or "index")).to_pylist():
            results.setdefault(row["query_id"], []).append((row["image_id"], row["rank"], row["score"]))
        return results

    def per_query(self, task: str, encoder: str, searched: str) -> dict[str, dict[str, Any]]:
        rows = pq.read_table(self.of(encoder).per_query).to_pylist()
        chosen = [row for row in rows if (row["task"], row["encoder"], row["search"]) == (task, encoder, searched)]
        return {row["query_id"]: row for row in chosen}


@pytest.fixture(scope="module")
def by_label(tmp_path_factory: pytest.TempPathFactory) -> Done:
    world = make_world(tmp_path_factory.mktemp("by_label")).write(*KINDS)
    return Done(world, world.root / "out", world.evaluate(world.root / "out"))


@pytest.fixture(scope="module")
def by_grade(tmp_path_factory: pytest.TempPathFactory) -> Done:
    world = make_world(tmp_path_factory.mktemp("by_grade"), graded=True).write()
    return Done(world, world.root / "out", world.evaluate(world.root / "out"))


@pytest.fixture(params=["by_label", "by_grade"])
def done(request: pytest.FixtureRequest) -> Done:
    evaluated: Done = request.getfixturevalue(request.param)
    return evaluated


@pytest.fixture(scope="module")
def approximate(by_label: Done, by_grade: Done) -> dict[str, Done]:
    """The world by label, searched by every kind of index, those that can be narrowed so narrow that they lose much.

    And the world by grade, searched by the flat index.
    """
    world, evaluated = by_label.world, {"by_grade": by_grade}
    for kind in KINDS:
        out = world.root / f"out_{kind}"
        evaluated[kind] = Done(world, out, world.evaluate(out, kind, search=NARROW.get(kind, SearchParams())))
    return evaluated


def naive(world: World, task: str, encoder: str) -> dict[str, dict[str, float]]:
    """query_id -> every metric, from the plain ranking of the whole gallery."""
    return {
        query.query_id: oracles.all_metrics(world.ranking(encoder, query), world.relevance(query), KS)
        for query in world.queries_of(task)
    }


def by_kind_of_query(world: World, task: str) -> dict[str, list[Query]]:
    """The queries by the names that metrics.json has for their kinds."""
    if task == "tbir":
        return {"text": world.queries_of(task)}
    inside = [query for query in world.queries_of(task) if world.own_image(query) is not None]
    return {"image": [query for query in world.queries_of(task) if query not in inside], "gallery image": inside}


def mean_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Over the queries that have a value."""
    means = {}
    for name in rows[0]:
        values = [row[name] for row in rows if not math.isnan(row[name])]
        if values:
            means[name] = sum(values) / len(values)
    return means


def subset(params: EvaluateParams, **changes: Any) -> EvaluateParams:
    return dataclasses.replace(params, **changes)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def runs_of(out: Path) -> list[str]:
    """The files of runs: clip/cbir_index.parquet."""
    paths = (out / "evaluation").glob("*/runs/*")
    return sorted(f"{path.parent.parent.name}/{path.name}" for path in paths)


# --- the encoder's own metrics ----------------------------------------------------------------------------------------


def test_the_world_has_no_near_ties(by_label: Done) -> None:
    assert smallest_gap(by_label.world) > 5e-7


@each_evaluation
def test_means_equal_the_naive_metrics_of_the_full_ranking(done: Done, task: str, encoder: str) -> None:
    expected = mean_of(list(naive(done.world, task, encoder).values()))
    means = done.metrics[task][encoder]
    assert list(means) == list(expected)
    assert means == pytest.approx(expected, abs=1e-9)
    assert 0.1 < means["precision@10"] < 0.9  # otherwise the comparison would show nothing


@each_evaluation
def test_every_querys_values_equal_the_naive_metrics(done: Done, task: str, encoder: str) -> None:
    expected, rows = naive(done.world, task, encoder), done.per_query(task, encoder, "exact")
    assert list(rows) == list(expected)
    for query in done.world.queries_of(task):
        row = rows[query.query_id]
        values = [math.nan if row[name] is None else row[name] for name in expected[query.query_id]]
        np.testing.assert_allclose(values, list(expected[query.query_id].values()), rtol=0, atol=1e-9)
        assert (row["subset"], row["label"]) == (query.subset, query.label)


def test_queries_without_relevant_images_are_counted_and_have_no_value(done: Done) -> None:
    counts = {}
    for task in ("cbir", "tbir"):
        without_relevant = {
            query.query_id for query in done.world.queries_of(task) if not any(done.world.relevance(query).values())
        }
        counts[task] = len(without_relevant)
        rows = done.per_query(task, "clip", "exact")
        assert {query_id for query_id, row in rows.items() if row["mrr"] is None} == without_relevant
        assert all(
            rows[query_id][name] is None for query_id in without_relevant for name in ("precision@1", "ndcg@10", "map")
        )
    assert done.metrics["data"]["queries_without_relevant"] == counts
    assert counts == ({"cbir": 2, "tbir": 1} if done.world.qrels is None else {"cbir": 1, "tbir": 1})


def test_subsets_hold_the_means_of_their_own_queries(done: Done) -> None:
    values = naive(done.world, "tbir", "clip")
    expected = {
        name: mean_of([values[query.query_id] for query in done.world.queries_of("tbir") if query.subset == name])
        for name in ("captions", "class prompts")
    }
    assert list(done.metrics["subsets"]) == ["tbir"]  # no image query has one
    assert list(done.metrics["subsets"]["tbir"]["clip"]) == list(expected)
    for name, means in expected.items():
        assert done.metrics["subsets"]["tbir"]["clip"][name] == pytest.approx(means, abs=1e-9)


def test_a_subset_within_a_subset_counts_in_both(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    parts = ["captions/unseen", "captions/seen", "captions", "captions/seen/twice", None]
    texts = [query for query in world.queries if query.task == "tbir"]
    placed = {query.query_id: parts[number % len(parts)] for number, query in enumerate(texts)}
    world.queries = [replace(query, subset=placed.get(query.query_id)) for query in world.queries]
    subsets = world.write().evaluate(tmp_path / "out")["subsets"]["tbir"]["clip"]
    assert list(subsets) == ["captions", "captions/seen", "captions/seen/twice", "captions/unseen"]
    values = naive(world, "tbir", "clip")
    for name, means in subsets.items():
        within = [id_ for id_, part in placed.items() if part and (part == name or part.startswith(f"{name}/"))]
        assert means == pytest.approx(mean_of([values[id_] for id_ in within]), abs=1e-9)


@pytest.mark.parametrize("task", ["cbir", "tbir"])
def test_ceilings_equal_the_naive_ones(done: Done, task: str) -> None:
    rows = []
    for query in done.world.queries_of(task):
        row = {}
        for k in KS:
            row[f"precision@{k}"] = oracles.precision_ceiling_at_k([], done.world.relevance(query), k)
            row[f"recall@{k}"] = oracles.recall_ceiling_at_k([], done.world.relevance(query), k)
        rows.append(row)
    assert done.metrics["ceilings"][task] == pytest.approx(mean_of(rows), abs=1e-9)
    assert done.metrics["ceilings"][task]["precision@60"] < 1


@pytest.mark.parametrize("task", ["cbir", "tbir"])
def test_chance_is_the_share_of_relevant_among_other_images(done: Done, task: str) -> None:
    shares = []
    for query in done.world.queries_of(task):
        n_relevant = oracles.number_of_relevant(done.world.relevance(query))
        if n_relevant:
            shares.append(n_relevant / (len(done.world.gallery) - (done.world.own_image(query) is not None)))
    assert done.metrics["chance"][task] == pytest.approx({"precision": sum(shares) / len(shares)}, abs=1e-9)


def test_data_counts(done: Done) -> None:
    data = done.metrics["data"]
    assert (data["gallery_images"], data["queries"]) == (280, 36)


def test_an_encoder_without_text_answers_no_text_query(by_label: Done) -> None:
    assert list(by_label.metrics["tbir"]) == ["clip"]
    assert list(by_label.metrics["ann"]["mobilenet"]) == ["image", "gallery image"]
    assert runs_of(by_label.out) == [
        *("clip/cbir_exact.parquet", "clip/cbir_index.parquet"),
        *("clip/tbir_exact.parquet", "clip/tbir_index.parquet"),
        *("mobilenet/cbir_exact.parquet", "mobilenet/cbir_index.parquet"),
    ]


@each_evaluation
def test_the_headline_holds_the_usual_metrics_near_10(approximate: dict[str, Done], task: str, encoder: str) -> None:
    for kind in KINDS:
        done = approximate[kind]
        headline = read_json(ReportPaths(done.out).headline(encoder), sealed=False)
        assert list(headline) == [of for of, name in EVALUATED if name == encoder]
        assert list(headline[task]) == [encoder]
        ann = done.metrics["ann"][encoder]["image" if task == "cbir" else "text"]
        expected = {name: done.metrics[task][encoder][name] for name in ("precision@10", "success@1", "map_at_r")}
        assert headline[task][encoder] == expected | {"ann_recall@10": ann["ann_recall@10"]}


@pytest.mark.parametrize(
    ("ks", "ann_ks", "expected"),
    [
        ([1, 5], [1, 50], ["precision@5", "success@1", "map_at_r", "ann_recall@1"]),
        ([20, 60], [8, 10, 13], ["precision@20", "success@20", "map_at_r", "ann_recall@10"]),
    ],
)
def test_the_headline_follows_the_ks(
    by_label: Done, ks: list[int], ann_ks: list[int], expected: list[str], tmp_path: Path
) -> None:
    by_label.world.evaluate(tmp_path, params=subset(PARAMS, ks=ks, ann_ks=ann_ks), encoders=["mobilenet"])
    assert list(read_json(ReportPaths(tmp_path).headline("mobilenet"), sealed=False)["cbir"]["mobilenet"]) == expected


# --- runs -------------------------------------------------------------------------------------------------------------


@each_evaluation
@pytest.mark.parametrize("suffix", ["", "_exact"], ids=["flat index", "exact"])
def test_runs_hold_the_plain_ranking_to_their_depth(done: Done, task: str, encoder: str, suffix: str) -> None:
    run = done.run(task, encoder, suffix)
    assert list(run) == [query.query_id for query in done.world.queries_of(task)]
    for query in done.world.queries_of(task):
        ids, ranks, scores = zip(*run[query.query_id], strict=True)
        assert list(ids) == done.world.ranking(encoder, query)[:DEPTH]
        assert ranks == tuple(range(1, DEPTH + 1))
        truth = done.world.scores(encoder, query)
        # The exact scores are rounded once; FAISS adds up in float32.
        assert scores == pytest.approx([truth[i] for i in ids], abs=3e-7 if suffix == "" else 0)


def test_no_run_holds_the_querys_own_image(approximate: dict[str, Done]) -> None:
    for done in approximate.values():
        for encoder in DIMS:
            for suffix in ("", "_exact"):
                run = done.run("cbir", encoder, suffix)
                for query in done.world.queries_of("cbir"):
                    assert query.image_id not in [image_id for image_id, _, _ in run[query.query_id]]


def test_a_run_may_be_as_deep_as_the_gallery(by_label: Done, tmp_path: Path) -> None:
    n = len(by_label.world.gallery)
    by_label.world.evaluate(tmp_path, params=subset(PARAMS, run_depth=n - 1))
    deep = Done(by_label.world, tmp_path, {})
    for query in by_label.world.queries_of("cbir"):
        ranked = [image_id for image_id, _, _ in deep.run("cbir", "clip")[query.query_id]]
        assert ranked == by_label.world.ranking("clip", query)[: n - 1]


def test_metrics_do_not_depend_on_the_depth_of_the_runs(by_label: Done, tmp_path: Path) -> None:
    metrics = by_label.world.evaluate(tmp_path, params=subset(PARAMS, run_depth=60))
    for name in ("cbir", "tbir", "subsets", "ceilings", "chance"):
        assert metrics[name] == by_label.metrics[name]
    assert {name: value for name, value in metrics["ann"]["clip"]["image"].items() if name != "mrr"} == {
        name: value for name, value in by_label.metrics["ann"]["clip"]["image"].items() if name != "mrr"
    }


# --- the index --------------------------------------------------------------------------------------------------------


@each_search
@each_evaluation
def test_metrics_of_the_index_are_those_of_its_run(
    approximate: dict[str, Done], kind: str, task: str, encoder: str
) -> None:
    done = approximate[kind]
    run, exact = done.run(task, encoder), naive(done.world, task, encoder)
    for kind_of_query, queries in by_kind_of_query(done.world, task).items():
        rows, costs = [], []
        for query in queries:
            ranked = [image_id for image_id, _, _ in run.get(query.query_id, [])]
            values = oracles.all_metrics(ranked, done.world.relevance(query), KS)
            rows.append({name: value for name, value in values.items() if "@" in name or name == "mrr"})
            precisions = {name: value for name, value in rows[-1].items() if name.startswith("precision@")}
            costs.append({name: exact[query.query_id][name] - value for name, value in precisions.items()})
        means, cost = (done.metrics[name][encoder][kind_of_query] for name in ("ann", "ann_cost"))
        assert list(means) == [*rows[0], "map_at_r", *(f"ann_recall@{k}" for k in ANN_KS)]
        expected, expected_cost = mean_of(rows), mean_of(costs)
        assert {name: means[name] for name in expected} == pytest.approx(expected, abs=1e-9)
        assert {name: cost[name] for name in expected_cost} == pytest.approx(expected_cost, abs=1e-9)
        assert set(cost) == {*expected_cost, "map_at_r"}


@each_search
@each_evaluation
def test_map_at_r_of_the_index_needs_r_results(
    approximate: dict[str, Done], kind: str, task: str, encoder: str
) -> None:
    done = approximate[kind]
    world, rows = done.world, done.per_query(task, encoder, "index")
    for query in world.queries_of(task):
        wide = 2 ** math.ceil(math.log2(max(1, oracles.number_of_relevant(world.relevance(query)))))
        ranked = by_faiss(world, kind, encoder, [query], wide)[0]
        expected = oracles.all_metrics(ranked, world.relevance(query), KS)["map_at_r"]
        value = rows[query.query_id]["map_at_r"]
        assert math.isnan(expected) if value is None else value == pytest.approx(expected, abs=1e-9)


def test_the_index_has_no_map_at_r_beyond_the_maximum(by_label: Done, tmp_path: Path) -> None:
    with mock.patch.object(index_search, "_MAX_R", 10):
        metrics = by_label.world.evaluate(tmp_path)
    assert "map_at_r" not in metrics["ann"]["clip"]["image"]
    assert "map_at_r" in metrics["cbir"]["clip"]


@each_search
@each_evaluation
@pytest.mark.parametrize("suffix", ["", "_exact"], ids=["index", "exact"])
def test_trec_eval_of_a_run_gives_the_reported_metrics(
    approximate: dict[str, Done], kind: str, task: str, encoder: str, suffix: str
) -> None:
    done = approximate[kind]
    # As preprocess writes them, and as in the run: gallery images without the query's own.
    qrels = {query.query_id: done.world.relevance(query) for query in done.world.queries_of(task)}
    qrels = {query_id: grades for query_id, grades in qrels.items() if any(grades.values())}
    run = {q: {image_id: score for image_id, _, score in rows} for q, rows in done.run(task, encoder, suffix).items()}
    names = {ir_measures.RR: "mrr"}
    for k in KS:
        names |= {ir_measures.P @ k: f"precision@{k}", ir_measures.Success @ k: f"success@{k}"}
        names |= {ir_measures.R @ k: f"recall@{k}", ir_measures.nDCG @ k: f"ndcg@{k}"}
    rows = done.per_query(task, encoder, "exact" if suffix else "index")
    compared = 0
    for result in ir_measures.pytrec_eval.iter_calc(list(names), qrels, run):
        if suffix and result.measure == ir_measures.RR:
            continue  # ours is over the whole gallery
        assert rows[result.query_id][names[result.measure]] == pytest.approx(result.value, abs=1e-9), result
        compared += 1
    assert compared == len(qrels) * (len(names) - bool(suffix))


def faiss_search(path: Path, vectors: NDArray[np.float32], k: int, params: SearchParams) -> NDArray[np.int64]:
    """As in the documentation of FAISS, without cbir.index.search."""
    index = faiss.read_index(str(path))
    if params.nprobe:
        index.nprobe = params.nprobe
    if params.ef_search:
        index.hnsw.efSearch = max(k, params.ef_search)
    positions: NDArray[np.int64] = index.search(vectors, k)[1]
    return positions


def by_faiss(world: World, kind: str, encoder: str, queries: Sequence[Query], k: int) -> list[list[str]]:
    """The first k images that FAISS itself returns for each query, without its own."""
    ids = list(world.gallery)
    path = world.indexes("flat" if kind == "by_grade" else kind) / encoder / "index.faiss"
    vectors = np.stack([world.vector(encoder, query) for query in queries])
    positions = faiss_search(path, vectors, k + (queries[0].task == "cbir"), NARROW.get(kind, SearchParams()))
    return [
        [ids[position] for position in row if position != -1 and ids[position] != world.own_image(query)][:k]
        for query, row in zip(queries, positions, strict=True)
    ]


@each_kind
@each_evaluation
def test_ann_recall_is_the_overlap_with_the_exact_neighbours(
    approximate: dict[str, Done], kind: str, task: str, encoder: str
) -> None:
    done = approximate[kind]
    world, queries = done.world, done.world.queries_of(task)
    for k in ANN_KS:
        shares = []
        for query, ranked in zip(queries, by_faiss(world, kind, encoder, queries, k), strict=True):
            shares.append(len(set(ranked) & set(world.ranking(encoder, query)[:k])) / k)
        by_query = dict(zip([query.query_id for query in queries], shares, strict=True))
        for kind_of_query, of_kind in by_kind_of_query(world, task).items():
            recall = done.metrics["ann"][encoder][kind_of_query][f"ann_recall@{k}"]
            assert recall == pytest.approx(np.mean([by_query[query.query_id] for query in of_kind]), abs=1e-9)
            assert (recall == 1) if kind == "flat" else (recall > 0)
        rows = done.per_query(task, encoder, "index")
        assert [rows[query.query_id][f"ann_recall@{k}"] for query in queries] == pytest.approx(shares, abs=1e-9)


def test_the_narrowed_indexes_do_lose_neighbours(approximate: dict[str, Done]) -> None:
    for kind in NARROW:
        assert approximate[kind].metrics["ann"]["clip"]["image"]["ann_recall@50"] < 0.9
        assert approximate[kind].metrics["cbir"] == approximate["flat"].metrics["cbir"]  # by exact search


def test_ann_recall_may_look_deeper_than_the_runs(by_label: Done, tmp_path: Path) -> None:
    n = len(by_label.world.gallery)
    params = subset(PARAMS, ann_ks=[61, n - 1], run_depth=60)
    values = by_label.world.evaluate(tmp_path, params=params)["ann"]["clip"]["image"]
    assert (values["ann_recall@61"], values[f"ann_recall@{n - 1}"]) == (1, 1)


# --- duplicates and the query's own image -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Five copies of each gallery image under other ids and at other positions; each image query is one of them."""
    world = make_world(tmp_path_factory.mktemp("twins"))
    ids = list(world.gallery)
    for vectors in world.vectors.values():
        rows = [vectors["gallery"][ids[position % 56]] for position in range(len(ids))]
        vectors["gallery"] = dict(zip(ids, rows, strict=True))
        vectors["queries"] = {image_id: vectors["gallery"][image_id] for image_id in ids[::13]}
    world.queries = [
        *(Query(image_id, "cbir", image_id, None, world.gallery[image_id]) for image_id in ids[::13]),
        *world.queries_of("tbir"),
    ]
    world.held_out = {image_id: world.gallery[image_id] for image_id in ids[::13]}
    return world.write(*KINDS)


@each_kind
def test_copies_of_the_own_image_rank_first(twins: World, kind: str, tmp_path: Path) -> None:
    done = Done(twins, tmp_path, twins.evaluate(tmp_path, kind))
    ids = list(twins.gallery)
    for encoder in DIMS:
        exact, indexed = done.run("cbir", encoder, "_exact"), done.run("cbir", encoder)
        for query in twins.queries_of("cbir"):
            position = ids.index(query.query_id)
            others = [ids[p] for p in range(position % 56, 280, 56) if p != position]  # some before it, some after
            assert [image_id for image_id, _, _ in exact[query.query_id][:4]] == others
            assert [score for _, _, score in exact[query.query_id][:4]] == pytest.approx([1] * 4, abs=1e-6)
            ranked = [image_id for image_id, _, _ in indexed[query.query_id]]
            assert query.query_id not in ranked
            if kind in ("flat", "ivf_flat"):
                assert set(ranked[:4]) == set(others)


def test_ann_recall_of_exact_search_is_1_among_copies(twins: World, tmp_path: Path) -> None:
    params = subset(PARAMS, ann_ks=[1, 2, 3, 7, 50])  # amid the twins
    ann = twins.evaluate(tmp_path, params=params)["ann"]
    for values in (*ann["clip"].values(), *ann["mobilenet"].values()):
        assert [values[f"ann_recall@{k}"] for k in params.ann_ks] == [1.0] * 5


def test_neighbours_that_differ_by_rounding_only_count_as_found(tmp_path: Path) -> None:
    """All images are within float32 rounding of each other, and FAISS ranks them in another order than exact search."""
    world = make_world(tmp_path)
    rng = np.random.default_rng(3)
    for encoder, found in world.vectors.items():
        centre = rng.normal(size=DIMS[encoder])
        found["gallery"] = {i: unit(centre + 1e-7 * rng.normal(size=DIMS[encoder])) for i in world.gallery}
    world.queries = [query for query in world.queries_of("cbir") if world.own_image(query) is None]
    found = world.write().evaluate(tmp_path / "out", params=subset(PARAMS, ann_ks=[10, 100]))["ann"]
    assert found["clip"]["image"]["ann_recall@10"] == found["mobilenet"]["image"]["ann_recall@100"] == 1
    exact, indexed = (Done(world, tmp_path / "out", {}).run("cbir", "clip", suffix) for suffix in ("_exact", ""))
    assert any({row[0] for row in exact[i][:10]} != {row[0] for row in indexed[i][:10]} for i in exact)


def test_metrics_with_twins_equal_the_naive_ones(twins: World, tmp_path: Path) -> None:
    metrics = twins.evaluate(tmp_path)
    for task, encoder in EVALUATED:
        expected = mean_of(list(naive(twins, task, encoder).values()))
        assert metrics[task][encoder] == pytest.approx(expected, abs=1e-9)


# --- blocks, memory, bytes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits",
    [
        {"_BLOCK_QUERIES": 1, "_BATCH_QUERIES": 1},
        {"_BLOCK_QUERIES": 5},
        {"_BATCH_QUERIES": 4},
        {"_BLOCK_SCORES": 3 * 280},
        {"_BLOCK_SCORES": 1},
    ],
    ids=["1 query", "5 queries", "4 queries to FAISS", "scores of 3 queries", "fewer scores than one query has"],
)
@each_kind
def test_results_do_not_depend_on_the_size_of_blocks(
    approximate: dict[str, Done],
    kind: str,
    limits: dict[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = approximate[kind]
    for name, value in limits.items():
        monkeypatch.setattr(index_search if name == "_BATCH_QUERIES" else exact_search, name, value)
    evaluated = Done(
        whole.world, tmp_path, whole.world.evaluate(tmp_path, kind, search=NARROW.get(kind, SearchParams()))
    )
    assert evaluated.metrics == whole.metrics
    names = runs_of(whole.out)
    assert runs_of(tmp_path) == names
    for name in names:
        encoder, _, file = name.partition("/")
        before, after = (read_run(done.of(encoder).runs / file) for done in (whole, evaluated))
        assert after.drop_columns("score").equals(before.drop_columns("score")), name
        # FAISS adds up few queries in another order than many: the last bits differ.
        np.testing.assert_allclose(after["score"], before["score"], rtol=0, atol=0 if "exact" in name else 3e-7)


@each_kind
def test_the_number_of_threads_changes_no_byte(approximate: dict[str, Done], kind: str, tmp_path: Path) -> None:
    whole = approximate[kind]
    world, search_params = whole.world, NARROW.get(kind, SearchParams())
    with mock.patch.object(index_search, "_BATCH_QUERIES", 4):
        for threads in (1, 3):
            world.evaluate(tmp_path / str(threads), kind, search=search_params, threads=threads)
    names = [path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file()]
    assert len(names) > 5
    assert all((tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes() for name in names)


def test_all_batches_of_a_task_are_searched_equally_deep(by_label: Done, tmp_path: Path) -> None:
    """Beyond ef_search, the width of an HNSW search is k: searches for 200 and for 201 differ."""
    searches: list[tuple[int, int]] = []

    def recorded(index: Any, vectors: NDArray[np.float32], k: int, *rest: Any) -> Any:
        searches.append((len(vectors), k))
        return search(index, vectors, k, *rest)

    from cbir.index.search import search

    with mock.patch.multiple(index_search, _BATCH_QUERIES=4, search=recorded):
        by_label.world.evaluate(tmp_path, "hnsw", subset(PARAMS, ann_ks=[200], run_depth=200), encoders=["clip"])
    searches = [(n, k) for n, k in searches if k >= 200]  # the searches for map_at_r are less deep
    # 22 image queries, then 14 text queries
    assert searches == [(4, 201)] * 5 + [(2, 201)] + [(4, 200)] * 3 + [(2, 200)]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Collection, TaskQueries, Any, Any]:
    """60,000 vectors, memory-mapped, of 400 labels; 1,000 queries."""
    rng = np.random.default_rng(5)
    folder = tmp_path_factory.mktemp("large") / "clip"
    ids = [f"i{number:05d}" for number in range(60_000)]
    rows = unit(rng.normal(size=(60_000, 32)))
    write_part(folder / "gallery", "part-00000", ids, rows)
    counted = {"count": 60_000, "ids_sha256": hash_ids(ids)}
    write_vectors_passport(folder / "gallery", {"encoder": "clip", "dim": 32, "rows": counted})
    queries = [{"query_id": f"q{n}", "task": "cbir", "label": f"c{n % 400}"} for n in range(1000)]
    table = pa.Table.from_pylist(queries, QUERY_SCHEMA)
    labels = pa.array([f"c{number % 400}" for number in range(60_000)])
    relevance = Relevance(pa.array(ids), labels, table, QRELS_SCHEMA.empty_table())
    task_queries = TaskQueries(
        table["query_id"].to_pylist(), table, unit(rng.normal(size=(1000, 32))), np.full(1000, MISSING, np.int64)
    )
    index = build_index([rows], 60_000, 32, "flat", BuildParams(), threads=2)
    return (
        Collection(pa.array(ids), relevance, table, Classes.of(labels), {}),
        task_queries,
        open_vectors(folder, "clip", "gallery"),
        index,
    )


def test_memory_never_holds_the_scores_of_all_queries(
    large: tuple[Collection, TaskQueries, Any, Any],
) -> None:
    collection, queries, vectors, index = large
    params = subset(PARAMS, ks=[1, 10], ann_ks=[10])
    tracemalloc.start()
    try:
        searches = evaluate_task(queries, collection, vectors, index, SearchParams(), params, 100, 2, "evaluate")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert searches["exact"].positions.shape == (1000, 100)
    assert searches["index"].values["ann_recall@10"].min() == 1
    assert peak < 1000 * 60_000 * 4 / 3


# --- how sure, and of what --------------------------------------------------------------------------------------------


@each_evaluation
def test_intervals_are_of_the_values_of_each_query(done: Done, task: str, encoder: str) -> None:
    intervals = read_json(done.of(encoder).intervals)
    rows = list(done.per_query(task, encoder, "exact").values())
    classes = classes_of([row["label"] for row in rows])
    for name, bounds in intervals[task][encoder].items():
        values = np.array([[np.nan if row[name] is None else row[name]] for row in rows])
        (expected,) = interval_of_means(values, classes, PARAMS.resamples, PARAMS.seed)
        assert expected is not None
        assert bounds == pytest.approx([expected.low, expected.high], abs=1e-6)
        assert bounds[0] <= done.metrics[task][encoder][name] <= bounds[1]
    assert set(intervals[task][encoder]) == set(done.metrics[task][encoder])
    assert intervals["about"] == {"level": 0.95, "resamples": PARAMS.resamples, "seed": PARAMS.seed, "drawn": "classes"}


@pytest.mark.parametrize("encoder", DIMS)
def test_every_metric_has_definition_ceiling_and_number_of_queries(done: Done, encoder: str) -> None:
    definitions = read_json(done.of(encoder).definitions)
    groups = [done.metrics[group].get(encoder, {}) for group in ("cbir", "tbir", "categories")]
    names = {name for values in groups for name in values}
    assert set(definitions) == names | {f"ann_recall@{k}" for k in ANN_KS}
    for name, definition in definitions.items():
        assert definition["definition"]
        assert definition["denominator"]
        for task, of_task in definition["tasks"].items():
            assert (task, encoder) in EVALUATED
            rows = done.per_query(task, encoder, "index" if name.startswith("ann_") else "exact")
            assert of_task["queries"] == sum(row[name] is not None for row in rows.values()), name
            assert of_task["ceiling"] == done.metrics["ceilings"][task].get(name, 1.0)
    assert definitions["recall@10"]["also_called"] == {"trec_eval": "recall_10", "ir-measures": "R@10"}


def test_the_test_collection_is_identified_by_rows_and_contents(by_label: Done, tmp_path: Path) -> None:
    found = read_json(by_label.of("mobilenet").test_collection)
    assert found == read_json(by_label.of("clip").test_collection)
    assert {name: part["rows"] for name, part in found.items()} == {
        "gallery": 280,
        "queries": 36,
        "query images": 22,
        "judgements": 0,
    }
    other = make_world(tmp_path)
    image_id = next(iter(other.gallery))
    other.gallery[image_id] = "c9"
    other.write().evaluate(tmp_path / "out", encoders=["mobilenet"])
    changed = read_json(ReportPaths(tmp_path / "out").evaluation("mobilenet").test_collection)
    assert [name for name in found if changed[name] != found[name]] == ["gallery"]


def test_evaluating_twice_gives_the_same_bytes_in_another_process_too(by_label: Done, tmp_path: Path) -> None:
    first = contents(by_label.out)
    assert len(first) == 2 * (9 + 1) + 6 + 1  # of each encoder, its headline, the runs, and the encoders' names
    by_label.world.evaluate(tmp_path / "here")
    assert contents(tmp_path / "here") == first
    code = "import sys; from pathlib import Path; from tests.support.world import make_world\n"
    code += "root, out = map(Path, sys.argv[1:]); make_world(root).evaluate(out)"
    command = [sys.executable, "-c", code, str(by_label.world.root), str(tmp_path / "there")]
    for hash_seed in "12":  # the order of sets
        subprocess.run(
            command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": hash_seed}, capture_output=True, check=True
        )
        assert contents(tmp_path / "there") == first


def test_no_stage_after_embed_imports_torch() -> None:
    code = (
        "import sys, stages.build_index, stages.evaluate, stages.latency, stages.report\n"
        "print(sorted({'torch', 'torchvision', 'open_clip'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- little to evaluate -----------------------------------------------------------------------------------------------


def test_without_queries_there_are_no_figures_but_every_file(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.queries = []
    metrics = world.write().evaluate(tmp_path / "out")
    assert set(metrics["data"].pop("index_bytes")) == {"mobilenet", "clip"}
    assert metrics == {
        "cbir": {},
        "tbir": {},
        "subsets": {},
        "categories": {},
        "without_duplicates": {},
        "ann": {},
        "ann_cost": {},
        "ceilings": {},
        "chance": {},
        "data": {
            "gallery_images": 280,
            "queries": 0,
            "queries_without_relevant": {},
            "duplicates": {"bytes": 0, "pixels": 0, "mobilenet": 0, "clip": 0},
        },
    }
    for encoder in ("mobilenet", "clip"):
        paths = ReportPaths(tmp_path / "out").evaluation(encoder)
        for path in (paths.duplicates, paths.classes, paths.confusions):
            assert pq.read_table(path).num_rows == 0
        assert paths.runs.is_dir()
        assert read_json(ReportPaths(tmp_path / "out").headline(encoder), sealed=False) == {}
        table = pq.read_table(paths.per_query)
        assert (table.num_rows, table.column_names) == (0, ["query_id", "task", "encoder", "search", "subset", "label"])
        assert table.schema.types == [pa.string()] * 6


def test_with_text_queries_only_there_is_no_image_task(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.queries = world.queries_of("tbir")
    metrics = world.write().evaluate(tmp_path / "out")
    assert (list(metrics["cbir"]), list(metrics["tbir"])) == ([], ["clip"])


def test_without_labels_there_are_no_metrics_but_ann_recall(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.gallery = dict.fromkeys(world.gallery)
    world.queries = [dataclasses.replace(query, label=None) for query in world.queries]
    metrics = world.write("ivf_flat").evaluate(tmp_path / "out", "ivf_flat")
    assert metrics["cbir"] == {"mobilenet": {}, "clip": {}}
    assert metrics["ceilings"] == metrics["chance"] == {"cbir": {}, "tbir": {}}
    assert metrics["subsets"]["tbir"]["clip"] == {"captions": {}, "class prompts": {}}
    assert metrics["data"]["queries_without_relevant"] == {"cbir": 22, "tbir": 14}
    for values in metrics["ann"]["clip"].values():
        assert list(values) == [f"ann_recall@{k}" for k in ANN_KS]
        assert 0 < values["ann_recall@10"] <= 1
    assert len(read_run(ReportPaths(tmp_path / "out").evaluation("clip").run("tbir", "exact"))) == 14 * DEPTH
    assert read_json(ReportPaths(tmp_path / "out").headline("clip"), sealed=False).keys() == {"cbir", "tbir"}


# --- k and depth ------------------------------------------------------------------------------------------------------


def test_ks_beyond_the_gallery_are_left_out_and_recorded(by_label: Done, tmp_path: Path) -> None:
    params = subset(PARAMS, ks=[1, 10, 279, 280], ann_ks=[10, 281, 500], run_depth=1000)
    metrics = by_label.world.evaluate(tmp_path, params=params, encoders=["mobilenet"])
    assert metrics["data"]["ks_left_out"] == {"ks": [280], "ann_ks": [281, 500]}
    values = metrics["cbir"]["mobilenet"]
    assert [k for k in (1, 10, 279, 280) if f"precision@{k}" in values] == [1, 10, 279]
    assert values["precision@10"] == by_label.metrics["cbir"]["mobilenet"]["precision@10"]
    assert list(metrics["ann"]["mobilenet"]["image"])[-1] == "ann_recall@10"
    run = read_run(ReportPaths(tmp_path).evaluation("mobilenet").run("cbir", "exact"))
    assert max(run["rank"].to_pylist()) == 279


def test_nothing_is_recorded_where_all_ks_fit(by_label: Done) -> None:
    assert "ks_left_out" not in by_label.metrics["data"]


@pytest.mark.parametrize(
    ("ks", "n_results", "fitted", "left_out"),
    [
        ([1, 50], 50, [1, 50], {}),
        ([1, 50], 49, [1], {"ks": [50]}),
        ([20, 50], 7, [7], {"ks": [20, 50]}),
    ],
)
def test_ks_fit_the_gallery(ks: list[int], n_results: int, fitted: list[int], left_out: dict[str, list[int]]) -> None:
    params = subset(PARAMS, ks=ks, ann_ks=[1])
    assert leave_out_large_ks(params, n_results) == left_out
    assert (params.ks, params.ann_ks) == (fitted, [1])


def test_a_query_without_any_result_is_refused() -> None:
    with pytest.raises(DataError, match=r"data/images/gallery: expected an image besides a query's own, found none"):
        leave_out_large_ks(subset(PARAMS), 0)


def test_the_depth_is_100_the_largest_k_or_the_gallery() -> None:
    params = subset(PARAMS, ks=[1], ann_ks=[1])
    assert depth_of_runs(params, 1000) == 100
    assert depth_of_runs(params, 99) == 99
    assert depth_of_runs(subset(params, run_depth=7), 99) == 7
    assert depth_of_runs(subset(params, ks=[1, 200]), 1000) == 200
    assert depth_of_runs(subset(params, run_depth=700), 99) == 99


# --- refusals: what does not belong together --------------------------------------------------------------------------


@pytest.fixture
def fresh(tmp_path: Path) -> World:
    """A world to damage."""
    world = make_world(tmp_path)
    world.queries = world.queries[:10]
    return world.write()


def rewrite_passport(folder: Path, **changes: Any) -> None:
    passport = read_json(folder / "passport.json")
    write_json(folder / "passport.json", passport | changes)


def test_vectors_of_another_gallery_are_refused(fresh: World, tmp_path: Path) -> None:
    (fresh.data / "images" / "gallery" / "part-00002.parquet").unlink()  # the last 80 images
    with pytest.raises(
        PassportError, match="embeddings/mobilenet: expected vectors of the gallery in data/images, found"
    ):
        fresh.evaluate(tmp_path / "out")


def test_vectors_of_another_encoder_are_refused(fresh: World, tmp_path: Path) -> None:
    (fresh.embeddings / "mobilenet").rename(fresh.embeddings / "aside")
    (fresh.embeddings / "clip").rename(fresh.embeddings / "mobilenet")
    with pytest.raises(
        PassportError, match=r"embeddings/mobilenet/gallery: .* 'encoder': expected 'mobilenet', found 'clip'"
    ):
        fresh.evaluate(tmp_path / "out")


def test_vectors_whose_ids_are_not_the_passports_are_refused(fresh: World, tmp_path: Path) -> None:
    rows = dict(list(fresh.vectors["clip"]["gallery"].items())[:70])
    ids = ["another", *list(rows)[1:]]
    write_part(fresh.embeddings / "clip" / "gallery", "part-00000", ids, np.stack(list(rows.values())))
    with pytest.raises(PassportError, match=r"clip/gallery: passport field 'ids_sha256'"):
        fresh.evaluate(tmp_path / "out", encoders=["clip"])


def test_an_index_of_another_encoder_is_refused(fresh: World, tmp_path: Path) -> None:
    (fresh.indexes() / "mobilenet").rename(tmp_path / "aside")
    (fresh.indexes() / "clip").rename(fresh.indexes() / "mobilenet")
    with pytest.raises(PassportError, match=r"index/mobilenet: .* 'encoder': expected 'mobilenet', found 'clip'"):
        fresh.evaluate(tmp_path / "out")


def test_an_index_of_other_weights_is_refused(fresh: World, tmp_path: Path) -> None:
    rewrite_passport(fresh.embeddings / "clip" / "gallery", weights_sha256="0" * 64)
    with pytest.raises(
        PassportError, match=r"index/clip: vectors: passport field 'weights_sha256': expected '000.*dvc repro"
    ):
        fresh.evaluate(tmp_path / "out", encoders=["clip"])


def test_queries_of_other_weights_than_the_gallery_s_are_refused(fresh: World, tmp_path: Path) -> None:
    rewrite_passport(fresh.embeddings / "clip" / "queries", weights_sha256="0" * 64)
    with pytest.raises(PassportError, match=r"clip/queries beside the gallery's: passport field 'weights_sha256'"):
        fresh.evaluate(tmp_path / "out", encoders=["clip"])


def test_an_index_of_another_preprocessing_is_refused(fresh: World, tmp_path: Path) -> None:
    changed = fresh.passport("clip")["preprocessing"] | {"crop_px": 7}
    rewrite_passport(fresh.embeddings / "clip" / "gallery", preprocessing=changed)
    with pytest.raises(PassportError, match=r"preprocessing: passport field 'crop_px': expected 7, found 8"):
        fresh.evaluate(tmp_path / "out", encoders=["clip"])


def test_an_index_of_another_gallery_is_refused(fresh: World, tmp_path: Path) -> None:
    other = make_world(tmp_path / "other", n_gallery=290).write()
    (fresh.indexes() / "clip").rename(tmp_path / "aside")
    (other.indexes() / "clip").rename(fresh.indexes() / "clip")
    with pytest.raises(PassportError, match=r"rows: passport field 'count': expected 280, found 290"):
        fresh.evaluate(tmp_path / "out", encoders=["clip"])


def test_a_query_without_a_vector_is_refused(fresh: World, tmp_path: Path) -> None:
    fresh.queries.append(Query("extra", "cbir", "never-embedded", None, None))
    fresh.write()
    with pytest.raises(
        DataError, match=r"mobilenet cbir: no vector for 'never-embedded'; run `cbir repair`, then `dvc repro`"
    ):
        fresh.evaluate(tmp_path / "out")
