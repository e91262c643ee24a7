"""`python -m cbir.demo.train`: train the demo encoders from random weights and write them to `cbir/demo/weights/`.

Draws training images (a split that gallery and queries never use, without the labels of `cbir.drawing.unseen`), trains both
encoders on two CPU cores in well under 45 minutes, and writes the weights as fp16 safetensors with a training log.

Both encoders learn embeddings that are the sum of what an image shows.  Each value of an attribute has a prototype vector,
and a softmax over the cosines to an attribute's prototypes favours the right one; the recipe gives the weight of each attribute
in the loss (MobileNet's ignores the background).  A label that training never draws, such as a red heart, then still has its
place: red plus heart.  CLIP's two towers share the prototypes, and add CLIP's contrastive loss with soft targets: a text
matches every image that it describes correctly.
"""

import argparse
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import open_clip
import torch
import torchvision
from PIL import Image
from torch.nn import functional

from cbir.artifacts.outputs import check_apart
from cbir.core.errors import ConfigError, one_line_errors
from cbir.core.files import file_sha256, fresh_folder, write_json
from cbir.core.parallel import cores, ordered_map, process_pool
from cbir.core.progress import progress
from cbir.drawing.attributes import BACKGROUNDS, COLOURS, SHAPES, SIZES, TEXTURES, Attributes
from cbir.drawing.draw import sample
from cbir.drawing.unseen import UNSEEN_LABELS
from cbir.encoders.demo import DEMO_MOBILENET_PX, DEMO_WEIGHTS
from cbir.encoders.layers import Normalise
from cbir.encoders.preprocessing import Pixels, Preprocessing
from cbir.encoders.weight_files import save_state

VALUES = {"shape": SHAPES, "colour": COLOURS, "texture": TEXTURES, "size": SIZES, "background": BACKGROUNDS}
_CHUNK = 200
_FIRST_LOSSES = 20  # logged, so that a test can check that the recipe gave the weights


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of a training.  weight : of each attribute in the loss, in the order of VALUES."""

    images: int
    passes: int
    batch: int
    lr: float
    weight: tuple[float, ...]
    weight_decay: float = 0.05
    prototype_scale: float = 16.0
    contrastive: float = 0.0
    seed: int = 1


MOBILENET = Recipe(images=20_000, passes=8, batch=64, lr=3e-3, weight=(1.0, 1.0, 0.1, 0.1, 0.0))
CLIP = Recipe(images=20_000, passes=14, batch=128, lr=2e-3, weight=(1.0, 1.0, 0.6, 0.6, 0.6), contrastive=1.0)


@dataclass(frozen=True)
class TrainingSet:
    """pixels : (n, 3, side, side) uint8.  values : (n, 5) int64, each attribute's index in VALUES."""

    pixels: torch.Tensor
    values: torch.Tensor
    attributes: list[Attributes]


@dataclass
class Log:
    """The losses of the first steps of a training, and the mean loss and seconds of each pass."""

    first_losses: list[float] = field(default_factory=list)
    passes: list[dict[str, float]] = field(default_factory=list)


class Prototypes(torch.nn.Module):
    """A vector for each value of each attribute, and the loss that pulls embeddings towards the right ones."""

    def __init__(self, dim: int, recipe: Recipe) -> None:
        super().__init__()
        self.vectors = torch.nn.ParameterList(
            [torch.nn.Parameter(torch.randn(len(values), dim)) for values in VALUES.values()]
        )
        self.recipe = recipe

    def forward(
        self, embeddings: torch.Tensor, values: torch.Tensor, stated: torch.Tensor | None = None
    ) -> torch.Tensor:
        """embeddings (n, dim), values (n, 5), stated (n, 5) bool: which attributes count; None for all."""
        unit = functional.normalize(embeddings, dim=1)
        total = unit.new_zeros(())
        for column, (vectors, weight) in enumerate(zip(self.vectors, self.recipe.weight, strict=True)):
            if weight == 0:
                continue
            logits = self.recipe.prototype_scale * unit @ functional.normalize(vectors, dim=1).T
            losses = functional.cross_entropy(logits, values[:, column], reduction="none")
            total = total + weight * (losses.mean() if stated is None else (losses * stated[:, column]).mean())
        return total


def draw_training_set(recipe: Recipe, preprocessing: Preprocessing, workers: int) -> TrainingSet:
    """Draw and prepare the training images; the number of workers changes none of them."""
    jobs = [(first, min(_CHUNK, recipe.images - first)) for first in range(0, recipe.images, _CHUNK)]
    pixels, attributes = [], []
    with process_pool(workers) as pool, progress(recipe.images, "draw training images", "images") as bar:
        work = partial(_draw_chunk, recipe.seed, preprocessing)
        for prepared, drawn in ordered_map(pool, work, jobs, ahead=4 * workers):
            pixels.append(prepared)
            attributes += drawn
            bar.advance(len(drawn))
    values = [[VALUES[name].index(getattr(drawing, name)) for name in VALUES] for drawing in attributes]
    return TrainingSet(torch.from_numpy(np.concatenate(pixels)), torch.tensor(values), attributes)


