"""The family transformers against the library's own calls, on photographs, and what it refuses."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.datasets
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from cbir.artifacts.vectors import Vectors
from cbir.core.errors import ConfigError, FetchError, WeightsError
from cbir.core.files import file_sha256
from cbir.encoders.base import Encoder, EncoderCard
from cbir.encoders.exporting import export_towers
from cbir.encoders.image_processors import load_image_processor, preprocessing_of
from cbir.encoders.opening import load_encoder
from cbir.encoders.params import EncoderParams, Family, Pooling
from cbir.encoders.runtime import Runtime
from cbir.encoders.weights import fetch_encoder
from tests.support import pretrained
from tests.support.encoders import refused
from tests.support.imports import ROOT
from tests.support.pretrained import PATCH, PX

ALIKE = 0.99999
UNROUNDED = 0.9999  # DINOv3's processor does not round the resized pixels to bytes: half a level of 256
TEXTS = ["a photo of a red star.", "A Blue CIRCLE", "a", "they're here", "red star " * 30]
IMAGE_TEXT: dict[str, Callable[[Path], Path]] = {
    "clip": pretrained.save_clip,
    "siglip": pretrained.save_siglip,
    "bert_clip": pretrained.save_bert_clip,
}
IMAGE_ONLY: dict[str, Callable[[Path], Path]] = {
    "dinov2": pretrained.save_dinov2,
    "dinov3": pretrained.save_dinov3,
    "vit": pretrained.save_vit,
    "convnext": pretrained.save_convnext,
    "resnet": pretrained.save_resnet,
}


def params_of(folder: Path | str, **changes: Any) -> EncoderParams:
    return EncoderParams(
        **{"family": Family.transformers, "architecture": str(folder), "weights": "pretrained", **changes}
    )


@cache
def photographs() -> list[Image.Image]:
    """JPEG photographs of scikit-learn: whole, cut to a portrait, to an odd size, and in grey."""
    images = []
    for name in ("china.jpg", "flower.jpg"):
        folder = Path(sklearn.datasets.__file__).parent / "images"
        image = Image.open(folder / name).convert("RGB")
        for box in ((0, 0, 640, 427), (100, 20, 333, 427), (7, 3, 110, 100), (300, 200, 640, 299)):
            images.append(image.crop(box))
        images.append(image.crop((40, 40, 301, 402)).convert("L").convert("RGB"))
    return images


def cosines(vectors: Vectors, others: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    a, b = vectors.astype(np.float64), others.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def embedded(encoder: Encoder) -> Vectors:
    return encoder.embed_images(np.stack([encoder.card.preprocessing.prepare(image) for image in photographs()]))


def fetched(source: Path, out: Path, **changes: Any) -> Encoder:
    fetch_encoder("it", params_of(source, **changes), out)
    return load_encoder(out, Family.transformers, Runtime())


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of all small models."""
    root = tmp_path_factory.mktemp("sources")
    return {name: save(root / name) for name, save in {**IMAGE_TEXT, **IMAGE_ONLY}.items()}


