"""Stored vectors against the library's: the encoders as they are agree, and each planted fault is detected and named."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from cbir.artifacts.packing import write_packing
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.verification import Agreement, Verification, read_verification, write_verification
from cbir.cli.main import main as cbir
from cbir.core.errors import DataError
from cbir.core.files import file_sha256, read_json, write_json
from cbir.core.params import load_params
from cbir.datasets.params import DatasetParams
from cbir.datasets.readers import open_dataset
from cbir.encoders.base import EncoderCard
from cbir.encoders.exporting import export_towers
from cbir.encoders.params import EncoderParams, Family
from cbir.encoders.tokens import TextTokenizer
from cbir.encoders.verify import verify
from stages import embed, preprocess, scan, weights
from tests.support.encoders import TINY
from tests.support.image_files import FROM_DATASET
from tests.support.pretrained import save_clip, save_dinov2, save_siglip
from tests.support.searchable import run_stages

CARD = "encoder.json"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of the demo encoders and of a small CLIP with QuickGELU, whose texts have capitals; the working directory."""
    root = tmp_path_factory.mktemp("verify")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("CBIR_CACHE", str(root / "cache"))
        (root / "tiny.json").write_text(json.dumps({**TINY, "quick_gelu": True}))
        torch.manual_seed(2)  # with small random weights, the vectors hardly depend on image and activation
        state = open_clip.CLIP(**TINY).state_dict()
        torch.save({name: 6 * value if value.ndim > 1 else value for name, value in state.items()}, root / "tiny.pth")
        drawn = (
            "dataset.draw_gallery_images=80",
            "dataset.draw_query_images=80",
            "queries.templates=['A Photo of a {}.']",
        )
        run_stages(root, *drawn)
        params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
        own = {
            "tiny": {"architecture": str(root / "tiny.json"), "weights": str(root / "tiny.pth")},
            "folder": {"architecture": str(root / "folder"), "weights": "pretrained"},
            "resnet": {"family": "torchvision", "architecture": "resnet18", "image_px": 64},
            "convnext": {"family": "torchvision", "architecture": "convnext_tiny", "image_px": 64},
            "vit": {"family": "timm", "architecture": "vit_tiny_patch16_224", "image_px": 64},
            "gap": {"family": "timm", "architecture": "vit_tiny_patch16_224", "image_px": 64, "pooling": "avg"},
            "siglip": {"family": "transformers", "architecture": str(save_siglip(root / "siglip"))},
            "clip_hf": {"family": "transformers", "architecture": str(save_clip(root / "clip_hf"))},
            "dinov2": {"family": "transformers", "architecture": str(save_dinov2(root / "dinov2"))},
        }
        for name, changes in own.items():
            weights_of = "pretrained" if changes.get("family") == "transformers" else "random:0"
            params["encoders"][name] = params["encoders"]["clip_demo"] | {"weights": weights_of} | changes
        (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
        scan.main()
        yield root


@cache
def ran(name: str) -> None:
    """Fetch and embed with an encoder, once."""
    if name == "folder":
        ran("tiny")
        shutil.copytree(DataPaths().weights("tiny"), "folder")
    if not name.endswith("_demo"):
        weights.main(name)
        embed.main(name)


def verified(name: str) -> Verification:
    """The comparison of the stored vectors of an encoder."""
    ran(name)
    group, data = f"encoders.{name}", DataPaths()
    params = load_params("dataset", DatasetParams, ["dataset"])
    dataset = open_dataset(params, data.raw, FROM_DATASET)
    return verify(data, dataset, name, load_params(group, EncoderParams, [group]), params.max_pixels, 0)


def replant(name: str, change: Callable[[Path], object]) -> Verification:
    """Change the files of an encoder, embed with them, and compare; afterwards everything is as it was."""
    ran(name)
    folder, other_cache = DataPaths().weights(name), Path("other cache").absolute()
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CBIR_CACHE", str(other_cache))  # the vectors of a fault are not kept
            change(folder)
            shutil.rmtree(other_cache, ignore_errors=True)
            embed.main(name)
        return verified(name)
    finally:
        for path, content in files.items():
            path.write_bytes(content)
        embed.main(name)


def with_tokenizer(monkeypatch: pytest.MonkeyPatch, name: str, method: str, replacement: Any) -> Verification:
    """Embed with another method of TextTokenizer, and compare; afterwards everything is as it was."""
    ran(name)
    monkeypatch.setattr(TextTokenizer, method, replacement)
    monkeypatch.setenv("CBIR_CACHE", str(Path(f"cache of {method}").absolute()))
    try:
        embed.main(name)
        return verified(name)
    finally:
        monkeypatch.undo()
        embed.main(name)


def change_card(**changes: Any) -> Callable[[Path], None]:
    """Write other preprocessing into the card, and export the towers with it."""

    def change(folder: Path) -> None:
        card = EncoderCard.read(folder)
        replace(card, preprocessing=replace(card.preprocessing, **changes)).write(folder)
        export_towers(folder, Family(card.family))

    return change


# ---- encoders as they are


LIBRARIES = {
    "mobilenet_demo": "torchvision",
    "resnet": "torchvision",
    "convnext": "torchvision",
    "vit": "timm",
    "gap": "timm",
    "clip_demo": "open_clip",
    "tiny": "open_clip",
    "folder": "open_clip",
    "siglip": "transformers",
    "clip_hf": "transformers",
    "dinov2": "transformers",
}
FURTHER = {"convnext", "gap", "folder", "clip_hf", "dinov2"}  # of families and kinds of model that others stand for
READ_TEXT = {"clip_demo", "tiny", "folder", "siglip", "clip_hf"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in FURTHER else []) for name in LIBRARIES]
)
def test_an_encoder_agrees_with_its_library(root: Path, name: str) -> None:
    verification = verified(name)
    assert verification.passed, verification.describe()
    assert verification.library is not None
    assert verification.library.split()[0] == LIBRARIES[name]
    assert verification.images is not None
    assert (verification.images.count, verification.images.cause) == (64, None)
    assert 0.9999 < verification.images.least_cosine < 1.0001
    assert (verification.texts is None) == (name not in READ_TEXT)
    assert verification.top10_overlap == pytest.approx(1, abs=0.02)
    assert verification.precision_change == pytest.approx(0, abs=0.01)


