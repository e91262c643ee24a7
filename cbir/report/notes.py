"""Notes at the top of a report: what limits the meaning of its metrics."""

import re
from collections import Counter
from collections.abc import Callable

from cbir.artifacts.left_out import LeftOut, describe
from cbir.artifacts.names import REAL_ENCODERS, TASKS
from cbir.core.text import listed
from cbir.evaluation.depths import left_out_note
from cbir.report.facts import Facts

_SUFFIX = re.compile(r"\.[a-z0-9]{1,12}")
_NEARLY_ALL = 0.99
_IMAGENET_TAG = "IMAGENET1K"  # how torchvision's tags of weights trained on ImageNet begin
_SUBSETS_OF_IMAGENET = {"tiny_imagenet": "Tiny ImageNet"}  # data set -> its name, of those whose classes are ImageNet's


def notes(facts: Facts) -> list[str]:
    """Return what a reader must know before any metric, the most important first; `code` and *emphasis* are Markdown."""
    return [
        *_about_weights(facts),
        *_about_vectors(facts),
        *_about_queries(facts),
        *_about_images(facts),
        *_about_training_classes(facts),
    ]


def _about_weights(facts: Facts) -> list[str]:
    sentences = []
    demo = _encoders(facts, lambda encoder: facts.vectors(encoder)["origin"].startswith("demo:"))
    if demo:
        sentences.append(
            f"The demo weights of {demo} were trained only on this project's drawn shapes: these metrics say nothing about "
            f"photographs. For real encoders, {REAL_ENCODERS}."
        )
    random = _encoders(facts, lambda encoder: facts.vectors(encoder)["origin"].startswith("random:"))
    if random:
        sentences.append(
            f"The weights of {random} are random, not trained: these metrics show that the pipeline runs, but say nothing "
            f"about images. For real encoders, {REAL_ENCODERS}."
        )
    return sentences


def _about_vectors(facts: Facts) -> list[str]:
    return [
        f"The vectors of {encoder} are not those of its library: it {verification.describe()}."
        for encoder, verification in facts.verifications.items()
        if not verification.passed
    ]


def _about_queries(facts: Facts) -> list[str]:
    sentences = []
    counts = facts.metrics.data
    if not counts.queries:
        sentences.append("The query list is empty, so there are no metrics.")
    is_judged = any(facts.families(task) for task in TASKS)
    if not is_judged and facts.evaluated:
        sentences.append(
            "No query has a relevant image, so retrieval quality is unknown: provide class folders, or a query list with "
            "labels or qrels."
        )
    sentences += _about_ignored_files(facts.summary["ignored_files"])
    sentences += _about_left_out([LeftOut(**folder) for folder in facts.summary["left_out"]])
    sentences += facts.summary["notes"]
    if note := left_out_note(counts.ks_left_out, counts.gallery_images):
        sentences.append(note)
    for task, count in counts.queries_without_relevant.items() if is_judged else ():
        if count == 1:
            sentences.append(f"1 {task} query has no relevant image in the gallery and is left out of the means.")
        elif count:
            sentences.append(
                f"{count:,} {task} queries have no relevant image in the gallery and are left out of the means."
            )
    for task, by_chance in facts.metrics.chance.items():
        if (by_chance.get("precision") or 0.0) >= _NEARLY_ALL:
            sentences.append(
                f"Nearly every gallery image is relevant to every {task} query, so the {task} metrics say nothing."
            )
    return sentences


def _about_ignored_files(ignored: dict[str, int]) -> list[str]:
    """ignored : suffix -> number of files; a suffix is text from data."""
    counts = Counter[str]()
    for suffix, count in ignored.items():
        counts[suffix if _SUFFIX.fullmatch(suffix) else "other suffixes" if suffix else "no suffix"] += count
    if not counts:
        return []
    listed = ", ".join(f"{suffix}: {count:,}" for suffix, count in counts.items())
    return [f"Files were ignored because of their suffix ({listed}): convert those that are images."]


def _about_left_out(left_out: list[LeftOut]) -> list[str]:
    sentences = list(describe(left_out))
    return [*sentences[:-1], f"{sentences[-1]} `data/images/summary.json` names them."] if sentences else []


def _about_images(facts: Facts) -> list[str]:
    sentences = []
    copies = facts.queries_with_duplicates
    if copies:
        queries, them = ("1 image query has", "it") if copies == 1 else (f"{copies:,} image queries have", "them")
        sentences.append(
            f"{queries} a copy in the gallery: *Duplicates* shows the metrics without {them}."
            if facts.metrics.without_duplicates
            else f"{queries} a copy in the gallery, and no other has a relevant image: the cbir metrics are those of "
            "queries that find their copies."
        )
    if not all(map(facts.is_exact, facts.passports)):
        sentences += _about_gallery_images(facts)
    bad = len(facts.quarantine)
    if bad == 1:
        sentences.append("1 image could not be decoded: it is in quarantine and in no metric.")
    elif bad:
        sentences.append(f"{bad:,} images could not be decoded: they are in quarantine and in no metric.")
    return sentences


def _about_gallery_images(facts: Facts) -> list[str]:
    if facts.gallery_image_queries == "none":
        return []
    if facts.gallery_image_queries == "all":
        return [
            "The image queries are gallery images. An index finds the images that it holds more easily, so its ann_recall may "
            "be lower for other images."
        ]
    return [
        "Some image queries are gallery images. An index finds the images that it holds more easily, so ann_recall is shown "
        "separately for them."
    ]


def _about_training_classes(facts: Facts) -> list[str]:
    data_set = _SUBSETS_OF_IMAGENET.get(facts.summary["dataset"])
    trained = _encoders(facts, lambda encoder: str(facts.vectors(encoder)["tag"]).startswith(_IMAGENET_TAG))
    if data_set is None or not trained:
        return []
    return [
        f"The weights of {trained} were trained with ImageNet's labels, which include {data_set}'s: these metrics are for "
        "classes seen in training."
    ]


def _encoders(facts: Facts, matches: Callable[[str], bool]) -> str:
    return listed([encoder for encoder in facts.encoders if matches(encoder)])
