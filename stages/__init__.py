"""The stages of dvc.yaml, each a sentence: read with the parameters that it declares, do one thing, write."""

import sys
from importlib.util import find_spec

if sys.argv[0] == "-m":  # DVC runs `python -m stages.scan`; the stage is not imported yet
    if find_spec("omegaconf") is None:
        sys.exit(
            f"error: {sys.executable} has none of the packages: activate the environment (`source .venv/bin/activate`), then "
            "run again"
        )
    from cbir.core.interrupts import say_interrupted

    sys.excepthook = say_interrupted
