"""torchvision's models as its documentation runs them: https://docs.pytorch.org/vision/stable/models.html."""

from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import load_file

from cbir.encoders.families.torchvision import WEIGHTS
from cbir.encoders.params import EncoderParams
from cbir.encoders.references import Reference


def load(folder: Path, params: EncoderParams) -> Reference:
    """Load model and transforms; the embedding is what the first linear layer of the model's head reads."""
    settings: Any = torchvision.models.get_model_weights(params.architecture).DEFAULT
    tag = params.weights.rpartition(":")[2] if params.weights.startswith("torchvision:") else params.weights_tag
    if tag is not None and tag != "none":
        settings = torchvision.models.get_model_weights(params.architecture)[tag]
    size = {} if params.image_px is None else {"crop_size": params.image_px, "resize_size": params.image_px}
    transforms = settings.transforms(**size)
    model = torchvision.models.get_model(params.architecture, weights=None)
    model.load_state_dict(load_file(folder / WEIGHTS), strict=False)
    model.eval()
    read: list[torch.Tensor] = []
    if hasattr(model, "transform_input"):  # of GoogLeNet and Inception, for the normalisation of their trained weights
        model.transform_input = tag not in (None, "none")
    *_, head = model.children()
    linear = next((layer for layer in head.modules() if isinstance(layer, torch.nn.Linear)), None)
    (head if linear is None else linear).register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))

    def embed_images(pixels: torch.Tensor) -> torch.Tensor:
        read.clear()
        model(pixels)
        return torch.flatten(read[0], 1) if linear is not None else read[0].mean((2, 3))

    return Reference(f"torchvision {torchvision.__version__.partition('+')[0]}", transforms, embed_images)
