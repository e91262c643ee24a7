"""The recipe of the demo encoders: a few steps of it, and what it promises about the images that it draws."""

import json
import random
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cbir.artifacts.files import read_json
from cbir.config import Backend, EncoderParams, Family, Precision
from cbir.demo import DEMO_WEIGHTS
from cbir.demo.card import figures
from cbir.demo.drawing import COLOURS, SHAPES, Attributes
from cbir.demo.train import CLIP, MOBILENET, Recipe, describe, draw_training_set, train_clip, train_mobilenet
from cbir.demo.unseen import UNSEEN_LABELS
from cbir.encoders.base import file_sha256
from cbir.encoders.clip import load_clip
from cbir.encoders.mobilenet import load_mobilenet
from cbir.encoders.preprocessing import Preprocessing
from cbir.encoders.runtime import Runtime
from cbir.weights import fetch_encoder
from tests.imports import ROOT

SMALL = {"images": 320, "passes": 3, "batch": 32}
PREPROCESSING = Preprocessing(64, 64, "shortest", "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def encoder(**changes: object) -> EncoderParams:
    values = {"weights_sha256": None, "weights_tag": "none", "tokenizer": None, "image_px": None}
    return EncoderParams(**{**values, "precision": Precision.fp32, "backend": Backend.auto, **changes})  # type: ignore[arg-type]


def test_a_tenth_of_the_labels_is_never_shown_in_training_but_every_shape_and_colour_is() -> None:
    assert len(UNSEEN_LABELS) >= 0.1 * len(SHAPES) * len(COLOURS)
    data = draw_training_set(Recipe(**SMALL, lr=0.0, weight=MOBILENET.weight), PREPROCESSING, workers=2)
    shown = Counter(attributes.label for attributes in data.attributes)
    assert not UNSEEN_LABELS & set(shown)
    assert len(shown) == len(SHAPES) * len(COLOURS) - len(UNSEEN_LABELS)
    assert {attributes.shape for attributes in data.attributes} == set(SHAPES)
    assert {attributes.colour for attributes in data.attributes} == set(COLOURS)


def test_the_number_of_workers_changes_no_training_image() -> None:
    recipe = Recipe(**{**SMALL, "images": 210}, lr=0.0, weight=MOBILENET.weight)
    one, two = (draw_training_set(recipe, PREPROCESSING, workers) for workers in (1, 2))
    assert torch.equal(one.pixels, two.pixels)
    assert one.attributes == two.attributes


def test_every_text_states_what_it_is_said_to_state() -> None:
    shown = Attributes("heart", "red", "striped", "large", "grey")
    words = random.Random(0)
    kinds = set()
    for _ in range(300):
        text, stated = describe(shown, words)
        names = ("heart", "red", "striped", "large", "grey")
        assert [name in text for name in names] == stated
        kinds.add(tuple(stated))
    assert len(kinds) == 8


def test_a_short_training_of_mobilenet_lowers_the_loss_and_its_export_loads(tmp_path: Path) -> None:
    log = train_mobilenet(replace(MOBILENET, **SMALL), tmp_path)
    assert log.passes[-1]["loss"] < 0.9 * log.passes[0]["loss"]
    path = tmp_path / "mobilenet.safetensors"
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16, torch.int64}
    params = encoder(family=Family.torchvision, architecture="mobilenet_v3_small", weights=str(path), image_px=96)
    fetch_encoder("mobilenet", params, tmp_path / "encoder")
    found = load_mobilenet(tmp_path / "encoder", Runtime())
    assert found.embed_images(np.zeros((2, 96, 96, 3), np.uint8)).shape == (2, 576)


def test_a_short_training_of_clip_lowers_the_loss_and_its_export_loads(tmp_path: Path) -> None:
    log = train_clip(replace(CLIP, **SMALL), tmp_path)
    assert log.passes[-1]["loss"] < log.passes[0]["loss"] - 0.1
    params = encoder(
        family=Family.open_clip, architecture="cbir/demo/clip_demo.json", weights=str(tmp_path / "clip.safetensors")
    )
    fetch_encoder("clip", params, tmp_path / "encoder")
    found = load_clip(tmp_path / "encoder", Runtime())
    assert found.embed_texts(["a photo of a red heart."]).shape == (
        1,
        read_json(tmp_path / "encoder" / "open_clip_config.json")["model_cfg"]["embed_dim"],
    )