def test_the_command_prints_the_result(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cbir(["verify", "clip_demo"])
    out = capsys.readouterr().out
    assert out.startswith("clip_demo: verified against open_clip ")
    assert "of the ten nearest neighbours are the same, precision@10 changes by" in out


# ---- planted faults


@pytest.mark.parametrize(
    ("name", "changes", "cause"),
    [
        ("mobilenet_demo", {"interpolation": "bicubic"}, "resize: interpolation is bicubic, the library has bilinear"),
        ("clip_demo", {"resize_px": 73}, "resize: resize_px is 73, the library has 64"),
        ("clip_demo", {"mean": (0.5, 0.5, 0.5)}, "normalisation: mean and std differ from the library's"),
        ("clip_demo", {"resize_mode": "squash"}, None),  # the drawings are square: squashing changes nothing
    ],
)
def test_other_preprocessing_is_named(root: Path, name: str, changes: dict[str, Any], cause: str | None) -> None:
    verification = replant(name, change_card(**changes))
    assert verification.images is not None
    assert verification.passed == (cause is None)
    assert verification.images.cause == (cause and f"preparation: {cause}")


def test_a_missing_quick_gelu_is_named(root: Path) -> None:
    def change(folder: Path) -> None:
        config = read_json(folder / "open_clip_config.json", sealed=False)
        config["model_cfg"]["quick_gelu"] = False
        write_json(folder / "open_clip_config.json", config, sealed=False)
        export_towers(folder, Family.open_clip)

    verification = replant("tiny", change)
    assert verification.images is not None
    assert verification.images.cause is not None
    assert verification.images.cause.startswith("activation: the stored vectors are of GELU, ")
    assert verification.images.cause.endswith("with these weights has QuickGELU")


def test_averaged_patches_are_named(root: Path) -> None:
    def change(folder: Path) -> None:
        card = EncoderCard.read(folder)
        replace(card, settings={**card.settings, "pooling": "avg"}).write(folder)
        export_towers(folder, Family.timm)

    verification = replant("vit", change)
    assert verification.images is not None
    assert verification.images.cause == (
        "pooling: the stored vectors are the mean of the patch tokens, the library takes 'token'"
    )


def test_other_weights_are_no_fault_of_preparation(root: Path) -> None:
    def change(folder: Path) -> None:
        state = load_file(folder / "open_clip_model.safetensors")
        stored = {name: tensor + 0.3 * torch.randn(tensor.shape) for name, tensor in state.items()}
        other = folder / "other.safetensors"
        save_file(stored, other)
        own = (folder / "open_clip_model.safetensors").read_bytes()
        other.replace(folder / "open_clip_model.safetensors")
        card = EncoderCard.read(folder)
        replace(card, weights_sha256=file_sha256(folder / "open_clip_model.safetensors")).write(folder)
        export_towers(folder, Family.open_clip)
        (folder / "open_clip_model.safetensors").write_bytes(own)  # the library reads the weights that were meant

    verification = replant("tiny", change)
    assert verification.images is not None
    assert verification.images.cause is not None
    assert verification.images.cause.startswith("the model: ")


def test_small_packed_images_are_named(root: Path) -> None:
    packed = root / "data" / "packing.json"
    before = packed.read_bytes()
    try:
        write_packing(packed, 24)
        preprocess.main()
        embed.main("clip_demo")
        verification = verified("clip_demo")
    finally:
        packed.write_bytes(before)
        preprocess.main()
        embed.main("clip_demo")
    assert verification.images is not None
    assert verification.images.cause is not None
    assert verification.images.cause.startswith("packing: the packed images are smaller than the originals")


def test_a_text_that_is_not_lower_cased_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = TextTokenizer.read

    def with_case(folder: Path, expected: str | None) -> TextTokenizer:
        tokenizer = read(folder, expected)
        tokenizer._clean = str.strip
        return tokenizer

    verification = with_tokenizer(monkeypatch, "clip_demo", "read", with_case)
    assert verification.images is not None
    assert verification.images.passed
    assert verification.texts is not None
    assert verification.texts.cause is not None
    assert verification.texts.cause.startswith("lower-casing: ")


def test_other_padding_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = TextTokenizer.__call__

    def padded(tokenizer: TextTokenizer, texts: Any) -> Any:
        tokens = call(tokenizer, texts)
        unused = min({*range(tokens.max())} - {*tokens.flat})
        for row in tokens:
            row[np.flatnonzero(row != row[-1])[-1] + 1 :] = unused
        return tokens

    verification = with_tokenizer(monkeypatch, "siglip", "__call__", padded)
    assert verification.texts is not None
    assert verification.texts.cause is not None
    assert verification.texts.cause.startswith("padding: ")


def test_the_command_fails_with_the_cause(root: Path) -> None:
    change = change_card(resize_px=73)

    def failing(folder: Path) -> None:
        change(folder)
        embed.main("clip_demo")
        with pytest.raises(
            SystemExit, match=r"error: clip_demo differs from open_clip .* resize_px is 73, the library"
        ):
            cbir(["verify", "clip_demo"])

    replant("clip_demo", failing)


# ---- the file


def test_a_verification_survives_writing_and_reading(tmp_path: Path) -> None:
    for verification in (
        Verification(None),
        Verification("timm 1.0", Agreement(3, 0.5, 0.9999, "why"), None, 0.25, None),
        Verification("open_clip 3.3.0", Agreement(64, 1.0, 0.9999), Agreement(64, 1.0, 0.9999), 1.0, -0.01),
    ):
        write_verification(tmp_path / "a.json", verification)
        assert read_verification(tmp_path / "a.json") == verification


def test_a_damaged_verification_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"library": "timm"})
    with pytest.raises(DataError, match="expected the comparison that verify writes"):
        read_verification(tmp_path / "a.json")
