"""The stage report over synthetic vectors and pictures: wall time and peak memory of the whole process, sizes of the pages.

    python -m benchmarks.report [--gallery 100000] [--queries 10000] [--map 5000]

Both encoders at their real dimensions, clusters of 200 classes, image queries only; every other stage runs before.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from functools import cache
from io import BytesIO
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image

from benchmarks.embedding import machine
from benchmarks.evaluation import prepare
from cbir.artifacts.images import write_quarantine
from cbir.artifacts.names import ENCODERS
from cbir.core.files import write_json

_PICTURES, _PX = 4000, 64  # different ones; more are the same again
_STAGE = """
from stages import report
from cbir.core.machine import peak_bytes
report.main()
print(peak_bytes())
"""


@cache
def _picture(number: int) -> bytes:
    """A JPEG as large as a photograph of so many pixels."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).resize((_PX, _PX), Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse, np.int16) + rng.normal(0, 9, (_PX, _PX, 3)).astype(np.int16)
    file = BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def picture(number: int) -> bytes:
    """The encoded picture of an image."""
    return _picture(number % _PICTURES)


def _summarise(data: Path, gallery: int, queries: int) -> None:
    """What preprocess says of the images."""
    write_quarantine(data / "images" / "quarantine.parquet", [])
    of_classes = {"classes": 200, "smallest_class": gallery // 200, "largest_class": gallery // 200, "unlabelled": 0}
    write_json(
        data / "images" / "summary.json",
        {
            "dataset": "synthetic",
            "gallery": {"images": gallery, **of_classes},
            "queries": {"by_task": {"cbir": queries}},
            "relevance": "same_label",
            "ignored_files": {},
        },
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gallery", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--map", type=int, default=5000, help="images of each map (%(default)s)")
    options = parser.parse_args()
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(root, options.gallery, options.queries, [f"map.images={options.map}"], picture)
        _summarise(root / "data", options.gallery, options.queries)
        write_json(root / "reports" / "prompts.json", {})  # no text is asked
        for stage in ("evaluate", "latency", *(f"draw_map {encoder}" for encoder in ENCODERS)):
            subprocess.run([sys.executable, "-m", *f"stages.{stage}".split()], cwd=root, env=environment, check=True)
        begun = perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", _STAGE], cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        seconds, peak = perf_counter() - begun, int(done.stdout.split()[-1])
        sizes = {path.suffix: path.stat().st_size / 1e6 for path in (root / "reports").glob("report.*")}
    print(f"Machine: {machine()}.")
    print(
        f"{options.gallery:,} gallery images, {options.queries:,} queries, two encoders, maps of {options.map:,}: "
        f"{seconds:.0f} s, peak {peak / 1e6:,.0f} MB; report.html {sizes['.html']:.1f} MB"
    )


if __name__ == "__main__":
    main()
