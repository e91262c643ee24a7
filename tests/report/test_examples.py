"""The example queries of a report and their results, against known vectors."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.index.params import SearchParams
from cbir.report import examples as module
from cbir.report.examples import (
    EXAMPLES_PER_KIND,
    SAMPLE,
    Example,
    choose_examples,
    images_of,
)
from cbir.report.judged import MAX_HITS, ExampleQuery, JudgedCollection
from tests.support import oracles
from tests.support.world import PARAMS, World, make_world

SAMPLED = 3
ORDER = [*EXAMPLES_PER_KIND, SAMPLE]
ENCODERS = {"cbir": ["mobilenet", "clip"], "tbir": ["clip"]}
TASKS = list(ENCODERS)


@pytest.fixture(scope="module", params=["same label", "graded"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world whose index misses many neighbours, so that its results differ from those of exact search."""
    made = make_world(tmp_path_factory.mktemp("examples"), graded=request.param == "graded").write("ivf_flat")
    made.evaluate(made.root / "reports", "ivf_flat", search=SearchParams(nprobe=1))
    return made


@pytest.fixture(scope="module")
def collection(world: World) -> JudgedCollection:
    return JudgedCollection(DataPaths(world.data))


@pytest.fixture(scope="module")
def chosen(world: World, collection: JudgedCollection) -> list[Example]:
    return choose_examples(collection, ReportPaths(world.root / "reports"), SAMPLED, 0)


def examples_of(examples: Sequence[Example], task: str, kind: str | None = None) -> list[Example]:
    return [example for example in examples if example.task == task and kind in (None, example.kind)]


def ids_of(examples: Sequence[Example]) -> list[str]:
    return [example.query.query_id for example in examples]


def values_of(world: World, task: str) -> dict[str, tuple[float, float, float]]:
    """query_id -> MAP@R and reciprocal rank, means over the encoders, and the range of MAP@R; with something relevant."""
    found = {}
    for query in world.queries_of(task):
        relevance = world.relevance(query)
        rankings = [world.ranking(encoder, query) for encoder in ENCODERS[task]]
        values = [oracles.average_precision_at_r(ranked, relevance) for ranked in rankings]
        if not isnan(values[0]):
            ranks = fmean(oracles.reciprocal_rank(ranked, relevance) for ranked in rankings)
            found[query.query_id] = fmean(values), ranks, max(values) - min(values)
    return found


def most_confused(world: World, task: str) -> list[str]:
    """Classes by the largest share of another class among the first ten results of their queries, by any encoder."""
    shares = []
    for encoder in ENCODERS[task]:
        results: Counter[str] = Counter()
        taken: Counter[tuple[str, str]] = Counter()
        for query in world.queries_of(task):
            if query.label in world.gallery.values() and query.label is not None:
                for image_id in world.ranking(encoder, query)[:10]:
                    results[query.label] += 1
                    label = world.gallery[image_id]
                    if label not in (None, query.label):
                        taken[query.label, str(label)] += 1
        shares += [(-count / results[label], label) for (label, _), count in taken.items()]
    return list(dict.fromkeys(label for _, label in sorted(shares)))


# ---- which queries


def test_each_task_has_examples_of_each_kind(chosen: list[Example]) -> None:
    assert list(dict.fromkeys(example.task for example in chosen)) == list(ENCODERS)
    for task, encoders in ENCODERS.items():
        kinds = [example.kind for example in examples_of(chosen, task)]
        assert kinds == sorted(kinds, key=ORDER.index)
        assert kinds.count("best") == EXAMPLES_PER_KIND["best"]
        assert kinds.count("worst") == EXAMPLES_PER_KIND["worst"]
        assert 0 < kinds.count("confused") <= EXAMPLES_PER_KIND["confused"]
        assert kinds.count("disputed") == (EXAMPLES_PER_KIND["disputed"] if len(encoders) > 1 else 0)
        assert kinds.count(SAMPLE) == SAMPLED


