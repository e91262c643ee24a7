"""Models of the hub, fetched at a commit by a process of its own: the hub's client reads HF_ENDPOINT when it is imported."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cbir.core.errors import ConfigError, FetchError
from cbir.encoders import weight_files
from cbir.encoders.base import EncoderCard
from cbir.encoders.hub import model_folder
from cbir.encoders.opening import load_encoder
from cbir.encoders.params import EncoderParams, Family
from cbir.encoders.runtime import Runtime
from cbir.encoders.weights import fetch_encoder
from tests.support import pretrained
from tests.support.encoders import TINY
from tests.support.hub import COMMIT, hub_of
from tests.support.imports import ROOT

# each in a folder of its name; its outcome is "fetched", or the error
ENCODERS = {
    "dinov2": {"family": "transformers", "architecture": "test/dinov2@v1", "weights": "pretrained"},
    "clip": {"family": "transformers", "architecture": "test/clip", "weights": "pretrained"},
    "untrained": {"family": "transformers", "architecture": "test/clip", "weights": "random:0"},
    "open_clip": {"family": "open_clip", "architecture": "hf-hub:test/open_clip@v1", "weights": "pretrained"},
    "no revision": {"family": "transformers", "architecture": "test/clip@v2", "weights": "pretrained"},
    "no repository": {"family": "transformers", "architecture": "test/nothing", "weights": "pretrained"},
    "no safetensors": {"family": "transformers", "architecture": "test/pickle", "weights": "pretrained"},
}


def fetch_all(root: Path) -> None:
    """Run in the process of its own."""
    outcomes = {}
    for name, values in ENCODERS.items():
        params = EncoderParams(Family(values["family"]), values["architecture"], values["weights"])
        try:
            fetch_encoder("it", params, root / name)
            outcomes[name] = "fetched"
        except Exception as error:
            outcomes[name] = f"{type(error).__name__}: {error}"
    (root / "outcomes.json").write_text(json.dumps(outcomes))


def save_open_clip(folder: Path) -> Path:
    folder.mkdir()
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": preprocess}))
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**TINY).state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The repositories' folders."""
    root = tmp_path_factory.mktemp("repositories")
    sources = {
        "test/dinov2": pretrained.save_dinov2(root / "dinov2"),
        "test/clip": pretrained.save_clip(root / "clip"),
        "test/open_clip": save_open_clip(root / "open_clip"),
        "test/pickle": pretrained.save_dinov2(root / "pickle"),
    }
    (root / "pickle" / "model.safetensors").rename(root / "pickle" / "pytorch_model.bin")
    return sources


@pytest.fixture(scope="module")
def fetched(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all encoders, and outcomes.json."""
    root = tmp_path_factory.mktemp("fetched")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    code = "import sys, pathlib, tests.encoders.test_hub as t; t.fetch_all(pathlib.Path(sys.argv[1]))"
    with hub_of(sources) as address:
        env |= {"HF_ENDPOINT": address, "HF_HOME": str(root / "home"), "NO_PROXY": "127.0.0.1"}
        subprocess.run([sys.executable, "-c", code, str(root)], cwd=ROOT, env=env, check=True)
    return root


@pytest.mark.parametrize(
    ("name", "source"), [("dinov2", "test/dinov2"), ("clip", "test/clip"), ("open_clip", "test/open_clip")]
)
def test_a_model_of_the_hub_is_its_folder(
    name: str, source: str, fetched: Path, sources: dict[str, Path], tmp_path: Path, no_network: object
) -> None:
    card = EncoderCard.read(fetched / name)
    assert card.origin == f"{source}@{COMMIT}"
    assert card.architecture == ENCODERS[name]["architecture"]
    local = EncoderParams(Family(card.family), str(sources[source]), "pretrained")
    fetch_encoder("it", local, tmp_path / "local")
    image = Image.effect_noise((300, 200), 90).convert("RGB")
    vectors = []
    for folder in (fetched / name, tmp_path / "local"):
        encoder = load_encoder(folder, local.family, Runtime())
        vectors.append(encoder.embed_images(encoder.card.preprocessing.prepare(image)[None].copy()))
        if encoder.reads_text:
            vectors[-1] = np.concatenate([vectors[-1], encoder.embed_texts(["a red star"])])
    assert np.array_equal(*vectors)


def test_random_weights_fetch_no_weights(fetched: Path) -> None:
    assert EncoderCard.read(fetched / "untrained").origin == "random:0"
    files = [path.name for path in (fetched / "home").rglob("snapshots/*/*")]
    assert files.count("model.safetensors") == 2  # of dinov2 and clip
    assert "pytorch_model.bin" not in files


@pytest.mark.parametrize("name", ["no revision", "no repository"])
def test_what_the_hub_lacks_is_reported(name: str, fetched: Path) -> None:
    message = json.loads((fetched / "outcomes.json").read_text())[name]
    architecture = ENCODERS[name]["architecture"]
    assert message.startswith(
        f"FetchError: it.architecture: {architecture!r} is no folder here and cannot be fetched from "
    )
    assert message.endswith("then run `dvc repro` again, or name a folder with its files: it.architecture=/path")
    assert "\n" not in message


def test_a_repository_without_safetensors_is_refused(fetched: Path) -> None:
    message = json.loads((fetched / "outcomes.json").read_text())["no safetensors"]
    assert message == (
        "WeightsError: it.weights: test/pickle: expected model.safetensors, found none; "
        "run `hf download test/pickle --local-dir FOLDER`, then set it.architecture=FOLDER"
    )


@pytest.mark.parametrize("name", ["/nowhere", "models/clip/large", "a b", "https://host/name"])
def test_what_is_neither_folder_nor_name_is_refused(name: str, no_network: object) -> None:
    with pytest.raises(ConfigError, match=r"^it.architecture: expected a folder, or a name on the hub: org/name or "):
        model_folder("it.architecture", name, ["config.json"])


def test_a_silent_server_of_weights_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library's own client, such as open_clip's, would wait for ever."""
    monkeypatch.setattr(weight_files, "_SILENCE_S", 0.2)
    params = EncoderParams(family=Family.open_clip, architecture="ViT-B-32", weights="openai")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/weights.pt"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with pytest.raises(
            FetchError, match=r"^it\.weights: 'openai' cannot be fetched from .*timed out; check the network"
        ):
            weight_files.fetch_from_hub("it", params, "openai", url, lambda: opener.open(url).read())
    assert socket.getdefaulttimeout() is None
