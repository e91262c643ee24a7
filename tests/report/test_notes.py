"""Notes that depend on weights and data set; the others are tested where a report shows them."""

from copy import deepcopy
from dataclasses import replace
from typing import get_args

import pytest

from cbir.artifacts.left_out import Reason
from cbir.report.facts import Facts
from cbir.report.notes import notes
from tests.support.finished import finish
from tests.support.world import make_world


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return finish(make_world(tmp_path_factory.mktemp("notes")).write())


def trained(facts: Facts, dataset: str, *encoders: str) -> Facts:
    """Facts of this data set, with ImageNet weights for these encoders."""
    passports = deepcopy(facts.passports)
    for encoder, passport in passports.items():
        passport["vectors"]["tag"] = "IMAGENET1K_V2" if encoder in encoders else "openai"
    return replace(facts, passports=passports, summary={**facts.summary, "dataset": dataset})


@pytest.mark.parametrize("encoders", [("mobilenet",), ("clip",), ("mobilenet", "clip")])
def test_imagenet_weights_are_noted_on_tiny_imagenet(facts: Facts, encoders: tuple[str, ...]) -> None:
    note = notes(trained(facts, "tiny_imagenet", *encoders))[-1]
    assert note.startswith(f"The weights of {' and '.join(encoders)} were trained with ImageNet's labels")
    assert "Tiny ImageNet" in note


@pytest.mark.parametrize(("dataset", "encoders"), [("tiny_imagenet", ()), ("image_folder", ("mobilenet",))])
def test_other_weights_or_data_sets_have_no_such_note(facts: Facts, dataset: str, encoders: tuple[str, ...]) -> None:
    assert not [note for note in notes(trained(facts, dataset, *encoders)) if "ImageNet" in note]


@pytest.mark.parametrize(
    ("names", "listed"),
    [(["b"], "b"), (["b", "a"], "b and a"), (["b", "a", "c"], "b, a and c")],
)
def test_notes_list_the_encoders_in_the_runs_order(facts: Facts, names: list[str], listed: str) -> None:
    passports = dict.fromkeys(sorted(names), facts.passports["clip"])
    note = notes(replace(facts, encoders=names, passports=passports))[0]
    assert note.startswith(f"The weights of {listed} are random, not trained")


def test_folders_that_are_left_out_are_noted(facts: Facts) -> None:
    left_out = [{"folder": "<b>*", "reason": reason, "images": 3} for reason in get_args(Reason)]
    told = [
        note for note in notes(replace(facts, summary={**facts.summary, "left_out": left_out})) if "Left out" in note
    ]
    assert (len(told), told[-1].endswith("`data/images/summary.json` names them.")) == (len(get_args(Reason)), True)
    assert not [note for note in told if "<b>" in note]  # notes are Markdown, and hold no text from data


@pytest.mark.parametrize("copies", [1, 2])
def test_copies_refer_to_other_metrics_only_where_there_are_some(facts: Facts, copies: int) -> None:
    pairs = [{"query_id": f"q{number}"} for number in range(copies)]
    metrics = replace(facts.metrics, without_duplicates={"clip": {"precision@10": 0.5}})
    (told,) = [note for note in notes(replace(facts, duplicates=pairs, metrics=metrics)) if " a copy in " in note]
    assert "*Duplicates* shows the metrics without" in told
    metrics = replace(facts.metrics, without_duplicates={})
    (told,) = [note for note in notes(replace(facts, duplicates=pairs, metrics=metrics)) if " a copy in " in note]
    assert told.endswith(
        "and no other has a relevant image: the cbir metrics are those of queries that find their copies."
    )


@pytest.mark.parametrize(
    ("kinds", "kind", "beginning"),
    [
        (
            ["image", "gallery image", "text"],
            "hnsw",
            "Some image queries are gallery images. An index finds the images",
        ),
        (["gallery image", "text"], "hnsw", "The image queries are gallery images. An index finds the images"),
        (["gallery image", "text"], "flat", None),
        (["image", "text"], "hnsw", None),
    ],
)
def test_queries_that_the_index_holds_are_noted(
    facts: Facts, kinds: list[str], kind: str, beginning: str | None
) -> None:
    ann = {
        encoder: {name: found[name] for name in kinds if name in found} for encoder, found in facts.metrics.ann.items()
    }
    passports = {encoder: {**passport, "kind": kind} for encoder, passport in facts.passports.items()}
    changed = replace(facts, metrics=replace(facts.metrics, ann=ann), passports=passports)
    found = [note for note in notes(changed) if "gallery images. An index" in note]
    assert [note.startswith(str(beginning)) for note in found] == ([] if beginning is None else [True])
