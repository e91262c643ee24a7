"""Open an encoder on the device that the parameters name."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbir.core.device import DeviceParams
from cbir.core.errors import REPAIR, ConfigError, WeightsError
from cbir.core.files import read_json
from cbir.core.parallel import cores
from cbir.encoders.base import Encoder, EncoderCard
from cbir.encoders.families import load_family
from cbir.encoders.openvino_towers import OpenvinoTower
from cbir.encoders.params import Backend, Family, Precision
from cbir.encoders.runtime import Runtime, pick_backend, pick_device
from cbir.encoders.tokens import TextTokenizer

if TYPE_CHECKING:
    from cbir.encoders.layers import Modules

TOWERS = "towers"
# on a CPU, batches of 8 are 1.3 times as fast as of 32 for MobileNet, slightly faster for CLIP, and need a quarter of the
# memory (measured)
_BATCH_IMAGES = {"cpu": 8, "cuda": 256, "mps": 256}
# one batch in the forward pass, one being copied, one returned; an Apple GPU shares its memory with the CPU
_AT_DEVICE = {"cpu": None, "cuda": 3, "mps": 1}


def open_encoder(
    folder: Path, family: Family, precision: Precision, backend: Backend, params: DeviceParams
) -> tuple[Encoder, int]:
    """Open the encoder in `folder` and print what runs it; return it with the number of images in a batch.

    Raises ConfigError when this machine has no such device, backend or precision, and as `load_encoder` does.
    """
    device = pick_device(params.name.value)
    threads = params.threads or cores()
    workers = params.workers or (threads if device == "cpu" else cores())
    backend_name = pick_backend(folder.name, backend.value, device, precision.value)
    note = ""
    if backend_name == "openvino" and backend is Backend.auto and (reason := not_exported(folder)):
        backend_name, note = "torch", f" (openvino has no {reason})"
    # a number of threads for torch only: OpenVINO's vectors would change with the threads of a worker
    torch_threads = threads if backend_name == "torch" else None
    runtime = Runtime(device, backend_name, precision.value, workers, torch_threads, _AT_DEVICE[device])
    print(
        f"{folder.name}: {family.value} on {device} by {backend_name}{note}, {precision.value}, {workers} workers",
        flush=True,
    )
    return load_encoder(folder, family, runtime), params.batch_images or _BATCH_IMAGES[device]


def load_encoder(folder: Path, family: Family, runtime: Runtime) -> Encoder:
    """Load the encoder in `folder`; torch and the family's library, which take seconds, are imported for torch only.

    Raises DataError and WeightsError when files of the encoder are missing or damaged, ConfigError when OpenVINO is to run a
    tower that was not exported.
    """
    card = EncoderCard.read(folder)
    if runtime.backend == "torch":
        return _torch_encoder(card, load_family(family).build_modules(folder), runtime)
    return _openvino_encoder(folder, card, runtime)


def not_exported(folder: Path) -> str | None:
    """Which tower of the encoder in `folder` was not exported for OpenVINO, and why; None when all were."""
    return _missing_tower(_read_towers(folder, EncoderCard.read(folder))[0])


def tower_sources(card: EncoderCard) -> dict[str, Any]:
    """The fields of a card that determine the exported towers."""
    return {name: card.to_json()[name] for name in ("weights_sha256", "settings_sha256", "preprocessing")}


def _read_towers(folder: Path, card: EncoderCard) -> tuple[dict[str, dict[str, str]], str | None]:
    """The exported towers, and the hash of the tokenizer.  Raises WeightsError when they are those of other weights."""
    path = folder / TOWERS / "towers.json"
    exported = read_json(path)
    if exported.get("made_of") != tower_sources(card) or "image" not in exported.get("towers", {}):
        raise WeightsError(
            f"{path}: expected the towers of the weights beside it, found those of other weights; {REPAIR}"
        )
    return exported["towers"], exported.get("tokenizer")


def _missing_tower(towers: Mapping[str, Mapping[str, str]]) -> str | None:
    return next((f"{kind} tower: {tower['left_out']}" for kind, tower in towers.items() if "left_out" in tower), None)


def _openvino_encoder(folder: Path, card: EncoderCard, runtime: Runtime) -> Encoder:
    towers, tokenizer_hash = _read_towers(folder, card)
    if reason := _missing_tower(towers):
        raise ConfigError(f"{folder.name}.backend: openvino has no {reason}; use {folder.name}.backend=torch")
    threads = runtime.threads or runtime.workers
    openers = {
        kind: partial(
            OpenvinoTower, folder / TOWERS / f"{kind}.xml", tower["sha256"], runtime.precision, runtime.workers, threads
        )
        for kind, tower in towers.items()
    }
    tokenizer = TextTokenizer.read(folder / TOWERS, tokenizer_hash) if "text" in towers else None
    return Encoder(card, runtime, openers["image"], openers.get("text"), tokenizer)


def _torch_encoder(card: EncoderCard, modules: "Modules", runtime: Runtime) -> Encoder:
    import torch

    from cbir.encoders.torch_towers import TorchTower

    if runtime.threads is not None:
        # torch's threads are those of a worker: the workers share the cores and do not wait for each other
        torch.set_num_threads(max(1, runtime.threads // runtime.workers))
    image = partial(TorchTower, modules.image, runtime)
    if modules.text is None or modules.tokenizer is None:
        return Encoder(card, runtime, image)
    return Encoder(card, runtime, image, partial(TorchTower, modules.text, runtime), modules.tokenizer)
