"""Compare with clip-retrieval 2.45 on the same images with the same CLIP ViT-B/32 weights, in alternating processes.

    python -m benchmarks.peer --environment FOLDER --source archive.zip

clip-retrieval needs older libraries than this project, so it has its own environment in FOLDER, which is created when it does
not exist (some GB).  Each runs over n and over 2 n images; the difference is the steady state, without start-up.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.embedding import fetch, jpegs, machine, pack
from cbir.artifacts.vectors import read_parts
from cbir.core.parallel import cores
from cbir.encoders.families.open_clip import WEIGHTS

PINS = ("clip-retrieval==2.45.0", "setuptools<70")  # its clip-anytorch takes `packaging` from pkg_resources
_CLIP_RETRIEVAL = """
import sys
from clip_retrieval import clip_inference
if __name__ == "__main__":  # it starts processes of its own
    clip_inference(input_dataset=sys.argv[1], output_folder=sys.argv[2], clip_model=f"open_clip:ViT-B-32/{sys.argv[3]}",
                   enable_text=False, batch_size=int(sys.argv[4]), num_prepro_workers=int(sys.argv[5]))
"""


def environment(folder: Path) -> Path:
    """Return the Python of an environment with clip-retrieval, which is created when it does not exist."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PINS], check=True)
    return python


def seconds(command: Sequence[str | Path]) -> float:
    """Run a command and return its wall time."""
    begun = perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - begun


def cosines(work: Path, peer_out: Path) -> np.ndarray:
    """The cosine between the two vectors of each image, (n,) float64; clip-retrieval stores float16, ordered by file name."""
    vectors = np.concatenate(list(read_parts(work / "out")[1])).astype(np.float64)
    peer = np.concatenate([np.load(path, allow_pickle=False) for path in sorted(peer_out.glob("img_emb/*.npy"))])
    peer = peer.astype(np.float64)
    return np.asarray((vectors * peer).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(peer, axis=1))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, required=True)
    parser.add_argument("--source", type=Path, help="a zip archive of JPEGs (default: drawings)")
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32, help="batch size of clip-retrieval; cbir uses its default")
    options = parser.parse_args()
    python, sizes = environment(options.environment.resolve()), (options.images, 2 * options.images)
    with tempfile.TemporaryDirectory() as folder:
        spent: dict[tuple[str, int], list[float]] = {}
        for size in sizes:
            work = Path(folder) / str(size)
            (work / "files").mkdir(parents=True)
            for number, body in enumerate(jpegs(options.source, size)):
                (work / "files" / f"{number:07d}.jpg").write_bytes(body)
            pack(work / "shards", jpegs(options.source, size))
            fetch("clip", work / "clip")
        for number, size in ((number, size) for number in range(options.rounds) for size in sizes):
            work = Path(folder) / str(size)
            peer_out = work / f"clip-retrieval {number}"
            arguments: list[str | Path] = [
                work / "files",
                peer_out,
                work / "clip" / WEIGHTS,
                str(options.batch),
                str(cores()),
            ]
            spent.setdefault(("clip-retrieval", size), []).append(seconds([python, "-c", _CLIP_RETRIEVAL, *arguments]))
            command: list[str | Path] = [sys.executable, "-m", "benchmarks.alone", "clip", work, "cpu", "fp32"]
            spent.setdefault(("cbir", size), []).append(seconds(command))
        least = cosines(Path(folder) / str(sizes[1]), peer_out).min()
    print(f"Machine: {machine()}. {sizes[1]} images, median of {options.rounds} rounds in turn, images/s.\n")
    print("| | with start-up | steady |\n|---|---:|---:|")
    for name in ("clip-retrieval", "cbir"):
        once, twice = (statistics.median(spent[name, size]) for size in sizes)
        print(f"| {name} | {sizes[1] / twice:.1f} | {sizes[0] / (twice - once):.1f} |")
    print(f"\nLowest cosine between the two vectors of an image: {least:.7f}")


if __name__ == "__main__":
    main()
