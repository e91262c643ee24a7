"""Searches in a large gallery, by text and by image: the first one of a new process, and those that follow.

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
from time import perf_counter

import numpy as np
from PIL import Image

from benchmarks.embedding import ENCODERS as ARCHITECTURES
from benchmarks.embedding import machine
from benchmarks.evaluation import ENCODERS, prepare
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.vectors import open_vectors, read_passport, write_passport
from cbir.compose import composed
from cbir.core.files import write_json
from cbir.core.parallel import cores
from cbir.core.params import load_params
from cbir.encoders.base import EncoderCard
from cbir.encoders.exporting import export_towers
from cbir.encoders.params import EncoderParams
from cbir.encoders.weights import fetch_encoder
from cbir.index.params import IndexParams
from cbir.index.storage import index_vectors

WARM_SEARCHES = 30
# one process: seconds until the first result, then milliseconds of the searches that follow
_SCRIPT = """
import sys, time, json
start = time.perf_counter()
from cbir import Searcher
from cbir.core.machine import peak_bytes
encoder, modality, exact, count = sys.argv[1], sys.argv[2], sys.argv[3] == "exact", int(sys.argv[4])
searcher = Searcher.open("data")
photo = open("photo.jpg", "rb").read()
def search(number):
    if modality == "text":
        return searcher.text(f"a photo of {number} stars", encoder=encoder, exact=exact)
    return searcher.image(photo, encoder=encoder, exact=exact)
search(0)
first = time.perf_counter() - start
encode, rest = [], []
for number in range(1, count + 1):
    start = time.perf_counter()
    results = search(number)
    encode.append(results.encode_ms)
    rest.append(1e3 * (time.perf_counter() - start) - results.encode_ms)
print(json.dumps({"first_s": first, "encode_ms": encode, "rest_ms": rest, "peak_mb": peak_bytes() / 1e6}))
"""


@dataclass(frozen=True)
class Case:
    """A kind of search to measure.  modality : of the query, "text" or "image".  search : "index" or "exact"."""

    encoder: str
    modality: str
    search: str


CASES = [
    Case(encoder, modality, search)
    for encoder, modality in (("clip_demo", "text"), ("clip_demo", "image"), ("mobilenet_demo", "image"))
    for search in ("index", "exact")
]


def add_encoders(data: DataPaths) -> None:
    """Write the encoders beside the synthetic vectors, and passports that name them."""
    for name, (family, architecture) in zip(ENCODERS, ARCHITECTURES.values(), strict=True):
        folder = data.weights(name)
        fetch_encoder(name, EncoderParams(family, architecture, "random:0"), folder)
        export_towers(folder, family)
        vectors = data.vectors(name, "gallery")
        write_passport(vectors, {**read_passport(vectors), **EncoderCard.read(folder).to_json()})
        if (folder / "towers" / "text.xml").is_file():
            data.vectors(name, "texts").mkdir()  # the folder says that the encoder reads text


def measure(root: Path, case: Case) -> dict[str, float]:
    """Measure one process: the first result, and median and 95th percentile of the searches that follow."""
    command = [sys.executable, "-c", _SCRIPT, case.encoder, case.modality, case.search, str(WARM_SEARCHES)]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    measured = json.loads(done.stdout)
    return {
        "first s": measured["first_s"],
        "encode ms": median(measured["encode_ms"]),
        "rest p50 ms": median(measured["rest_ms"]),
        "rest p95 ms": float(np.percentile(measured["rest_ms"], 95)),
        "peak MB": measured["peak_mb"],
    }


def command_seconds(root: Path) -> float:
    """Seconds of the command `cbir search "..."`, from start to end."""
    start = perf_counter()
    command = [sys.executable, "-m", "cbir", "search", "a photo of a star"]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    subprocess.run(command, cwd=root, env=environment, stdout=subprocess.DEVNULL, check=True)
    return perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gallery", type=int, default=100_000)
    parser.add_argument("--index", nargs="+", default=["flat", "hnsw"])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"Machine: {machine()}.  {options.gallery:,} images; medians of {options.rounds} processes.\n")
    print("| index | encoder | query | search | first s | encode ms | rest p50 ms | rest p95 ms | peak MB |")
    print("|---|---|---|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = DataPaths(root / "data")
        file = BytesIO()
        Image.effect_noise((640, 480), 80).convert("RGB").save(file, "JPEG")
        (root / "photo.jpg").write_bytes(file.getvalue())
        prepare(root, options.gallery, 10, [f"index={options.index[0]}"])
        write_json(data.summary, {"limits": {"max_pixels": 10**8, "max_side_px": 512}})
        add_encoders(data)
        for kind in options.index:
            build_indexes(root, data, kind)
            for case in CASES:
                rounds = [measure(root, case) for _ in range(options.rounds)]
                cells = [f"{median(measured[name] for measured in rounds):,.1f}" for name in rounds[0]]
                print(
                    f"| {kind} | {case.encoder} | {case.modality} | {case.search} | {' | '.join(cells)} |", flush=True
                )
            seconds = median(command_seconds(root) for _ in range(options.rounds))
            print(f"| {kind} | clip | text | `cbir search`, whole command | {seconds:.1f} | | | | |", flush=True)


def build_indexes(root: Path, data: DataPaths, kind: str) -> None:
    """Build the indexes of this kind over vectors whose passports name the encoders."""
    (root / "params.yaml").write_text(composed([f"index={kind}"]), encoding="utf-8")
    params = load_params("index", IndexParams, ["index.kind", "index.build"], root / "params.yaml")
    for name in ENCODERS:
        index_vectors(open_vectors(data.embeddings(name), name, "gallery"), params, data.index(name), cores())


if __name__ == "__main__":
    main()