def test_each_example_has_the_rankings_of_all_encoders(world: World, chosen: list[Example]) -> None:
    for example in chosen:
        assert [ranking.encoder for ranking in example.rankings] == ENCODERS[example.task]
        (query,) = [query for query in world.queries if query.query_id == example.query.query_id]
        for ranking in example.rankings:
            expected = oracles.average_precision_at_r(world.ranking(ranking.encoder, query), world.relevance(query))
            assert ranking.map_at_r == (None if isnan(expected) else pytest.approx(expected))


@pytest.mark.parametrize("task", TASKS)
def test_no_query_is_chosen_twice_per_task(chosen: list[Example], task: str) -> None:
    assert max(Counter(ids_of(examples_of(chosen, task))).values()) == 1


@pytest.mark.parametrize("task", TASKS)
def test_best_and_worst_are_by_map_at_r_then_mrr(world: World, chosen: list[Example], task: str) -> None:
    values = {query_id: value[:2] for query_id, value in values_of(world, task).items()}
    best, worst = (
        [values[query_id] for query_id in ids_of(examples_of(chosen, task, kind))] for kind in ("best", "worst")
    )
    ranked = sorted(values.values(), reverse=True)
    assert best == ranked[:2]
    assert worst == ranked[:-6:-1]


def test_disputed_examples_have_the_widest_range_of_those_left(world: World, chosen: list[Example]) -> None:
    ranges = {query_id: value[2] for query_id, value in values_of(world, "cbir").items()}
    before = [example for kind in ORDER[:3] for example in examples_of(chosen, "cbir", kind)]
    left = sorted((value for query_id, value in ranges.items() if query_id not in ids_of(before)), reverse=True)
    disputed = ids_of(examples_of(chosen, "cbir", "disputed"))
    assert [ranges[query_id] for query_id in disputed] == pytest.approx(left[: len(disputed)])


@pytest.mark.parametrize("task", TASKS)
def test_confused_examples_are_the_worst_queries_of_confused_classes(
    world: World, chosen: list[Example], task: str
) -> None:
    values, labels = values_of(world, task), {query.query_id: query.label for query in world.queries}
    before = ids_of(examples_of(chosen, task, "best") + examples_of(chosen, task, "worst"))
    expected = []
    for label in most_confused(world, task):
        of_class = [query_id for query_id in values if labels[query_id] == label]
        if of_class:
            lowest = min(values[query_id][0] for query_id in of_class)
            worst = [query_id for query_id in of_class if values[query_id][0] == lowest]
            assert len(worst) == 1, "with this seed no two are as bad"
            expected += [query_id for query_id in worst if query_id not in before]
    assert ids_of(examples_of(chosen, task, "confused")) == expected[: EXAMPLES_PER_KIND["confused"]]


