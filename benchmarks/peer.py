"""clip-retrieval 2.45 and this pipeline on the same images with the same weights of CLIP ViT-B/32, whole processes in turn.

    python -m benchmarks.peer --environment FOLDER --source archive.zip

clip-retrieval wants older libraries than this project, so it gets an environment of its own in FOLDER, made when it is not
there (some GB).  Each is run over n and over 2 n images: the difference is the steady state, without start-up.
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
_THEIRS = """
import sys
from clip_retrieval import clip_inference
if __name__ == "__main__":  # it starts processes of its own
    clip_inference(input_dataset=sys.argv[1], output_folder=sys.argv[2], clip_model=f"open_clip:ViT-B-32/{sys.argv[3]}",
                   enable_text=False, batch_size=int(sys.argv[4]), num_prepro_workers=int(sys.argv[5]))
"""


def environment(folder: Path) -> Path:
    """The Python of an environment with clip-retrieval, made when it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PINS], check=True)
    return python


def seconds(command: Sequence[str | Path]) -> float:
    """Of the whole process."""
    begun = perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - begun


def cosines(work: Path, theirs: Path) -> np.ndarray:
    """Of the vectors of each image, (n,) float64; clip-retrieval keeps them in float16, in the order of the file names."""
    ours = np.concatenate(list(read_parts(work / "out")[1])).astype(np.float64)
    other = np.concatenate([np.load(path, allow_pickle=False) for path in sorted(theirs.glob("img_emb/*.npy"))])
    found = other.astype(np.float64)
    return np.asarray((ours * found).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(found, axis=1))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, required=True)
    parser.add_argument("--source", type=Path, help="a zip archive of JPEGs; drawings where none is given")
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32, help="of clip-retrieval; this pipeline takes its own")
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
            theirs = work / f"theirs {number}"
            given = [work / "files", theirs, work / "clip" / WEIGHTS, str(options.batch), str(cores())]
            spent.setdefault(("clip-retrieval", size), []).append(seconds([python, "-c", _THEIRS, *given]))
            ours = [sys.executable, "-m", "benchmarks.alone", "clip", work, "cpu", "fp32"]
            spent.setdefault(("cbir", size), []).append(seconds(ours))
        least = cosines(Path(folder) / str(sizes[1]), theirs).min()
    print(f"Machine: {machine()}. {sizes[1]} images, median of {options.rounds} rounds in turn, images/s.\n")
    print("| | with start-up | steady |\n|---|---:|---:|")
    for name in ("clip-retrieval", "cbir"):
        once, twice = (statistics.median(spent[name, size]) for size in sizes)
        print(f"| {name} | {sizes[1] / twice:.1f} | {sizes[0] / (twice - once):.1f} |")
    print(f"\nLeast cosine between the two of an image: {least:.7f}")


if __name__ == "__main__":
    main()
