"""fetch_encoder: what it accepts, what it stores beside the weights, and what it refuses in one line."""

import copy
import dataclasses
import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.utils._http
import numpy as np
import open_clip
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save, save_file
from torchvision.models import MobileNet_V3_Large_Weights

from cbir.core.errors import CbirError, ConfigError, DataError, FetchError, WeightsError
from cbir.core.files import read_json, write_json
from cbir.encoders.base import Encoder, EncoderCard, check_weights
from cbir.encoders.demo import DEMO_MOBILENET_PX, DEMO_WEIGHTS
from cbir.encoders.opening import load_encoder
from cbir.encoders.params import EncoderParams, Family, Pooling
from cbir.encoders.preprocessing import Preprocessing
from cbir.encoders.runtime import Runtime
from cbir.encoders.weights import fetch_encoder
from tests.support.encoders import DEMO_CLIP, TINY, WORDS, clip_params, demo_params, mobilenet_params, save_tokenizer
from tests.support.imports import ROOT
from tests.support.server import Answer, FileServer, file_server  # noqa: F401  (the fixture `server`)

DEMO = ROOT / DEMO_CLIP
SMALL, LARGE = "mobilenet_v3_small", "mobilenet_v3_large"

State = dict[str, torch.Tensor]


def tiny_params(**changes: Any) -> EncoderParams:
    return clip_params(**{"architecture": "Tiny", **changes})


def refused(kind: type[CbirError], params: EncoderParams, out: Path) -> str:
    """The message with which fetch_encoder refuses: one line, not too long, and no encoder is left."""
    group = "clip" if params.family is Family.open_clip else "mobilenet"
    with pytest.raises(kind) as caught:
        fetch_encoder(group, params, out)
    message = str(caught.value)
    assert type(caught.value) is kind
    assert "\n" not in message
    assert message.startswith(f"{group}.")
    assert len(message) < 1000
    assert not (out / "encoder.json").exists()
    return message


def sha256_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def same(state: State, other: State) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


def headless(state: State) -> State:
    """Without the tensors of MobileNetV3's classifier, which the embedding does not read."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}


def torch_bytes(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CBIR_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A built-in architecture without tags, as ViT-B-32 has them, but of 2 MB."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny", copy.deepcopy(TINY))


@pytest.fixture(scope="module")
def small_state() -> State:
    return dict(torchvision.models.mobilenet_v3_small().state_dict())


@pytest.fixture(scope="module")
def large_state() -> State:
    return dict(torchvision.models.mobilenet_v3_large().state_dict())


@pytest.fixture(scope="module")
def large_file(large_state: State, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("large") / "large.safetensors"
    save_file(large_state, path)
    return str(path)


@pytest.fixture(scope="module")
def clip_state() -> State:
    return dict(open_clip.CLIP(**TINY).state_dict())


@pytest.fixture(scope="module")
def clip_file(clip_state: State, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("clip") / "tiny.safetensors"
    save_file(clip_state, path)
    return str(path)


def register(monkeypatch: pytest.MonkeyPatch, name: str, model_cfg: dict[str, Any], like: str) -> None:
    """Register a small architecture in open_clip with the tags of a large one."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, model_cfg)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, open_clip.pretrained._PRETRAINED[like])


@pytest.fixture
def tiny_vit(monkeypatch: pytest.MonkeyPatch) -> str:
    """A small architecture with the tags of ViT-B-32."""
    register(monkeypatch, "Tiny-ViT", copy.deepcopy(TINY), "ViT-B-32")
    return "Tiny-ViT"


# ---- random weights


@pytest.mark.parametrize("make", [mobilenet_params, tiny_params])
def test_random_weights_follow_their_seed_and_nothing_else(make: Any, tmp_path: Path, no_network: object) -> None:
    hashes = []
    for place, (seed, elsewhere) in enumerate([(7, 1), (7, 2), (8, 1)]):
        torch.manual_seed(elsewhere)
        before = torch.random.get_rng_state()
        fetch_encoder("it", make(weights=f"random:{seed}"), tmp_path / str(place))
        assert torch.equal(torch.random.get_rng_state(), before)
        card = EncoderCard.read(tmp_path / str(place))
        (stored,) = (tmp_path / str(place)).glob("*.safetensors")
        assert sha256_of(stored.read_bytes()) == card.weights_sha256
        assert (card.tag, card.origin) == (None, f"random:{seed}")
        hashes.append(card.weights_sha256)
    assert hashes[0] == hashes[1] != hashes[2]
    names = [{path.name: path.read_bytes() for path in (tmp_path / place).iterdir()} for place in "01"]
    assert names[0] == names[1]


@pytest.mark.parametrize("make", [mobilenet_params, tiny_params])
def test_weights_fetched_into_a_folder_with_older_ones_replace_them(make: Any, tmp_path: Path) -> None:
    for seed, folder in [(1, "used"), (2, "used"), (2, "fresh")]:
        fetch_encoder("it", make(weights=f"random:{seed}"), tmp_path / folder)
    assert EncoderCard.read(tmp_path / "used") == EncoderCard.read(tmp_path / "fresh")


@pytest.mark.parametrize("make", [mobilenet_params, tiny_params])
@pytest.mark.parametrize("seed", ["", "x", "-1", "1.5", "1 ", "²"])
def test_a_seed_that_is_no_whole_number_is_refused(make: Any, seed: str, tmp_path: Path) -> None:
    message = refused(ConfigError, make(weights=f"random:{seed}"), tmp_path)
    assert f"expected random:<seed> with a whole number, found 'random:{seed}'" in message


# ---- architectures