@pytest.fixture(scope="module")
def folders(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The encoders' folders, with exported towers."""
    root = tmp_path_factory.mktemp("folders")
    for name, source in sources.items():
        fetch_encoder("it", params_of(source), root / name)
        export_towers(root / name, Family.transformers)
    return {name: root / name for name in sources}


# ---- the library's own calls


def library_images(source: Path, backend: str = "pil") -> tuple[Any, Any]:
    """The model, and its output for the photographs, as the library's README computes it."""
    model = AutoModel.from_pretrained(source).eval()
    processor = AutoImageProcessor.from_pretrained(source, backend=backend)  # type: ignore[no-untyped-call]
    inputs = processor(images=photographs(), return_tensors="pt")
    with torch.no_grad():
        if hasattr(model, "get_image_features"):
            return model, model.get_image_features(**inputs)
        return model, model(**inputs)


@pytest.mark.parametrize("name", [*IMAGE_TEXT, *IMAGE_ONLY])
def test_images_equal_the_librarys(name: str, sources: dict[str, Path], folders: dict[str, Path]) -> None:
    vectors = embedded(load_encoder(folders[name], Family.transformers, Runtime()))
    expected = library_images(sources[name])[1].pooler_output.flatten(1).numpy()
    assert vectors.shape == expected.shape
    assert cosines(vectors, expected).min() > (UNROUNDED if name == "dinov3" else ALIKE)
    # the comparison distinguishes images, or it would prove nothing
    assert cosines(vectors, np.roll(expected, 1, axis=0)).min() < 0.99


@pytest.mark.parametrize("name", IMAGE_TEXT)
def test_texts_equal_the_librarys(name: str, sources: dict[str, Path], folders: dict[str, Path]) -> None:
    model, tokenizer = AutoModel.from_pretrained(sources[name]).eval(), AutoTokenizer.from_pretrained(sources[name])
    texts = [text.lower() for text in TEXTS] if name == "siglip" else TEXTS  # GemmaTokenizer leaves it to the caller
    length = model.config.text_config.max_position_embeddings
    length = min(length, tokenizer.model_max_length)
    inputs = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    with torch.no_grad():
        expected = model.get_text_features(**inputs).pooler_output.numpy()
    vectors = load_encoder(folders[name], Family.transformers, Runtime()).embed_texts(TEXTS)
    assert cosines(vectors, expected).min() > ALIKE
    assert cosines(vectors, np.roll(expected, 1, axis=0)).min() < 0.99


@pytest.mark.parametrize("name", [*IMAGE_TEXT, *IMAGE_ONLY])
def test_openvino_agrees_with_torch(name: str, folders: dict[str, Path]) -> None:
    exported = json.loads((folders[name] / "towers" / "towers.json").read_text())["towers"]
    assert {kind: [*tower] for kind, tower in exported.items()} == {kind: ["sha256"] for kind in exported}
    torch_encoder = load_encoder(folders[name], Family.transformers, Runtime())
    openvino_encoder = load_encoder(folders[name], Family.transformers, Runtime(backend="openvino"))
    assert torch_encoder.reads_text == openvino_encoder.reads_text == (name in IMAGE_TEXT)
    assert cosines(embedded(openvino_encoder), embedded(torch_encoder)).min() > ALIKE
    if torch_encoder.reads_text:
        assert cosines(openvino_encoder.embed_texts(TEXTS), torch_encoder.embed_texts(TEXTS)).min() > ALIKE


def test_searching_imports_neither_torch_nor_transformers(folders: dict[str, Path]) -> None:
    code = (
        "import sys; from cbir.encoders.opening import *; from pathlib import Path;"
        "encoder = load_encoder(Path(sys.argv[1]), Family.transformers, Runtime(backend='openvino'));"
        "encoder.embed_texts(['a red star']); print({'torch', 'transformers'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(folders["clip"])]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_folder_needs_neither_its_source_nor_a_network(tmp_path: Path, no_network: object) -> None:
    source = pretrained.save_siglip(tmp_path / "source")
    fetch_encoder("it", params_of(source), tmp_path / "out")
    shutil.rmtree(source)
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    encoder = load_encoder(moved, Family.transformers, Runtime())
    assert encoder.embed_texts(["a red star"]).shape == embedded(encoder)[:1].shape == (1, 32)


# ---- pooling


PATCHES = (PX // PATCH) ** 2


@pytest.mark.parametrize(("name", "prefix"), [("dinov2", 1), ("dinov2 with registers", 4), ("dinov3", 5), ("vit", 1)])
def test_pooling_takes_the_class_token_or_the_patches(
    name: str, prefix: int, sources: dict[str, Path], tmp_path: Path
) -> None:
    if name == "dinov2 with registers":
        source, prefix = pretrained.save_dinov2(tmp_path / "source", registers=3), 1 + 3
    else:
        source = sources[name]
    tokens = library_images(source)[1].last_hidden_state.numpy()  # behind the last norm
    assert tokens.shape[1] == prefix + PATCHES
    least = UNROUNDED if name == "dinov3" else ALIKE
    token = fetched(source, tmp_path / "token", pooling=Pooling.token)
    assert cosines(embedded(token), tokens[:, 0]).min() > least
    avg = fetched(source, tmp_path / "avg", pooling=Pooling.avg)
    assert avg.card.settings == {"pooling": "avg", "prefix_tokens": prefix}
    assert cosines(embedded(avg), tokens[:, prefix:].mean(1)).min() > least
    assert cosines(embedded(avg), tokens.mean(1)).min() < 0.999
    export_towers(tmp_path / "avg", Family.transformers)
    openvino = load_encoder(tmp_path / "avg", Family.transformers, Runtime(backend="openvino"))
    assert cosines(embedded(openvino), embedded(avg)).min() > ALIKE


def test_a_pooling_layer_without_weights_gives_way(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = pretrained.save_vit(tmp_path / "source", head=True)
    encoder = fetched(source, tmp_path / "out")
    unused = f"it.weights: the embedding does not use 2 tensors of {source}: classifier.bias, classifier.weight"
    assert unused in capfd.readouterr().out
    assert encoder.card.settings == {"pooling": "token", "prefix_tokens": 1}
    assert cosines(embedded(encoder), library_images(source)[1].last_hidden_state[:, 0].numpy()).min() > ALIKE
    file = fetched(source, tmp_path / "file", weights=str(source / "model.safetensors"))
    assert file.card.settings == encoder.card.settings
    assert np.array_equal(embedded(file), embedded(encoder))


def test_a_trained_pooling_layer_is_used(sources: dict[str, Path], tmp_path: Path) -> None:
    assert fetched(sources["vit"], tmp_path).card.settings == {"pooling": "pooled"}


@pytest.mark.parametrize(
    ("name", "pooling", "message"),
    [
        ("convnext", Pooling.avg, "gives no normalised tokens of patches; use it.pooling=default"),
        ("resnet", Pooling.token, "gives no normalised tokens of patches; use it.pooling=default"),
        ("clip", Pooling.avg, "it.pooling: the family transformers does not take it"),
    ],
)
def test_a_pooling_that_a_model_lacks_is_refused(
    name: str, pooling: Pooling, message: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    assert message in refused(ConfigError, params_of(sources[name], pooling=pooling), tmp_path / "out")


def test_towers_without_a_class_token_or_norm_are_refused(tmp_path: Path) -> None:
    siglip = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**pretrained.VISION))
    source = pretrained.save_model(tmp_path / "siglip", siglip, pretrained.squashing())
    message = refused(ConfigError, params_of(source, pooling=Pooling.token), tmp_path / "out")
    assert message.endswith("has no class token; use it.pooling=avg")
    # the last norm of CLIP's tower is for the class token alone, behind `last_hidden_state`
    clip = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**pretrained.VISION))
    source = pretrained.save_model(tmp_path / "clip", clip, pretrained.cropping())
    message = refused(ConfigError, params_of(source, pooling=Pooling.avg), tmp_path / "out")
    assert message.endswith("gives no normalised tokens of patches; use it.pooling=default")


def test_image_px_is_for_models_that_take_any_size(sources: dict[str, Path], tmp_path: Path) -> None:
    encoder = fetched(sources["dinov2"], tmp_path / "larger", image_px=48)
    assert encoder.card.preprocessing.crop_px == encoder.card.preprocessing.resize_px == 48
    assert embedded(encoder).shape == (len(photographs()), 32)
    for name in ("clip", "vit"):
        message = refused(ConfigError, params_of(sources[name], image_px=48), tmp_path / "out")
        assert f"it.image_px: {sources[name]} does not take 48 px: " in message
        assert message.endswith("; try it.image_px=null")


# ---- image processors


def processed(processor: Any, tmp_path: Path) -> Any:
    processor.save_pretrained(tmp_path)
    return load_image_processor("it", "name", tmp_path)


PROCESSORS: list[tuple[str, dict[str, Any]]] = [
    ("CLIPImageProcessor", {}),
    ("CLIPImageProcessor", {"size": {"shortest_edge": 256}}),
    ("DeiTImageProcessor", {}),
    ("SiglipImageProcessor", {"resample": 2}),
    ("SiglipImageProcessor", {"do_normalize": False}),
    ("ConvNextImageProcessor", {}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}, "crop_pct": 0.9}),
]