def test_perfect_queries_are_not_among_the_worst(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    for encoder, found in world.vectors.items():
        for query in world.queries_of("cbir"):  # each has the vector of an image, and only that image is relevant
            found["queries"][str(query.image_id)] = found["gallery"]["img020"]
        assert world.ranking(encoder, world.queries[0])[0] == "img020"
    world.qrels = {query.query_id: {"img020": 1} for query in world.queries}
    world.write().evaluate(tmp_path / "reports")
    found = examples_of(
        choose_examples(JudgedCollection(DataPaths(world.data)), ReportPaths(tmp_path / "reports"), 2, 0), "cbir"
    )
    kinds = Counter(example.kind for example in found)
    assert kinds["best"] == 2
    assert kinds["worst"] == kinds["disputed"] == 0
    assert all(ranking.map_at_r in (None, 1.0) for example in found for ranking in example.rankings)


def test_the_same_seed_draws_the_same_and_another_seed_others(
    world: World, collection: JudgedCollection, chosen: list[Example]
) -> None:
    reports = ReportPaths(world.root / "reports")
    assert choose_examples(collection, reports, SAMPLED, 0) == chosen
    assert choose_examples(JudgedCollection(DataPaths(world.data)), reports, SAMPLED, 0) == chosen
    samples = set()
    for seed in range(5):
        others = choose_examples(collection, reports, SAMPLED, seed)
        samples.add(tuple(ids_of(examples_of(others, "cbir", SAMPLE))))
        for task in TASKS:
            values = values_of(world, task)
            for kind in ("best", "worst"):
                of_each = [
                    [values[query_id] for query_id in ids_of(examples_of(each, task, kind))]
                    for each in (chosen, others)
                ]
                assert of_each[0] == of_each[1]
    assert len(samples) > 1


@pytest.mark.parametrize("sampled", [0, 1, 1000])
def test_the_sample_has_the_requested_size_or_all_queries(
    world: World, collection: JudgedCollection, chosen: list[Example], sampled: int
) -> None:
    found = choose_examples(collection, ReportPaths(world.root / "reports"), sampled, 0)
    for task in TASKS:
        fixed = [example for example in examples_of(chosen, task) if example.kind != SAMPLE]
        assert [example for example in examples_of(found, task) if example.kind != SAMPLE] == fixed
        n_left = len(world.queries_of(task)) - len(fixed)
        assert len(examples_of(found, task, SAMPLE)) == min(sampled, n_left)


def unjudged(examples: Sequence[Example]) -> list[Example]:
    return [example for example in examples if all(ranking.map_at_r is None for ranking in example.rankings)]


def test_queries_without_relevant_images_are_only_in_the_sample(world: World, collection: JudgedCollection) -> None:
    found = choose_examples(collection, ReportPaths(world.root / "reports"), 1000, 0)
    unanswerable = {
        query.query_id for query in world.queries if oracles.number_of_relevant(world.relevance(query)) == 0
    }
    assert set(ids_of(unjudged(found))) == unanswerable
    assert {example.kind for example in unjudged(found)} == {SAMPLE}


QUERY = st.fixed_dictionaries(
    {
        "label": st.sampled_from(["a", "b", "c", "d", None]),
        "values": st.none() | st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.25, 1.0])),
        "range": st.sampled_from([0.0, 0.1, 0.5]),
    }
)


