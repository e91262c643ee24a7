"""The libraries that build encoders, and vectors made elsewhere: one module and one entry of `_FAMILIES` each.

A family's library takes seconds to import, so `load_family` imports its module on demand.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cbir.encoders.base import Card
from cbir.encoders.params import EncoderParams, Family

if TYPE_CHECKING:
    from cbir.encoders.layers import Modules


class FamilyModule(Protocol):
    """What the module of a family provides."""

    def fetch_weights(self, group: str, params: EncoderParams, out: Path) -> Card:
        """Write the weights and the library's own settings into `out`; return the encoder's card.

        group : the encoder's name in params.yaml, for messages.  Raises as `cbir.encoders.weights.fetch_encoder` does.
        """

    def build_modules(self, folder: Path) -> "Modules":
        """Build the torch modules of the encoder in `folder`.

        Raises WeightsError when its files do not agree, EmbedsNothingError when its vectors were made elsewhere.
        """


def _torchvision() -> FamilyModule:
    from cbir.encoders.families import torchvision

    return torchvision


def _timm() -> FamilyModule:
    from cbir.encoders.families import timm

    return timm


def _open_clip() -> FamilyModule:
    from cbir.encoders.families import open_clip

    return open_clip


def _transformers() -> FamilyModule:
    from cbir.encoders.families import transformers

    return transformers


def _vectors() -> FamilyModule:
    from cbir.encoders.families import vectors

    return vectors


_FAMILIES: Mapping[Family, Callable[[], FamilyModule]] = {
    Family.torchvision: _torchvision,
    Family.timm: _timm,
    Family.open_clip: _open_clip,
    Family.transformers: _transformers,
    Family.vectors: _vectors,
}


def load_family(family: Family) -> FamilyModule:
    """Import and return the module of a family."""
    return _FAMILIES[family]()
