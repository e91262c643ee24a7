"""`cbir drift`: measure how far vectors move under other batch sizes, backends and precisions."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from cbir.artifacts.names import check_encoder, read_encoder_names
from cbir.artifacts.paths import DataPaths
from cbir.core.errors import ConfigError

HELP = "measure how far vectors move under other batch sizes, backends and precisions"
_HEADS = ("cosine least", "mean", "largest change", "top-10 kept", "precision @10", "change")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the encoder and the options of the sample."""
    parser.add_argument("encoder", help="name of an encoder of the run")
    parser.add_argument("--images", type=int, default=200, help="query images to embed again, at most (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed with which they are sampled (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> None:
    """Embed a sample again in several ways, and print the differences as they are measured."""
    from cbir.encoders.drift import FailedWay, measure_drift  # torch takes seconds

    if options.images < 1:
        raise ConfigError(f"--images: expected at least 1, found {options.images}")
    check_encoder(options.encoder, read_encoder_names(DataPaths().encoders))
    ways = measure_drift(DataPaths().root, options.encoder, options.images, options.seed)
    if options.json:
        print(json.dumps([asdict(way) for way in ways], indent=2))
        return
    print(f"{options.encoder}, at most {options.images} images embedded again, against the stored vectors:")
    widths = [max(7, *map(len, head.split())) for head in _HEADS]
    for line in (0, 1):
        words = [head.split()[line] if line < len(head.split()) else "" for head in _HEADS]
        print(_line("way, images per batch" if line else "", words, widths))
    for way in ways:
        if isinstance(way, FailedWay):
            print(f"{way.way}: {way.failed}", flush=True)
            continue
        precision = ["-", "-"]
        if way.precision_at_10 is not None and way.precision_change is not None:
            precision = [f"{way.precision_at_10:.3f}", f"{way.precision_change:+.3f}"]
        cosines = [f"{way.cosine_least:.5f}", f"{way.cosine_mean:.5f}"]
        cells = [*cosines, f"{way.largest_difference:.0e}", f"{way.top10_overlap:.1%}", *precision]
        print(_line(way.way, cells, widths), flush=True)  # each takes seconds


def _line(way: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join([f"{way:<23}", *(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))]).rstrip()
