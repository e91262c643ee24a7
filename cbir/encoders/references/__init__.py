"""Each family's library as its own documentation runs it: what `cbir verify` compares the stored vectors with.

A reference shares the numbers of the weights with the encoder, and nothing else: the library builds the model from the
parameters, chooses its own transforms and tokenizer, and runs in fp32 on the CPU.  One module and one entry of `_REFERENCES`
for each family.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from cbir.encoders.params import EncoderParams, Family


@dataclass(frozen=True)
class Reference:
    """An encoder by its library's own calls.

    library : name and version.  prepare : RGB image -> float32 (3, height, width), the library's transforms.
    embed_images : float32 (n, 3, height, width) -> (n, dim).  tokenize : n texts -> int64 (n, context length).
    embed_texts : n texts -> (n, dim).  Both are None when the encoder reads no text.
    alternatives : cause -> the same encoder with one setting changed, to tell the cause of a difference.
    """

    library: str
    prepare: Callable[[Image.Image], torch.Tensor]
    embed_images: Callable[[torch.Tensor], torch.Tensor]
    tokenize: Callable[[Sequence[str]], torch.Tensor] | None = None
    embed_texts: Callable[[Sequence[str]], torch.Tensor] | None = None
    alternatives: Callable[[], Iterator[tuple[str, "Reference"]]] = lambda: iter(())


def _torchvision(folder: Path, params: EncoderParams) -> Reference:
    from cbir.encoders.references import torchvision

    return torchvision.load(folder, params)


def _timm(folder: Path, params: EncoderParams) -> Reference:
    from cbir.encoders.references import timm

    return timm.load(folder, params)


def _transformers(folder: Path, params: EncoderParams) -> Reference:
    from cbir.encoders.references import transformers

    return transformers.load(folder, params)


def _open_clip(folder: Path, params: EncoderParams) -> Reference:
    from cbir.encoders.references import open_clip

    return open_clip.load(folder, params)


_REFERENCES: Mapping[Family, Callable[[Path, EncoderParams], Reference]] = {
    Family.torchvision: _torchvision,
    Family.timm: _timm,
    Family.transformers: _transformers,
    Family.open_clip: _open_clip,
}


def load_reference(folder: Path, params: EncoderParams) -> Reference | None:
    """Load the reference of the encoder in `folder`; None for a family without a library."""
    load = _REFERENCES.get(params.family)
    return None if load is None else load(folder, params)
