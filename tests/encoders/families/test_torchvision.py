"""Each classification model of torchvision embeds what its head's first linear layer reads."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.vision_transformer import interpolate_embeddings

from cbir.core.errors import ConfigError, WeightsError
from cbir.encoders.base import Encoder, EncoderCard
from cbir.encoders.opening import load_encoder
from cbir.encoders.params import EncoderParams, Family
from cbir.encoders.runtime import Runtime
from cbir.encoders.weights import fetch_encoder

# by the beginning of an architecture's name: the layer whose input is the embedding
READERS = {
    "alexnet": "classifier.1",
    "convnext": "classifier.2",
    "densenet": "classifier",
    "efficientnet": "classifier.1",
    "googlenet": "fc",
    "inception": "fc",
    "maxvit": "classifier.3",
    "mnasnet": "classifier.1",
    "mobilenet_v2": "classifier.1",
    "mobilenet_v3": "classifier.0",
    "regnet": "fc",
    "resne": "fc",
    "shufflenet": "fc",
    "squeezenet": "classifier.1",
    "swin": "head",
    "vgg": "classifier.0",
    "vit": "heads.head",
    "wide_resnet": "fc",
}
DIMS = {
    "convnext_tiny": 768,
    "densenet121": 1024,
    "efficientnet_v2_s": 1280,
    "googlenet": 1024,
    "mnasnet0_5": 1280,
    "mobilenet_v3_large": 960,
    "mobilenet_v3_small": 576,
    "regnet_y_400mf": 440,
    "resnet50": 2048,
    "squeezenet1_1": 512,
    "swin_t": 768,
    "vit_b_16": 768,
}
ALL = torchvision.models.list_models(module=torchvision.models)


def params(architecture: str, **changes: Any) -> EncoderParams:
    return EncoderParams(
        **{"family": Family.torchvision, "architecture": architecture, "weights": "random:0", **changes}
    )


def load(folder: Path) -> Encoder:
    return load_encoder(folder, Family.torchvision, Runtime())


def pixels(encoder: Encoder, n: int = 2) -> Any:
    px = encoder.card.preprocessing.crop_px
    return np.random.default_rng(0).integers(0, 256, (n, px, px, 3), np.uint8)


def normalised(encoder: Encoder, batch: Any) -> torch.Tensor:
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in (encoder.card.preprocessing.mean, encoder.card.preprocessing.std)
    )
    return (torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255 - mean) / std


def what_is_read(model: Any, layer: str, inputs: torch.Tensor) -> np.ndarray:
    """The input of a layer of the whole model, one row of unit length for each image."""
    rows: list[torch.Tensor] = []
    hook = model.get_submodule(layer).register_forward_pre_hook(lambda _, arguments: rows.append(arguments[0]))
    with torch.inference_mode():
        model.eval()(inputs)
    hook.remove()
    (row,) = rows
    row = row.mean((2, 3)) if row.ndim == 4 else row  # of SqueezeNet's convolution
    # random weights shrink some activations below 1e-12, where torch.nn.functional.normalize stops dividing
    return (row / torch.linalg.vector_norm(row, dim=1, keepdim=True)).numpy()


@pytest.mark.parametrize(
    "architecture", [name if name in DIMS else pytest.param(name, marks=pytest.mark.slow) for name in ALL]
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_embedding_is_what_the_head_reads(architecture: str, tmp_path: Path) -> None:
    fetch_encoder("it", params(architecture), tmp_path)
    encoder = load(tmp_path)
    torch.manual_seed(0)
    size = {"image_size": 518} if architecture == "vit_h_14" else {}
    model = torchvision.models.get_model(architecture, weights=None, **size)
    layer = next(layer for name, layer in READERS.items() if architecture.startswith(name))
    batch = pixels(encoder)
    vectors = encoder.embed_images(batch)
    if architecture in DIMS:
        assert vectors.shape == (2, DIMS[architecture])
    if size:  # built twice, of which the second has other random weights
        model.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)
    np.testing.assert_allclose(vectors, what_is_read(model, layer, normalised(encoder, batch)), rtol=0, atol=1e-5)
    settings = torchvision.models.get_model_weights(architecture).DEFAULT.transforms()
    prepared = encoder.card.preprocessing
    assert (prepared.resize_px, prepared.crop_px) == (settings.resize_size[0], settings.crop_size[0])
    assert (prepared.interpolation, prepared.mean) == (settings.interpolation.value, tuple(settings.mean))


def test_a_resnet_embeds_what_the_feature_extractor_extracts(tmp_path: Path) -> None:
    fetch_encoder("it", params("resnet18", image_px=64), tmp_path)
    encoder, batch = load(tmp_path), np.full((1, 64, 64, 3), 90, np.uint8)
    torch.manual_seed(0)
    extractor = create_feature_extractor(torchvision.models.resnet18().eval(), ["flatten"])
    with torch.inference_mode():
        rows = extractor(normalised(encoder, batch))["flatten"]
    direct = torch.nn.functional.normalize(rows)
    np.testing.assert_allclose(encoder.embed_images(batch), direct, rtol=0, atol=1e-6)


def test_heads_are_not_stored(tmp_path: Path) -> None:
    fetch_encoder("it", params("convnext_tiny", image_px=32), tmp_path)
    stored = set(load_file(tmp_path / "model.safetensors"))
    assert set(torchvision.models.convnext_tiny().state_dict()) - stored == {"classifier.2.weight", "classifier.2.bias"}


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_weights_of_a_tag_have_their_input_transformed(tmp_path: Path) -> None:
    model = torchvision.models.googlenet(init_weights=False)
    torch.save(model.state_dict(), tmp_path / "googlenet.pth")
    weights = str(tmp_path / "googlenet.pth")
    fetch_encoder("it", params("googlenet", weights=weights, weights_tag="IMAGENET1K_V1"), tmp_path / "tag")
    fetch_encoder("it", params("googlenet", weights=weights, weights_tag="none"), tmp_path / "none")
    for name in ("tag", "none"):
        encoder = load(tmp_path / name)
        batch = pixels(encoder, 1)
        model.transform_input = name == "tag"
        assert encoder.card.settings == {"transform_input": name == "tag"}
        direct = what_is_read(model, "fc", normalised(encoder, batch))
        np.testing.assert_allclose(encoder.embed_images(batch), direct, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_positions_of_a_vit_are_resized(tmp_path: Path) -> None:
    torch.manual_seed(1)
    small = torchvision.models.vit_b_32(image_size=64).state_dict()
    torch.save(small, tmp_path / "vit.pth")
    changes = {"weights": str(tmp_path / "vit.pth"), "weights_tag": "none", "image_px": 96}
    fetch_encoder("it", params("vit_b_32", **changes), tmp_path / "out")
    encoder = load(tmp_path / "out")
    model = torchvision.models.vit_b_32(image_size=96)
    model.load_state_dict(interpolate_embeddings(96, 32, dict(small)))
    batch = pixels(encoder, 1)
    direct = what_is_read(model, "heads.head", normalised(encoder, batch))
    np.testing.assert_allclose(encoder.embed_images(batch), direct, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("architecture", "image_px"), [("maxvit_t", 96), ("alexnet", 32)])
def test_a_size_that_the_model_does_not_take_is_refused(architecture: str, image_px: int, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=rf"^it\.image_px: {architecture} does not take {image_px} px: .*null$"
    ) as caught:
        fetch_encoder("it", params(architecture, image_px=image_px), tmp_path)
    assert "\n" not in str(caught.value)


def test_published_densenet_names_are_converted(tmp_path: Path) -> None:
    """The published files of DenseNet have the names of a version in which a dot was allowed."""
    state = torchvision.models.densenet121().state_dict()
    published = {
        name.replace("norm1.", "norm.1.")
        .replace("norm2.", "norm.2.")
        .replace("conv1.", "conv.1.")
        .replace("conv2.", "conv.2."): value
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(published, tmp_path / "densenet.pth")
    changes = {"weights": str(tmp_path / "densenet.pth"), "weights_tag": "IMAGENET1K_V1"}
    fetch_encoder("it", params("densenet121", **changes), tmp_path / "out")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(stored[name], state[name]) for name in stored)


def test_a_file_of_a_deeper_model_is_refused(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet34().state_dict(), tmp_path / "resnet34.pth")
    changes = {"weights": str(tmp_path / "resnet34.pth"), "weights_tag": "none"}
    with pytest.raises(
        WeightsError, match=r"does not fit resnet18: .* layer1\.2\.conv1\.weight expected none, found \(64, "
    ):
        fetch_encoder("it", params("resnet18", **changes), tmp_path / "out")
    assert not (tmp_path / "out" / "encoder.json").exists()


def test_the_card_of_a_model_without_settings_has_none(tmp_path: Path) -> None:
    fetch_encoder("it", params("resnet18", image_px=32), tmp_path)
    assert EncoderCard.read(tmp_path).settings == {}
