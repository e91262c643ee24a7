"""Registers the typed schema of `cbir.compose` with Hydra, so that a wrong type or an unknown key dies in composition.

DVC imports this file through `hydra.plugins_path = conf` (see .dvc/config) from whichever folder it was started in.
"""

import sys
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[2])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

from cbir.compose import register_schema  # noqa: E402

register_schema()