def _draw_chunk(seed: int, preprocessing: Preprocessing, chunk: tuple[int, int]) -> tuple[Pixels, list[Attributes]]:
    """chunk : the index of the first drawing, and how many."""
    first, count = chunk
    drawings = list(sample(seed, "train", count, first=first, allowed=_is_seen))
    pixels = [preprocessing.prepare(Image.open(BytesIO(drawing.jpeg)).convert("RGB")) for drawing in drawings]
    return np.ascontiguousarray(np.stack(pixels).transpose(0, 3, 1, 2)), [drawing.attributes for drawing in drawings]


def _is_seen(attributes: Attributes) -> bool:
    return attributes.label not in UNSEEN_LABELS


def batches(data: TrainingSet, size: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (rows, pixels) for one pass in random order; rotate each batch by random quarter turns, and mirror it or not."""
    order = torch.randperm(len(data.pixels), generator=generator)
    for start in range(0, len(order) - size + 1, size):
        rows = order[start : start + size]
        turn, mirror = torch.randint(4, (), generator=generator), torch.randint(2, (), generator=generator)
        pixels = torch.rot90(data.pixels[rows], int(turn), (2, 3))
        yield rows, pixels.flip(3) if mirror else pixels


def train(
    name: str, model: torch.nn.Module, losses: Any, data: TrainingSet, recipe: Recipe, steps: int | None = None
) -> Log:
    """Train with AdamW and one cycle of the learning rate.

    losses : module; losses(rows, pixels) -> loss.  steps : stop after this many (for tests).
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    parameters = list(dict.fromkeys(p for module in (model, losses) for p in module.parameters()))
    optimiser = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    per_pass = len(data.pixels) // recipe.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.lr, total_steps=per_pass * recipe.passes, pct_start=0.2
    )
    log = Log()
    model.train()
    for number in range(1, recipe.passes + 1):
        begun, step_losses = perf_counter(), []
        with progress(per_pass * recipe.batch, f"train {name}, pass {number} of {recipe.passes}", "images") as bar:
            for rows, pixels in islice(batches(data, recipe.batch, generator), steps):
                optimiser.zero_grad(set_to_none=True)
                loss = losses(rows, pixels)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimiser.step()
                schedule.step()
                step_losses.append(float(loss.detach()))
                bar.advance(recipe.batch)
        log.first_losses = log.first_losses or [round(loss, 4) for loss in step_losses[:_FIRST_LOSSES]]
        log.passes.append(
            {"loss": round(sum(step_losses) / len(step_losses), 4), "seconds": round(perf_counter() - begun, 1)}
        )
        print(f"{name}: pass {number}, loss {log.passes[-1]['loss']}, {log.passes[-1]['seconds']} s", flush=True)
        if steps is not None:
            break
    return log


