"""Names that stand in artifacts: of tasks, encoders and searches."""

from collections.abc import Sequence
from typing import Final

from cbir.core.errors import ConfigError

TASKS: Final = ("cbir", "tbir")  # image query -> similar images, text query -> images
ENCODERS: Final = ("mobilenet", "clip")
SEARCHES: Final = ("index", "exact")
MODALITIES: Final = {"cbir": "image", "tbir": "text"}  # what a query of the task is
REAL_ENCODERS: Final = "add `mobilenet=large clip=vit_b_32` to your `cbir compose ...`, then `make repro`"


def encoder_argument(arguments: Sequence[str]) -> str:
    """The encoder that a stage is called for, from its command line.  Raises ConfigError unless it is one of ENCODERS."""
    if len(arguments) != 2 or arguments[1] not in ENCODERS:
        raise ConfigError(
            f"expected the name of an encoder, {' or '.join(ENCODERS)}, found {' '.join(arguments[1:]) or 'none'}"
        )
    return arguments[1]