@pytest.mark.parametrize(("kind", "changes"), PROCESSORS)
def test_pixels_equal_the_processors(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    processor = processed(getattr(transformers, kind)(**changes), tmp_path)
    preprocessing = preprocessing_of("it", "name", processor)
    for image in photographs():
        expected = processor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        actual = (preprocessing.prepare(image) / 255 - preprocessing.mean) / preprocessing.std
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


def test_the_librarys_default_backend_differs_by_a_level(tmp_path: Path) -> None:
    reference = processed(transformers.SiglipImageProcessor(), tmp_path)
    default = AutoImageProcessor.from_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    assert (reference.backend, default.backend) == ("pil", "torchvision")
    pixels = [processor(photographs(), return_tensors="np")["pixel_values"] for processor in (reference, default)]
    levels = np.abs(np.stack(pixels[0]) - np.stack(pixels[1])) * 127.5
    assert 0 < levels.mean() < 0.1
    assert (levels > 1.5).mean() < 0.001


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("CLIPImageProcessor", {"do_resize": False}, "do_resize: expected true, found null"),
        ("CLIPImageProcessor", {"resample": 1}, "resample: expected 2 (bilinear) or 3 (bicubic), found 1"),
        ("CLIPImageProcessor", {"do_rescale": False}, "do_rescale: expected true, found null"),
        ("CLIPImageProcessor", {"rescale_factor": 1 / 127.5}, "rescale_factor: expected 1/255, found 0.00784"),
        ("CLIPImageProcessor", {"do_center_crop": False}, "do_center_crop: expected true, because images"),
        ("CLIPImageProcessor", {"do_pad": True}, "do_pad: expected false, found True"),
        ("CLIPImageProcessor", {"crop_size": {"height": 224, "width": 200}}, "crop_size: expected a height and a width"),
        ("CLIPImageProcessor", {"crop_size": {"height": 240, "width": 240}}, "crop_size: expected a crop within the 224 px"),
        ("CLIPImageProcessor", {"size": {"shortest_edge": 224, "longest_edge": 500}}, "size: expected shortest_edge alone"),
        ("SiglipImageProcessor", {"size": {"height": 224, "width": 196}}, "size: expected shortest_edge alone, or a height"),
        ("LevitImageProcessor", {}, "image_processor_type: LevitImageProcessor does more than its keys say"),
        ("EfficientNetImageProcessor", {}, "image_processor_type: EfficientNetImageProcessor does more than"),
        ("Siglip2ImageProcessor", {}, "size: expected shortest_edge alone, or a height and a width that are equal, found null"),
    ],
)  # fmt: skip
def test_what_preprocessing_cannot_express_is_refused(
    kind: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    processor = processed(getattr(transformers, kind)(**changes), tmp_path)
    with pytest.raises(ConfigError) as caught:
        preprocessing_of("it", "name", processor)
    assert str(caught.value).startswith(f"it.architecture: name: preprocessor_config.json: {message}")


# ---- configurations and weights


def rewrite(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **changes}))


