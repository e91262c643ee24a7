"""The stage report on synthetic vectors and pictures: wall time and peak memory of its process, sizes of the pages.

    python -m benchmarks.report [--gallery 100000] [--queries 10000] [--map 5000]

Both encoders have their real dimensions; the vectors form clusters of 200 classes; there are image queries only. All other
stages run first.
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
from benchmarks.evaluation import ENCODERS, prepare
from cbir.artifacts.images import write_quarantine
from cbir.artifacts.paths import DataPaths
from cbir.core.files import write_json

_PICTURES, _PX = 4000, 64  # distinct pictures, used again for further images
_STAGE = """
from stages import report
from cbir.core.machine import peak_bytes
report.main()
print(peak_bytes())
"""


@cache
def _picture(number: int) -> bytes:
    """Return a JPEG as large as a photograph of this many pixels."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).resize((_PX, _PX), Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse, np.int16) + rng.normal(0, 9, (_PX, _PX, 3)).astype(np.int16)
    file = BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def picture(number: int) -> bytes:
    """Return the encoded picture of an image."""
    return _picture(number % _PICTURES)


def _summarise(data: DataPaths, gallery: int, queries: int) -> None:
    """Write the summary and the quarantine, as preprocess does."""
    write_quarantine(data.quarantine, [])
    classes = {"classes": 200, "smallest_class": gallery // 200, "largest_class": gallery // 200, "unlabelled": 0}
    write_json(
        data.summary,
        {
            "dataset": "synthetic",
            "gallery": {"images": gallery, **classes},
            "queries": {"by_task": {"cbir": queries}},
            "relevance": "same_label",
            "ignored_files": {},
            "left_out": [],
            "notes": [],
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
        _summarise(DataPaths(root / "data"), options.gallery, options.queries)
        for stage in (f"{stage} {encoder}" for stage in ("evaluate", "latency", "draw_map") for encoder in ENCODERS):
            subprocess.run([sys.executable, "-m", *f"stages.{stage}".split()], cwd=root, env=environment, check=True)
        begun = perf_counter()
        process = subprocess.run(
            [sys.executable, "-c", _STAGE], cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        seconds, peak = perf_counter() - begun, int(process.stdout.split()[-1])
        sizes = {path.suffix: path.stat().st_size / 1e6 for path in (root / "reports").glob("report.*")}
    print(f"Machine: {machine()}.")
    print(
        f"{options.gallery:,} gallery images, {options.queries:,} queries, two encoders, maps of {options.map:,}: "
        f"{seconds:.0f} s, peak {peak / 1e6:,.0f} MB; report.html {sizes['.html']:.1f} MB"
    )


if __name__ == "__main__":
    main()
