"""The measurements of `benchmarks/gpu.sh`, for one encoder; each writes rows of a table (see `benchmarks.gpu`).

(b) forward alone    on prepared pixels that are at the device, without copies
(b') with copies     from pixels in memory to vectors in memory
(h) host alone       the pipeline with a tower that does nothing: read, decode, resize, write
(c) pipeline         from shards to parts of vectors
"""

import shutil
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.embedding import ENCODERS, jpegs, pack
from benchmarks.gpu_timing import Rows, Work, interleaved, median_ratio, memory_of, rate, repeated
from cbir.artifacts.images import read_shards
from cbir.artifacts.vectors import Vectors
from cbir.core.parallel import cores
from cbir.encoders.base import Encoder, EncoderCard
from cbir.encoders.embedding import embed_shards
from cbir.encoders.families import load_family
from cbir.encoders.params import EncoderParams, Precision
from cbir.encoders.preprocessing import Pixels
from cbir.encoders.runtime import Runtime
from cbir.encoders.torch_towers import TorchTower, autocast
from cbir.encoders.vector_cache import VectorCache
from cbir.encoders.verify import BOUNDS
from cbir.encoders.weights import fetch_encoder

SAMPLE = 64
TEXTS = [f"a photo of {number} {noun}" for number in range(16) for noun in ("dogs", "red stars", "boats at sea", "men")]


def prepare(work: Path, images: int, source: Path | None) -> None:
    """Write the shards, and the encoders with random weights: speed does not depend on them."""
    pack(work / "shards", jpegs(source, images))
    for name, (family, architecture) in ENCODERS.items():
        fetch_encoder(name, EncoderParams(family, architecture, "random:0"), work / name)


