"""Searches in a large gallery: the first of a new process, and those that follow, by text and by image.

    python -m benchmarks.search [--gallery 100000] [--index flat hnsw] [--rounds 5]

Vectors are synthetic, as in `benchmarks.evaluation`; encoders are MobileNetV3-Large and CLIP ViT-B/32 with random weights.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.embedding import ENCODERS as ARCHITECTURES
from benchmarks.embedding import machine
from benchmarks.evaluation import prepare
from cbir.artifacts.names import ENCODERS
from cbir.artifacts.vectors import open_vectors, read_passport, write_passport
from cbir.core.files import write_json
from cbir.core.parallel import cores
from cbir.core.params import load_params
from cbir.encoders.base import EncoderCard
from cbir.encoders.exporting import export_towers
from cbir.encoders.params import Backend, EncoderParams, Precision
from cbir.encoders.weights import fetch_encoder
from cbir.index.storage import index_vectors

WARM = 30
# of one process: seconds to the first result, then the milliseconds of those that follow
_SCRIPT = """
import sys, time, json
begun = time.perf_counter()
from cbir import Searcher
from cbir.core.machine import peak_bytes
encoder, kind, exact, count = sys.argv[1], sys.argv[2], sys.argv[3] == "exact", int(sys.argv[4])
searcher = Searcher.open("data")
photo = open("photo.jpg", "rb").read()
def ask(number):
    if kind == "text":
        return searcher.text(f"a photo of {number} stars", encoder=encoder, exact=exact)
    return searcher.image(photo, encoder=encoder, exact=exact)
ask(0)
first = time.perf_counter() - begun
encode, beyond = [], []
for number in range(1, count + 1):
    begun = time.perf_counter()
    found = ask(number)
    encode.append(found.encode_ms)
    beyond.append(1e3 * (time.perf_counter() - begun) - found.encode_ms)
print(json.dumps({"first_s": first, "encode_ms": sorted(encode), "beyond_ms": sorted(beyond), "peak_mb": peak_bytes() / 1e6}))
"""


@dataclass(frozen=True)
class Way:
    """Who is asked, by what, and how it is searched: "index" or "exact"."""

    encoder: str
    kind: str
    search: str


WAYS = [
    Way(encoder, kind, search)
    for encoder, kind in (("clip", "text"), ("clip", "image"), ("mobilenet", "image"))
    for search in ("index", "exact")
]


def add_encoders(data: Path) -> None:
    """Weights beside the synthetic vectors, whose passports then say that these made them."""
    for name in ENCODERS:
        family, architecture = ARCHITECTURES[name]
        folder = data / "weights" / name
        params = EncoderParams(family, architecture, "random:0", None, None, None, None, Precision.fp32, Backend.auto)
        fetch_encoder(name, params, folder)
        export_towers(folder, family)
        vectors = data / "embeddings" / name / "gallery"
        write_passport(vectors, {**read_passport(vectors), **EncoderCard.read(folder).to_json()})


def measure(root: Path, way: Way) -> dict[str, float]:
    """One process: its first result, and the median and 95th percentile of those that follow."""
    command = [sys.executable, "-c", _SCRIPT, way.encoder, way.kind, way.search, str(WARM)]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    return {
        "first s": found["first_s"],
        "encode ms": median(found["encode_ms"]),
        "beyond p50 ms": median(found["beyond_ms"]),
        "beyond p95 ms": float(np.percentile(found["beyond_ms"], 95)),
        "peak MB": found["peak_mb"],
    }


def command_seconds(root: Path) -> float:
    """`cbir search "..."` as a person types it, from start to end."""
    from time import perf_counter

    begun = perf_counter()
    command = [sys.executable, "-m", "cbir", "search", "a photo of a star"]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    subprocess.run(command, cwd=root, env=environment, stdout=subprocess.DEVNULL, check=True)
    return perf_counter() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gallery", type=int, default=100_000)
    parser.add_argument("--index", nargs="+", default=["flat", "hnsw"])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"Machine: {machine()}.  {options.gallery:,} images; medians of {options.rounds} processes.\n")
    print("| index | encoder | query | searched by | first s | encode ms | beyond p50 ms | beyond p95 ms | peak MB |")
    print("|---|---|---|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        file = BytesIO()
        Image.effect_noise((640, 480), 80).convert("RGB").save(file, "JPEG")
        (root / "photo.jpg").write_bytes(file.getvalue())
        prepare(root, options.gallery, 10, [f"index={options.index[0]}"])
        write_json(root / "data/images/summary.json", {"limits": {"max_pixels": 10**8, "max_side_px": 512}})
        add_encoders(root / "data")
        for kind in options.index:
            prepare_index(root, kind)
            for way in WAYS:
                rounds = [measure(root, way) for _ in range(options.rounds)]
                cells = [f"{median(one[name] for one in rounds):,.1f}" for name in rounds[0]]
                print(f"| {kind} | {way.encoder} | {way.kind} | {way.search} | {' | '.join(cells)} |", flush=True)
            seconds = median(command_seconds(root) for _ in range(options.rounds))
            print(f"| {kind} | clip | text | `cbir search`, all of it | {seconds:.1f} | | | | |", flush=True)


def prepare_index(root: Path, kind: str) -> None:
    """The index of this kind, over vectors whose passports name the encoders."""
    from cbir.compose import composed

    (root / "params.yaml").write_text(composed([f"index={kind}"]), encoding="utf-8")
    params = load_params(["index"], root / "params.yaml").index
    for name in ENCODERS:
        vectors = open_vectors(root / "data" / "embeddings" / name, name, "gallery")
        index_vectors(vectors, params, root / "data" / "index" / name, cores())


if __name__ == "__main__":
    main()