@pytest.fixture
def dinov2(sources: dict[str, Path], tmp_path: Path) -> Path:
    """A folder that a test may change."""
    return Path(shutil.copytree(sources["dinov2"], tmp_path / "dinov2"))


def test_code_that_comes_with_a_model_is_refused(dinov2: Path, tmp_path: Path) -> None:
    rewrite(dinov2, "config.json", model_type="mine", auto_map={"AutoModel": "modeling.Mine"})
    (dinov2 / "modeling.py").write_text("raise SystemExit('this code ran')")
    message = refused(ConfigError, params_of(dinov2), tmp_path / "out")
    assert "expected a model_type of transformers" in message
    assert message.endswith("found 'mine', and code of its own (auto_map), which cbir never runs")


def test_code_beside_a_known_model_is_not_run(dinov2: Path, tmp_path: Path) -> None:
    rewrite(dinov2, "config.json", auto_map={"AutoConfig": "modeling.Mine", "AutoModel": "modeling.Mine"})
    rewrite(dinov2, "preprocessor_config.json", auto_map={"AutoImageProcessor": "modeling.Mine"})
    (dinov2 / "modeling.py").write_text("raise SystemExit('this code ran')")
    assert fetched(dinov2, tmp_path / "out").dim == 32


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "expected transformers' config.json in it, found none that can be read"),
        ("config.json", "[]", "expected transformers' config.json in it, found none that can be read"),
        ("config.json", '{"model_type": "dinov9"}', "found 'dinov9'"),
        ("config.json", '{"model_type": "dinov2", "hidden_size": "wide"}', "'hidden_size' expected int, got str"),
        ("preprocessor_config.json", None, "expected preprocessor_config.json of an image processor, found none"),
        ("preprocessor_config.json", "{", "expected preprocessor_config.json of an image processor, found none"),
    ],
)
def test_a_damaged_folder_is_refused(
    name: str, content: str | None, message: str, dinov2: Path, tmp_path: Path
) -> None:
    (dinov2 / name).unlink()
    if content is not None:
        (dinov2 / name).write_text(content)
    refusal = refused(ConfigError, params_of(dinov2), tmp_path / "out")
    assert refusal.startswith(f"it.architecture: {dinov2}: ")
    assert message in refusal


