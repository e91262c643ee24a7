"""The names of tasks, encoders and searches in artifacts."""

from collections.abc import Sequence
from typing import Final

from cbir.core.errors import ConfigError

TASKS: Final = ("cbir", "tbir")  # image query -> similar images, text query -> images
ENCODERS: Final = ("mobilenet", "clip")
ENCODERS_OF_TASK: Final = {"cbir": ENCODERS, "tbir": ("clip",)}  # those that can embed the task's queries
SEARCHES: Final = ("index", "exact")
MODALITIES: Final = {"cbir": "image", "tbir": "text"}  # the modality of the task's queries
REAL_ENCODERS: Final = "add `mobilenet=large clip=vit_b_32` to your `cbir compose ...`, then `make repro`"


def encoder_argument(arguments: Sequence[str]) -> str:
    """Return the encoder named on a stage's command line.  Raises ConfigError unless it is one of ENCODERS."""
    if len(arguments) != 2 or arguments[1] not in ENCODERS:
        raise ConfigError(
            f"expected the name of an encoder, {' or '.join(ENCODERS)}, found {' '.join(arguments[1:]) or 'none'}"
        )
    return arguments[1]
