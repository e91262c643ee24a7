"""The stage evaluate on synthetic vectors: wall time and peak memory of the process.

    python -m benchmarks.evaluation [--gallery 100000] [--queries 10000] [--index flat]

Two encoders with the real dimensions (960 and 512), vectors in clusters of 200 classes, image queries only.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa

from benchmarks.embedding import machine
from cbir.artifacts.images import PackedImage, read_columns, write_shards
from cbir.artifacts.names import write_encoder_names
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.artifacts.queries import QRELS_SCHEMA, QUERY_SCHEMA, write_qrels, write_query_list
from cbir.artifacts.vectors import open_vectors, write_part, write_vectors_passport
from cbir.compose import composed
from cbir.core.files import hash_ids
from cbir.core.parallel import cores
from cbir.core.params import load_params
from cbir.index.params import IndexParams
from cbir.index.storage import index_vectors

ENCODERS = {"mobilenet_demo": 960, "clip_demo": 512}  # of the default parameters -> dimension
_CLASSES, _SPREAD, _PART = 200, 3.0, 4096
_STAGE = """
from stages import evaluate
from cbir.core.machine import peak_bytes
for encoder in ("mobilenet_demo", "clip_demo"):
    evaluate.main(encoder)
print(peak_bytes())
"""


def no_picture(number: int) -> bytes:
    """No bytes, because evaluate reads no pixels."""
    return b""


def images(kind: str, count: int, picture: Callable[[int], bytes]) -> Iterator[PackedImage]:
    """Yield rows of 200 classes.  picture : number of a row -> encoded image."""
    for number in range(count):
        name = f"{kind}/{number:07d}"
        label = f"c{number % _CLASSES:03d}"
        encoded = picture(number) + name.encode()  # decoders ignore what follows the image
        digest, fingerprint = hashlib.sha256(encoded).hexdigest(), hashlib.shake_256(name.encode()).digest(256)
        yield PackedImage(name, label, label, None, name, digest, 64, 64, fingerprint, encoded)


def write_vectors(data: DataPaths, encoder: str, kind: str, count: int, centres: np.ndarray, seed: int) -> None:
    """Write unit vectors around the centres of their classes, one part at a time."""
    folder = data.embeddings(encoder)
    rng, ids = np.random.default_rng(seed), [f"{kind}/{number:07d}" for number in range(count)]
    for start in range(0, count, _PART):
        classes = np.arange(start, min(start + _PART, count)) % _CLASSES
        rows = centres[classes] + _SPREAD * rng.normal(size=(len(classes), centres.shape[1]))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        write_part(folder / kind, f"part-{start:07d}", ids[start : start + _PART], rows.astype(np.float32))
    content = hashlib.sha256("".join(read_columns(data.images(kind), ["sha256"])["sha256"].to_pylist()).encode())
    about_rows = {"count": count, "ids_sha256": hash_ids(ids), "content_sha256": content.hexdigest()}
    passport = {
        "encoder": encoder,
        "architecture": "synthetic",
        "origin": "random:0",
        "tag": None,
        "weights_sha256": hashlib.sha256(encoder.encode()).hexdigest(),
        "preprocessing": {"resize_px": 64, "crop_px": 64, "interpolation": "bicubic"},
        "precision": "fp32",
        "backend": "none",
        "device": "cpu",
        "dim": centres.shape[1],
        "versions": {"numpy": np.__version__},
        "rows": about_rows,
    }
    write_vectors_passport(folder / kind, passport)


def prepare(
    root: Path, gallery: int, queries: int, overrides: list[str], picture: Callable[[int], bytes] = no_picture
) -> None:
    """Write everything that evaluate reads."""
    data, reports = DataPaths(root / "data"), ReportPaths(root / "reports")
    for names in (data.encoders, reports.encoders):
        write_encoder_names(names, ENCODERS)
    (root / "params.yaml").write_text(composed(overrides), encoding="utf-8")
    for kind, count in (("gallery", gallery), ("queries", queries)):
        write_shards(data.images(kind), images(kind, count, picture))
    rows = [
        {
            "query_id": f"queries/{n:07d}",
            "task": "cbir",
            "image_id": f"queries/{n:07d}",
            "label": f"c{n % _CLASSES:03d}",
        }
        for n in range(queries)
    ]
    write_query_list(data.query_list, pa.Table.from_pylist(rows, QUERY_SCHEMA))
    write_qrels(data.qrels, QRELS_SCHEMA.empty_table())
    params = load_params("index", IndexParams, ["index.kind", "index.build"], root / "params.yaml")
    for encoder in ENCODERS:
        centres = np.random.default_rng(len(encoder)).normal(size=(_CLASSES, ENCODERS[encoder]))
        for seed, (kind, count) in enumerate((("gallery", gallery), ("queries", queries))):
            write_vectors(data, encoder, kind, count, centres, seed)
        index_vectors(open_vectors(data.embeddings(encoder), encoder, "gallery"), params, data.index(encoder), cores())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gallery", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--index", default="flat")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(root, options.gallery, options.queries, [f"index={options.index}"])
        begun = perf_counter()
        environment = {"PYTHONPATH": str(Path.cwd()), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            [sys.executable, "-c", _STAGE], cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        seconds, peak = perf_counter() - begun, int(done.stdout.split()[-1])
    print(f"Machine: {machine()}.")
    print(
        f"{options.gallery:,} gallery images, {options.queries:,} queries, two encoders, index {options.index}: "
        f"{seconds:.0f} s, peak {peak / 1e6:,.0f} MB"
    )


if __name__ == "__main__":
    main()
