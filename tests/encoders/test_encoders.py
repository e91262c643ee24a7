"""The encoders against the libraries' own calls: the same pixels, the same vectors, for every image."""

import io
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from torchvision.models import MobileNet_V3_Large_Weights, MobileNet_V3_Small_Weights

from cbir.artifacts.vectors import Vectors
from cbir.core.device import DeviceName, DeviceParams
from cbir.core.errors import ConfigError, DataError, WeightsError
from cbir.drawing.draw import sample
from cbir.encoders.base import Encoder, EncoderCard, checked_rows
from cbir.encoders.exporting import export_towers
from cbir.encoders.families import load_family
from cbir.encoders.families.open_clip import WEIGHTS
from cbir.encoders.layers import ChannelsFirst, Normalise, UnitRows
from cbir.encoders.opening import load_encoder, open_encoder
from cbir.encoders.params import Backend, Family, Precision
from cbir.encoders.preprocessing import Preprocessing
from cbir.encoders.runtime import Runtime, offers, pick_backend, pick_device
from cbir.encoders.torch_towers import TorchTower, autocast
from cbir.encoders.weights import fetch_encoder
from tests.support.encoders import TINY, clip_params, demo_params, mobilenet_params
from tests.support.imports import ROOT

TINY_IMAGENET = ROOT.parent / "shared" / "data" / "tiny-imagenet-200-mini.zip"
ALIKE = 1 - 1e-8  # a cosine; the wrong interpolation alone may cost random weights less than 1e-5
TEXTS = ["a red star", "", "A photograph of TWO dogs,   and a cat!", "été à 东京 😀", "many " * 200]