def test_an_unknown_architecture_is_refused_with_the_nearest(tmp_path: Path) -> None:
    message = refused(ConfigError, mobilenet_params(architecture="mobilenet_v3_larg"), tmp_path)
    assert message == (
        "mobilenet.architecture: torchvision has no classification model 'mobilenet_v3_larg'; nearest: mobilenet_v3_large"
    )
    message = refused(ConfigError, tiny_params(architecture="ViT-B32"), tmp_path)
    assert message == "clip.architecture: open_clip has no 'ViT-B32'; nearest: ViT-B-32"


@pytest.mark.parametrize("name", ["quantized_resnet50", "fcn_resnet50", "ssd300_vgg16", "r3d_18", "raft_small"])
def test_a_torchvision_model_that_classifies_no_images_is_refused(name: str, tmp_path: Path) -> None:
    message = refused(ConfigError, mobilenet_params(architecture=name), tmp_path)
    assert message.startswith(f"mobilenet.architecture: torchvision has no classification model '{name}'; ")


def test_a_json_file_is_an_architecture(tmp_path: Path, no_network: object) -> None:
    cfg = json.loads(DEMO.read_text())
    fetch_encoder("clip", tiny_params(architecture=str(DEMO)), tmp_path)
    card = EncoderCard.read(tmp_path)
    assert (card.architecture, card.settings) == (str(DEMO), {"quick_gelu": False})
    assert card.preprocessing == Preprocessing(
        *[cfg["vision_cfg"]["image_size"]] * 2,
        "shortest",
        "bicubic",
        open_clip.OPENAI_DATASET_MEAN,
        open_clip.OPENAI_DATASET_STD,
    )
    encoder = load_encoder(tmp_path, Family.open_clip, Runtime())
    assert encoder.dim == cfg["embed_dim"]
    assert encoder.embed_texts(["a red star", ""]).shape == (2, cfg["embed_dim"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not readable as JSON: .*No such file"),
        ("{", "is not readable as JSON: "),
        ("\xff", "is not readable as JSON: .*utf-8"),
        ("[1, 2]", "expected an object with embed_dim, vision_cfg, text_cfg"),
        ('{"embed_dim": 8, "vision_cfg": {}}', "expected an object with embed_dim, vision_cfg, text_cfg"),
        (
            '{"embed_dim": 8, "vision_cfg": 1, "text_cfg": {}}',
            "expected an object with embed_dim, vision_cfg, text_cfg",
        ),
        ('{"embed_dim": 8, "vision_cfg": {"colour": 1}, "text_cfg": {}}', "cannot be built: .*'colour'"),
        ('{"embed_dim": 8, "vision_cfg": {"layers": "x"}, "text_cfg": {}}', "cannot be built: "),
    ],
)
def test_a_file_that_is_no_architecture_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=rf"^clip\.architecture: {path}[ :]+{message}") as caught:
        fetch_encoder("clip", tiny_params(architecture=str(path)), tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_the_input_of_clip_cannot_be_changed(tmp_path: Path) -> None:
    message = refused(ConfigError, tiny_params(image_px=96), tmp_path)
    assert message.startswith("clip.image_px: the input of")
    assert message.endswith("leave it null")


def test_image_px_is_mobilenets_resize_and_crop(tmp_path: Path) -> None:
    fetch_encoder("mobilenet", mobilenet_params(image_px=96), tmp_path)
    prepared = EncoderCard.read(tmp_path).preprocessing
    assert (prepared.resize_px, prepared.crop_px) == (96, 96)
    assert load_encoder(tmp_path, Family.torchvision, Runtime()).dim == 576


@pytest.mark.parametrize(
    ("make", "change", "remedy"),
    [
        (mobilenet_params, {"pooling": Pooling.avg}, "pooling=default"),
        (mobilenet_params, {"tokenizer": "/path"}, "tokenizer=null"),
        (tiny_params, {"pooling": Pooling.token}, "pooling=default"),
    ],
)
def test_an_option_of_other_families_is_refused(make: Any, change: dict[str, Any], remedy: str, tmp_path: Path) -> None:
    params = make(**change)
    group, (key,) = "clip" if params.family is Family.open_clip else "mobilenet", change
    assert refused(ConfigError, params, tmp_path) == (
        f"{group}.{key}: the family {params.family.value} does not take it; set {group}.{remedy}"
    )


# ---- tags and files of mobilenet


@pytest.mark.parametrize(("tag", "resize_px"), [("IMAGENET1K_V1", 256), ("IMAGENET1K_V2", 232)])
def test_a_file_keeps_the_settings_of_its_tag(
    tag: str, resize_px: int, large_file: str, large_state: State, tmp_path: Path, no_network: object
) -> None:
    fetch_encoder("mobilenet", mobilenet_params(architecture=LARGE, weights=large_file, weights_tag=tag), tmp_path)
    card = EncoderCard.read(tmp_path)
    assert (card.tag, card.origin, card.architecture) == (tag, large_file, LARGE)
    assert card.preprocessing == Preprocessing(
        resize_px, 224, "shortest", "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    assert same(load_file(tmp_path / "model.safetensors"), headless(large_state))
    assert load_encoder(tmp_path, Family.torchvision, Runtime()).dim == 960


def test_a_file_without_a_tag_is_refused_with_the_tags(
    large_file: str, clip_file: str, tiny_vit: str, tmp_path: Path
) -> None:
    message = refused(ConfigError, mobilenet_params(architecture=LARGE, weights=large_file), tmp_path)
    assert message.startswith("mobilenet.weights_tag: expected the tag")
    assert f"{large_file} carries, found null; one of IMAGENET1K_V1, IMAGENET1K_V2, or 'none'" in message
    message = refused(ConfigError, tiny_params(architecture=tiny_vit, weights=clip_file), tmp_path)
    assert "one of openai, laion400m_e31" in message


def test_a_tag_of_another_architecture_is_refused_for_a_file(
    large_file: str, clip_file: str, tiny_vit: str, tmp_path: Path
) -> None:
    params = mobilenet_params(architecture=LARGE, weights=large_file, weights_tag="IMAGENET1K_V3")
    assert "mobilenet.weights_tag: no tag 'IMAGENET1K_V3'; nearest: IMAGENET1K_V" in refused(
        ConfigError, params, tmp_path
    )
    params = tiny_params(architecture=tiny_vit, weights=clip_file, weights_tag="laion2b-s34b-b79k")
    assert refused(ConfigError, params, tmp_path).endswith("nearest: laion2b_s34b_b79k")
    params = tiny_params(weights=clip_file, weights_tag="openai")  # an architecture of the user's own has no tags
    assert refused(ConfigError, params, tmp_path) == "clip.weights_tag: no tag 'openai'; expected one of none"


def test_weights_tag_none_takes_the_architectures_own_settings(
    large_file: str, clip_file: str, tiny_vit: str, tmp_path: Path
) -> None:
    params = mobilenet_params(architecture=LARGE, weights=large_file, weights_tag="none")
    fetch_encoder("mobilenet", params, tmp_path / "mobilenet")
    card = EncoderCard.read(tmp_path / "mobilenet")
    assert (card.tag, card.preprocessing.resize_px) == (None, 232)
    fetch_encoder("clip", tiny_params(architecture=tiny_vit, weights=clip_file, weights_tag="none"), tmp_path / "clip")
    card = EncoderCard.read(tmp_path / "clip")
    assert (card.tag, card.settings, card.preprocessing.interpolation) == (None, {"quick_gelu": False}, "bicubic")


def test_a_word_that_is_neither_tag_nor_file_is_refused(tiny_vit: str, tmp_path: Path) -> None:
    message = refused(ConfigError, tiny_params(architecture=tiny_vit, weights="opena1"), tmp_path)
    assert message == "clip.weights: Tiny-ViT has no tag 'opena1', and it is not a path; nearest: openai"
    message = refused(ConfigError, tiny_params(weights="openai"), tmp_path)
    assert message.endswith("and it is not a path; expected one of random:0")
    assert refused(ConfigError, tiny_params(weights="demo"), tmp_path) == message.replace("openai", "demo")
    for make, misspelt, meant in [
        (mobilenet_params, "random", "random:0"),
        (tiny_params, "random", "random:0"),
    ]:
        assert refused(ConfigError, make(weights=misspelt), tmp_path).endswith(
            f"and it is not a path; nearest: {meant}"
        )
    message = refused(ConfigError, mobilenet_params(architecture=LARGE, weights="IMAGENET1K_V2"), tmp_path)
    assert message.endswith("has no tag 'IMAGENET1K_V2', and it is not a path; nearest: torchvision:IMAGENET1K_V2")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    params = mobilenet_params(weights=str(tmp_path / "none.pth"), weights_tag="none")
    assert refused(FetchError, params, tmp_path / "out").startswith(f"mobilenet.weights: {tmp_path}/none.pth: expected")


@pytest.mark.parametrize("form", ["{}", "file:{}", "file://{}"])
def test_a_file_is_named_by_its_path_or_its_address(
    form: str, small_state: State, tmp_path: Path, no_network: object
) -> None:
    path = tmp_path / "my small.pth"
    path.write_bytes(torch_bytes(small_state))
    name = str(path) if form == "{}" else str(path).replace(" ", "%20")
    fetch_encoder("mobilenet", mobilenet_params(weights=form.format(name), weights_tag="none"), tmp_path / "out")
    assert same(load_file(tmp_path / "out" / "model.safetensors"), headless(small_state))


def test_the_wrapping_of_a_trainer_is_removed(small_state: State, clip_state: State, tmp_path: Path) -> None:
    for make, state, stored in [
        (mobilenet_params, small_state, "model.safetensors"),
        (tiny_params, clip_state, "open_clip_model.safetensors"),
    ]:
        path = tmp_path / f"{make.__name__}.pt"
        wrapped = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}
        path.write_bytes(torch_bytes(wrapped))
        out = tmp_path / make.__name__
        fetch_encoder(make.__name__, make(weights=str(path), weights_tag="none"), out)
        assert same(load_file(out / stored), headless(state))


def test_a_file_with_another_sha256_is_refused(large_file: str, tmp_path: Path) -> None:
    params = mobilenet_params(
        architecture=LARGE, weights=large_file, weights_tag="IMAGENET1K_V2", weights_sha256="0" * 64
    )
    assert f"expected sha256 {'0' * 64}, found " in refused(FetchError, params, tmp_path)
    params = dataclasses.replace(params, weights_sha256=sha256_of(Path(large_file).read_bytes()))
    fetch_encoder("mobilenet", params, tmp_path)


# ---- files that are no weights, or another's


def test_weights_of_another_architecture_are_refused(
    small_state: State, large_file: str, clip_file: str, tmp_path: Path
) -> None:
    message = refused(WeightsError, mobilenet_params(weights=large_file, weights_tag="none"), tmp_path)
    assert message.startswith(f"mobilenet.weights: {large_file} does not fit {SMALL}: ")
    assert (
        "of its tensors differ from the model's: features.1.block.1.fc1.weight expected (8, 16, 1, 1), found none; "
        in message
    )
    for foreign in (large_file, save_to(tmp_path / "small.pth", torch_bytes(small_state))):
        message = refused(WeightsError, tiny_params(weights=foreign), tmp_path)
        assert message.startswith(f"clip.weights: {foreign} does not fit Tiny: ")
        assert "of its tensors differ from the model's: " in message
    refused(WeightsError, mobilenet_params(weights=clip_file, weights_tag="none"), tmp_path)


def save_to(path: Path, body: bytes) -> str:
    path.write_bytes(body)
    return str(path)


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._folder),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("make", [mobilenet_params, tiny_params])
@pytest.mark.parametrize("form", ["torch", "torch before 1.6", "pickle"])
def test_code_in_a_pickle_is_refused_and_not_run(make: Any, form: str, tmp_path: Path) -> None:
    path, sprung = tmp_path / "weights.pt", tmp_path / "sprung"
    value = {"state_dict": {"features.0.0.weight": torch.zeros(1)}, "trap": Trap(sprung)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(value))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=form == "torch")
    message = refused(WeightsError, make(weights=str(path), weights_tag="none"), tmp_path / "out")
    assert "is not a file of plain tensors" in message
    assert not sprung.exists()
    pickle.loads(path.read_bytes()) if form == "pickle" else torch.load(path, weights_only=False)
    assert sprung.is_dir(), "the trap itself must work"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [mobilenet_params, tiny_params])
