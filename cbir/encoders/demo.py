"""The demo weights in this package, trained by `python -m cbir.demo.train` on drawn shapes only."""

from pathlib import Path

DEMO_WEIGHTS = Path(__file__).parents[1] / "demo" / "weights"
DEMO_MOBILENET_PX = 96  # side of the training images; the weights are of little use at other sizes
