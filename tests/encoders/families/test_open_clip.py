"""Architectures of open_clip that are folders, with their own weights and text towers."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from cbir.core.errors import ConfigError, FetchError, WeightsError
from cbir.core.files import file_sha256
from cbir.encoders.base import EncoderCard
from cbir.encoders.exporting import export_towers
from cbir.encoders.opening import load_encoder
from cbir.encoders.params import EncoderParams, Family
from cbir.encoders.runtime import Runtime
from cbir.encoders.weights import fetch_encoder
from tests.encoders.families.test_transformers import ALIKE, TEXTS, cosines, embedded, photographs
from tests.support.encoders import TINY, WORDS, refused, save_tokenizer

WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"
PREPROCESS = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "resize_mode": "squash"}


def params_of(folder: Path | str, **changes: Any) -> EncoderParams:
    return EncoderParams(
        **{"family": Family.open_clip, "architecture": str(folder), "weights": "pretrained", **changes}
    )


def save_folder(folder: Path, model_cfg: dict[str, Any], preprocess_cfg: dict[str, Any]) -> Path:
    """A folder as open_clip's push_to_hf_hub writes it, with weights whose vectors depend on the input."""
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}))
    torch.manual_seed(2)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    state = {name: (value * 3 if value.ndim > 1 else value) for name, value in model.state_dict().items()}
    save_file({name: value.contiguous() for name, value in state.items()}, folder / WEIGHTS)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights that need QuickGELU and a preprocessing of their own."""
    return save_folder(tmp_path_factory.mktemp("source") / "tiny", {**TINY, "quick_gelu": True}, PREPROCESS)


def test_a_folder_is_read_with_its_weights_and_settings(source: Path, tmp_path: Path, no_network: object) -> None:
    fetch_encoder("it", params_of(source), tmp_path / "out")
    encoder = load_encoder(tmp_path / "out", Family.open_clip, Runtime())
    assert (encoder.card.origin, encoder.card.tag, encoder.card.settings) == ("pretrained", None, {"quick_gelu": True})
    model, _, transforms = open_clip.create_model_and_transforms(f"local-dir:{source}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{source}")
    with torch.no_grad():
        images = model.eval().encode_image(torch.stack([transforms(image) for image in photographs()])).numpy()
        texts = model.encode_text(tokenizer(TEXTS)).numpy()
    assert cosines(embedded(encoder), images).min() > ALIKE
    assert cosines(encoder.embed_texts(TEXTS), texts).min() > ALIKE
    assert cosines(embedded(encoder), np.roll(images, 1, axis=0)).min() < 0.999


def test_weights_of_a_folder_may_be_torchs_or_another_file(source: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(source, tmp_path / "copied"))
    state = load_file(copied / WEIGHTS)
    (copied / WEIGHTS).unlink()
    message = refused(WeightsError, params_of(copied), tmp_path / "none")
    assert message.endswith(f"expected {WEIGHTS}, found none; name a file: it.weights=/path")
    torch.save(state, copied / "open_clip_pytorch_model.bin")
    fetch_encoder("it", params_of(copied), tmp_path / "bin")
    prefixed = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 3, "state_dict": prefixed}, tmp_path / "mine.pt")
    fetch_encoder("it", params_of(copied, weights=str(tmp_path / "mine.pt")), tmp_path / "mine")
    fetch_encoder("it", params_of(source), tmp_path / "safetensors")
    hashes = {EncoderCard.read(tmp_path / name).weights_sha256 for name in ("bin", "mine", "safetensors")}
    assert len(hashes) == 1


def test_the_hash_of_a_folders_weights_is_checked(source: Path, tmp_path: Path) -> None:
    sha256 = file_sha256(source / WEIGHTS)
    fetch_encoder("it", params_of(source, weights_sha256=sha256), tmp_path / "out")
    message = refused(FetchError, params_of(source, weights_sha256="0" * 64), tmp_path / "other")
    assert message == f"it.weights: {source}: expected sha256 {'0' * 64}, found {sha256}"


@pytest.mark.parametrize("content", [None, "{", '{"model_cfg": {"embed_dim": 3}}'])
def test_a_folder_that_is_not_open_clips_is_refused(content: str | None, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    if content is not None:
        (tmp_path / "folder" / CONFIG).write_text(content)
    message = refused(ConfigError, params_of(tmp_path / "folder"), tmp_path / "out")
    assert message.startswith(f"it.architecture: {tmp_path / 'folder' / CONFIG}")


def test_pretrained_is_for_folders_and_the_hub(tmp_path: Path) -> None:
    message = refused(ConfigError, params_of("ViT-B-32"), tmp_path / "out")
    assert message.startswith("it.weights: ViT-B-32 has no tag 'pretrained', and it is not a path; ")


# ---- text towers that transformers builds


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """xlm-roberta-base-ViT-B-32 in small; beside it `text`, the folder of the text tower's configuration and tokenizer."""
    root = tmp_path_factory.mktemp("multilingual")
    save_tokenizer(root / "text")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.XLMRobertaConfig(**sizes, vocab_size=len(WORDS), max_position_embeddings=80, pad_token_id=0)
    config.save_pretrained(root / "text")
    text_cfg = {"hf_model_name": "xlm-roberta-base", "hf_tokenizer_name": "xlm-roberta-base"}
    model_cfg = {**copy.deepcopy(TINY), "text_cfg": {**text_cfg, "hf_pooler_type": "mean_pooler", "context_length": 12}}
    (root / "tiny.json").write_text(json.dumps(model_cfg))
    return root


def test_a_text_tower_of_transformers_needs_no_network_later(
    multilingual: Path, tmp_path: Path, no_network: object
) -> None:
    text = Path(shutil.copytree(multilingual / "text", tmp_path / "text"))
    params = params_of(multilingual / "tiny.json", weights="random:0", tokenizer=str(text))
    fetch_encoder("it", params, tmp_path / "out")
    shutil.rmtree(text)
    folder = (tmp_path / "out").rename(tmp_path / "moved")
    encoder = load_encoder(folder, Family.open_clip, Runtime())
    texts = ["a red star", "a blue circle", "a"]
    vectors = encoder.embed_texts(texts)
    assert vectors.shape == (3, encoder.dim)
    export_towers(folder, Family.open_clip)
    assert "left_out" not in (folder / "towers" / "towers.json").read_text()
    openvino = load_encoder(folder, Family.open_clip, Runtime(backend="openvino"))
    assert cosines(openvino.embed_texts(texts), vectors).min() > ALIKE
    assert cosines(openvino.embed_texts(texts), np.roll(vectors, 1, axis=0)).min() < 0.99