def test_a_pickle_is_refused_with_a_command_that_works(dinov2: Path, tmp_path: Path) -> None:
    state = load_file(dinov2 / "model.safetensors")
    (dinov2 / "model.safetensors").unlink()
    torch.save(state, dinov2 / "pytorch_model.bin")
    message = refused(WeightsError, params_of(dinov2), tmp_path / "out")
    assert message.startswith(f"it.weights: {dinov2}: expected model.safetensors, found none; ")
    command = message.partition("converted by `")[2].removesuffix("`")
    subprocess.run(command, shell=True, check=True, env={})  # no environment is active
    assert {name: value.tolist() for name, value in load_file(dinov2 / "model.safetensors").items()} == {
        name: value.tolist() for name, value in state.items()
    }
    assert fetched(dinov2, tmp_path / "out").dim == 32


def test_a_folder_without_weights_is_refused(dinov2: Path, tmp_path: Path) -> None:
    (dinov2 / "model.safetensors").unlink()
    message = refused(WeightsError, params_of(dinov2), tmp_path / "out")
    assert message.endswith("expected model.safetensors, found none; name a file: it.weights=/path")
    assert fetched(dinov2, tmp_path / "out", weights="random:0").dim == 32


def test_weights_in_pieces_and_in_half_precision_are_read(dinov2: Path, tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(dinov2).half()
    (dinov2 / "model.safetensors").unlink()
    model.save_pretrained(dinov2, max_shard_size="20KB")
    assert len([*dinov2.glob("model-*-of-*.safetensors")]) > 1
    encoder = fetched(dinov2, tmp_path / "out")
    assert {value.dtype for value in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.float32}
    assert cosines(embedded(encoder), library_images(dinov2)[1].pooler_output.float().numpy()).min() > 0.999
    sha256 = "0" * 64
    message = refused(ConfigError, params_of(dinov2, weights_sha256=sha256), tmp_path / "other")
    assert "it.weights_sha256: " in message
    assert "pin the revision" in message


def test_the_hash_of_the_weights_is_checked(dinov2: Path, tmp_path: Path) -> None:
    sha256 = file_sha256(dinov2 / "model.safetensors")
    fetch_encoder("it", params_of(dinov2, weights_sha256=sha256.upper()), tmp_path / "out")
    message = refused(FetchError, params_of(dinov2, weights_sha256="0" * 64), tmp_path / "other")
    assert message == f"it.weights: {dinov2}: expected sha256 {'0' * 64}, found {sha256}"


def test_a_file_of_weights_takes_the_place_of_the_folders(dinov2: Path, tmp_path: Path) -> None:
    state = {name: value * 0.9 for name, value in load_file(dinov2 / "model.safetensors").items()}
    save_file(state, tmp_path / "mine.safetensors")
    torch.save(state, tmp_path / "mine.pth")
    own = [
        fetched(dinov2, tmp_path / suffix, weights=str(tmp_path / f"mine.{suffix}"))
        for suffix in ("safetensors", "pth")
    ]
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "pth" / name).read_bytes() == (tmp_path / "safetensors" / name).read_bytes()
    assert own[0].card.origin == str(tmp_path / "mine.safetensors")
    assert cosines(embedded(own[0]), embedded(fetched(dinov2, tmp_path / "folder"))).max() < 0.9999


