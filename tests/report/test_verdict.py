"""The verdict, against the metrics that it is written from."""

import math
import re
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbir.index.params import SearchParams
from cbir.report.choice_sentences import choice_sentences
from cbir.report.facts import Facts
from cbir.report.figures import share
from cbir.report.verdict import verdict
from tests.support.finished import finish, search_times
from tests.support.world import PARAMS, make_world

EXACT = "The index is exact: it finds every neighbour."
NOTHING = ["No query has a relevant image, so retrieval quality is unknown."]
UNIT = st.floats(0, 1).map(lambda value: round(value, 6))


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return finish(make_world(tmp_path_factory.mktemp("verdict")).write())


@pytest.fixture(scope="module")
def ivf(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    world = make_world(tmp_path_factory.mktemp("ivf")).write("flat", "ivf_flat")
    return of_kind(slower(finish(world, kind="ivf_flat", search=SearchParams(nprobe=1))), "ivf_flat")


def of_kind(facts: Facts, kind: str) -> Facts:
    return replace(facts, passports={name: {**one, "kind": kind} for name, one in facts.passports.items()})


def slower(facts: Facts, **index_ms: float) -> Facts:
    """Exact search takes 2 ms, the index of each encoder the given time, or 1 ms."""
    times = {
        encoder: {modality: search_times(index_ms.get(f"{encoder}_{modality}", 1.0), 2.0) for modality in by}
        for encoder, by in facts.latency.encoders.items()
    }
    return replace(facts, latency=replace(facts.latency, encoders=times))


def with_values(facts: Facts, task: str, encoder: str, **values: float | None) -> Facts:
    """precision_10=0.5 sets precision@10; None takes a metric out."""
    metrics = deepcopy(facts.metrics)
    for name, value in values.items():
        key = re.sub(r"_(\d+)$", r"@\1", name)
        metrics.of_task(task)[encoder][key] = value
        if value is None:
            del metrics.of_task(task)[encoder][key]
    return replace(facts, metrics=metrics)


def with_index_metric(facts: Facts, group: str, name: str, values: dict[tuple[str, str], float]) -> Facts:
    """Set a metric of "ann" or "ann_cost" for (encoder, kind of query)."""
    metrics = deepcopy(facts.metrics)
    for (encoder, kind), value in values.items():
        getattr(metrics, group)[encoder][kind][name] = value
    return replace(facts, metrics=metrics)


def per_cent(value: float) -> str:
    """One decimal, none where that is 0."""
    if value > 0.999 and round(value, 9) < 1:
        return "99.9 %"  # only all is 100 %
    text = f"{math.floor(round(1000 * value, 6) + 0.5) / 10:.1f}"
    return f"{text.removesuffix('.0')} %"


def three(value: float) -> str:
    return f"{round(value, 9):.3f}"


def checked(sentences: list[str]) -> list[str]:
    """The verdict, after what must hold for each."""
    assert 1 <= len(sentences) <= 8
    for sentence in sentences:
        assert re.fullmatch(r"[A-Z][^\n]*[^ ,;]\.", sentence)
        assert not re.search(r"None|nan|map_at_r -|  |\{|\}", sentence)
    return sentences


# ---- the whole


def test_two_encoders_and_text_queries_give_three_sentences(facts: Facts) -> None:
    cbir, tbir = facts.metrics.cbir, facts.metrics.tbir
    assert cbir["clip"]["precision@10"] > cbir["mobilenet"]["precision@10"]
    first, *others = checked(verdict(facts))
    assert first.startswith(
        f"For image queries, take clip: its precision@10, {three(cbir['clip']['precision@10'])}, is higher than that of "
        f"mobilenet, {three(cbir['mobilenet']['precision@10'])}, by "
    )
    assert others == [
        f"For {per_cent(tbir['clip']['success@1'])} of the text queries, clip's first result is relevant; its top 10 results "
        f"are {per_cent(tbir['clip']['precision@10'])} relevant.",
        EXACT,
    ]


def test_other_ks_are_named(tmp_path: Path) -> None:
    params = replace(PARAMS, ks=[3, 7, 20], ann_ks=[5, 30])
    found = finish(make_world(tmp_path, graded=True).write(), params)
    tbir = found.metrics.tbir["clip"]
    first, *_, second, _ = checked(verdict(found))
    best = max(values["precision@7"] for values in found.metrics.cbir.values())
    assert f"precision@7 is {three(best)}" in first
    assert second == (
        f"For {per_cent(tbir['success@3'])} of the text queries, clip's first 3 results include a relevant image; "
        f"its top 7 results are {per_cent(tbir['precision@7'])} relevant."
    )
    assert f"at least {share(0.5)} of the 5 exact neighbours," in sentence_on_index(found, 0.5)


def sentence_on_index(facts: Facts, recall: float) -> str:
    askers = {(one.encoder, one.query_kind): recall for one in facts.index_metrics}
    return verdict(of_kind(with_index_metric(facts, "ann", "ann_recall@5", askers), "hnsw"))[-1]


def test_without_relevant_images_there_is_one_sentence(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.gallery = dict.fromkeys(world.gallery)
    found = finish(world.write())
    assert checked(verdict(found)) == NOTHING
    assert checked(verdict(of_kind(found, "hnsw"))) == NOTHING


def test_an_empty_query_list_gives_one_sentence(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.queries = []
    for found in world.vectors.values():
        found["queries"] = {}
    world.vectors["clip"]["texts"] = {}
    assert checked(verdict(finish(world.write()))) == NOTHING


@pytest.mark.parametrize("kind", ["flat", "ivf_flat"])
def test_without_text_queries_the_verdict_has_no_sentence_on_them(tmp_path: Path, kind: str) -> None:
    world = make_world(tmp_path)
    world.queries = world.queries_of("cbir")
    del world.vectors["clip"]["texts"]
    sentences = checked(verdict(of_kind(finish(world.write()), kind)))
    assert [sentence.split()[0] for sentence in sentences] == ["For", "The"]
    assert sentences[0].startswith("For image queries, take clip: ")


@pytest.mark.parametrize("kind", ["flat", "ivf_flat"])
def test_without_image_queries_the_verdict_has_no_sentence_on_them(tmp_path: Path, kind: str) -> None:
    world = make_world(tmp_path)
    world.queries = world.queries_of("tbir")
    for found in world.vectors.values():
        found["queries"] = {}
    sentences = checked(verdict(of_kind(finish(world.write()), kind)))
    assert re.fullmatch("For .* of the text queries", sentences[0].split(",")[0])
    assert len(sentences) == 2


def test_image_queries_without_relevant_images_are_left_out(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.qrels = {query.query_id: {"img000": 1} for query in world.queries_of("tbir")}
    first, second = checked(verdict(finish(world.write())))
    assert re.match("For .* of the text queries, clip's ", first)
    assert second == EXACT


# ---- which encoder


def test_the_first_sentences_are_the_choice_of_the_encoder(facts: Facts) -> None:
    choice = choice_sentences("cbir", facts.comparison.tasks["cbir"], facts.comparison.costs)
    assert choice
    assert checked(verdict(facts))[: len(choice)] == choice


def test_several_encoders_that_read_text_are_compared(facts: Facts) -> None:
    comparison = replace(facts.comparison, tasks={**facts.comparison.tasks, "tbir": facts.comparison.tasks["cbir"]})
    metrics = replace(facts.metrics, tbir=facts.metrics.cbir)
    sentences = checked(verdict(replace(facts, comparison=comparison, metrics=metrics)))
    choice = choice_sentences("tbir", comparison.tasks["tbir"], comparison.costs)
    assert choice[0].startswith("For text queries, ")
    assert [sentence for sentence in sentences if sentence in choice] == choice
    assert not any("of the text queries" in sentence for sentence in sentences)


# ---- texts


@given(success=UNIT, right=UNIT)
def test_the_second_sentence_has_the_numbers_as_shown(facts: Facts, success: float, right: float) -> None:
    sentence = checked(verdict(with_values(facts, "tbir", "clip", success_1=success, precision_10=right)))[1]
    chance = facts.metrics.chance["tbir"]["precision"]
    assert chance is not None
    by_chance = f" ({per_cent(chance)} by chance)" if right < 2 * chance else ""
    assert sentence == (
        f"For {per_cent(success)} of the text queries, clip's first result is relevant; its top 10 results are "
        f"{per_cent(right)} relevant{by_chance}."
    )


@pytest.mark.parametrize(("times", "is_told"), [(1.9, True), (2.1, False)])
def test_chance_is_told_beside_a_precision_near_it(facts: Facts, times: float, is_told: bool) -> None:
    metrics = facts.comparison.tasks["cbir"]
    chance = metrics[0].ranking[-1].mean / times
    known = replace(facts.metrics, chance={**facts.metrics.chance, "cbir": {"precision": chance}})
    told = f"A random ranking has {metrics[0].metric} {chance:.3f}." in verdict(replace(facts, metrics=known))
    assert told == is_told


# ---- the index


def test_an_exact_index_is_never_called_slow(facts: Facts) -> None:
    assert checked(verdict(slower(facts, clip_image=9.0)))[-1] == EXACT


def test_the_lowest_recall_and_highest_cost_are_named(ivf: Facts) -> None:
    recalls = [one.values["ann_recall@10"] for one in ivf.index_metrics]
    assert min(recalls) < max(recalls)
    costs = {(one.encoder, one.query_kind): number / 64 for number, one in enumerate(ivf.index_metrics)}
    assert checked(verdict(with_index_metric(ivf, "ann_cost", "precision@10", costs)))[-1] == (
        f"The ivf_flat index finds at least {per_cent(min(recalls))} of the 10 exact neighbours, at a cost of at most "
        "0.062 in precision@10."
    )


ASKERS = [("mobilenet", "image"), ("mobilenet", "gallery image"), ("clip", "image"), ("clip", "text")]


@pytest.mark.parametrize("worst", ASKERS)
def test_the_worst_kind_of_query_counts(ivf: Facts, worst: tuple[str, str]) -> None:
    every = {(one.encoder, one.query_kind): 0.9 for one in ivf.index_metrics}
    found = with_index_metric(ivf, "ann", "ann_recall@10", every | {worst: 0.625})
    found = with_index_metric(found, "ann_cost", "precision@10", dict.fromkeys(every, 0.01) | {worst: 0.125})
    assert checked(verdict(found))[-1] == (
        "The ivf_flat index finds at least 62.5 % of the 10 exact neighbours, at a cost of at most 0.125 in precision@10."
    )


@pytest.mark.parametrize(
    ("cost", "price"),
    [
        (0.0, "no cost"),
        (-0.01, "no cost"),
        (0.0004, "no cost"),
        (0.0006, "a cost of at most 0.001"),
        (0.25, "a cost of at most 0.250"),
    ],
)
def test_the_cost_is_rounded_as_in_the_tables(ivf: Facts, cost: float, price: str) -> None:
    found = with_index_metric(
        ivf, "ann_cost", "precision@10", {(one.encoder, one.query_kind): cost for one in ivf.index_metrics}
    )
    assert checked(verdict(found))[-1].endswith(f", at {price} in precision@10.")


def test_equally_fast_exact_search_is_mentioned(ivf: Facts) -> None:
    ending = "; exact search is as fast here."
    assert not checked(verdict(ivf))[-1].endswith(ending)
    every = {f"{encoder}_{modality}": 2.0 for encoder, by in ivf.latency.encoders.items() for modality in by}
    found = slower(ivf, **every)
    assert checked(verdict(found))[-1] == verdict(ivf)[-1].removesuffix(".") + ending


def test_two_kinds_of_indexes_are_both_named(ivf: Facts) -> None:
    kinds = ("flat", "hnsw")
    passports = {
        name: {**passport, "kind": kind} for (name, passport), kind in zip(ivf.passports.items(), kinds, strict=True)
    }
    assert checked(verdict(replace(ivf, passports=passports)))[-1].startswith("The flat and hnsw indexes find ")


def test_an_index_with_full_recall_finds_all(ivf: Facts) -> None:
    every = {(one.encoder, one.query_kind): 1.0 for one in ivf.index_metrics}
    sentences = verdict(with_index_metric(ivf, "ann", "ann_recall@10", every))[-1]
    assert sentences.startswith("The ivf_flat index finds all of the 10 exact neighbours, at ")
