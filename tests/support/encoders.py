"""Small encoders and packed images, for the tests of embedding."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from cbir.artifacts.images import PackedImage
from cbir.artifacts.vectors import Vectors, read_parts
from cbir.core.errors import CbirError
from cbir.drawing.draw import sample
from cbir.encoders.demo import DEMO_MOBILENET_PX
from cbir.encoders.params import EncoderParams, Family
from cbir.encoders.weights import fetch_encoder
from tests.support.imports import ROOT

DEMO_CLIP = "cbir/demo/clip_demo.json"
TINY: dict[str, Any] = {  # open_clip's plain form: two transformers
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
WORDS = ["[PAD]", "[UNK]", "a", "red", "blue", "star", "circle", "of"]


def mobilenet_params(**changes: Any) -> EncoderParams:
    """MobileNetV3-Small with random weights, except for the changes."""
    values = {"family": Family.torchvision, "architecture": "mobilenet_v3_small", "weights": "random:0"}
    return EncoderParams(**{**values, **changes})


def clip_params(architecture: str, **changes: Any) -> EncoderParams:
    """A CLIP with random weights, except for the changes."""
    return mobilenet_params(family=Family.open_clip, architecture=architecture, **changes)


def refused(kind: type[CbirError], params: EncoderParams, out: Path) -> str:
    """The message with which fetch_encoder refuses: one line, and no encoder is left."""
    with pytest.raises(kind) as caught:
        fetch_encoder("it", params, out)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert not (out / "encoder.json").exists()
    return str(caught.value)


def demo_params(name: str) -> EncoderParams:
    """The demo encoders, as in conf/."""
    if name == "clip":
        return clip_params(str(ROOT / DEMO_CLIP), weights="demo:clip")
    return mobilenet_params(weights="demo:mobilenet", image_px=DEMO_MOBILENET_PX)


def fetch_tiny_clip(folder: Path) -> Path:
    """Write a small CLIP whose vectors depend on the image: with small random weights, they hardly do."""
    (folder / "tiny.json").write_text(json.dumps(TINY))
    torch.manual_seed(2)
    state = open_clip.CLIP(**TINY).state_dict()
    torch.save({name: value * 3 if value.ndim > 1 else value for name, value in state.items()}, folder / "tiny.pth")
    fetch_encoder("clip", clip_params(str(folder / "tiny.json"), weights=str(folder / "tiny.pth")), folder / "encoder")
    return folder / "encoder"


def save_tokenizer(folder: Path) -> str:
    """Write a tokenizer of eight words as a hub's repository holds it."""
    tokenizer = Tokenizer(WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)
    return str(folder)


def packed_images(count: int) -> list[PackedImage]:
    """Drawings as JPEG and PNG, in colour and grey, square and wide; their ids are not sorted."""
    images = []
    for drawing in sample(1, "gallery", count, side_range_px=(48, 80)):
        image = Image.open(io.BytesIO(drawing.jpeg)).convert("RGB")
        image = image.crop((0, 0, image.width, image.height - 15 * (drawing.number % 3)))
        if drawing.number % 5 == 0:
            image = image.convert("L")
        buffer = io.BytesIO()
        image.save(buffer, "PNG" if drawing.number % 2 else "JPEG")
        body = buffer.getvalue()
        image_id = f"{drawing.number * 17 % count:03d}/ü.jpg"
        digest = hashlib.sha256(body).hexdigest()
        images.append(PackedImage(image_id, None, None, None, "it", digest, *image.size, bytes(256), body))
    return images


def stacked(folder: Path) -> tuple[list[str], Vectors]:
    """The ids and vectors of all parts in a folder."""
    ids, parts = read_parts(folder)
    return ids, np.concatenate(parts)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """The content of each file in a folder, by its name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
