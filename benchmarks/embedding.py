"""`make bench`: embedding, side by side in one run, on the same images and weights (random: speed does not depend on them).

    (a) the plain loop    batches of 32, the library's transforms on Pillow images, eager torch, one process
    (b) the limit         the forward pass alone, on prepared pixels
    (c) this pipeline     from shards to parts of vectors: decode, resize, forward pass, write
    (d) read again        (c) once more over unchanged images: every shard from the cache

Rounds are interleaved, so that other work on the machine affects all ways alike; each figure is the median of the rounds, and
each ratio is the median of the rounds' ratios.
"""

import argparse
import gc
import hashlib
import io
import platform
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import open_clip
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file

from benchmarks.alone import open_for
from cbir.artifacts.images import PackedImage, read_shards, write_shards
from cbir.core.machine import processor
from cbir.core.parallel import cores
from cbir.drawing.draw import sample
from cbir.encoders.base import Encoder
from cbir.encoders.embedding import embed_shards, vector_settings
from cbir.encoders.exporting import export_towers
from cbir.encoders.families import open_clip as clip
from cbir.encoders.families import torchvision as mobilenet
from cbir.encoders.params import EncoderParams, Family
from cbir.encoders.runtime import Runtime
from cbir.encoders.vector_cache import VectorCache
from cbir.encoders.weights import fetch_encoder

ENCODERS = {
    "mobilenet": (Family.torchvision, "mobilenet_v3_large"),
    "clip": (Family.open_clip, "ViT-B-32"),
}
WAYS = {"a": "(a) the plain loop", "b": "(b) the limit", "c": "(c) this pipeline", "d": "(d) read again"}
IMAGES = {"mobilenet": 2048, "clip": 320}
LOOP_BATCH = 32


@dataclass(frozen=True)
class Measured:
    """The figures of one encoder.

    rates : way -> images/s of each round.  peak_mb : the most memory of a process that does (c) and nothing else.
    """

    name: str
    images: int
    rates: dict[str, list[float]]
    runtime: Runtime
    peak_mb: float

    def ratio(self, way: str, reference: str) -> float:
        """The median of the rounds' ratios of two ways."""
        return statistics.median(a / b for a, b in zip(self.rates[way], self.rates[reference], strict=True))


def jpegs(source: Path | None, number: int) -> Iterator[bytes]:
    """Yield different JPEGs: from a zip archive, at equal steps, repeated if it has too few; or drawn, 64 px."""
    if source is None:
        yield from (drawing.jpeg for drawing in sample(0, "benchmark", number, side_range_px=(64, 64)))
        return
    with zipfile.ZipFile(source) as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg")))
        step = max(1, len(names) // number)
        for place in range(number):
            # bytes after the end of a JPEG change no pixel, but make a repeated image a different file
            yield archive.read(names[place * step % len(names)]) + place.to_bytes(4, "big")


def pack(folder: Path, bodies: Iterator[bytes]) -> None:
    """Write shards as the stage preprocess does."""

    def packed() -> Iterator[PackedImage]:
        for number, body in enumerate(bodies):
            width, height = Image.open(io.BytesIO(body)).size
            digest = hashlib.sha256(body).hexdigest()
            yield PackedImage(f"{number:07d}", None, None, None, "", digest, width, height, bytes(256), body)

    write_shards(folder, packed())


def fetch(name: str, folder: Path) -> None:
    """Write the encoder's folder, with random weights."""
    family, architecture = ENCODERS[name]
    fetch_encoder(name, EncoderParams(family, architecture, "random:0"), folder)
    export_towers(folder, family)


def plain_loop(name: str, folder: Path) -> Callable[[list[bytes]], None]:
    """(a): one process, one batch after another, as in a first script."""
    if name == "mobilenet":
        model = torchvision.models.mobilenet_v3_large(weights=None)
        model.load_state_dict(load_file(folder / mobilenet.WEIGHTS), strict=False)  # an encoder has no head
        forward: Any = torch.nn.Sequential(model.features, model.avgpool, torch.nn.Flatten()).eval()
        transforms: Any = torchvision.models.MobileNet_V3_Large_Weights.DEFAULT.transforms()
    else:
        model, _, transforms = open_clip.create_model_and_transforms("ViT-B-32", pretrained=str(folder / clip.WEIGHTS))
        forward = model.eval().encode_image

    @torch.inference_mode()
    def run(bodies: list[bytes]) -> None:
        for start in range(0, len(bodies), LOOP_BATCH):
            images = [Image.open(io.BytesIO(body)).convert("RGB") for body in bodies[start : start + LOOP_BATCH]]
            vectors = forward(torch.stack([transforms(image) for image in images]))
            (vectors / vectors.norm(dim=1, keepdim=True)).numpy()

    return run


def limit(encoder: Encoder, batch: int, bodies: list[bytes]) -> Callable[[], None]:
    """(b): the forward pass on prepared pixels, in as many threads as the pipeline has."""
    prepare = encoder.card.preprocessing.prepare_packed
    batches = [np.stack([prepare(body) for body in bodies[at : at + batch]]) for at in range(0, len(bodies), batch)]

    def run() -> None:
        with ThreadPoolExecutor(encoder.runtime.callers) as pool:
            list(pool.map(encoder.embed_images, batches))

    return run


def measure(name: str, work: Path, images: int, rounds: int, device: str, precision: str) -> Measured:
    """Measure all ways, round by round."""
    folder, shards = work / name, work / "shards"
    bodies = [body.as_py() for _, table in read_shards(shards, ["image"]) for body in table["image"]]
    (encoder, batch), loop = open_for(folder, device, precision), plain_loop(name, folder)
    torch.set_num_threads(1)
    forward_alone = limit(encoder, batch, bodies)
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds + 1):  # the first warms up
        cache = VectorCache(work / f"cache {name} {precision} {number}", vector_settings(encoder))

        def pipeline(cache: VectorCache = cache) -> None:
            embed_shards(shards, work / "out", encoder, batch, cache, f"{name} gallery")

        def all_threads() -> None:
            torch.set_num_threads(cores())
            loop(bodies)
            torch.set_num_threads(1)

        for way, run in {"a": all_threads, "b": forward_alone, "c": pipeline, "d": pipeline}.items():
            gc.collect()
            begun = perf_counter()
            run()
            if number:
                rates[way].append(images / (perf_counter() - begun))
    return Measured(name, images, rates, encoder.runtime, peak_mb(name, work, device, precision))


