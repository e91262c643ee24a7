"""The demo weights in this package, trained by `python -m cbir.demo.train` on drawn shapes only: `weights: demo:<file>`."""

from pathlib import Path
from typing import Final

DEMO_WEIGHTS = Path(__file__).parents[1] / "demo" / "weights"
DEMO_MOBILENET_PX = 96  # side of the training images; the weights are of little use at other sizes
DEMO_NOTE: Final = "has demo weights, trained on drawn shapes only"
_PREFIX: Final = "demo:"


def is_demo(weights: str) -> bool:
    """Whether an encoder's `weights` are demo weights."""
    return weights.startswith(_PREFIX)


def demo_file(weights: str, suffix: str = "safetensors") -> Path:
    """The file of demo weights; with the suffix "json" their training log."""
    return DEMO_WEIGHTS / f"{weights.removeprefix(_PREFIX)}.{suffix}"
