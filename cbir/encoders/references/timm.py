"""timm's models as its documentation extracts features: https://huggingface.co/docs/timm/feature_extraction."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import load_file
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform

from cbir.encoders.families.timm import WEIGHTS
from cbir.encoders.params import EncoderParams, Pooling
from cbir.encoders.references import Reference

_POOLED = {Pooling.token: "the class token", Pooling.avg: "the mean of the patch tokens"}


def load(folder: Path, params: EncoderParams) -> Reference:
    """Load model and transforms."""
    prefix, _, tag = params.weights.rpartition("timm:")
    tag = tag if prefix == "" and params.weights.startswith("timm:") else params.weights_tag or ""
    name = f"{params.architecture}.{tag}" if tag not in ("", "none") else params.architecture
    return _build(folder, name, params, params.pooling, alternatives=True)


def _build(folder: Path, name: str, params: EncoderParams, pooling: Pooling, alternatives: bool) -> Reference:
    fixed = timm.get_pretrained_cfg_value(name, "fixed_input_size")
    size: dict[str, Any] = {"img_size": params.image_px} if fixed and params.image_px else {}
    model: Any = timm.create_model(name, pretrained=False, num_classes=0, **size)
    if pooling is not Pooling.default:
        model.reset_classifier(0, pooling.value)  # as `global_pool` of create_model, but the trained norm layer stays
    model.load_state_dict(load_file(folder / WEIGHTS))
    model.eval()
    resolve: Any = resolve_model_data_config
    config = resolve(model, args={"img_size": params.image_px})

    def other_poolings() -> Iterator[tuple[str, Reference]]:
        if getattr(model, "cls_token", None) is None:
            return
        expected = getattr(model, "global_pool", "")
        for other, words in _POOLED.items():
            if other.value != expected:
                cause = f"pooling: the stored vectors are {words}, the library takes {expected!r}"
                yield cause, _build(folder, name, params, other, alternatives=False)

    return Reference(
        f"timm {timm.__version__}",
        create_transform(**config, is_training=False),
        model,
        alternatives=other_poolings if alternatives else lambda: iter(()),
    )