def test_a_torchscript_archive_is_refused(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "ViT-B-32.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)
    message = refused(WeightsError, make(weights=str(path), weights_tag="none"), tmp_path / "out")
    assert "TorchScript" in message


@pytest.mark.filterwarnings("ignore")
def test_the_conversion_of_a_torchscript_archive_works(small_state: State, tmp_path: Path) -> None:
    path, model = tmp_path / "my small.pt", torchvision.models.mobilenet_v3_small().eval()
    model.load_state_dict(small_state)
    torch.jit.save(torch.jit.trace(model, torch.zeros(1, 3, 32, 32)), path)
    message = refused(WeightsError, mobilenet_params(weights=str(path), weights_tag="none"), tmp_path / "out")
    subprocess.run(message.partition("give the new file: ")[2], shell=True, check=True, env={}, capture_output=True)
    params = mobilenet_params(weights=str(path.with_suffix(".safetensors")), weights_tag="none")
    fetch_encoder("mobilenet", params, tmp_path / "out")
    assert same(load_file(tmp_path / "out" / "model.safetensors"), headless(small_state))


@pytest.mark.parametrize("make", [mobilenet_params, tiny_params])
@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("empty.pth", b""),
        ("empty.safetensors", b""),
        ("page.pth", b"<!DOCTYPE html><html>not found</html>"),
        ("page.safetensors", b"<!DOCTYPE html><html>not found</html>"),
        ("list.pth", torch_bytes([torch.zeros(2)])),
        ("nothing.pth", torch_bytes({})),
        ("tensor.pth", torch_bytes(torch.zeros(2))),
        ("cut.pth", torch_bytes({"a": torch.zeros(1000)})[:2000]),
        ("cut.safetensors", save({"a": torch.zeros(1000)})[:2000]),
    ],
)
def test_a_file_that_holds_no_weights_is_refused(make: Any, name: str, body: bytes, tmp_path: Path) -> None:
    params = make(weights=save_to(tmp_path / name, body), weights_tag="none")
    assert "does not fit" in refused(WeightsError, params, tmp_path / "out")


