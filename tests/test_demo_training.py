"""The recipe of the demo encoders: a few steps of it, and what it promises about the images that it draws."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cbir.artifacts.files import read_json
from cbir.config import EncoderParams, Family, Precision
from cbir.demo.drawing import COLOURS, SHAPES, Attributes
from cbir.demo.train import CLIP, MOBILENET, Recipe, describe, draw_training_set, train_clip, train_mobilenet
from cbir.demo.unseen import UNSEEN_LABELS
from cbir.encoders.clip import load_clip
from cbir.encoders.mobilenet import load_mobilenet
from cbir.encoders.preprocessing import Preprocessing
from cbir.weights import fetch_encoder

SMALL = {"images": 320, "passes": 3, "batch": 32}
PREPROCESSING = Preprocessing(64, 64, "shortest", "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def encoder(**changes: object) -> EncoderParams:
    values = {"weights_sha256": None, "weights_tag": "none", "tokenizer": None, "image_px": None}
    return EncoderParams(**{**values, "precision": Precision.fp32, **changes})  # type: ignore[arg-type]


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
    assert log[-1]["loss"] < 0.9 * log[0]["loss"]
    path = tmp_path / "mobilenet.safetensors"
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16, torch.int64}
    params = encoder(family=Family.torchvision, architecture="mobilenet_v3_small", weights=str(path), image_px=96)
    fetch_encoder("mobilenet", params, tmp_path / "encoder")
    found = load_mobilenet(tmp_path / "encoder", torch.device("cpu"), "fp32")
    assert found.embed_images(np.zeros((2, 3, 96, 96), np.uint8)).shape == (2, 576)


def test_a_short_training_of_clip_lowers_the_loss_and_its_export_loads(tmp_path: Path) -> None:
    log = train_clip(replace(CLIP, **SMALL), tmp_path)
    assert log[-1]["loss"] < log[0]["loss"] - 0.1
    params = encoder(
        family=Family.open_clip, architecture="cbir/demo/clip_demo.json", weights=str(tmp_path / "clip.safetensors")
    )
    fetch_encoder("clip", params, tmp_path / "encoder")
    found = load_clip(tmp_path / "encoder", torch.device("cpu"), "fp32")
    assert found.embed_texts(["a photo of a red heart."]).shape == (
        1,
        read_json(tmp_path / "encoder" / "open_clip_config.json")["model_cfg"]["embed_dim"],
    )


def test_the_same_seed_trains_the_same_weights(tmp_path: Path) -> None:
    for name in ("one", "two"):
        train_mobilenet(replace(MOBILENET, **{**SMALL, "passes": 1}), tmp_path / name, steps=4)
    one, two = (load_file(tmp_path / name / "mobilenet.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)
