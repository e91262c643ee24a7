"""timm's models: vectors, pooling, sizes, preprocessing and weights, each against timm's own calls."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save
from timm.data import create_transform
from timm.data.config import resolve_model_data_config
from timm.models import get_arch_pretrained_cfgs

from cbir.core.errors import ConfigError, FetchError, WeightsError
from cbir.encoders.base import Encoder, EncoderCard
from cbir.encoders.exporting import export_towers
from cbir.encoders.families.timm import preprocessing_of
from cbir.encoders.opening import load_encoder, not_exported
from cbir.encoders.params import EncoderParams, Family, Pooling
from cbir.encoders.runtime import Runtime
from cbir.encoders.weights import fetch_encoder
from tests.encoders.golden import FOLDER as GOLDEN
from tests.encoders.test_weights import Hub
from tests.support.encoders import refused
from tests.support.imports import ROOT

TAG = "r160_in1k"


def params(architecture: str, **changes: Any) -> EncoderParams:
    return EncoderParams(**{"family": Family.timm, "architecture": architecture, "weights": "random:0", **changes})


def load(folder: Path) -> Encoder:
    return load_encoder(folder, Family.timm, Runtime())


def seeded_model(architecture: str, **options: Any) -> Any:
    """The model whose weights are "random:0"."""
    torch.manual_seed(0)
    return timm.create_model(architecture, **{"num_classes": 0, **options}).eval()


def pixels(encoder: Encoder) -> Any:
    px = encoder.card.preprocessing.crop_px
    return np.random.default_rng(0).integers(0, 256, (2, px, px, 3), np.uint8)


def inputs(encoder: Encoder) -> torch.Tensor:
    values = (encoder.card.preprocessing.mean, encoder.card.preprocessing.std)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in values)
    return (torch.from_numpy(pixels(encoder)).permute(0, 3, 1, 2).float() / 255 - mean) / std


def assert_same(encoder: Encoder, rows: torch.Tensor) -> None:
    expected = torch.nn.functional.normalize(rows)
    np.testing.assert_allclose(encoder.embed_images(pixels(encoder)), expected, rtol=0, atol=1e-5)


# ---- vectors


@pytest.mark.parametrize("architecture", ["test_vit", "test_vit3", "test_resnet", "test_convnext", "test_efficientnet"])
def test_the_embedding_is_the_models_without_a_classifier(architecture: str, tmp_path: Path) -> None:
    fetch_encoder("it", params(architecture), tmp_path)
    encoder = load(tmp_path)
    with torch.inference_mode():
        assert_same(encoder, seeded_model(architecture)(inputs(encoder)))
    assert encoder.card.settings == {"pooling": "default"}


@pytest.mark.parametrize(
    "architecture",
    ["test_vit", "vit_small_patch16_dinov3", pytest.param("beit_base_patch16_224", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("pooling", list(Pooling))
def test_tokens_are_pooled_as_the_parameter_says(architecture: str, pooling: Pooling, tmp_path: Path) -> None:
    fetch_encoder("it", params(architecture, pooling=pooling, image_px=64), tmp_path)
    encoder, model = load(tmp_path), seeded_model(architecture, img_size=64)
    with torch.inference_mode():
        tokens = model.forward_features(inputs(encoder))
        pooled = {
            Pooling.default: tokens[:, 0]
            if model.global_pool == "token"
            else tokens[:, model.num_prefix_tokens :].mean(1),
            Pooling.token: tokens[:, 0],
            Pooling.avg: tokens[:, model.num_prefix_tokens :].mean(1),
        }
        assert_same(encoder, model.fc_norm(pooled[pooling]))


@pytest.mark.parametrize(
    ("architecture", "pooling", "missing"),
    [
        ("test_resnet", Pooling.avg, "tokens"),
        ("test_resnet", Pooling.token, "class token"),
        ("test_vit2", Pooling.token, "class token"),
        ("test_vit3", Pooling.token, "class token"),
    ],
)
def test_a_pooling_that_a_model_lacks_is_refused(
    architecture: str, pooling: Pooling, missing: str, tmp_path: Path
) -> None:
    message = refused(ConfigError, params(architecture, pooling=pooling), tmp_path)
    assert message == f"it.pooling: {architecture} has no {missing}; set it.pooling=default"


def test_pooling_by_average_stores_no_attention_pool(tmp_path: Path) -> None:
    fetch_encoder("it", params("test_vit3", pooling=Pooling.avg), tmp_path)
    assert not any(name.startswith("attn_pool") for name in load_file(tmp_path / "model.safetensors"))
    assert load(tmp_path).dim == 96


@pytest.mark.parametrize("architecture", ["test_vit", "test_resnet"])
def test_image_px_is_the_side_of_the_input(architecture: str, tmp_path: Path) -> None:
    """timm's own loading resizes the position embeddings."""
    torch.save(seeded_model(architecture, num_classes=1000).state_dict(), tmp_path / "it.pth")
    changes = {"weights": str(tmp_path / "it.pth"), "weights_tag": TAG, "image_px": 96}
    fetch_encoder("it", params(architecture, **changes), tmp_path / "out")
    encoder = load(tmp_path / "out")
    options: dict[str, Any] = {"img_size": 96} if architecture == "test_vit" else {}
    overlay = {"file": str(tmp_path / "it.pth")}
    model = timm.create_model(
        f"{architecture}.{TAG}", num_classes=0, pretrained=True, pretrained_cfg_overlay=overlay, **options
    )
    assert encoder.card.preprocessing.crop_px == 96
    with torch.inference_mode():
        assert_same(encoder, model.eval()(inputs(encoder)))


