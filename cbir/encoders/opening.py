"""Open the encoder that a family of `conf/` names, on the device asked for."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbir.core.device import DeviceParams
from cbir.core.errors import ConfigError, WeightsError
from cbir.core.files import read_json
from cbir.core.parallel import cores
from cbir.encoders.base import Encoder, EncoderCard, Tokens
from cbir.encoders.openvino_towers import OpenvinoTower
from cbir.encoders.params import Backend, Family, Precision
from cbir.encoders.runtime import Runtime, pick_backend, pick_device
from cbir.encoders.tokens import TextTokenizer

if TYPE_CHECKING:
    from cbir.encoders.layers import Modules

TOWERS = "towers"
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
    chosen = pick_backend(folder.name, backend.value, device, precision.value)
    why = ""
    if chosen == "openvino" and backend is Backend.auto and (left_out := not_exported(folder)):
        chosen, why = "torch", f" (openvino has no {left_out})"
    own = threads if chosen == "torch" else None  # OpenVINO's results would change with the threads of a worker
    runtime = Runtime(device, chosen, precision.value, workers, own)
    print(
        f"{folder.name}: {family.value} on {device} by {chosen}{why}, {precision.value}, {workers} workers", flush=True
    )
    return load_encoder(folder, family, runtime), params.batch_images or _BATCH_IMAGES[device]


def load_encoder(folder: Path, family: Family, runtime: Runtime) -> Encoder:
    """The encoder in `folder` by the runtime; torch and open_clip, which take seconds, are imported where it asks for them.

    Raises DataError and WeightsError where the folder holds no whole encoder.
    """
    card = EncoderCard.read(folder)
    if runtime.backend == "torch":
        return _torch_encoder(card, build_modules(folder, family), runtime)
    towers, tokenizer_hash = _read_towers(folder, card)
    if left_out := _left_out(towers):
        raise ConfigError(f"{folder.name}.backend: openvino has no {left_out}; use {folder.name}.backend=torch")
    threads = runtime.threads or runtime.workers
    openers = {
        kind: partial(
            OpenvinoTower, folder / TOWERS / f"{kind}.xml", one["sha256"], runtime.precision, runtime.workers, threads
        )
        for kind, one in towers.items()
    }
    tokenizer = TextTokenizer.read(folder / TOWERS, tokenizer_hash) if "text" in towers else None
    return Encoder(card, runtime, openers["image"], openers.get("text"), tokenizer)


def not_exported(folder: Path) -> str | None:
    """Which tower of the encoder in `folder` OpenVINO has not, and why; None where it has all."""
    return _left_out(_read_towers(folder, EncoderCard.read(folder))[0])


def made_of(card: EncoderCard) -> dict[str, Any]:
    """What of an encoder makes its towers."""
    return {name: card.to_json()[name] for name in ("weights_sha256", "settings_sha256", "preprocessing")}


def _read_towers(folder: Path, card: EncoderCard) -> tuple[dict[str, dict[str, str]], str | None]:
    """What was exported, and the hash of the tokenizer.  Raises WeightsError where it was exported of other weights."""
    path = folder / TOWERS / "towers.json"
    found = read_json(path)
    if found.get("made_of") != made_of(card) or "image" not in found.get("towers", {}):
        raise WeightsError(
            f"{path}: expected the towers of the weights beside it, found others; run `dvc repro --force weights`"
        )
    return found["towers"], found.get("tokenizer")


def _left_out(towers: Mapping[str, Mapping[str, str]]) -> str | None:
    return next((f"{kind} tower: {one['left_out']}" for kind, one in towers.items() if "left_out" in one), None)


def build_modules(folder: Path, family: Family) -> "Modules":
    """What torch builds of the weights in `folder`.  Raises WeightsError when the files do not agree."""
    if family is Family.torchvision:
        from cbir.encoders.families.torchvision import build_mobilenet

        return build_mobilenet(folder)
    from cbir.encoders.families.open_clip import build_clip

    return build_clip(folder)


def _torch_encoder(card: EncoderCard, modules: "Modules", runtime: Runtime) -> Encoder:
    import torch

    from cbir.encoders.torch_towers import TorchTower

    if runtime.threads is not None:
        torch.set_num_threads(max(1, runtime.threads // runtime.workers))  # each worker's own: none waits for another
    image = partial(TorchTower, modules.image, runtime)
    if modules.text is None or modules.tokenizer is None:
        return Encoder(card, runtime, image)
    tokenizer = modules.tokenizer

    def tokenize(texts: Sequence[str]) -> Tokens:
        tokens: Tokens = tokenizer(list(texts)).numpy()
        return tokens

    return Encoder(card, runtime, image, partial(TorchTower, modules.text, runtime), tokenize)