@pytest.mark.parametrize("name", ["clip", "dinov3", "vit"])
def test_a_trainers_checkpoint_is_read(name: str, sources: dict[str, Path], tmp_path: Path) -> None:
    state = load_file(sources[name] / "model.safetensors")
    wrapped = {"state_dict": {f"model.backbone.{key}": value for key, value in state.items()}, "epoch": 3}
    torch.save(
        {**wrapped, "state_dict": {**wrapped["state_dict"], "head.weight": torch.ones(2, 2)}}, tmp_path / "it.ckpt"
    )
    own = fetched(sources[name], tmp_path / "own", weights=str(tmp_path / "it.ckpt"))
    assert np.array_equal(embedded(own), embedded(fetched(sources[name], tmp_path / "out")))


def test_weights_of_another_architecture_are_refused(sources: dict[str, Path], dinov2: Path, tmp_path: Path) -> None:
    params = params_of(dinov2, weights=str(sources["convnext"] / "model.safetensors"))
    message = refused(WeightsError, params, tmp_path / "out")
    assert message.startswith(f"it.weights: {params.weights} does not fit {dinov2}: ")
    assert "of its tensors differ from the model's: embeddings.cls_token expected (1, 1, 32), found none" in message
    rewrite(dinov2, "config.json", num_hidden_layers=3, mlp_ratio=2)
    message = refused(WeightsError, params_of(dinov2), tmp_path / "out")
    assert message.startswith(f"it.weights: those of {dinov2} do not fit its config.json: ")
    assert "encoder.layer.0.mlp.fc1.bias expected (64,), found (128,)" in message


def test_random_weights_follow_their_seed(dinov2: Path, tmp_path: Path) -> None:
    for name, seed in (("first", 3), ("second", 3), ("other", 4)):
        fetch_encoder("it", params_of(dinov2, weights=f"random:{seed}"), tmp_path / name)
    files = {
        name: {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("first", "second")
    }
    assert files["first"] == files["second"]
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != files["first"]["model.safetensors"]
    assert EncoderCard.read(tmp_path / "first").origin == "random:3"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "demo"}, "it.weights: expected pretrained, random:<seed> or a file, found 'demo'"),
        ({"weights": "pretraind"}, "it.weights: expected pretrained, random:<seed> or a file, found 'pretraind'; nearest: pr"),
        ({"weights_tag": "openai"}, "it.weights_tag: the family transformers does not take it"),
        ({"tokenizer": "/path"}, "it.tokenizer: the family transformers does not take it"),
        ({"architecture": "/nowhere"}, "it.architecture: expected a folder, or a name on the hub: org/name or"),
    ],
)  # fmt: skip
def test_parameters_that_do_not_fit_are_refused(
    changes: dict[str, Any], message: str, dinov2: Path, tmp_path: Path
) -> None:
    assert refused(ConfigError, params_of(**{"folder": dinov2, **changes}), tmp_path / "out").startswith(message)