# ---- from the network


def test_a_network_file_is_fetched_by_its_hash(server: FileServer, small_state: State, tmp_path: Path) -> None:
    for place, (path, body) in enumerate(
        [
            ("/small.safetensors", save(small_state)),
            ("/small.safetensors?download=true", save(small_state)),  # as a hub's pages link to it
            ("/small.pth", torch_bytes(small_state)),
        ]
    ):
        url = server.put(path, Answer(body))
        out = tmp_path / str(place)
        fetch_encoder(
            "mobilenet", mobilenet_params(weights=url, weights_tag="none", weights_sha256=sha256_of(body)), out
        )
        assert same(load_file(out / "model.safetensors"), headless(small_state))
        assert EncoderCard.read(out).origin == url


def test_clip_is_fetched_from_the_network_by_its_hash(server: FileServer, clip_state: State, tmp_path: Path) -> None:
    url = server.put("/clip.safetensors?download=true", Answer(save(clip_state)))
    fetch_encoder("clip", tiny_params(weights=url, weights_sha256=sha256_of(save(clip_state))), tmp_path)
    assert same(load_file(tmp_path / "open_clip_model.safetensors"), clip_state)


@pytest.mark.parametrize("make", [mobilenet_params, tiny_params])
def test_a_network_file_with_another_hash_is_refused(make: Any, server: FileServer, tmp_path: Path) -> None:
    url = server.put("/weights.pth", Answer(b"other bytes"))
    message = refused(FetchError, make(weights=url, weights_tag="none", weights_sha256="a" * 64), tmp_path)
    assert f"weights: {url}: expected sha256 {'a' * 64}, found {sha256_of(b'other bytes')}" in message


@pytest.mark.parametrize("make", [mobilenet_params, tiny_params])
def test_a_network_file_without_a_hash_is_not_requested(make: Any, server: FileServer, tmp_path: Path) -> None:
    url = server.put("/weights.pth", Answer(b"body"))
    message = refused(ConfigError, make(weights=url, weights_tag="none"), tmp_path)
    assert f"weights: {url}: expected a hash for a file from the network" in message
    assert not server.hits


@pytest.fixture
def torchvision_serves(monkeypatch: pytest.MonkeyPatch, server: FileServer, large_state: State) -> tuple[bytes, Any]:
    """The body that torchvision's server gives for IMAGENET1K_V2, and how to set the digits in the file's name."""
    body = torch_bytes(large_state)
    tag = MobileNet_V3_Large_Weights.IMAGENET1K_V2

    def name_it(digits: str) -> str:
        url = server.put(f"/models/{LARGE}-{digits}.pth", Answer(body))
        monkeypatch.setattr(tag, "_value_", dataclasses.replace(tag.value, url=url))
        return url

    return body, name_it


