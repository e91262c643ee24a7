"""Towers and tokenizers exported for OpenVINO: vectors and tokens as torch and open_clip give, without importing them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cbir.core.device import DeviceName, DeviceParams
from cbir.core.errors import ConfigError, DataError, WeightsError
from cbir.core.files import read_json, write_json
from cbir.encoders import exporting
from cbir.encoders.exporting import export_towers
from cbir.encoders.open_clip_tokenizers import OpenClipTokenizer
from cbir.encoders.opening import load_encoder, not_exported, open_encoder
from cbir.encoders.params import Backend, Family, Precision
from cbir.encoders.runtime import Runtime
from cbir.encoders.tokens import TextTokenizer, tokenizer_sha256, write_tokenizer
from cbir.encoders.weights import fetch_encoder
from tests.support.encoders import TINY, clip_params, demo_params, mobilenet_params, save_tokenizer
from tests.support.imports import ROOT

OPENVINO = Runtime("cpu", "openvino")
TEXTS = ["a red star", "A  blue RING!", "", "l'été à 21:30 &amp; more", "word " * 100]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo CLIP with its towers."""
    out = tmp_path_factory.mktemp("towers") / "clip"
    fetch_encoder("clip", demo_params("clip"), out)
    export_towers(out, Family.open_clip)
    return out


