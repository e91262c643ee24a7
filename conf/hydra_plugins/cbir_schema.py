"""Registers the typed schema of `cbir.compose` with Hydra, so that composition fails on a wrong type or an unknown key.

DVC imports this file because of `hydra.plugins_path = conf` in .dvc/config.  It may run in any folder, so the repository's root
is added to sys.path here.
"""

import sys
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[2])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

from cbir.compose import register_schema  # noqa: E402

register_schema()