class MobilenetLosses(torch.nn.Module):
    """The prototype loss on flatten(avgpool(features(x))), the embedding that the pipeline uses."""

    def __init__(self, model: Any, data: TrainingSet, preprocessing: Preprocessing, recipe: Recipe) -> None:
        super().__init__()
        self.normalise, self.data = Normalise(preprocessing), data
        self.trunk = torch.nn.Sequential(model.features, model.avgpool, torch.nn.Flatten())
        self.prototypes = Prototypes(int(model.classifier[0].in_features), recipe)

    def forward(self, rows: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.prototypes(self.trunk(self.normalise(pixels)), self.data.values[rows])
        return loss


class ClipLosses(torch.nn.Module):
    """The prototype loss on images and texts, and CLIP's contrastive loss with soft targets."""

    def __init__(
        self, model: Any, tokenizer: Any, data: TrainingSet, preprocessing: Preprocessing, recipe: Recipe
    ) -> None:
        super().__init__()
        self.normalise, self.data, self.recipe = Normalise(preprocessing), data, recipe
        self.model, self.tokenizer = model, tokenizer
        self.prototypes = Prototypes(model.visual.output_dim, recipe)
        self.rng = random.Random(recipe.seed)  # noqa: S311 - chooses texts

    def forward(self, rows: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        values = self.data.values[rows]
        texts, states = zip(*(describe(self.data.attributes[row], self.rng) for row in rows.tolist()), strict=True)
        stated = torch.tensor(states)
        image = functional.normalize(self.model.encode_image(self.normalise(pixels)), dim=1)
        text = functional.normalize(self.model.encode_text(self.tokenizer(list(texts))), dim=1)
        loss = self.prototypes(image, values) + self.prototypes(text, values, stated)
        # matches[i, j]: text j states nothing that is wrong about image i
        matches = ((values[:, None, :] == values[None, :, :]) | ~stated[None, :, :]).all(dim=2).float()
        logits = self.model.logit_scale.exp().clamp(max=50.0) * image @ text.T
        to_text = functional.cross_entropy(logits, matches / matches.sum(1, keepdim=True))
        to_image = functional.cross_entropy(logits.T, matches.T / matches.T.sum(1, keepdim=True))
        total: torch.Tensor = loss + self.recipe.contrastive * (to_text + to_image) / 2
        return total


_PROMPTS = ("a photo of a {}.", "a photo of a {}", "a drawing of a {}.", "a {}", "{}", "an image of a {}.")


def describe(drawing: Attributes, rng: random.Random) -> tuple[str, list[bool]]:
    """A random true text about a drawing, and which attributes it states, in the order of VALUES; always shape and colour."""
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(_PROMPTS).format(drawing.label), [True, True, False, False, False]
    if kind < 0.75:
        return drawing.caption, [True] * 5
    texture, size, background = (rng.random() < 0.5 for _ in range(3))
    parts = ["a", drawing.size if size else "", drawing.texture if texture else "", drawing.label]
    ending = f" on a {drawing.background} background" if background else ""
    return " ".join(part for part in parts if part) + ending, [True, True, texture, size, background]


@torch.inference_mode()
def settle_batch_norms(losses: Any, data: TrainingSet, recipe: Recipe) -> None:
    """Recompute the statistics of batch norms with the final weights; running statistics lag behind in a short training."""
    norms = [module for module in losses.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # gives the plain mean over all batches
    for rows, pixels in batches(data, recipe.batch, torch.Generator().manual_seed(recipe.seed)):
        losses(rows, pixels)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def train_mobilenet(recipe: Recipe, out: Path, steps: int | None = None) -> Log:
    """Train MobileNetV3-Small and write `mobilenet.safetensors`."""
    side_px, mean, std = DEMO_MOBILENET_PX, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    preprocessing = Preprocessing(side_px, side_px, "shortest", "bilinear", mean, std)
    data = draw_training_set(recipe, preprocessing, cores())
    torch.manual_seed(recipe.seed)
    model = torchvision.models.mobilenet_v3_small(weights=None)
    losses = MobilenetLosses(model, data, preprocessing, recipe)
    log = train("mobilenet", model, losses, data, recipe, steps)
    settle_batch_norms(losses, data, recipe)
    save_state(model.half(), out / "mobilenet.safetensors")
    return log


def train_clip(recipe: Recipe, out: Path, steps: int | None = None) -> Log:
    """Train the small CLIP of `clip_demo.json` and write `clip.safetensors`."""
    config = json.loads((DEMO_WEIGHTS.parent / "clip_demo.json").read_text(encoding="utf-8"))
    side_px = config["vision_cfg"]["image_size"]
    preprocessing = Preprocessing(
        side_px, side_px, "shortest", "bicubic", open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    )
    data = draw_training_set(recipe, preprocessing, cores())
    torch.manual_seed(recipe.seed)
    model = open_clip.CLIP(**config)
    tokenizer = open_clip.SimpleTokenizer(context_length=config["text_cfg"]["context_length"])
    losses = ClipLosses(model, tokenizer, data, preprocessing, recipe)
    log = train("clip", model, losses, data, recipe, steps)
    settle_batch_norms(losses, data, recipe)
    save_state(model.half(), out / "clip.safetensors")
    return log


@contextmanager
def moved_together(out: Path) -> Iterator[Path]:
    """Yield a folder whose files are moved to `out` when the block ends without an error, so a killed training changes nothing.

    Raises ConfigError when `out` is not a writable folder.
    """
    folder = out / ".training"
    try:
        fresh_folder(folder)  # deletes what a killed training left
    except OSError as error:
        raise ConfigError(
            f"--out {out}: expected a folder to write into, found {error}; name a writable one"
        ) from error
    try:
        yield folder
        for path in sorted(folder.iterdir()):
            path.replace(out / path.name)
    finally:
        shutil.rmtree(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train one encoder or both, and write the logs."""
    trainers = {"mobilenet": (train_mobilenet, MOBILENET), "clip": (train_clip, CLIP)}
    parser = argparse.ArgumentParser(prog="python -m cbir.demo.train", description="Train the demo encoders.")
    parser.add_argument("encoder", nargs="?", choices=trainers, help="train only this encoder")
    parser.add_argument("--out", type=Path, default=DEMO_WEIGHTS, help="folder for the weights and logs")
    options = parser.parse_args(arguments)
    check_apart("--out", options.out)
    torch.set_num_threads(cores())
    with moved_together(options.out) as folder:
        for name in trainers if options.encoder is None else (options.encoder,):
            trainer, recipe = trainers[name]
            begun = perf_counter()
            log = trainer(recipe, folder)
            seconds = round(perf_counter() - begun, 1)
            entries = {
                "recipe": asdict(recipe),
                "torch": torch.__version__,
                "seconds": seconds,
                "sha256": file_sha256(folder / f"{name}.safetensors"),
                **asdict(log),
            }
            write_json(folder / f"{name}.json", entries, sealed=False)


if __name__ == "__main__":
    with one_line_errors():
        main()
