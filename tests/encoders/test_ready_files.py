"""The files of conf/encoders/: each names one encoder, composes, and builds, exports and embeds with random weights."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import transformers
import yaml

from cbir.compose import composed
from cbir.encoders.exporting import export_towers
from cbir.encoders.opening import load_encoder, not_exported
from cbir.encoders.params import EncoderParams
from cbir.encoders.runtime import Runtime
from cbir.encoders.weights import fetch_encoder
from cbir.schema import checked
from tests.support.encoders import WORDS, save_tokenizer
from tests.support.imports import ROOT

CONF = ROOT / "conf"
NAMES = sorted(path.stem for path in (CONF / "encoders").glob("*.yaml"))
NOTE = re.compile(r"# .*\d+ dimensions.*\n")
SIZE_AND_LICENCE = re.compile(r"\. [\d.,]+ (MB|GB), .+\.|drawn shapes only")
# tokenizers that are only on the hub, where no test goes: a small one replaces them
ON_THE_HUB = ("siglip_b_16", "siglip2_b_16", "siglip2_so400m_14", "clip_multilingual")
# their export needs more memory than a test should take; built and embedded by torch
LARGE = ("clip_vit_h_14", "siglip2_so400m_14")


def params_of(name: str, *overrides: str) -> EncoderParams:
    """The parameters of an encoder alone in a run."""
    values = yaml.safe_load(composed([f"encoders=[{name}]", *overrides], CONF))
    return checked(values, "params.yaml").encoders[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_names_its_encoder_and_composes(name: str) -> None:
    text = (CONF / "encoders" / f"{name}.yaml").read_text(encoding="utf-8")
    assert list(yaml.safe_load(text)) == [name]
    assert NOTE.match(text)
    assert SIZE_AND_LICENCE.search(text.splitlines()[0])
    assert params_of(name).architecture


def test_the_manual_lists_each_file() -> None:
    manual = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"`{name}`" not in manual] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_builds_exports_and_embeds(name: str, tmp_path: Path) -> None:
    """With random weights, three images and, where it reads text, three texts."""
    overrides = [f"encoders.{name}.weights=random:0"]
    if name in ON_THE_HUB:
        tokenizer = save_tokenizer(tmp_path / "tokenizer")
        config = transformers.XLMRobertaConfig(vocab_size=len(WORDS), max_position_embeddings=80, pad_token_id=0)
        config.save_pretrained(tokenizer)
        overrides.append(f"encoders.{name}.tokenizer={tokenizer}")
    params, folder = params_of(name, *overrides), tmp_path / name
    fetch_encoder(f"encoders.{name}", params, folder)
    backend = "torch"
    if name not in LARGE:
        export_towers(folder, params.family)
        assert not_exported(folder) is None
        backend = "openvino"
    encoder = load_encoder(folder, params.family, Runtime("cpu", backend, "fp32"))
    comment = (CONF / "encoders" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    dim, px = re.search(r"(\d+) dimensions", comment), re.search(r"(\d+) px", comment)
    images = np.random.default_rng(0).integers(0, 256, (3, *encoder.card.preprocessing.blank(1).shape[1:]), np.uint8)
    vectors = encoder.embed_images(images)
    assert dim is not None
    assert vectors.shape == (3, int(dim[1]))
    assert px is None or int(px[1]) == encoder.card.preprocessing.crop_px
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert encoder.reads_text == ("reads text" in comment or name == "clip_demo")
    if encoder.reads_text:
        assert encoder.embed_texts(["a red star", "a blue circle", "a"]).shape == (3, int(dim[1]))
    shutil.rmtree(folder)  # gigabytes
