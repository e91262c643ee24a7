"""The parts of `benchmarks/gpu.sh`, which runs them in turn, and the tables of their results.

    python -m benchmarks.gpu prepare WORK          shards and encoders
    python -m benchmarks.gpu measure WORK mobilenet   the pipeline beside the forward pass alone
    python -m benchmarks.gpu compare WORK mobilenet   the forward pass by CUDA graphs and torch.compile
    python -m benchmarks.gpu table WORK            the rows of WORK/rows.jsonl in Markdown

The processes that prepare images import this module: it imports what takes seconds only where it needs it.
"""

import argparse
import json
import subprocess
from pathlib import Path
from time import time

TABLES = {
    "accuracy": (
        "Vectors beside those of torch in fp32 on the CPU, for 64 images and 64 texts: least cosines, and the same after the "
        "mean of all images is subtracted. Random weights. The change is that between two runs in several threads.",
        ["encoder", "precision", "images", "centred", "texts", "bound", "within", "change"],
    ),
    "pipeline": (
        "Images/s: (b) the forward pass alone, on prepared pixels at the device; (b') with copies, from pixels in memory to "
        "vectors in memory; (h) the pipeline with a tower that does nothing; (c) the pipeline, from shards to parts of "
        "vectors. The least of (b') and (h) bounds (c).",
        [
            *("encoder", "precision", "images", "(b)", "(b')", "(h)", "(c)", "(c)/(b)", "(c)/least", "bound by"),
            *("device, MB allocated", "reserved", "host, MB"),
        ],
    ),
    "workers": (
        "Images/s by the number of processes that prepare images.",
        ["encoder", "precision", "processes", "(h)", "(c)"],
    ),
    "at once": ("(c) by the number of batches at the device at once.", ["encoder", "precision", "1", "2", "3"]),
    "batches": ("(b) by the batch: images/s.", ["encoder", "precision", "quarter", "the pipeline's", "four times"]),
    "compile": (
        "Other ways to run (b): seconds until the second call has returned, images/s, least cosine to eager.",
        ["encoder", "precision", "way", "seconds", "eager", "this way", "ratio", "cosine"],
    ),
    "stopped": ("Parts that did not come to their end.", ["part", "reason"]),
}


def tables(rows: Path) -> str:
    """The rows of a file as Markdown tables, whichever there are."""
    lines = rows.read_text(encoding="utf-8").splitlines() if rows.exists() else []
    cells: dict[str, list[list[str]]] = {}
    for row in map(json.loads, lines):
        cells.setdefault(row["table"], []).append(row["cells"])
    text = []
    for name, (caption, columns) in TABLES.items():
        if name in cells:
            filled = [row + [""] * (len(columns) - len(row)) for row in cells[name]]
            text += [caption, "", *(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *filled)), ""]
    return "\n".join(text) or "No measurement came to its end.\n"


def machine_line(device: str) -> str:
    """The machine, in words."""
    from benchmarks.embedding import machine

    if device == "cpu":
        return f"Machine: {machine()}."
    import torch

    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown"
    return f"Machine: {machine()}, CUDA {torch.version.cuda}, driver {driver}."


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["prepare", "measure", "compare", "table"])
    parser.add_argument("work", type=Path, help="a folder for the part's files")
    parser.add_argument("encoder", nargs="?", default="mobilenet")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--images", type=int, help="how many are packed; each run takes some of them")
    parser.add_argument("--source", type=Path, help="a zip archive of JPEGs (default: drawings)")
    parser.add_argument("--precisions", nargs="+", help="the most useful first: some tables are of the first alone")
    parser.add_argument("--batch", type=int, help="images in a batch of the pipeline")
    parser.add_argument("--seconds", type=float, help="of one run, about")
    parser.add_argument("--rounds", type=int)
    parser.add_argument(
        "--until", type=float, default=time() + 480, help="seconds since the epoch: nothing starts later"
    )
    options = parser.parse_args()
    images, batch, seconds, rounds, precisions = 49_152, 256, 3.0, 3, ["bf16", "fp16", "fp32"]
    if options.device == "cpu":  # to try the script
        images, batch, seconds, rounds, precisions = 32, 4, 0.1, 1, ["fp32"]
    if options.part == "table":
        print(tables(options.work / "rows.jsonl"))
        return
    if options.part == "prepare":
        from benchmarks import gpu_measures

        print(machine_line(options.device), flush=True)
        gpu_measures.prepare(options.work, options.images or images, options.source)
        return
    from benchmarks import gpu_compare, gpu_measures
    from benchmarks.gpu_timing import Rows

    bench = gpu_measures.Bench(
        options.encoder,
        options.work,
        options.device,
        options.precisions or precisions,
        options.batch or batch,
        options.seconds or seconds,
        options.rounds or rounds,
        Rows(options.work / "rows.jsonl", options.until),
    )
    {"measure": gpu_measures.measure, "compare": gpu_compare.compare}[options.part](bench)


if __name__ == "__main__":
    main()