@pytest.mark.parametrize(
    ("architecture", "image_px", "message"),
    [
        ("test_vit", 100, "has patches of 16 px; expected a multiple, such as 96 or 112, found 100"),
        ("test_maxvit", 100, "try it.image_px=null"),
    ],
)
def test_a_size_that_does_not_fit_is_refused(architecture: str, image_px: int, message: str, tmp_path: Path) -> None:
    refusal = refused(ConfigError, params(architecture, image_px=image_px), tmp_path)
    assert refusal.startswith(f"it.image_px: {architecture} ")
    assert refusal.endswith(message)


# ---- preprocessing


def settings_of_all_models() -> list[Any]:
    """A configuration for each distinct preprocessing of timm's models, up to 384 px."""
    distinct = {}
    for name in timm.list_models():
        for cfg in get_arch_pretrained_cfgs(name).values():
            key = (cfg.input_size, cfg.crop_pct, cfg.crop_mode, cfg.interpolation)
            if cfg.input_size[1] <= 384:
                distinct.setdefault(key, cfg)
    return list(distinct.values())


def test_pixels_are_those_of_timms_transforms() -> None:
    images = [Image.open(GOLDEN / "images" / name).convert("RGB") for name in ("large.jpg", "tall.jpg", "wide.png")]
    assert {len(set(image.size)) for image in images[1:]} == {2}
    compared = set()
    for cfg in settings_of_all_models():
        model = SimpleNamespace(pretrained_cfg=cfg.to_dict())
        config = resolve_model_data_config(model)
        if config["crop_mode"] == "border" or config["crop_pct"] > 1:
            continue
        prepared = preprocessing_of("it", params("test_vit"), model)
        assert (prepared.mean, prepared.std) == (config["mean"], config["std"])
        transform = create_transform(**{**config, "mean": (0.0,) * 3, "std": (1.0,) * 3})
        for image in images:
            expected = np.rint(transform(image).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
            np.testing.assert_array_equal(prepared.prepare(image), expected, err_msg=str(config))
        compared.add((config["crop_mode"], config["interpolation"], config["crop_pct"]))
    assert len(compared) > 30
    assert {mode for mode, _, _ in compared} == {"center", "squash"}


@pytest.mark.parametrize(
    ("change", "stated"),
    [
        ({"crop_mode": "border"}, "crop mode border"),
        ({"crop_pct": 1.15}, "crop_pct 1.15"),
        ({"input_size": (3, 1024, 768)}, "768 x 1024 px"),
    ],
)
def test_a_preprocessing_that_pads_or_is_oblong_is_refused(change: dict[str, Any], stated: str) -> None:
    model = SimpleNamespace(pretrained_cfg={**timm.get_pretrained_cfg("test_vit").to_dict(), **change})
    with pytest.raises(ConfigError, match=rf"^it\.architecture: expected a square input without padding, .*{stated}"):
        preprocessing_of("it", params("test_vit"), model)


# ---- architectures and weights


def test_an_unknown_architecture_is_refused_with_the_nearest(tmp_path: Path) -> None:
    message = refused(ConfigError, params("resnet5O"), tmp_path)
    assert message == "it.architecture: timm has no 'resnet5O'; nearest: resnet50"


def test_a_tag_belongs_to_the_weights(tmp_path: Path) -> None:
    message = refused(ConfigError, params("resnet50.a1_in1k"), tmp_path)
    assert message.endswith("the tag is that of the weights: it.architecture=resnet50 it.weights=timm:a1_in1k")
    message = refused(ConfigError, params("resnet50", weights="timm:a1_in1"), tmp_path)
    assert message == "it.weights: no tag 'a1_in1'; nearest: a1_in1k"
    message = refused(ConfigError, params("resnet50", weights="a1_in1k"), tmp_path)
    assert message.endswith("has no tag 'a1_in1k', and it is not a path; nearest: timm:a1_in1k")


def test_the_tag_of_a_file_decides_its_preprocessing(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "resnet18.pth")
    for tag, resize_px, interpolation in [("a1_in1k", 235, "bicubic"), ("tv_in1k", 256, "bilinear")]:
        fetch_encoder("it", params("resnet18", weights=str(tmp_path / "resnet18.pth"), weights_tag=tag), tmp_path / tag)
        card = EncoderCard.read(tmp_path / tag)
        assert card.tag == tag
        assert (card.preprocessing.resize_px, card.preprocessing.interpolation) == (resize_px, interpolation)


def test_a_trainers_checkpoint_is_loaded_and_its_head_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = seeded_model("test_resnet", num_classes=7)
    wrapped = {"state_dict": {f"module.backbone.{name}": tensor for name, tensor in model.state_dict().items()}}
    torch.save(wrapped, tmp_path / "mine.pth")
    fetch_encoder("it", params("test_resnet", weights=str(tmp_path / "mine.pth"), weights_tag="none"), tmp_path / "out")
    assert capsys.readouterr().out == (
        f"it.weights: the embedding does not use 2 tensors of {tmp_path}/mine.pth: fc.weight, fc.bias\n"
    )
    encoder = load(tmp_path / "out")
    with torch.inference_mode():
        model.reset_classifier(0)
        assert_same(encoder, model(inputs(encoder)))


def test_a_file_of_another_architecture_is_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
    wrong = params("test_resnet", weights=str(tmp_path / "vit.pth"), weights_tag="none")
    message = refused(WeightsError, wrong, tmp_path / "out")
    assert message.startswith(f"it.weights: {tmp_path}/vit.pth does not fit test_resnet: ")
    assert "it has patch_embed.proj.weight (64, 3, 16, 16), " in message


HUB_SESSION = """
import sys
from pathlib import Path
from cbir.core.errors import CbirError
from cbir.encoders.weights import fetch_encoder
from tests.encoders.families.test_timm import TAG, params
for name, changes in {"tag": {}, "hash": {"weights_sha256": "0" * 64}}.items():
    try:
        fetch_encoder("it", params("test_resnet", weights=f"timm:{TAG}", **changes), Path(sys.argv[1]) / name)
    except CbirError as error:
        print(f"{type(error).__name__}: {error}")
"""


def hub_session(folder: Path, **env: str) -> list[str]:
    """The lines of a process of its own, for the hub's client reads its settings when it is imported."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, "-c", HUB_SESSION, str(folder)]
    env = {**clean, "HF_HOME": str(folder / "home"), **env}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()


def test_a_tag_is_fetched_from_the_hub(tmp_path: Path) -> None:
    state = seeded_model("test_resnet", num_classes=1000).state_dict()
    with Hub({f"/timm/test_resnet.{TAG}/resolve/main/model.safetensors": save(state)}) as hub:
        hub.open()
        lines = hub_session(tmp_path, HF_ENDPOINT=hub.address, NO_PROXY="127.0.0.1")
        hub.shutdown()
    assert lines[0].startswith(f"it.weights: the embedding does not use 2 tensors of timm:{TAG}: fc.")
    assert lines[1].startswith(f"FetchError: it.weights: 'timm:{TAG}' from timm/test_resnet.{TAG}: expected sha256 000")
    card = EncoderCard.read(tmp_path / "tag")
    assert (card.tag, card.origin) == (TAG, f"timm:{TAG}")
    stored = load_file(tmp_path / "tag" / "model.safetensors")
    assert all(torch.equal(stored[name], state[name]) for name in stored)


def test_a_hub_that_cannot_be_reached_is_reported(tmp_path: Path) -> None:
    line = hub_session(tmp_path, HF_HUB_OFFLINE="1")[0]
    assert line.startswith(
        f"{FetchError.__name__}: it.weights: 'timm:{TAG}' cannot be fetched from timm/test_resnet.{TAG}: "
    )
    assert line.endswith(f"or give the file: it.weights=/path it.weights_tag={TAG}")


# ---- export


@pytest.mark.parametrize(
    ("architecture", "image_px"),
    [
        ("test_resnet", None),
        pytest.param("vit_small_patch14_dinov2", 518, marks=pytest.mark.slow),
        pytest.param("vit_small_patch16_dinov3", 256, marks=pytest.mark.slow),
        pytest.param("convnext_tiny", None, marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", None, marks=pytest.mark.slow),
        pytest.param("vit_base_patch16_224", None, marks=pytest.mark.slow),
    ],
)
def test_exported_towers_agree_with_torch(architecture: str, image_px: int | None, tmp_path: Path) -> None:
    fetch_encoder("it", params(architecture, image_px=image_px), tmp_path)
    export_towers(tmp_path, Family.timm)
    encoder = load(tmp_path)
    exported = load_encoder(tmp_path, Family.timm, Runtime(backend="openvino"))
    batch = pixels(encoder)
    np.testing.assert_allclose(exported.embed_images(batch), encoder.embed_images(batch), rtol=0, atol=1e-5)


def test_an_operation_that_openvino_lacks_is_named(tmp_path: Path) -> None:
    fetch_encoder("it", params("test_vit"), tmp_path)
    export_towers(tmp_path, Family.timm)
    assert (reason := not_exported(tmp_path)) is not None
    assert "No conversion rule found for operations: aten._upsample_bicubic2d_aa" in reason
    assert json.loads((tmp_path / "towers" / "towers.json").read_text())["towers"].keys() == {"image"}