def test_a_torchvision_tag_is_checked_by_its_files_name(
    torchvision_serves: tuple[bytes, Any], large_state: State, server: FileServer, tmp_path: Path
) -> None:
    body, name_it = torchvision_serves
    name_it(sha256_of(body)[:8])
    fetch_encoder("mobilenet", mobilenet_params(architecture=LARGE, weights="torchvision:IMAGENET1K_V2"), tmp_path)
    card = EncoderCard.read(tmp_path)
    assert (card.tag, card.origin) == ("IMAGENET1K_V2", "torchvision:IMAGENET1K_V2")
    assert (card.preprocessing.resize_px, card.preprocessing.crop_px) == (232, 224)
    assert same(load_file(tmp_path / "model.safetensors"), headless(large_state))
    assert [hit.status for hit in server.hits] == [200]


def test_a_torchvision_tag_with_other_bytes_is_refused(torchvision_serves: tuple[bytes, Any], tmp_path: Path) -> None:
    url = torchvision_serves[1]("00000000")
    params = mobilenet_params(architecture=LARGE, weights="torchvision:IMAGENET1K_V2")
    message = refused(FetchError, params, tmp_path)
    assert message.startswith(f"mobilenet.weights: {url}: expected sha256 beginning with 00000000, found ")


def test_weights_sha256_is_checked_for_a_torchvision_tag(torchvision_serves: tuple[bytes, Any], tmp_path: Path) -> None:
    body, name_it = torchvision_serves
    name_it(sha256_of(body)[:8])
    wrong = sha256_of(body)[:8] + "0" * 56
    params = mobilenet_params(architecture=LARGE, weights="torchvision:IMAGENET1K_V2", weights_sha256=wrong)
    assert f"expected sha256 {wrong}, found " in refused(FetchError, params, tmp_path)


def test_an_unknown_torchvision_tag_is_refused(tmp_path: Path, no_network: object) -> None:
    message = refused(ConfigError, mobilenet_params(architecture=LARGE, weights="torchvision:NOPE"), tmp_path)
    assert message == "mobilenet.weights: no tag 'NOPE'; expected one of IMAGENET1K_V1, IMAGENET1K_V2"


# ---- what a tag of open_clip implies


def activations(encoder: Encoder) -> set[type]:
    """Of both towers."""
    modules = [module for kind in ("image", "text") for module in encoder._tower(kind).module.modules()]
    assert sum(isinstance(module, open_clip.transformer.ResidualAttentionBlock) for module in modules) == 4
    return {
        type(module.mlp.gelu) for module in modules if isinstance(module, open_clip.transformer.ResidualAttentionBlock)
    }


def test_the_tag_of_a_file_decides_its_activation(
    tiny_vit: str, clip_file: str, clip_state: State, tmp_path: Path, no_network: object
) -> None:
    vectors, grey = {}, np.full((64, 64, 3), 90, np.uint8)
    for tag, quick in [("openai", True), ("laion2b_s34b_b79k", False)]:
        out = tmp_path / tag
        fetch_encoder("clip", tiny_params(architecture=tiny_vit, weights=clip_file, weights_tag=tag), out)
        card = EncoderCard.read(out)
        assert (card.tag, card.settings) == (tag, {"quick_gelu": quick})
        assert json.loads((out / "open_clip_config.json").read_text())["model_cfg"]["quick_gelu"] is quick
        assert same(load_file(out / "open_clip_model.safetensors"), clip_state)
        encoder = load_encoder(out, Family.open_clip, Runtime())
        assert activations(encoder) == {open_clip.transformer.QuickGELU if quick else torch.nn.GELU}
        vectors[tag] = encoder.embed_images(grey[None])
        model, _, transforms = open_clip.create_model_and_transforms(
            tiny_vit, pretrained=clip_file, force_quick_gelu=quick
        )
        with torch.inference_mode():
            direct = model.eval().encode_image(transforms(Image.fromarray(grey))[None], True)
        np.testing.assert_allclose(vectors[tag], direct, rtol=0, atol=1e-6)
    assert np.abs(vectors["openai"] - vectors["laion2b_s34b_b79k"]).max() > 1e-4


def test_weights_of_an_architecture_with_quick_gelu_keep_it(tmp_path: Path) -> None:
    path = tmp_path / "quick.json"
    path.write_text(json.dumps({**TINY, "quick_gelu": True}))
    fetch_encoder("clip", tiny_params(architecture=str(path)), tmp_path / "out")
    assert EncoderCard.read(tmp_path / "out").settings == {"quick_gelu": True}
    assert activations(load_encoder(tmp_path / "out", Family.open_clip, Runtime())) == {open_clip.transformer.QuickGELU}