class Bench:
    """An encoder's modules, and what all measurements of it share."""

    def __init__(
        self,
        name: str,
        work: Path,
        device: str,
        precisions: Sequence[str],
        batch: int,
        seconds: float,
        rounds: int,
        rows: Rows,
    ) -> None:
        """precisions : the most useful first.  batch : of images.  seconds : that one run takes, about."""
        self.name, self.work, self.device, self.precisions = name, work, device, precisions
        self.batch, self.seconds = batch, seconds
        self.rounds, self.rows, self._folders = rounds, rows, count()
        self.host_rate: float | None = None  # of (h), the same for all precisions
        self.card = EncoderCard.read(work / name)
        torch.set_num_threads(1)
        self.modules = load_family(ENCODERS[name][0]).build_modules(work / name)
        self.runtime = Runtime(device, "torch", precisions[0], cores(), at_device=3 if device == "cuda" else 2)
        bodies = (body.as_py() for _, table in read_shards(work / "shards", ["image"]) for body in table["image"])
        wanted = max(4 * batch, SAMPLE)
        prepare_image = self.card.preprocessing.prepare_packed
        with ThreadPoolExecutor(cores()) as pool:
            self.pixels: Pixels = np.stack(list(pool.map(prepare_image, islice(bodies, wanted))))
        _calibrate(self.modules.image, self.pixels[:SAMPLE])

    def encoder(self, precision: str, **changes: Any) -> Encoder:
        """The encoder as the pipeline opens it; changes : of the runtime."""
        runtime = replace(self.runtime, precision=precision, **changes)
        image = partial(TorchTower, self.modules.image, runtime)
        if self.modules.text is None:
            return Encoder(self.card, runtime, image)
        return Encoder(
            self.card, runtime, image, partial(TorchTower, self.modules.text, runtime), self.modules.tokenizer
        )

    def pipeline(self, encoder: Encoder, shards: Path) -> int:
        """(c), without a cache; returns how many images."""
        folder = self.work / "cache"
        shutil.rmtree(folder, ignore_errors=True)
        cache = VectorCache(folder, {"dim": encoder.dim})
        return embed_shards(shards, self.work / "out", encoder, self.batch, cache, self.name).count

    def resident(self, batch: int) -> list[torch.Tensor]:
        """Prepared pixels at the device, in batches; several, so that no cache holds all of them."""
        pixels = np.tile(self.pixels, (-(-2 * batch // len(self.pixels)), 1, 1, 1))
        starts = range(0, len(pixels) - batch + 1, batch)
        return [torch.from_numpy(pixels[start : start + batch]).to(self.device) for start in starts]

    def some_shards(self, images: float) -> Path:
        """A folder with the first shards: at least as many images, or all."""
        folder = self.work / f"shards of {self.name} {next(self._folders)}"
        folder.mkdir()
        for name, table in read_shards(self.work / "shards", ["image_id"]):
            if images <= 0:
                break
            (folder / f"{name}.parquet").symlink_to(self.work / "shards" / f"{name}.parquet")
            images -= table.num_rows
        return folder


@torch.inference_mode()
def _calibrate(module: torch.nn.Module, pixels: Pixels) -> None:
    """Set the statistics of batch normalisation: with those of new weights, values shrink until fp16 has only zeros."""
    norms = [layer for layer in module.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
        norm.train()
    if norms:
        module(torch.from_numpy(pixels))
    for norm in norms:
        norm.eval()


# ---- the pipeline beside the forward pass


def measure(bench: Bench) -> None:
    """Correctness, then speed and memory, then what they depend on."""
    if bench.device == "cuda":  # a CPU that is tried has other work: its threads would wait for each other
        torch.set_num_threads(cores())
    images = bench.encoder("fp32", device="cpu").embed_images(bench.pixels[:SAMPLE])
    texts = bench.encoder("fp32", device="cpu").embed_texts(TEXTS) if bench.modules.text is not None else None
    torch.set_num_threads(1)
    host, shards = _host_alone(bench, bench.runtime.workers), bench.some_shards(32 * bench.batch)
    bench.pipeline(host, shards)  # starts the server of processes
    host_rate = rate(bench.device, partial(bench.pipeline, host, shards))
    for precision in bench.precisions:
        bench.rows.measure("accuracy", [bench.name, precision], partial(_accuracy, bench, precision, images, texts))
        bench.rows.measure("pipeline", [bench.name, precision], partial(_pipeline, bench, precision, host_rate))
    for workers in sorted({min(workers, cores()) for workers in (4, 8, 16, cores())}):
        bench.rows.measure(
            "workers", [bench.name, bench.precisions[0], workers], partial(_workers, bench, workers, host_rate)
        )
    for precision in bench.precisions:
        bench.rows.measure("batches", [bench.name, precision], partial(_batches, bench, precision))
    bench.rows.measure("at once", [bench.name, bench.precisions[0]], partial(_at_once, bench, host_rate))


def _accuracy(bench: Bench, precision: str, images: Vectors, texts: Vectors | None) -> Sequence[Any]:
    """The least cosines to the vectors of torch in fp32 on the CPU: of images, of the same centred, of texts.

    The vectors are computed twice, in several threads at once: a difference between both would be a race.
    """
    encoder = bench.encoder(precision)
    batches = [bench.pixels[start : start + SAMPLE] for start in range(0, len(bench.pixels), SAMPLE)]
    with ThreadPoolExecutor(encoder.runtime.callers) as pool:
        first, second = (np.concatenate(list(pool.map(encoder.embed_images, batches))) for _ in range(2))
    least = _least_cosine(first[:SAMPLE], images)
    centred = _least_cosine(_centred(first[:SAMPLE], images), _centred(images, images))
    of_texts = None if texts is None else _least_cosine(encoder.embed_texts(TEXTS), texts)
    bound = BOUNDS[Precision(precision)]
    passed = min(least, 1.0 if of_texts is None else of_texts) >= bound
    text = "-" if of_texts is None else f"{of_texts:.6f}"
    change = f"{np.abs(first - second).max():.0e}"
    return f"{least:.6f}", f"{centred:.6f}", text, bound, "yes" if passed else "NO", change


def _least_cosine(vectors: Vectors, expected: Vectors) -> float:
    return float((vectors.astype(np.float64) * expected).sum(1).min())


def _centred(vectors: Vectors, expected: Vectors) -> Vectors:
    """Without the mean of the expected vectors, which random weights make almost the whole of each."""
    rows = vectors.astype(np.float64) - expected.mean(0, dtype=np.float64)
    centred: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return centred


def _pipeline(bench: Bench, precision: str, host_rate: float) -> Sequence[Any]:
    encoder = bench.encoder(precision)
    memory = memory_of(bench.device, partial(bench.pipeline, encoder, bench.some_shards(8 * bench.batch)))
    forward = forward_alone(bench, precision)
    alone = repeated(bench.device, bench.seconds / 2, forward, bench.resident(bench.batch))
    quick = rate(bench.device, alone)
    shards = bench.some_shards(bench.seconds * min(quick, host_rate))
    pixels = [bench.pixels[start : start + bench.batch] for start in range(0, len(bench.pixels), bench.batch)]

    def with_copies() -> int:
        calls = max(2, round(bench.seconds / 2 * quick / bench.batch))
        with ThreadPoolExecutor(encoder.runtime.callers) as pool:
            vectors = pool.map(encoder.embed_images, (pixels[number % len(pixels)] for number in range(calls)))
            return sum(map(len, vectors))

    works: dict[Any, Work] = {"b": alone, "copies": with_copies, "c": partial(bench.pipeline, encoder, shards)}
    if bench.host_rate is None:
        works["h"] = partial(bench.pipeline, _host_alone(bench, bench.runtime.workers), shards)
    rates = interleaved(bench.device, bench.rounds, works)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    bench.host_rate = middle.setdefault("h", bench.host_rate or 0.0)
    images = sum(table.num_rows for _, table in read_shards(shards, ["image_id"]))
    return (
        f"{images:,}",
        *(f"{middle[name]:,.0f}" for name in ("b", "copies", "h", "c")),
        f"{median_ratio(rates['c'], rates['b']):.2f}",
        f"{middle['c'] / min(middle['h'], middle['copies']):.2f}",
        "the CPU" if middle["h"] < middle["copies"] else "the device",
        *memory,
    )


def forward_alone(bench: Bench, precision: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The module alone, on pixels that are at the device."""
    encoder = bench.encoder(precision)
    encoder.open_tower("image")
    return evaluated(bench.modules.image, bench.device, precision)


def evaluated(
    module: Callable[[torch.Tensor], torch.Tensor], device: str, precision: str
) -> Callable[..., torch.Tensor]:
    """Call a module as a tower does."""

    @torch.inference_mode()
    def call(pixels: torch.Tensor) -> torch.Tensor:
        with autocast(device, precision):
            return module(pixels)

    return call


def _host_alone(bench: Bench, workers: int) -> Encoder:
    """An encoder whose tower does nothing."""
    row = np.full((1, 512), 512**-0.5, np.float32)
    return Encoder(
        bench.card, replace(bench.runtime, workers=workers), lambda: lambda pixels: row.repeat(len(pixels), 0)
    )


def _workers(bench: Bench, workers: int, host_rate: float) -> Sequence[Any]:
    encoder, host = bench.encoder(bench.precisions[0], workers=workers), _host_alone(bench, workers)
    shards = bench.some_shards(bench.seconds * host_rate * min(1, workers / cores()) / 2)
    works: dict[Any, Work] = {"h": partial(bench.pipeline, host, shards), "c": partial(bench.pipeline, encoder, shards)}
    rates = interleaved(bench.device, bench.rounds, works)
    return [f"{statistics.median(values):,.0f}" for values in rates.values()]


def _batches(bench: Bench, precision: str) -> Sequence[Any]:
    forward, sizes = forward_alone(bench, precision), (bench.batch // 4, bench.batch, 4 * bench.batch)
    works = {size: repeated(bench.device, bench.seconds / 4, forward, bench.resident(size)) for size in sizes}
    rates = interleaved(bench.device, bench.rounds, works)
    return [f"{size}: {statistics.median(values):,.0f}" for size, values in rates.items()]


def _at_once(bench: Bench, host_rate: float) -> Sequence[Any]:
    shards = bench.some_shards(bench.seconds * host_rate / 2)
    works: dict[Any, Work] = {
        n: partial(bench.pipeline, bench.encoder(bench.precisions[0], at_device=n), shards) for n in (1, 2, 3)
    }
    return [f"{statistics.median(values):,.0f}" for values in interleaved(bench.device, bench.rounds, works).values()]
