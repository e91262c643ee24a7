"""The weights that come with this package, made by `python -m cbir.demo.train`; they know drawn shapes only."""

from pathlib import Path

DEMO_WEIGHTS = Path(__file__).parents[1] / "demo" / "weights"
DEMO_MOBILENET_PX = 96  # the input they were trained at, and worth little at another