def copied(folder: Path, out: Path) -> Path:
    for file in folder.rglob("*"):
        if file.is_file():
            (out / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            (out / file.relative_to(folder)).write_bytes(file.read_bytes())
    return out


def test_texts_get_the_vectors_that_torch_gives_them(demo: Path) -> None:
    openvino_encoder, torch_encoder = (
        load_encoder(demo, Family.open_clip, runtime) for runtime in (OPENVINO, Runtime())
    )
    vectors, expected = openvino_encoder.embed_texts(TEXTS), torch_encoder.embed_texts(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)
    assert np.abs(vectors - np.roll(expected, 1, axis=0)).max() > 0.1  # the comparison distinguishes texts
    np.testing.assert_allclose(openvino_encoder.embed_texts(TEXTS[1:2]), expected[1:2], rtol=0, atol=1e-5)
    assert openvino_encoder.dim == torch_encoder.dim == 128


SEARCH = """
import sys
from pathlib import Path
from cbir.core.device import DeviceName, DeviceParams
from cbir.encoders.params import Backend, Family, Precision
from cbir.encoders.opening import open_encoder
device = DeviceParams(DeviceName.cpu, None, None, None)
encoder, _ = open_encoder(Path(sys.argv[1]), Family.open_clip, Precision.fp32, Backend.auto, device)
print(encoder.embed_texts(["a"]).shape, encoder.embed_images(encoder.card.preprocessing.blank(1)).shape)
print(sorted({"torch", "torchvision", "open_clip", "transformers"} & set(sys.modules)))
"""


def test_an_exported_encoder_is_opened_without_torch(demo: Path) -> None:
    command = [sys.executable, "-c", SEARCH, str(demo)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[1:] == ["(1, 128) (1, 128)", "[]"]


def test_exporting_twice_in_a_process_gives_the_same_bytes(demo: Path, tmp_path: Path) -> None:
    again = copied(demo, tmp_path / "clip")
    export_towers(again, Family.open_clip)
    names = sorted(path.name for path in (demo / "towers").iterdir())
    assert names == [
        "image.bin", "image.xml", "text.bin", "text.xml", "tokenizer.json", "tokens.json", "towers.json",
    ]  # fmt: skip
    for name in names:
        assert (again / "towers" / name).read_bytes() == (demo / "towers" / name).read_bytes(), name


@pytest.mark.parametrize("name", ["text.xml", "text.bin"])
def test_a_changed_tower_is_refused(name: str, demo: Path, tmp_path: Path) -> None:
    folder = copied(demo, tmp_path / "clip")
    path = folder / "towers" / name
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    encoder = load_encoder(folder, Family.open_clip, OPENVINO)
    message = r"towers/text.xml: expected sha256 \w{64}, found \w{64}; run `cbir repair`, then `dvc repro`"
    with pytest.raises(WeightsError, match=message):
        encoder.embed_texts(["a"])
    path.unlink()
    with pytest.raises(WeightsError, match=f"{name}: No such file or directory; run `cbir repair`, then `dvc repro`"):
        load_encoder(folder, Family.open_clip, OPENVINO).embed_texts(["a"])


@pytest.mark.parametrize("name", ["tokenizer.json", "tokens.json"])
def test_a_changed_tokenizer_is_refused(name: str, demo: Path, tmp_path: Path) -> None:
    folder = copied(demo, tmp_path / "clip")
    path = folder / "towers" / name
    path.write_text(path.read_text().replace("lower", "whitespace").replace('"star</w>"', '"scar</w>"'))
    with pytest.raises(
        WeightsError, match=r"tokenizer.json: expected the tokenizer of sha256 \w{64}, found \w{64}; run"
    ):
        load_encoder(folder, Family.open_clip, OPENVINO)
    path.unlink()
    with pytest.raises(WeightsError, match="found None; run `cbir repair`, then `dvc repro`"):
        load_encoder(folder, Family.open_clip, OPENVINO)


@pytest.mark.parametrize("spoil", [{"towers": {}}, {"made_of": {}}, {}], ids=["towers", "made_of", "other weights"])
def test_the_towers_of_other_weights_are_refused(spoil: dict[str, Any], demo: Path, tmp_path: Path) -> None:
    folder = copied(demo, tmp_path / "clip")
    if spoil:
        path = folder / "towers" / "towers.json"
        write_json(path, {**read_json(path), **spoil})
    else:
        write_json(folder / "encoder.json", {**read_json(folder / "encoder.json"), "weights_sha256": "0" * 64})
    with pytest.raises(
        WeightsError,
        match="expected the towers of the weights beside it, found those of other weights; run `cbir repair",
    ):
        load_encoder(folder, Family.open_clip, OPENVINO)


def test_a_folder_without_towers_is_refused(demo: Path, tmp_path: Path) -> None:
    folder = copied(demo, tmp_path / "clip")
    (folder / "towers" / "towers.json").unlink()
    with pytest.raises(DataError, match=r"towers\.json is not here: run `dvc repro`"):
        load_encoder(folder, Family.open_clip, OPENVINO)


def test_an_encoder_that_cannot_be_exported_runs_by_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fetch_encoder("it", mobilenet_params(), tmp_path / "it")

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("a branch on data\nand more")

    monkeypatch.setattr(exporting.torch.export, "export", fails)
    export_towers(tmp_path / "it", Family.torchvision)
    why = "image tower: RuntimeError: a branch on data"
    assert not_exported(tmp_path / "it") == why
    device = DeviceParams(DeviceName.cpu, None, None, None)
    encoder, _ = open_encoder(tmp_path / "it", Family.torchvision, Precision.fp32, Backend.auto, device)
    assert encoder.runtime.backend == "torch"
    assert f"torchvision on cpu by torch (openvino has no {why}), fp32" in capfd.readouterr().out
    with pytest.raises(ConfigError, match=f"^it.backend: openvino has no {why}; use it.backend=torch$"):
        open_encoder(tmp_path / "it", Family.torchvision, Precision.fp32, Backend.openvino, device)


# ---- tokenizers


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[TextTokenizer, Any]:
    source, folder = open_clip.SimpleTokenizer(context_length=16), tmp_path_factory.mktemp("tokens")
    assert write_tokenizer(folder, OpenClipTokenizer(source)) is None
    return TextTokenizer.read(folder, tokenizer_sha256(folder)), source


@settings(max_examples=500, deadline=None)
@example("<start_of_text> mid <end_of_text>")
@example("İstanbul ǅ ﬁ ½ ² ⅷ")
@example("&lt;b&gt; &amp;amp; &nbsp; it\u2019s 'S 'LL")
@example("\u0000\u200b\ufeff a\u00adb")
@given(st.text(max_size=60))
def test_clips_tokens_are_open_clips(both: tuple[TextTokenizer, Any], text: str) -> None:
    tokenizer, source = both
    tokens = tokenizer([text, "a red star"])
    assert tokens.dtype == np.int64
    np.testing.assert_array_equal(tokens, source([text, "a red star"]).numpy())


def test_a_hubs_tokenizers_tokens_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    source = open_clip.tokenizer.HFTokenizer(save_tokenizer(tmp_path / "own"), context_length=8, clean="canonicalize")
    assert write_tokenizer(tmp_path / "out", OpenClipTokenizer(source)) is None
    texts = ["A  red, star!", "a zebra_red", "star " * 20, ""]
    np.testing.assert_array_equal(
        TextTokenizer.read(tmp_path / "out", tokenizer_sha256(tmp_path / "out"))(texts), source(texts).numpy()
    )


def test_a_tokenizer_that_would_give_other_tokens_is_left_out(tmp_path: Path) -> None:
    class Shifted(open_clip.SimpleTokenizer):  # type: ignore[misc]
        def __call__(self, *arguments: Any) -> torch.Tensor:
            return super().__call__(*arguments) + 1

    shifted = Shifted(context_length=16)
    assert (
        write_tokenizer(tmp_path, OpenClipTokenizer(shifted))
        == "tokenizer: Shifted gives other tokens than `tokenizers` does"
    )
    reduced = open_clip.SimpleTokenizer(context_length=16, reduction_mask="simple")
    assert write_tokenizer(tmp_path, OpenClipTokenizer(reduced)) == "tokenizer: ValueError: a reduction of long texts"
    assert list(tmp_path.iterdir()) == []


def test_the_text_tower_is_left_out_with_its_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    fetch_encoder("clip", clip_params(str(tmp_path / "tiny.json")), tmp_path / "out")
    monkeypatch.setattr(exporting, "write_tokenizer", lambda *_: "tokenizer: no")
    export_towers(tmp_path / "out", Family.open_clip)
    assert read_json(tmp_path / "out/towers/towers.json")["towers"]["text"] == {"left_out": "tokenizer: no"}
    assert not_exported(tmp_path / "out") == "text tower: tokenizer: no"
