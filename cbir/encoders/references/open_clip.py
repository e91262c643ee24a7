"""open_clip's models as its README runs them: https://github.com/mlfoundations/open_clip#usage."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
from safetensors.torch import load_file

from cbir.encoders.families.open_clip import WEIGHTS, quiet_loggers
from cbir.encoders.hub import PRETRAINED
from cbir.encoders.open_clip_tokenizers import CONFIG, open_tokenizer
from cbir.encoders.params import EncoderParams
from cbir.encoders.references import Reference


def load(folder: Path, params: EncoderParams) -> Reference:
    """Load model, transforms and tokenizer."""
    name = params.architecture
    if (folder / CONFIG).is_file() and params.weights == PRETRAINED:
        name = f"local-dir:{folder.resolve()}"  # the folder of a model with settings of its own, as it was fetched
    elif name.endswith(".json"):
        open_clip.add_model_config(Path(name))
        name = Path(name).stem
    tag = params.weights if params.weights in open_clip.list_pretrained_tags_by_model(name) else params.weights_tag
    settings = open_clip.get_pretrained_cfg(name, tag) if tag not in (None, "none") else {}
    quick_gelu = bool(settings.get("quick_gelu")) or bool((open_clip.get_model_config(name) or {}).get("quick_gelu"))
    return _build(folder, name, settings, quick_gelu, alternatives=True)


def _build(folder: Path, name: str, settings: dict[str, Any], quick_gelu: bool, alternatives: bool) -> Reference:
    with quiet_loggers():
        model, _, prepare = open_clip.create_model_and_transforms(
            name,
            load_weights=False,
            pretrained_text=False,
            quick_gelu=quick_gelu,
            image_mean=settings.get("mean"),
            image_std=settings.get("std"),
            image_interpolation=settings.get("interpolation"),
            image_resize_mode=settings.get("resize_mode"),
        )
    model.load_state_dict(load_file(folder / WEIGHTS))
    model.eval()
    with quiet_loggers():
        tokenizer = open_tokenizer(_tokenizer_source(folder, name))

    def other_activation() -> Iterator[tuple[str, Reference]]:
        words = ("GELU", "QuickGELU") if quick_gelu else ("QuickGELU", "GELU")
        cause = f"activation: the stored vectors are of {words[0]}, {name} with these weights has {words[1]}"
        yield cause, _build(folder, name, settings, not quick_gelu, alternatives=False)

    return Reference(
        f"open_clip {open_clip.__version__}",
        prepare,
        model.encode_image,
        tokenizer,
        lambda texts: model.encode_text(tokenizer(list(texts))),
        other_activation if alternatives else lambda: iter(()),
    )


def _tokenizer_source(folder: Path, name: str) -> str:
    """The architecture, or the folder where a tokenizer of the hub was stored with the weights."""
    return f"local-dir:{folder.resolve()}" if (folder / "tokenizer.json").is_file() else name