def test_the_same_seed_trains_the_same_weights(tmp_path: Path) -> None:
    for name in ("one", "two"):
        train_mobilenet(replace(MOBILENET, **{**SMALL, "passes": 1}), tmp_path / name, steps=4)
    one, two = (load_file(tmp_path / name / "mobilenet.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)


# --- the weights in the package ---------------------------------------------------------------------------------------

TRAINERS = {"mobilenet": (train_mobilenet, MOBILENET), "clip": (train_clip, CLIP)}


@pytest.mark.parametrize("name", TRAINERS)
def test_the_weights_in_the_package_are_those_of_the_log_and_the_log_is_of_the_recipe(name: str) -> None:
    log = read_json(DEMO_WEIGHTS / f"{name}.json")
    assert log["sha256"] == file_sha256(DEMO_WEIGHTS / f"{name}.safetensors")
    assert log["recipe"] == json.loads(json.dumps(asdict(TRAINERS[name][1])))
    losses = [one["loss"] for one in log["passes"]]
    assert len(losses) == log["recipe"]["passes"]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINERS)
def test_the_first_steps_of_the_recipe_are_those_of_the_log(name: str, tmp_path: Path) -> None:
    trainer, recipe = TRAINERS[name]
    first = read_json(DEMO_WEIGHTS / f"{name}.json")["first_losses"]
    found = trainer(recipe, tmp_path, steps=len(first)).first_losses
    assert found == pytest.approx(first, rel=0.02)
    assert np.mean(found[-5:]) < 0.95 * np.mean(found[:5])


def test_together_the_weights_stay_below_20_mb() -> None:
    assert sum(path.stat().st_size for path in DEMO_WEIGHTS.glob("*.safetensors")) < 20e6


def test_the_card_shows_the_figures_of_the_default_run_in_the_repository() -> None:
    text = (DEMO_WEIGHTS / "README.md").read_text(encoding="utf-8")
    metrics = read_json(ROOT / "reports" / "metrics.json")
    for title, metric, value in figures(metrics):
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {title} | {metric} |")]
        demo, random = line.strip("| ").split(" | ")[-2:]
        assert demo == f"{value:.3f}"
        assert float(random) < 0.5 * value


def test_the_readme_shows_the_figures_of_the_default_run_in_the_repository() -> None:
    metrics = read_json(ROOT / "reports" / "metrics.json")
    found = [metrics["cbir"]["mobilenet"], metrics["cbir"]["clip"], metrics["tbir"]["clip"]]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("precision@1", "precision@10", "success@10", "ndcg@10", "map_at_r", "mrr"):
        (line,) = [line for line in text.splitlines() if line.startswith(f"    │ {name} ")]
        assert [cell.strip() for cell in line.split("│")[2:5]] == [f"{values[name]:.3f}" for values in found]


TARGETS = {
    ("cbir mobilenet", "precision@10"): 0.95,
    ("cbir mobilenet", "map_at_r"): 0.80,
    ("cbir clip", "precision@10"): 0.90,
    ("cbir mobilenet, unseen", "precision@10"): 0.60,
    ("cbir clip, unseen", "precision@10"): 0.60,
    ("tbir clip, class prompts", "success@1"): 0.97,
    ("tbir clip, class prompts", "precision@10"): 0.90,
    ("tbir clip, class prompts, unseen", "precision@10"): 0.60,
    ("tbir clip, captions", "ndcg@10"): 0.85,
}


def test_the_default_run_in_the_repository_is_a_true_demonstration() -> None:
    found = {(title, metric): value for title, metric, value in figures(read_json(ROOT / "reports" / "metrics.json"))}
    assert {name: found[name] for name, least in TARGETS.items() if found[name] < least} == {}