@pytest.mark.parametrize(
    ("like", "tag", "expected"),
    [
        ("ViT-B-32", "openai", ("shortest", "bicubic", 0.48145466, 0.26862954)),
        ("ViT-B-16-SigLIP", "webli", ("squash", "bicubic", 0.5, 0.5)),
        ("MobileCLIP-S1", "datacompdr", ("shortest", "bilinear", 0.0, 1.0)),
        ("coca_ViT-B-32", "laion2b_s13b_b90k", ("shortest", "bicubic", 0.48145466, 0.26862954)),
        ("ViTamin-B", "datacomp1b", None),
        ("ViT-L-14-CLIPA", "datacomp1b", ("squash", "bilinear", 0.485, 0.229)),
    ],
)
def test_the_tag_of_a_file_decides_its_preprocessing(
    like: str,
    tag: str,
    expected: tuple[str, str, float, float] | None,
    clip_file: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    register(monkeypatch, "Tiny", copy.deepcopy(TINY), like)
    fetch_encoder("clip", tiny_params(architecture="Tiny", weights=clip_file, weights_tag=tag), tmp_path)
    preprocessing = EncoderCard.read(tmp_path).preprocessing
    implied = open_clip.pretrained._PRETRAINED[like][tag]
    assert preprocessing == Preprocessing(
        64, 64, implied["resize_mode"], implied["interpolation"], tuple(implied["mean"]), tuple(implied["std"])
    )
    if expected is not None:
        assert (
            preprocessing.resize_mode,
            preprocessing.interpolation,
            preprocessing.mean[0],
            preprocessing.std[0],
        ) == expected
    # what open_clip itself makes of the stored folder
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    assert (tuple(transform.transforms[-1].mean), tuple(transform.transforms[-1].std)) == (
        preprocessing.mean,
        preprocessing.std,
    )


def test_each_open_clip_tag_implies_a_known_preprocessing() -> None:
    for tags in open_clip.pretrained._PRETRAINED.values():
        for implied in tags.values():
            given = open_clip.transform.merge_preprocess_dict(open_clip.transform.PreprocessCfg(), implied)
            Preprocessing(224, 224, given["resize_mode"], given["interpolation"], given["mean"], given["std"])


# ---- tokenizers


def siglip_cfg(tokenizer: str = "test/tokens") -> dict[str, Any]:
    """A SigLIP in small: text tower of its own, a hub's tokenizer, no causal mask."""
    cfg = copy.deepcopy(TINY)
    cfg["text_cfg"] |= {
        "context_length": 8,
        "vocab_size": len(WORDS),
        "hf_tokenizer_name": tokenizer,
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    }
    return {**cfg, "custom_text": True, "init_logit_bias": -10}


@pytest.fixture
def tiny_siglip(monkeypatch: pytest.MonkeyPatch) -> str:
    register(monkeypatch, "Tiny-SigLIP", siglip_cfg(), "ViT-B-16-SigLIP")
    return "Tiny-SigLIP"


def test_a_local_tokenizer_is_copied_beside_the_weights(tiny_siglip: str, tmp_path: Path, no_network: object) -> None:
    tokenizer, out = save_tokenizer(tmp_path / "tokenizer"), tmp_path / "out"
    fetch_encoder("clip", tiny_params(architecture=tiny_siglip, tokenizer=tokenizer), out)
    assert {"tokenizer.json", "tokenizer_config.json"} <= {path.name for path in out.iterdir()}
    shutil.rmtree(tokenizer)
    tokens = open_clip.get_tokenizer(f"local-dir:{out}")(["A  red, star!", "a zebra"])
    assert tokens.tolist() == [[2, 3, 5, 0, 0, 0, 0, 0], [2, 1, 0, 0, 0, 0, 0, 0]]
    encoder = load_encoder(out, Family.open_clip, Runtime())
    vector, same_words, other_vector = encoder.embed_texts(["a red star", "A RED STAR.", "a blue circle"])
    assert encoder.dim == len(vector) == 32
    assert np.array_equal(vector, same_words)
    assert float(vector @ other_vector) < 0.9999


def test_a_named_tokenizer_replaces_open_clips_own(tmp_path: Path, no_network: object) -> None:
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    fetch_encoder("clip", tiny_params(tokenizer=tokenizer), tmp_path / "out")
    tokens = load_encoder(tmp_path / "out", Family.open_clip, Runtime())._tokenize(["a red star"])
    assert tokens.tolist() == [[2, 3, 5, *[0] * 13]]


def test_a_tokenizer_folder_without_a_tokenizer_is_refused(
    tiny_siglip: str, tmp_path: Path, no_network: object
) -> None:
    (tmp_path / "empty").mkdir()
    params = tiny_params(architecture=tiny_siglip, tokenizer=str(tmp_path / "empty"))
    message = refused(FetchError, params, tmp_path / "out")
    assert message.startswith(f"clip.tokenizer: '{tmp_path}/empty' cannot be fetched: ")
    assert message.endswith("or name a folder with its files: clip.tokenizer=/path")


# ---- a hub, in a process of its own, for huggingface_hub reads HF_ENDPOINT when it is imported


class Hub(ThreadingHTTPServer):
    """Files of a hub's repositories at /<org>/<name>/resolve/main/<file>; bound at once, so that it has an address,
    but refusing connections until it is opened."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _HubHandler, bind_and_activate=False)
        self.server_bind()
        self.files = files
        self.requests: list[tuple[str, str, int]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def open(self) -> None:
        self.server_activate()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


class _HubHandler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(whole=False)

    def do_GET(self) -> None:
        self._answer(whole=True)

    def _answer(self, whole: bool) -> None:
        body = self.server.files.get(self.path)
        status = 404 if body is None else 200
        self.server.requests.append((self.command, self.path, status))
        self.send_response(status)
        if body is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("ETag", f'"{sha256_of(body)}"')
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if whole and body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def hub_session(folder: Path) -> None:
    """What the process of its own does: first while the hub is down, then, after a line on stdin, while it is up."""
    waits = huggingface_hub.utils._http
    waits.time = types.SimpleNamespace(**{**vars(time), "sleep": lambda _: None})  # its five waits make half a minute
    tag = {**open_clip.get_pretrained_cfg("ViT-B-32", "openai"), "hf_hub": "test/tiny/"}
    (folder / "Tiny-ViT.json").write_text(json.dumps(TINY))
    (folder / "Tiny-SigLIP.json").write_text(json.dumps(siglip_cfg()))
    for name in ("Tiny-ViT", "Tiny-SigLIP"):  # as a user adds an architecture
        open_clip.add_model_config(folder / f"{name}.json")
    open_clip.pretrained._PRETRAINED["Tiny-ViT"] = {"openai": tag}
    hub_text = copy.deepcopy(siglip_cfg())
    hub_text["text_cfg"] = {"hf_model_name": "test/roberta", "hf_tokenizer_name": "test/roberta"}
    (folder / "hub_text.json").write_text(json.dumps(hub_text))
    trials = {
        "tag": tiny_params(architecture="Tiny-ViT", weights="openai"),
        "tokenizer": tiny_params(architecture="Tiny-SigLIP"),
        "text tower": tiny_params(architecture=str(folder / "hub_text.json")),
        "hash": tiny_params(architecture="Tiny-ViT", weights="openai", weights_sha256="0" * 64),
    }
    for phase in ("down", "up"):
        outcomes = {}
        for name, params in trials.items():
            try:
                fetch_encoder("clip", params, folder / phase / name)
                outcomes[name] = "fetched"
            except CbirError as error:
                outcomes[name] = f"{type(error).__name__}: {error}"
        (folder / f"{phase}.json").write_text(json.dumps(outcomes))
        print(phase, flush=True)
        sys.stdin.readline()


@dataclasses.dataclass
class HubVisit:
    """What a session with the hub left."""

    folder: Path
    down: dict[str, str]
    up: dict[str, str]
    requests: list[tuple[str, str, int]]


@pytest.fixture(scope="module")
def visit(clip_state: State, tmp_path_factory: pytest.TempPathFactory) -> HubVisit:
    folder = tmp_path_factory.mktemp("hub")
    save_tokenizer(folder / "tokenizer")
    files = {f"/test/tokens/resolve/main/{path.name}": path.read_bytes() for path in (folder / "tokenizer").iterdir()}
    files["/test/tiny/resolve/main/open_clip_model.safetensors"] = save(clip_state)
    with Hub(files) as hub:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
        env |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(folder / "home"), "NO_PROXY": "127.0.0.1"}
        code = "import sys, pathlib, tests.encoders.test_weights as t; t.hub_session(pathlib.Path(sys.argv[1]))"
        command = [sys.executable, "-c", code, str(folder)]
        with subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as session:
            assert session.stdin is not None
            assert session.stdout is not None
            while session.stdout.readline().strip() != "down":
                assert session.poll() is None, "the session ended before its time"
            assert not hub.requests
            hub.open()
            session.communicate("\n\n", timeout=600)
        assert session.returncode == 0
        hub.shutdown()
    down, up = (json.loads((folder / f"{phase}.json").read_text()) for phase in ("down", "up"))
    return HubVisit(folder, down, up, hub.requests)


def test_a_tag_is_fetched_from_the_hub(visit: HubVisit, clip_state: State, no_network: object) -> None:
    assert visit.up["tag"] == "fetched"
    assert ("GET", "/test/tiny/resolve/main/open_clip_model.safetensors", 200) in visit.requests
    out = visit.folder / "up" / "tag"
    card = EncoderCard.read(out)
    assert (card.tag, card.origin, card.settings) == ("openai", "openai", {"quick_gelu": True})
    assert same(load_file(out / "open_clip_model.safetensors"), clip_state)
    encoder = load_encoder(out, Family.open_clip, Runtime())
    assert activations(encoder) == {open_clip.transformer.QuickGELU}
    assert encoder.embed_texts(["a red star"]).shape == (1, 32)


def test_the_hubs_tokenizer_is_fetched_with_the_weights(visit: HubVisit, no_network: object) -> None:
    assert visit.up["tokenizer"] == "fetched"
    encoder = load_encoder(visit.folder / "up" / "tokenizer", Family.open_clip, Runtime())
    assert encoder._tokenize(["a red star"]).tolist() == [[2, 3, 5, 0, 0, 0, 0, 0]]


def test_a_hub_that_is_down_is_reported_with_a_remedy(visit: HubVisit) -> None:
    message = visit.down["tag"]
    assert message.startswith("FetchError: clip.weights: 'openai' cannot be fetched from test/tiny/: ")
    assert message.endswith("or give the file: clip.weights=/path clip.weights_tag=openai")
    assert "\n" not in message


def test_a_tokenizer_that_cannot_be_fetched_is_reported(visit: HubVisit) -> None:
    message = visit.down["tokenizer"]
    assert message.startswith("FetchError: clip.tokenizer: 'test/tokens' cannot be fetched: ")
    assert message.endswith("or name a folder with its files: clip.tokenizer=/path")
    assert "\n" not in message


def test_a_text_tower_that_cannot_be_fetched_is_reported(visit: HubVisit) -> None:
    for message in (visit.down["text tower"], visit.up["text tower"]):
        assert message.startswith(
            "FetchError: clip.architecture: the configuration of the text tower 'test/roberta' cannot be fetched: "
        )
        assert message.endswith("or name a folder with its config.json and its tokenizer: clip.tokenizer=/path")
        assert "\n" not in message


def test_weights_sha256_is_checked_for_a_tag_of_the_hub(visit: HubVisit, clip_state: State) -> None:
    sha256 = sha256_of(save(clip_state))
    assert visit.up["hash"].startswith(
        f"FetchError: clip.weights: 'openai' from test/tiny/: expected sha256 {'0' * 64}, found {sha256}"
    )


# ---- what is stored is what is loaded

SMALL_DISK = """
import resource, sys
from pathlib import Path
from cbir.core.errors import one_line_errors
from cbir.encoders.weights import fetch_encoder
from tests.support.encoders import mobilenet_params
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # a limit for files fails as a full disk does
with one_line_errors():
    fetch_encoder("mobilenet", mobilenet_params(), Path(sys.argv[1]))
"""


def test_weights_that_cannot_be_written_are_reported_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SMALL_DISK, str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: {tmp_path}/model.safetensors: ")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "encoder.json").exists()


@pytest.mark.parametrize("make", [mobilenet_params, tiny_params])
def test_stored_weights_with_one_byte_changed_are_refused(make: Any, tmp_path: Path) -> None:
    fetch_encoder("it", make(), tmp_path)
    (stored,) = tmp_path.glob("*.safetensors")
    body = bytearray(stored.read_bytes())
    body[-1] ^= 1
    stored.write_bytes(body)
    expected = EncoderCard.read(tmp_path).weights_sha256
    with pytest.raises(
        WeightsError, match=f"{stored}: expected sha256 {expected}, found {sha256_of(bytes(body))}; run"
    ):
        load_encoder(tmp_path, make().family, Runtime())


def test_other_weights_are_refused_by_their_hash(tmp_path: Path) -> None:
    fetch_encoder("it", mobilenet_params(), tmp_path)
    card = EncoderCard.read(tmp_path)
    check_weights(tmp_path / "model.safetensors", card)
    with pytest.raises(WeightsError, match="expected sha256 beef"):
        check_weights(tmp_path / "model.safetensors", dataclasses.replace(card, weights_sha256="beef"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.pop("preprocessing"), "preprocessing"),
        (lambda card: card.pop("weights_sha256"), "weights_sha256"),
        (lambda card: card.update(colour="red"), "colour"),
        (lambda card: card["preprocessing"].pop("mean"), "mean"),
        (lambda card: card.update(preprocessing=5), "not a mapping"),
    ],
)
def test_a_damaged_encoder_json_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    fetch_encoder("it", mobilenet_params(), tmp_path)
    path = tmp_path / "encoder.json"
    card = read_json(path)
    change(card)
    write_json(path, card)
    with pytest.raises(DataError, match=rf"encoder\.json is not what .*{message}") as caught:
        EncoderCard.read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("group", ["mobilenet", "clip"])
def test_demo_weights_are_the_packages_file_and_need_no_network(group: str, tmp_path: Path, no_network: object) -> None:
    fetch_encoder(group, demo_params(group), tmp_path)
    (stored,) = [load_file(path) for path in tmp_path.glob("*.safetensors")]
    shipped = load_file(DEMO_WEIGHTS / f"{group}.safetensors")
    assert same(
        stored,
        {name: value.float() if value.is_floating_point() else value for name, value in headless(shipped).items()},
    )
    card = EncoderCard.read(tmp_path)
    assert (card.origin, card.tag) == (f"demo:{group}", None)


def test_demo_weights_fit_no_other_architecture(tmp_path: Path) -> None:
    own = "demo weights have their own architecture; see the files of conf/encoders/"
    message = refused(WeightsError, mobilenet_params(weights="demo:mobilenet", architecture=LARGE), tmp_path)
    assert message == f"mobilenet.weights: demo:mobilenet does not fit {LARGE}: {own}"
    message = refused(WeightsError, tiny_params(weights="demo:clip"), tmp_path)
    assert message == f"clip.weights: demo:clip does not fit Tiny: {own}"


@pytest.mark.parametrize("image_px", [None, 224])
def test_demo_weights_take_only_their_training_size(image_px: int | None, tmp_path: Path) -> None:
    message = refused(ConfigError, mobilenet_params(weights="demo:mobilenet", image_px=image_px), tmp_path)
    assert message == (
        f"mobilenet.image_px: demo weights take {DEMO_MOBILENET_PX} px, found {image_px or 'null'}; "
        f"set mobilenet.image_px={DEMO_MOBILENET_PX}"
    )
    assert f"  image_px: {DEMO_MOBILENET_PX}\n" in (ROOT / "conf/encoders/mobilenet_demo.yaml").read_text(
        encoding="utf-8"
    )


def flipped(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5133464\n"


@pytest.mark.parametrize("group", ["mobilenet", "clip"])
@pytest.mark.parametrize("damage", [flipped, lambda body: body[:1000], lambda body: POINTER])
def test_changed_demo_weights_are_refused_with_a_remedy(
    group: str, damage: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = copied_demo(monkeypatch, tmp_path) / f"{group}.safetensors"
    expected, body = sha256_of(path.read_bytes()), damage(path.read_bytes())
    path.write_bytes(body)
    message = refused(FetchError, demo_params(group), tmp_path / "out")
    assert message == (
        f"{group}.weights: demo:{group}: {path}: expected sha256 {expected}, found {sha256_of(body)}; "
        "run `git checkout cbir/demo/weights`, or `make demo`"
    )


@pytest.mark.parametrize("group", ["mobilenet", "clip"])
@pytest.mark.parametrize(
    ("name", "body"), [("safetensors", None), ("json", None), ("json", b"{"), ("json", b"{}")], ids=str
)
def test_missing_demo_weights_or_logs_are_refused_with_a_remedy(
    group: str, name: str, body: bytes | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = copied_demo(monkeypatch, tmp_path) / f"{group}.{name}"
    path.unlink() if body is None else path.write_bytes(body)
    message = refused(FetchError, demo_params(group), tmp_path / "out")
    assert message.startswith(
        f"{group}.weights: demo:{group}: expected {path.with_suffix('.safetensors')} and {group}.json, found "
    )
    assert message.endswith("; run `git checkout cbir/demo/weights`, or `make demo`")


def copied_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of the demo weights in the package's place, to be damaged."""
    folder = shutil.copytree(DEMO_WEIGHTS, tmp_path / "demo")
    monkeypatch.setattr("cbir.encoders.demo.DEMO_WEIGHTS", folder)
    return folder


@pytest.mark.parametrize("weights", ["demo:mobilenet", "random:0"])
def test_demo_and_random_weights_have_neither_hash_nor_tag(weights: str, tmp_path: Path) -> None:
    for change in ({"weights_sha256": "0" * 64}, {"weights_tag": "IMAGENET1K_V1"}):
        message = refused(ConfigError, mobilenet_params(weights=weights, **change), tmp_path)
        assert message.startswith(f"mobilenet.weights: {weights} has no hash and no tag; set weights_sha256")