# ---- tokenizers


def texts_of(source: Path, out: Path) -> list[list[int]]:
    """The tokens of a text by the encoder, and the same by `tokenizers` alone."""
    encoder = fetched(source, out)
    export_towers(out, Family.transformers)
    texts = ["A Red star.", "a red STAR!", " a  red star", "_", ""]
    tokens = encoder._tokenize(texts)  # type: ignore[misc]
    assert np.array_equal(tokens, load_encoder(out, Family.transformers, Runtime(backend="openvino"))._tokenize(texts))  # type: ignore[misc]
    rows: list[list[int]] = tokens.tolist()
    return rows


def test_the_lower_case_that_a_tokenizer_forgets_is_restored(tmp_path: Path) -> None:
    upper, lower, *_ = texts_of(pretrained.save_siglip(tmp_path / "source"), tmp_path / "out")
    assert upper[:8] == lower[:8]
    assert EncoderCard.read(tmp_path / "out").settings["clean"] == "lowercase"
    cased = pretrained.save_siglip(tmp_path / "cased", pretrained.gemma_tokenizer(do_lower_case=False))
    upper, lower, *_ = texts_of(cased, tmp_path / "out cased")
    assert upper[:8] != lower[:8]
    assert EncoderCard.read(tmp_path / "out cased").settings["clean"] == "none"


def test_siglips_tokenizer_is_read_without_sentencepiece(tmp_path: Path) -> None:
    source = pretrained.save_siglip(tmp_path / "source", pretrained.word_tokenizer(model_input_names=["input_ids"]))
    rewrite(source, "tokenizer_config.json", tokenizer_class="SiglipTokenizer")
    first, second, spaced, *empty = texts_of(source, tmp_path / "out")
    assert first == second == spaced == [2, 4, 5, 7, 3, *[0] * 11]
    assert empty == [[2, 3, *[0] * 14]] * 2
    (source / "tokenizer.json").unlink()
    message = refused(ConfigError, params_of(source), tmp_path / "other")
    assert message.endswith("SiglipTokenizer needs a tokenizer.json beside its sentencepiece model")


def test_a_named_tokenizer_replaces_the_folders(tmp_path: Path) -> None:
    source = pretrained.save_siglip(tmp_path / "source")
    pretrained.word_tokenizer().save_pretrained(tmp_path / "words")
    encoder = fetched(source, tmp_path / "out", tokenizer=str(tmp_path / "words"))
    assert encoder._tokenize(["a red star"]).tolist() == [[2, 4, 5, 7, 3, *[0] * 11]]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pad_token": None}, "has no padding token, without which texts make no batch"),
        ({"pad_token": "a"}, "pads with a token that texts have as well"),
    ],
)
def test_a_tokenizer_that_cannot_pad_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    source = pretrained.save_siglip(tmp_path / "source", pretrained.word_tokenizer(**changes))
    assert message in refused(ConfigError, params_of(source), tmp_path / "out")


def test_a_tokenizer_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    source = pretrained.save_siglip(tmp_path / "source", pretrained.clip_tokenizer())
    message = refused(ConfigError, params_of(source), tmp_path / "out")
    assert message.startswith(f"it.tokenizer: the tokens of CLIPTokenizer do not fit {source}: ")