def peak_mb(name: str, work: Path, device: str, precision: str) -> float:
    """The most memory of a process that does (c) and nothing else, in MB."""
    command = [sys.executable, "-m", "benchmarks.alone", name, str(work), device, precision]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.split()[-1])


def print_memory(
    numbers: list[int], source: Path | None, encoders: list[str], device: str, precisions: list[str]
) -> None:
    """Print the peak memory of (c), and its time, for each number of images."""
    print(f"Machine: {machine()}.\n\n| encoder | images | peak of (c) | minutes |\n|---|---:|---:|---:|", flush=True)
    for name, precision, number in product(encoders, precisions, numbers):
        with tempfile.TemporaryDirectory() as folder:
            pack(Path(folder) / "shards", jpegs(source, number))
            fetch(name, Path(folder) / name)
            begun = perf_counter()
            peak = peak_mb(name, Path(folder), device, precision)
            minutes = (perf_counter() - begun) / 60
            print(f"| {name}, {precision} | {number:,} | {peak:,.0f} MB | {minutes:.1f} |", flush=True)


def matrix_product_gflops() -> float:
    """The speed of torch's float32 matrix product on all cores: the median of nine products of 2048 x 2048."""
    torch.set_num_threads(cores())
    a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
    rates = []
    for _ in range(9):
        begun = perf_counter()
        a @ b
        rates.append(2 * 2048**3 / (perf_counter() - begun) / 1e9)
    return statistics.median(rates)


def machine() -> str:
    """The machine, in words."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{processor()}, {cores()} cores{gpu}, Python {platform.python_version()}, torch {torch.__version__}"


def table(measured: list[Measured], gflops: float, rounds: int, source: str) -> str:
    """The figures as a Markdown table."""
    lines = [
        f"Machine: {machine()}; float32 matrix product {gflops:.0f} GFLOP/s. Images from {source}; median of {rounds} "
        "interleaved rounds, images/s.",
        "",
        f"| encoder | backend | images | {' | '.join(WAYS.values())} | (c)/(a) | (c)/(b) | (d)/(c) | peak of (c) |",
        "|---|---|" + "---:|" * 9,
    ]
    for figures in measured:
        cells = [f"{figures.images:,}", *(f"{statistics.median(figures.rates[way]):,.1f}" for way in WAYS)]
        cells += [f"{figures.ratio(*pair):.2f}" for pair in (("c", "a"), ("c", "b"), ("d", "c"))]
        runtime = f"{figures.runtime.backend}, {figures.runtime.device}, {figures.runtime.precision}"
        lines.append(f"| {figures.name} | {runtime} | {' | '.join(cells)} | {figures.peak_mb:,.0f} MB |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print; with --out, also write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, help="number in each round; the default takes (c) some seconds")
    parser.add_argument("--source", type=Path, help="a zip archive of JPEGs (default: drawings)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precisions", nargs="*", default=["fp32"])
    parser.add_argument("--encoders", nargs="*", default=list(ENCODERS))
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    parser.add_argument(
        "--memory",
        nargs="*",
        type=int,
        help="measure only the peak memory of (c), with each of these numbers of images",
    )
    options = parser.parse_args()
    if options.memory:
        print_memory(options.memory, options.source, options.encoders, options.device, options.precisions)
        return
    gflops = matrix_product_gflops()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        measured = []
        for name in options.encoders:
            images = options.images or IMAGES[name]
            pack(work / "shards", jpegs(options.source, images))
            fetch(name, work / name)
            for precision in options.precisions:
                measured.append(measure(name, work, images, options.rounds, options.device, precision))
    source = options.source.name if options.source else "this project's drawings, 64 px"
    text = table(measured, gflops, options.rounds, source)
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