OPENAI = Preprocessing(224, 224, "shortest", "bicubic", open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
SIGLIP = replace(OPENAI, resize_mode="squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
IMAGENET = Preprocessing(256, 224, "shortest", "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

SIZES = [
    (64, 64),
    (224, 224),
    (232, 232),
    (256, 256),
    (224, 500),
    (500, 224),
    (225, 223),
    (333, 500),
    (500, 333),
    (375, 499),
    (63, 65),
    (97, 41),
    (41, 97),
    (1, 20),
    (20, 1),
    (1, 1),
    (3, 2),
    (1000, 230),
    (231, 1001),
    (640, 480),
]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise over a ramp, in colour: no two resizings of it agree by chance."""
    rng = np.random.default_rng([seed, width, height])
    ramp = np.linspace(0, 127, width)[None, :, None] + np.linspace(0, 64, height)[:, None, None]
    return Image.fromarray((ramp + rng.integers(0, 64, (height, width, 3))).astype(np.uint8))


@cache
def drawings() -> list[Image.Image]:
    """Twenty drawn shapes: squares, portraits, landscapes, larger than the input and smaller, two of them grey."""
    images = []
    for drawing in sample(3, "gallery", 20, side_range_px=(48, 300)):
        image = Image.open(io.BytesIO(drawing.jpeg)).convert("RGB")
        width, height = image.size
        cut = [(0, 0, width, height), (0, 3, width, height * 2 // 3), (1, 0, width * 3 // 5, height)][
            drawing.number % 3
        ]
        images.append(image.crop(cut))
    return [*images[:18], *(image.convert("L").convert("RGB") for image in images[18:])]


def photographs(number: int) -> list[Image.Image]:
    """Real images of different classes."""
    if not TINY_IMAGENET.is_file():
        pytest.skip(f"{TINY_IMAGENET} is not here")
    with zipfile.ZipFile(TINY_IMAGENET) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".JPEG"))
        chosen = names[:: len(names) // number][:number]
        return [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in chosen]


def prepared(encoder: Encoder, images: list[Image.Image]) -> npt.NDArray[np.uint8]:
    return np.stack([encoder.card.preprocessing.prepare(image) for image in images])


def cosines(vectors: Vectors, others: Vectors) -> npt.NDArray[np.float64]:
    """The cosine of each row with its counterpart, in float64, for rows of any length."""
    a, b = vectors.astype(np.float64), others.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


# ---- pixels


def pixels_of(transforms: Any, image: Image.Image) -> npt.NDArray[np.uint8]:
    """What a library's transforms without normalisation make of an image, as bytes."""
    scaled = transforms(image).numpy().astype(np.float64) * 255
    assert np.abs(scaled - scaled.round()).max() < 1e-3
    return scaled.round().astype(np.uint8).transpose(1, 2, 0)


@pytest.mark.parametrize(
    ("weights", "resize_px"),
    [(MobileNet_V3_Large_Weights.IMAGENET1K_V2, 232), (MobileNet_V3_Large_Weights.IMAGENET1K_V1, 256)],
    ids=["V2", "V1"],
)
def test_pixels_are_those_of_torchvisions_transforms(weights: Any, resize_px: int) -> None:
    plain = weights.transforms(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    preprocessing = replace(IMAGENET, resize_px=resize_px)
    for size in SIZES:
        image = picture(*size)
        assert np.array_equal(preprocessing.prepare(image), pixels_of(plain, image)), size


@pytest.mark.parametrize(("resize_px", "crop_px"), [(96, 96), (232, 224), (233, 224), (234, 223), (255, 32)])
def test_an_odd_margin_is_cropped_as_torchvision_crops_it(resize_px: int, crop_px: int) -> None:
    plain = torchvision.transforms._presets.ImageClassification(
        crop_size=crop_px, resize_size=resize_px, mean=(0.0,) * 3, std=(1.0,) * 3
    )
    preprocessing = replace(IMAGENET, resize_px=resize_px, crop_px=crop_px)
    for size in [(64, 64), (101, 64), (64, 103), (300, 200), (331, 333)]:
        image = picture(*size)
        assert np.array_equal(preprocessing.prepare(image), pixels_of(plain, image)), size


@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_those_of_open_clips_transforms(resize_mode: str, interpolation: str) -> None:
    plain = open_clip.image_transform(
        224, is_train=False, mean=(0.0,) * 3, std=(1.0,) * 3, resize_mode=resize_mode, interpolation=interpolation
    )
    preprocessing = replace(OPENAI, resize_mode=resize_mode, interpolation=interpolation)
    for size in SIZES:
        image = picture(*size)
        assert np.array_equal(preprocessing.prepare(image), pixels_of(plain, image)), size


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_packed_images_become_the_same_pixels(kind: str, mode: str) -> None:
    torchvisions = MobileNet_V3_Large_Weights.IMAGENET1K_V1.transforms(mean=(0.0,) * 3, std=(1.0,) * 3)
    open_clips = open_clip.image_transform(224, is_train=False, mean=(0.0,) * 3, std=(1.0,) * 3)
    for size in [(64, 64), (333, 250), (75, 301), (1, 20)]:
        packed = io.BytesIO()
        picture(*size).convert(mode).save(packed, kind)
        image = Image.open(packed)
        assert image.mode == mode
        # each library as its users call it: torchvision on RGB, open_clip on what Pillow opened
        assert np.array_equal(
            IMAGENET.prepare_packed(packed.getvalue()), pixels_of(torchvisions, image.convert("RGB"))
        ), size
        assert np.array_equal(OPENAI.prepare_packed(packed.getvalue()), pixels_of(open_clips, image)), size


def test_a_format_that_is_never_packed_is_not_opened() -> None:
    packed = io.BytesIO()
    picture(8, 8).save(packed, "GIF")
    with pytest.raises(OSError, match="cannot identify image file"):
        IMAGENET.prepare_packed(packed.getvalue())


def test_pixels_are_bytes_channels_last() -> None:
    pixels = IMAGENET.prepare(Image.new("RGB", (300, 280), (1, 2, 3)))
    assert (pixels.shape, pixels.dtype) == ((224, 224, 3), np.uint8)
    assert [set(pixels[:, :, channel].ravel().tolist()) for channel in range(3)] == [{1}, {2}, {3}]


def test_normalising_is_the_libraries_to_float_rounding() -> None:
    image = picture(300, 280)
    expected = MobileNet_V3_Large_Weights.IMAGENET1K_V1.transforms()(image)
    actual = Normalise(IMAGENET)(ChannelsFirst()(torch.from_numpy(IMAGENET.prepare(image).copy())[None]))[0]
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interpolation": "lanczos"}, "expected interpolation among bilinear, bicubic .*found lanczos and shortest"),
        ({"resize_mode": "longest"}, "resize mode among shortest, squash, found bilinear and longest"),
        ({"crop_offset": "ceil"}, "expected a crop offset among round, floor, found ceil"),
        ({"crop_px": 257}, "expected a crop within the resized image, found 257 px of 256 px"),
    ],
)
def test_an_unknown_preprocessing_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        replace(IMAGENET, **change)


def test_a_preprocessing_survives_json() -> None:
    for preprocessing in (IMAGENET, OPENAI, SIGLIP):
        assert Preprocessing.from_json(json.loads(json.dumps(preprocessing.to_json()))) == preprocessing


# ---- vectors, against a direct call of the library


@dataclass
class Case:
    """An encoder of this package, and the library's way to the same vectors."""

    folder: Path
    encoder: Any
    images: Callable[[list[Image.Image]], Vectors]
    texts: Callable[[list[str]], Vectors] | None = None


def livened(model: Any, images: list[Image.Image], transforms: Any) -> dict[str, torch.Tensor]:
    """The state of a model whose batch norms have seen images: without it, random weights make all images alike."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(torch.stack([transforms(image) for image in images]))
    return dict(model.state_dict())


def mobilenet_case(name: str, weights: Any, folder: Path) -> Case:
    transforms = weights.transforms()
    torch.manual_seed(5)
    model = torchvision.models.get_model(name, weights=None)
    torch.save(livened(model, drawings()[:6], transforms), folder / "livened.pth")
    model.eval()
    fetched = mobilenet_params(architecture=name, weights=str(folder / "livened.pth"), weights_tag=weights.name)
    fetch_encoder("mobilenet", fetched, folder / "encoder")

    def direct(images: list[Image.Image]) -> Vectors:
        with torch.inference_mode():
            x = torch.stack([transforms(image) for image in images])
            vectors: Vectors = torch.flatten(model.avgpool(model.features(x)), 1).numpy()
        return vectors

    return Case(folder / "encoder", load_encoder(folder / "encoder", Family.torchvision, Runtime()), direct)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Case:
    weights = MobileNet_V3_Large_Weights.IMAGENET1K_V2
    return mobilenet_case("mobilenet_v3_large", weights, tmp_path_factory.mktemp("large"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Case:
    weights = MobileNet_V3_Small_Weights.IMAGENET1K_V1
    return mobilenet_case("mobilenet_v3_small", weights, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def vit_b_32(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """ViT-B-32 with random weights, and as create_model_and_transforms loads it from the file that we stored."""
    folder = tmp_path_factory.mktemp("vit_b_32")
    fetch_encoder("clip", clip_params("ViT-B-32"), folder)
    encoder = load_encoder(folder, Family.open_clip, Runtime())
    model, _, transforms = open_clip.create_model_and_transforms("ViT-B-32", pretrained=str(folder / WEIGHTS))
    model.eval()
    tokenizer = open_clip.get_tokenizer("ViT-B-32")

    def direct(images: list[Image.Image]) -> Vectors:
        with torch.inference_mode():
            vectors: Vectors = model.encode_image(torch.stack([transforms(image) for image in images])).numpy()
        return vectors

    def direct_texts(texts: list[str]) -> Vectors:
        with torch.inference_mode():
            vectors: Vectors = model.encode_text(tokenizer(texts)).numpy()
        return vectors

    yield Case(folder, encoder, direct, direct_texts)
    shutil.rmtree(folder)  # it holds 600 MB


VIT_B_32 = pytest.param("vit_b_32", marks=pytest.mark.slow)  # of full size; the small CLIPs are always tested
ENCODERS = ["large", "small", VIT_B_32]


def holds_for_every_row(case: Case, images: list[Image.Image]) -> None:
    vectors, expected = case.encoder.embed_images(prepared(case.encoder, images)), case.images(images)
    assert vectors.shape == expected.shape == (len(images), case.encoder.dim)
    assert cosines(vectors, expected).min() > ALIKE
    # the comparison distinguishes images, or it would prove nothing
    assert cosines(vectors, np.roll(expected, 1, axis=0)).max() < 0.999


@pytest.mark.parametrize("name", ENCODERS)
def test_vectors_of_drawings_are_the_librarys(name: str, request: pytest.FixtureRequest) -> None:
    images = drawings()[::2] if name == "vit_b_32" else drawings()  # it is the slow one
    holds_for_every_row(request.getfixturevalue(name), images)


@pytest.mark.parametrize("name", ENCODERS)
def test_vectors_of_photographs_are_the_librarys(name: str, request: pytest.FixtureRequest) -> None:
    images = photographs(20)
    holds_for_every_row(request.getfixturevalue(name), images)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_comparison_would_notice_another_preprocessing(name: str, request: pytest.FixtureRequest) -> None:
    case, images = request.getfixturevalue(name), drawings()[:2]
    right = case.encoder.card.preprocessing
    wrong = replace(right, interpolation="bilinear" if right.interpolation == "bicubic" else "bicubic")
    vectors = case.encoder.embed_images(np.stack([wrong.prepare(image) for image in images]))
    assert cosines(vectors, case.images(images)).max() < ALIKE


@pytest.mark.slow
def test_vectors_of_texts_are_open_clips(vit_b_32: Case) -> None:
    assert vit_b_32.texts is not None
    vectors, expected = vit_b_32.encoder.embed_texts(TEXTS), vit_b_32.texts(TEXTS)
    assert vectors.shape == (len(TEXTS), 512)
    assert cosines(vectors, expected).min() > ALIKE
    assert cosines(vectors, np.roll(expected, 1, axis=0)).max() < 0.999


@pytest.mark.parametrize(("name", "dim"), [("large", 960), ("small", 576), ("tiny", TINY["embed_dim"])])
def test_rows_are_float32_of_length_one(name: str, dim: int, request: pytest.FixtureRequest) -> None:
    value = request.getfixturevalue(name)
    encoder = value.encoder if isinstance(value, Case) else value
    vectors = encoder.embed_images(prepared(encoder, drawings()[:2]))
    assert (encoder.dim, vectors.shape, vectors.dtype) == (dim, (2, dim), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1.0, atol=1e-6)


# ---- what must not change the vectors, and what may


@pytest.fixture(scope="module")
def kept_encoders(
    large: Case, small: Case, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The folders of the encoders that are always tested, the trained demo encoders (mobilenet and clip) among them."""
    demo = tmp_path_factory.mktemp("demo")
    for name in ("mobilenet", "clip"):
        fetch_encoder(name, demo_params(name), demo / name)
    folders = {
        "large": large.folder,
        "small": small.folder,
        "tiny": tiny_folder,
        "mobilenet": demo / "mobilenet",
        "clip": demo / "clip",
    }
    for name, folder in folders.items():
        export_towers(folder, FAMILIES.get(name, Family.torchvision))
    return folders


@pytest.mark.parametrize("name", ["small", "tiny"])
def test_the_batch_hardly_changes_the_vectors(name: str, request: pytest.FixtureRequest) -> None:
    value = request.getfixturevalue(name)
    encoder = value.encoder if isinstance(value, Case) else value
    pixels = prepared(encoder, drawings()[:8])
    whole = encoder.embed_images(pixels)
    for batch in (1, 3):
        parts = [encoder.embed_images(pixels[start : start + batch]) for start in range(0, len(pixels), batch)]
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-5)


def test_the_batch_hardly_changes_the_vectors_of_texts(tiny: Encoder) -> None:
    alone = np.concatenate([tiny.embed_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, tiny.embed_texts(TEXTS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["small", "tiny"])
def test_the_same_input_twice_gives_the_same_bytes(name: str, request: pytest.FixtureRequest) -> None:
    value = request.getfixturevalue(name)
    encoder = value.encoder if isinstance(value, Case) else value
    pixels = prepared(encoder, drawings()[:5])
    first = encoder.embed_images(pixels)
    assert encoder.embed_images(pixels).tobytes() == first.tobytes()
    # nor does what came between leave a trace, as batch norms in training would
    encoder.embed_images(prepared(encoder, [picture(300, 300)] * 4))
    assert encoder.embed_images(pixels).tobytes() == first.tobytes()


def test_models_are_in_eval_mode_and_keep_no_gradients(tiny: Encoder, small: Case) -> None:
    towers = (tiny._tower("text"), small.encoder._tower("image"))
    assert not any(module.training for tower in towers for module in tower.module.modules())
    with torch.enable_grad():
        assert isinstance(tiny.embed_texts(["a"]), np.ndarray)


def test_dropout_is_off(tmp_path: Path) -> None:
    cfg = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "patch_dropout": 0.5}}
    (tmp_path / "drops.json").write_text(json.dumps(cfg))
    architecture = str(tmp_path / "drops.json")
    fetch_encoder("clip", clip_params(architecture), tmp_path / "out")
    encoder = load_encoder(tmp_path / "out", Family.open_clip, Runtime())
    pixels = prepared(encoder, drawings()[:4])
    assert encoder.embed_images(pixels).tobytes() == encoder.embed_images(pixels).tobytes()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("family", ["mobilenet", "clip"])
def test_half_precision_stays_close_and_is_used(
    family: str, precision: str, small: Case, tiny: Encoder, tiny_folder: Path
) -> None:
    if family == "clip":
        full, half = tiny, load_encoder(tiny_folder, Family.open_clip, Runtime(precision=precision))
        full_vectors, half_vectors = full.embed_texts(TEXTS), half.embed_texts(TEXTS)
        assert not np.array_equal(full_vectors, half_vectors)
        assert cosines(full_vectors, half_vectors).min() > 0.99
    else:
        full, half = small.encoder, load_encoder(small.folder, Family.torchvision, Runtime(precision=precision))
    pixels = prepared(full, drawings()[:6])
    full_vectors, half_vectors = full.embed_images(pixels), half.embed_images(pixels)
    assert half_vectors.dtype == np.float32
    assert not np.array_equal(full_vectors, half_vectors)
    assert cosines(full_vectors, half_vectors).min() > 0.99
    np.testing.assert_allclose(np.linalg.norm(half_vectors.astype(np.float64), axis=1), 1.0, atol=1e-6)


def test_autocast_keeps_no_weights_for_other_threads(tiny_folder: Path) -> None:
    modules = load_family(Family.open_clip).build_modules(tiny_folder)
    TorchTower(modules.image, Runtime(precision="bf16"))
    assert not any(parameter.requires_grad for parameter in modules.image.parameters())


def test_fp32_runs_without_autocast() -> None:
    assert not autocast("cpu", "fp32")._enabled
    assert [autocast("cpu", kind).fast_dtype for kind in ("fp16", "bf16")] == [torch.float16, torch.bfloat16]


# ---- refusals


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf"), -float("inf")])
def test_a_zero_or_infinite_vector_is_refused_with_its_row(bad: float) -> None:
    vectors = torch.ones(4, 3)
    vectors[2] = bad
    with pytest.raises(
        DataError,
        match=r"^expected finite vectors, found NaN, infinity or zero for rows 2 of a batch; the weights may be damaged",
    ):
        checked_rows(UnitRows(torch.nn.Identity())(vectors).numpy(), "fp32")


def test_one_nan_in_a_row_is_refused() -> None:
    vectors = torch.ones(3, 3)
    vectors[1, 1] = float("nan")
    with pytest.raises(DataError, match=r"rows 1 of .* use precision fp32 or bf16"):
        checked_rows(UnitRows(torch.nn.Identity())(vectors).numpy(), "fp16")


def test_unit_rows_are_float32_of_length_one() -> None:
    for kind in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        rows = UnitRows(torch.nn.Identity())(torch.tensor([[3.0, 4.0], [0.0, -2.0]], dtype=kind))
        assert rows.dtype == torch.float32
        np.testing.assert_allclose(rows, [[0.6, 0.8], [0.0, -1.0]], atol=1e-6)


@pytest.mark.parametrize("kind", ["mobilenet", "clip"])
def test_weights_that_make_nan_are_refused_when_they_embed(
    kind: str, small: Case, tiny_folder: Path, tmp_path: Path
) -> None:
    if kind == "clip":
        state = load_file(tiny_folder / WEIGHTS)
        state["visual.proj"].fill_(float("nan"))
        torch.save(state, tmp_path / "nan.pth")
        (tmp_path / "tiny.json").write_text(json.dumps(TINY))
        fetched = clip_params(str(tmp_path / "tiny.json"), weights=str(tmp_path / "nan.pth"))
    else:
        state = torchvision.models.mobilenet_v3_small().state_dict()
        state["features.12.1.bias"].fill_(float("nan"))
        torch.save(state, tmp_path / "nan.pth")
        fetched = mobilenet_params(weights=str(tmp_path / "nan.pth"), weights_tag="none")
    fetch_encoder(kind, fetched, tmp_path / "out")
    encoder = load_encoder(tmp_path / "out", fetched.family, Runtime())
    with pytest.raises(
        DataError, match=r"expected finite vectors, found .* for rows 0, 1 of a batch; the weights may be damaged"
    ):
        encoder.embed_images(prepared(encoder, drawings()[:2]))


def test_another_configuration_under_the_same_name_is_another_encoder(tmp_path: Path) -> None:
    for heads in (2, 4):
        vision = {**TINY["vision_cfg"], "head_width": TINY["vision_cfg"]["width"] // heads}
        (tmp_path / "tiny.json").write_text(json.dumps({**TINY, "vision_cfg": vision}))
        fetched = clip_params(str(tmp_path / "tiny.json"), weights="random:0")
        fetch_encoder("clip", fetched, tmp_path / f"out {heads}")
    card, other_card = (EncoderCard.read(tmp_path / f"out {heads}") for heads in (2, 4))
    assert card.settings_sha256 != other_card.settings_sha256
    assert replace(card, settings_sha256=None) == replace(other_card, settings_sha256=None)


# ---- devices and opening


def there_is(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr("cbir.core.device._GPU_DRIVERS", (os.devnull,))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def test_cores_do_not_multiply_the_batches_on_a_gpu(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cbir.encoders.opening.cores", lambda: 64)
    monkeypatch.setattr("cbir.encoders.opening.load_encoder", lambda folder, family, runtime: runtime)
    there_is(monkeypatch, cuda=True, mps=True)
    for name, callers in (("cuda", 3), ("mps", 1)):
        device = DeviceParams(DeviceName(name))
        runtime, batch = open_encoder(tiny_folder, Family.open_clip, Precision.fp16, Backend.auto, device)
        assert (runtime.workers, runtime.callers, batch) == (64, callers, 256)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("cuda", "mps", "taken"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_fastest_device(cuda: bool, mps: bool, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there_is(monkeypatch, cuda, mps)
    assert pick_device("auto") == taken
    assert pick_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("name", "cuda", "mps", "available"),
    [("cuda", False, False, "cpu"), ("cuda", False, True, "mps, cpu"), ("mps", True, False, "cuda, cpu")],
)
def test_a_missing_device_is_refused_with_the_available_ones(
    name: str, cuda: bool, mps: bool, available: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there_is(monkeypatch, cuda, mps)
    with pytest.raises(
        ConfigError, match=f"^device.name: {name} is not on this machine, found {available}; use device=auto$"
    ):
        pick_device(name)


def test_open_encoder_says_with_what_it_runs(tiny_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        device = DeviceParams(DeviceName.cpu, batch_images=None, threads=6, workers=2)
        encoder, batch = open_encoder(tiny_folder, Family.open_clip, Precision.bf16, Backend.torch, device)
        assert torch.get_num_threads() == 3  # for each worker
        assert encoder.runtime == Runtime("cpu", "torch", "bf16", 2, threads=6)
        device = replace(device, batch_images=5, threads=1, workers=None)
        export_towers(tiny_folder, Family.open_clip)
        encoder_of_auto, five = open_encoder(tiny_folder, Family.open_clip, Precision.fp32, Backend.auto, device)
        assert (encoder_of_auto.runtime, five) == (Runtime("cpu", "openvino", "fp32", 1), 5)
    finally:
        torch.set_num_threads(threads)
    assert capfd.readouterr().out.splitlines() == [
        "encoder: open_clip on cpu by torch, bf16, 2 workers",
        "encoder: open_clip on cpu by openvino, fp32, 1 workers",
    ]
    assert batch == 8
    assert encoder.reads_text


def only(monkeypatch: pytest.MonkeyPatch, **offered: list[str]) -> None:
    """A CPU with these backends and precisions."""
    monkeypatch.setattr("cbir.encoders.runtime.offers", lambda device: offered)


def test_auto_takes_the_first_backend_with_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, openvino=["fp32"], torch=["fp32", "fp16", "bf16"])
    picked = {precision: pick_backend("clip", "auto", "cpu", precision) for precision in ("fp32", "fp16", "bf16")}
    assert picked == {"fp32": "openvino", "fp16": "torch", "bf16": "torch"}
    only(monkeypatch, torch=["fp32", "fp16"])
    assert pick_backend("clip", "auto", "mps", "fp16") == "torch"


@pytest.mark.parametrize(
    ("backend", "precision", "message"),
    [
        ("openvino", "fp32", "clip.backend: openvino does not run on mps, found torch; use clip.backend=auto"),
        ("torch", "bf16", "clip.precision: torch on this machine's mps has fp32, fp16, not bf16"),
        ("auto", "bf16", "clip.precision: torch on this machine's mps has fp32, fp16, not bf16"),
    ],
)
def test_a_missing_backend_or_precision_is_refused(backend: str, precision: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pick_backend("clip", backend, "mps", precision)
    assert str(caught.value) == message


# ---- backends


BACKENDS = list(offers("cpu"))
HALVES = [(backend, half) for backend, known in offers("cpu").items() for half in known if half != "fp32"]
FAMILIES = {"clip": Family.open_clip, "tiny": Family.open_clip}


def compared(folder: Path, family: Family, runtime: Runtime, images: list[Image.Image]) -> npt.NDArray[np.float64]:
    """The cosines between torch's vectors in fp32 and the runtime's, of each image."""
    reference, encoder = load_encoder(folder, family, Runtime()), load_encoder(folder, family, runtime)
    pixels = prepared(reference, images)
    expected, actual = reference.embed_images(pixels), encoder.embed_images(pixels)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(actual.astype(np.float64), axis=1), 1.0, atol=1e-6)
    assert runtime.precision == "fp32" or not np.array_equal(expected, actual)
    # the comparison distinguishes images, or it would prove nothing
    assert cosines(expected, np.roll(actual, 1, axis=0)).min() < 0.999
    return cosines(expected, actual)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["small", "large", "tiny", "mobilenet", "clip"])
def test_every_backend_equals_torch_on_a_cpu(name: str, backend: str, kept_encoders: dict[str, Path]) -> None:
    family = FAMILIES.get(name, Family.torchvision)
    assert compared(kept_encoders[name], family, Runtime("cpu", backend), drawings()).min() > 0.9999


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_clip_of_full_size_equals_torch(vit_b_32: Case, backend: str) -> None:
    export_towers(vit_b_32.folder, Family.open_clip)
    images = drawings()[:6]
    assert compared(vit_b_32.folder, Family.open_clip, Runtime("cpu", backend), images).min() > 0.9999


# of trained weights: in a random MobileNet the rounding of a half grows from layer to layer, down to 0.97
@pytest.mark.parametrize(("backend", "half"), HALVES)
@pytest.mark.parametrize("name", ["mobilenet", "clip"])
def test_every_half_precision_is_close_to_torch_in_fp32(
    name: str, backend: str, half: str, kept_encoders: dict[str, Path]
) -> None:
    family = FAMILIES.get(name, Family.torchvision)
    assert compared(kept_encoders[name], family, Runtime("cpu", backend, half), drawings()).min() > 0.999


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["small", "tiny"])
def test_several_threads_get_the_vectors_that_one_gets(name: str, backend: str, kept_encoders: dict[str, Path]) -> None:
    family = Family.open_clip if name == "tiny" else Family.torchvision
    encoder = load_encoder(kept_encoders[name], family, Runtime("cpu", backend, "fp32", workers=4))
    pixels = prepared(encoder, drawings())
    batches = [pixels[start : start + 5] for start in range(0, 20, 5)] * 5
    alone = [encoder.embed_images(batch).tobytes() for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        assert [vectors.tobytes() for vectors in pool.map(encoder.embed_images, batches)] == alone


def test_openvino_runs_without_its_telemetry(kept_encoders: dict[str, Path]) -> None:
    load_encoder(kept_encoders["tiny"], Family.open_clip, Runtime("cpu", "openvino"))
    assert sys.modules["openvino.tools.ovc.telemetry_utils"].tm.__name__ == "openvino.tools.ovc.telemetry_stub"


def test_mobilenet_reads_no_text(small: Case) -> None:
    assert not small.encoder.reads_text
