"""Open the encoder that a family of `conf/` names, on the device asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch

from cbir.config import DeviceParams, Family, Precision
from cbir.encoders.base import Encoder, TextEncoder, pick_device
from cbir.parallel import cores

_BATCH_IMAGES = {"cpu": 32, "cuda": 256, "mps": 256}


def open_encoder(folder: Path, family: Family, precision: Precision, params: DeviceParams) -> tuple[Encoder, int]:
    """The encoder in `folder` and the number of images to hand it at a time; says which device it runs on."""
    device = pick_device(params.name.value)
    if device.type == "cpu":
        torch.set_num_threads(params.threads or cores())
    print(f"{folder.name}: {family.value} on {device.type}, {precision.value}", flush=True)
    encoder = _loader(family)(folder, device, precision.value)
    return encoder, params.batch_images or _BATCH_IMAGES[device.type]


def _loader(family: Family) -> Callable[[Path, torch.device, str], Encoder]:
    """Imported on demand: open_clip takes seconds."""
    if family is Family.torchvision:
        from cbir.encoders.mobilenet import load_mobilenet

        return load_mobilenet
    from cbir.encoders.clip import load_clip

    return load_clip


def reads_text(encoder: Encoder) -> TextEncoder | None:
    """The same encoder when it embeds texts too, else None."""
    return cast(TextEncoder, encoder) if hasattr(encoder, "embed_texts") else None
