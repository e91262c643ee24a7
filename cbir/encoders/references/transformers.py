"""transformers' models as its documentation runs them: AutoModel, AutoImageProcessor and AutoTokenizer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image

from cbir.encoders.base import EncoderCard
from cbir.encoders.own_code import NO_CODE
from cbir.encoders.params import EncoderParams
from cbir.encoders.references import Reference


def load(folder: Path, params: EncoderParams) -> Reference:
    """Load model, image processor and tokenizer from the folder, where the library itself has saved them."""
    model = transformers.AutoModel.from_pretrained(folder, use_safetensors=True, **NO_CODE).eval()
    auto_processor: Any = transformers.AutoImageProcessor
    processor: Any = auto_processor.from_pretrained(folder, backend="pil", **NO_CODE)
    settings = EncoderCard.read(folder).settings

    def prepare(image: Image.Image) -> torch.Tensor:
        pixels: torch.Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    def embed_images(pixels: torch.Tensor) -> torch.Tensor:
        if hasattr(model, "get_image_features"):
            return _vectors(model.get_image_features(pixel_values=pixels))
        output = model(pixel_values=pixels)
        if settings["pooling"] == "pooled":
            return _vectors(output).flatten(1)
        tokens: torch.Tensor = output.last_hidden_state
        if settings["pooling"] == "token":
            return tokens[:, 0]
        return tokens[:, int(settings["prefix_tokens"]) :].mean(1)

    name = f"transformers {transformers.__version__}"
    if not hasattr(model, "get_text_features"):
        return Reference(name, prepare, embed_images)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **NO_CODE)
    length = min(model.config.text_config.max_position_embeddings, tokenizer.model_max_length)
    # SigLIP 2's tokenizer leaves lower-casing to the caller, although its configuration asks for it
    lower = bool(tokenizer.init_kwargs.get("do_lower_case"))

    def encode(texts: Sequence[str]) -> Any:
        cased = [text.lower() for text in texts] if lower else list(texts)
        return tokenizer(cased, padding="max_length", truncation=True, max_length=length, return_tensors="pt")

    return Reference(
        name,
        prepare,
        embed_images,
        lambda texts: encode(texts)["input_ids"],
        lambda texts: _vectors(model.get_text_features(**encode(texts))),
    )


def _vectors(output: Any) -> torch.Tensor:
    vectors: torch.Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return vectors
