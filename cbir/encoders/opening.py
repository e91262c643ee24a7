"""Open the encoder that a family of `conf/` names, on the device asked for."""

from pathlib import Path
from typing import cast

import torch

from cbir.config import Backend, DeviceParams, Family, Precision
from cbir.encoders.base import Encoder, TextEncoder
from cbir.encoders.runtime import Runtime, pick_backend, pick_device
from cbir.parallel import cores

# on a CPU, 8 images are 1.3 times as fast as 32 for MobileNet, a little for CLIP, and hold a quarter of the memory (measured)
_BATCH_IMAGES = {"cpu": 8, "cuda": 256, "mps": 256}


def open_encoder(
    folder: Path, family: Family, precision: Precision, backend: Backend, params: DeviceParams
) -> tuple[Encoder, int]:
    """The encoder in `folder` and the number of images to hand it at a time; says with what it runs.

    Raises ConfigError when this machine has no such device, backend or precision.
    """
    device = pick_device(params.name.value)
    threads = params.threads or cores()
    workers = params.workers or (threads if device == "cpu" else cores())
    torch.set_num_threads(max(1, threads // workers))  # each worker's own: they shall not wait for each other
    chosen = pick_backend(folder.name, backend.value, device, precision.value)
    runtime = Runtime(device, chosen, precision.value, workers)
    print(f"{folder.name}: {family.value} on {device} by {chosen}, {precision.value}, {workers} workers", flush=True)
    return load_encoder(folder, family, runtime), params.batch_images or _BATCH_IMAGES[device]


def load_encoder(folder: Path, family: Family, runtime: Runtime) -> Encoder:
    """The encoder in `folder`; its library is imported now, for open_clip takes seconds."""
    if family is Family.torchvision:
        from cbir.encoders.mobilenet import load_mobilenet

        return load_mobilenet(folder, runtime)
    from cbir.encoders.clip import load_clip

    return load_clip(folder, runtime)


def reads_text(encoder: Encoder) -> TextEncoder | None:
    """The same encoder when it embeds texts too, else None."""
    return cast(TextEncoder, encoder) if hasattr(encoder, "embed_texts") else None