def rows_of(queries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for number, query in enumerate(queries):
        map_at_r, mrr = query["values"] or (None, None)
        rows.append({"query_id": f"q{number}", "map_at_r": map_at_r, "mrr": mrr, "range": 0.0, **query})
    return rows


@given(
    queries=st.lists(QUERY, max_size=30),
    confused=st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=6),
    sampled=st.integers(0, 20),
    seed=st.integers(0, 2**32),
)
def test_each_kind_is_filled_as_far_as_possible(
    queries: list[dict[str, Any]], confused: list[str], sampled: int, seed: int
) -> None:
    rows = rows_of(queries)
    chosen = module._choose(rows, confused, sampled, seed)
    by_id = {row["query_id"]: row for row in rows}

    def value(query_id: str) -> tuple[float, float]:
        return by_id[query_id]["map_at_r"], by_id[query_id]["mrr"]

    ids_of_kind = {kind: [query_id for query_id in chosen if chosen[query_id] == kind] for kind in ORDER}
    assert list(chosen) == [query_id for kind in ORDER for query_id in ids_of_kind[kind]]
    judged = [row["query_id"] for row in rows if row["map_at_r"] is not None]
    good = [value(query_id) for query_id in judged if by_id[query_id]["map_at_r"] > 0]
    most = min(EXAMPLES_PER_KIND["best"], (len(judged) + 1) // 2)  # what is among the worse half is not best
    assert [value(query_id) for query_id in ids_of_kind["best"]] == sorted(good, reverse=True)[:most]
    left = [query_id for query_id in judged if query_id not in ids_of_kind["best"] and by_id[query_id]["map_at_r"] < 1]
    assert [value(query_id) for query_id in ids_of_kind["worst"]] == sorted(map(value, left))[
        : EXAMPLES_PER_KIND["worst"]
    ]
    labels = [by_id[query_id]["label"] for query_id in ids_of_kind["confused"]]
    assert labels == [label for label in dict.fromkeys(confused) if label in labels]
    assert len(labels) <= EXAMPLES_PER_KIND["confused"]
    for query_id in ids_of_kind["confused"]:
        assert value(query_id) == min(
            value(other) for other in judged if by_id[other]["label"] == by_id[query_id]["label"]
        )
    before = [query_id for kind in ORDER[:3] for query_id in ids_of_kind[kind]]
    ranges = [
        by_id[query_id]["range"] for query_id in judged if query_id not in before and by_id[query_id]["range"] > 0
    ]
    assert [by_id[query_id]["range"] for query_id in ids_of_kind["disputed"]] == sorted(ranges, reverse=True)[
        : EXAMPLES_PER_KIND["disputed"]
    ]
    assert len(ids_of_kind[SAMPLE]) == min(
        sampled, len(rows) - sum(len(ids_of_kind[kind]) for kind in EXAMPLES_PER_KIND)
    )


def test_ties_are_broken_at_random() -> None:
    rows = rows_of([{"label": "a", "values": (0.5, 0.5)}] * 20)
    first = {next(iter(module._choose(rows, [], 0, seed))) for seed in range(30)}
    assert len(first) > 5
    assert module._choose(rows, ["a"], 3, 7) == module._choose(rows, ["a"], 3, 7)


def test_each_query_is_equally_likely_in_the_sample() -> None:
    rows = rows_of([{"label": None, "values": None}] * 10)
    drawn = Counter(query_id for seed in range(400) for query_id in module._choose(rows, [], 2, seed))
    assert drawn.keys() == {row["query_id"] for row in rows}
    assert 50 < min(drawn.values()) <= max(drawn.values()) < 115  # 80 each, give or take four standard deviations


# ---- queries and results


def test_a_query_is_shown_with_its_image_text_and_label(world: World, chosen: list[Example]) -> None:
    queries = {query.query_id: query for query in world.queries}
    for example in chosen:
        query = queries[example.query.query_id]
        assert example.task == query.task
        assert example.query == ExampleQuery(query.query_id, query.image_id, query.text, query.label)


def test_hits_are_the_first_results_with_scores_and_labels(world: World, chosen: list[Example]) -> None:
    queries = {query.query_id: query for query in world.queries}
    for example in chosen:
        query = queries[example.query.query_id]
        for ranking in example.rankings:
            expected, scores = world.ranking(ranking.encoder, query)[:MAX_HITS], world.scores(ranking.encoder, query)
            assert [hit.image_id for hit in ranking.hits] == expected
            assert [hit.rank for hit in ranking.hits] == list(range(1, 11))
            assert [hit.score for hit in ranking.hits] == pytest.approx(
                [scores[image_id] for image_id in expected], abs=1e-6
            )
            assert [hit.label for hit in ranking.hits] == [world.gallery[image_id] for image_id in expected]
            assert world.own_image(query) not in {hit.image_id for hit in ranking.hits}


def test_hits_are_judged_unless_the_query_has_no_relevant_image(world: World, chosen: list[Example]) -> None:
    queries, words = {query.query_id: query for query in world.queries}, Counter[bool | None]()
    for example in chosen:
        relevance = world.relevance(queries[example.query.query_id])
        is_known = oracles.number_of_relevant(relevance) > 0
        for hit in example.hits:
            assert hit.is_relevant is (oracles.is_relevant(hit.image_id, relevance) if is_known else None)
            words[hit.is_relevant] += 1
    assert words[True] > 20 < words[False]


def test_hits_are_unjudged_where_nothing_is_relevant(world: World, collection: JudgedCollection) -> None:
    found = choose_examples(collection, ReportPaths(world.root / "reports"), 1000, 0)
    unanswerable = unjudged(found)
    assert {example.task for example in unanswerable} == {"cbir", "tbir"}
    assert {hit.is_relevant for example in unanswerable for hit in example.hits} == {None}


def test_a_gallery_image_query_does_not_retrieve_itself(world: World, collection: JudgedCollection) -> None:
    inside = [query for query in world.queries_of("cbir") if world.own_image(query) is not None]
    assert len(inside) == 6
    hits = collection.hits(
        ReportPaths(world.root / "reports").evaluation("clip").run("cbir", "exact"),
        [query.query_id for query in inside],
    )
    for query in inside:
        assert query.image_id not in {hit.image_id for hit in hits[query.query_id]}
        assert len(hits[query.query_id]) == MAX_HITS
        assert collection.query(query.query_id).image_id == query.image_id


def test_an_image_relevant_only_to_itself_leaves_hits_unjudged(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.qrels = {"mine:img000": {"img000": 1}, "ask01": {"img001": 1}}
    world.write().evaluate(tmp_path / "reports")
    hits = JudgedCollection(DataPaths(world.data)).hits(
        ReportPaths(tmp_path / "reports").evaluation("clip").run("cbir", "exact"), ["mine:img000", "ask01"]
    )
    assert {hit.is_relevant for hit in hits["mine:img000"]} == {None}
    assert {hit.is_relevant for hit in hits["ask01"]} <= {True, False}


def test_hits_are_returned_for_the_given_queries_only(world: World, collection: JudgedCollection) -> None:
    run = ReportPaths(world.root / "reports").evaluation("mobilenet").run("cbir", "exact")
    assert collection.hits(run, []) == {}
    found = collection.hits(run, ["ask03", "class:c0", "ask01"])
    assert [(query_id, len(hits)) for query_id, hits in found.items()] == [
        ("ask03", 10),
        ("class:c0", 0),
        ("ask01", 10),
    ]


def test_a_gallery_of_few_images_gives_few_results(tmp_path: Path) -> None:
    whole = make_world(tmp_path)
    few = {image_id: whole.gallery[image_id] for image_id in list(whole.gallery)[:5]}
    vectors = {
        encoder: {
            "gallery": {image_id: found["gallery"][image_id] for image_id in few},
            "queries": {"ask00": found["queries"]["ask00"]},
        }
        for encoder, found in whole.vectors.items()
    }
    vectors["clip"]["prompts"] = whole.vectors["clip"]["prompts"]
    world = World(tmp_path, few, {"ask00": "c0"}, whole.queries[:1], vectors).write()
    world.evaluate(tmp_path / "reports", params=replace(PARAMS, ks=[1, 5], ann_ks=[1]))
    found = choose_examples(JudgedCollection(DataPaths(world.data)), ReportPaths(tmp_path / "reports"), 5, 0)
    (example,) = found
    assert [(ranking.encoder, [hit.image_id for hit in ranking.hits]) for ranking in example.rankings] == [
        (encoder, world.ranking(encoder, world.queries[0])) for encoder in ("mobilenet", "clip")
    ]


def test_images_of_examples_are_all_queries_and_hits(world: World, chosen: list[Example]) -> None:
    expected = {hit.image_id for example in chosen for hit in example.hits}
    expected |= {
        example.query.image_id for example in chosen if example.task == "cbir" and example.query.image_id is not None
    }
    assert images_of(chosen) == expected
    assert images_of([example for example in chosen if example.task == "tbir"]) <= set(world.gallery)
    assert images_of([]) == set()


# ---- little to show


def test_an_empty_query_list_has_no_examples(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.queries = []
    for found in world.vectors.values():
        found["queries"] = {}
    world.vectors["clip"]["texts"] = {}
    world.write().evaluate(tmp_path / "reports")
    assert choose_examples(JudgedCollection(DataPaths(world.data)), ReportPaths(tmp_path / "reports"), 5, 0) == []


def test_without_labels_there_is_only_the_sample(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.gallery = dict.fromkeys(world.gallery)
    world.write().evaluate(tmp_path / "reports")
    found = choose_examples(JudgedCollection(DataPaths(world.data)), ReportPaths(tmp_path / "reports"), 4, 0)
    assert [(example.task, example.kind) for example in found] == [(task, SAMPLE) for task in TASKS for _ in range(4)]
    assert unjudged(found) == found
    assert {(hit.label, hit.is_relevant) for example in found for hit in example.hits} == {(None, None)}


def test_an_encoder_that_was_not_evaluated_has_no_examples(world: World, tmp_path: Path) -> None:
    world.evaluate(tmp_path, "ivf_flat", encoders=["mobilenet"])
    found = choose_examples(JudgedCollection(DataPaths(world.data)), ReportPaths(tmp_path), 2, 0)
    assert {(example.task, *(ranking.encoder for ranking in example.rankings)) for example in found} == {
        ("cbir", "mobilenet")
    }
