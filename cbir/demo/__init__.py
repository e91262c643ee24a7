"""What makes the default run mean something offline: the drawn data set and its small encoders."""

from pathlib import Path

DEMO_WEIGHTS = Path(__file__).parent / "weights"
DEMO_MOBILENET_PX = 96  # trained at this side, and worth little at another
