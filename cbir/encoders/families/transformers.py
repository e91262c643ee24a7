"""transformers' image models and image-text models: DINOv2, DINOv3, ViT, ConvNeXt, CLIP, SigLIP, and others that it has.

The folder has transformers' own layout, so its AutoModel, AutoImageProcessor and AutoTokenizer read it.  Code that comes
with a model is never run.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from cbir.core.errors import ConfigError
from cbir.core.files import file_sha256
from cbir.core.params import first_line
from cbir.core.text import nearest
from cbir.encoders import image_processors, pretrained_models, pretrained_tokenizers
from cbir.encoders.base import EncoderCard, check_weights, hash_settings
from cbir.encoders.hub import PRETRAINED, model_folder
from cbir.encoders.layers import ChannelsFirst, Modules, Normalise, UnitRows, check_image_tower
from cbir.encoders.options import is_random, refuse_options
from cbir.encoders.own_code import NO_CODE
from cbir.encoders.params import EncoderParams, Pooling
from cbir.encoders.preprocessing import Pixels, Preprocessing
from cbir.encoders.pretrained_models import CONFIG, WEIGHTS, load_model, quiet, read_config
from cbir.encoders.pretrained_tokenizers import PretrainedTokenizer
from cbir.encoders.tokens import PROBES

Settings = Mapping[str, str | int | bool]


# ---- fetching


def fetch_weights(group: str, params: EncoderParams, out: Path) -> EncoderCard:
    """Write configuration, weights, image processor and tokenizer (see `cbir.encoders.families.FamilyModule`)."""
    with quiet():
        return _fetch_weights(group, params, out)


def _fetch_weights(group: str, params: EncoderParams, out: Path) -> EncoderCard:
    _check_params(group, params)
    source = model_folder(f"{group}.architecture", params.architecture, _files(params))
    config = read_config(group, params.architecture, source.path)
    processor = image_processors.load_image_processor(group, params.architecture, source.path)
    preprocessing = image_processors.preprocessing_of(group, params.architecture, processor)
    if params.image_px is not None:
        preprocessing = replace(preprocessing, resize_px=params.image_px, crop_px=params.image_px)
    model, untrained = load_model(group, params, source, config)
    settings: Settings
    tokenizer: PretrainedTokenizer | None
    if _embeds_text(model):
        refuse_options(group, params, "pooling")
        tokenizer = _read_tokenizer(group, params, source.path, config)
        settings = {"pooling": "pooled", **tokenizer.settings}
    else:
        refuse_options(group, params, "tokenizer")
        tokenizer = None
        settings = _pooling(group, params, model, preprocessing, pooler_is_trained=not untrained)
    modules = _modules(model, preprocessing, settings, tokenizer)
    check_image_tower(group, params, modules.image, preprocessing.crop_px)
    _check_text_tower(group, params, modules, preprocessing.blank(1))
    model.save_pretrained(out, max_shard_size="1TB")  # one file
    (out / WEIGHTS).chmod(0o644)  # safetensors lets only the owner read it, which a shared DVC cache would keep
    processor.save_pretrained(out)
    if tokenizer is not None:
        tokenizer.save(out)
    return EncoderCard(
        family=params.family.value,
        architecture=params.architecture,
        origin=source.pinned if source.pinned and params.weights == PRETRAINED else params.weights,
        tag=None,
        weights_sha256=file_sha256(out / WEIGHTS),
        settings_sha256=hash_settings(out, WEIGHTS),
        preprocessing=preprocessing,
        settings=settings,
    )


def _check_params(group: str, params: EncoderParams) -> None:
    refuse_options(group, params, "weights_tag")
    is_path = "/" in params.weights or "." in params.weights
    if not (params.weights == PRETRAINED or is_random(params) or is_path):
        raise ConfigError(
            f"{group}.weights: expected {PRETRAINED}, random:<seed> or a file, found {params.weights!r}; "
            f"{nearest(params.weights, (PRETRAINED, 'random:0'))}"
        )


def _files(params: EncoderParams) -> list[str]:
    weights = pretrained_models.FILES if params.weights == PRETRAINED else ()
    return [CONFIG, *weights, *image_processors.FILES, *pretrained_tokenizers.FILES]


def _read_tokenizer(group: str, params: EncoderParams, folder: Path, config: Any) -> PretrainedTokenizer:
    key = f"{group}.architecture"
    if params.tokenizer is not None:
        key = f"{group}.tokenizer"
        folder = model_folder(key, params.tokenizer, [CONFIG, *pretrained_tokenizers.FILES]).path
    tokenizer = pretrained_tokenizers.load_tokenizer(key, folder, getattr(config, "text_config", None))
    if tokenizer.padding is not None:
        encoded = tokenizer.encode(PROBES)
        mask = text_mask(torch.tensor(encoded["input_ids"]), *tokenizer.padding)
        if mask.tolist() != encoded["attention_mask"]:
            raise ConfigError(f"{key}: the tokenizer in {folder} pads with a token that texts have as well")
    return tokenizer


def _check_text_tower(group: str, params: EncoderParams, modules: Modules, blank: Pixels) -> None:
    """Raise ConfigError when the text tower does not take the tokens, or gives vectors of another dimension than images."""
    if modules.text is None or modules.tokenizer is None:
        return
    with torch.inference_mode():
        try:
            texts = modules.text(torch.from_numpy(modules.tokenizer(PROBES)))
        except Exception as error:  # of many types, deep in the model
            raise ConfigError(
                f"{group}.tokenizer: the tokens of {modules.tokenizer.name} do not fit {params.architecture}: "
                f"{first_line(error) or type(error).__name__}"
            ) from error
        images = modules.image(torch.from_numpy(blank))
    if texts.shape[1:] != images.shape[1:]:
        raise ConfigError(
            f"{group}.architecture: {params.architecture}: expected vectors of one dimension for images and texts, found "
            f"{images.shape[1:]} and {texts.shape[1:]}"
        )


# ---- pooling of image models


def _pooling(
    group: str, params: EncoderParams, model: Any, preprocessing: Preprocessing, pooler_is_trained: bool
) -> Settings:
    """How the model's tokens become a vector: "pooled" (its own output), "token" or "avg" behind `prefix_tokens`.

    default : the model's own, except that a pooling layer without trained weights gives way to the class token.
    Raises ConfigError when the model has no such tokens.
    """
    output, normalised = _run_blank(group, params, model, preprocessing)
    pooled = getattr(output, "pooler_output", None)
    if params.pooling is Pooling.default and pooled is not None and pooler_is_trained:
        return {"pooling": "pooled"}
    kind = "avg" if params.pooling is Pooling.avg else "token"
    tokens, patch_px = output.last_hidden_state, getattr(model.config, "patch_size", None)
    if tokens.ndim != 3 or not isinstance(patch_px, int) or not normalised:
        raise ConfigError(
            f"{group}.pooling: {params.architecture} gives no normalised tokens of patches; use {group}.pooling=default"
        )
    prefix = tokens.shape[1] - (preprocessing.crop_px // patch_px) ** 2
    if prefix < 0 or (kind == "token" and prefix == 0):
        raise ConfigError(
            f"{group}.pooling: {params.architecture} has no {'class token' if prefix == 0 else 'token for each patch'}; "
            f"use {group}.pooling={'avg' if prefix == 0 else 'default'}"
        )
    return {"pooling": kind, "prefix_tokens": prefix}


def _run_blank(group: str, params: EncoderParams, model: Any, preprocessing: Preprocessing) -> tuple[Any, bool]:
    """Return the model's output for a black image, and whether its tokens are the output of a layer that normalises."""
    normed: list[torch.Tensor] = []
    norms = [layer for layer in model.modules() if "Norm" in type(layer).__name__]
    hooks = [layer.register_forward_hook(lambda _, __, output: normed.append(output)) for layer in norms]
    side = preprocessing.crop_px
    try:
        with torch.inference_mode():
            output = model.eval()(pixel_values=torch.zeros(1, 3, side, side))
    except Exception as error:  # the library raises errors of many types
        key, remedy = ("architecture", "") if params.image_px is None else ("image_px", f"; try {group}.image_px=null")
        raise ConfigError(
            f"{group}.{key}: {params.architecture} does not take {side} px: {first_line(error)}{remedy}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return output, any(value is output.last_hidden_state for value in normed)


# ---- building


def build_modules(folder: Path) -> Modules:
    """Build the towers and the tokenizer (see `cbir.encoders.families.FamilyModule`)."""
    card = EncoderCard.read(folder)
    check_weights(folder / WEIGHTS, card)
    with quiet():
        model = AutoModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, **NO_CODE, local_files_only=True
        )
        tokenizer = PretrainedTokenizer.read(folder, card.settings) if _embeds_text(model) else None
    return _modules(model, card.preprocessing, card.settings, tokenizer)


def _embeds_text(model: Any) -> bool:
    return hasattr(model, "get_image_features") and hasattr(model, "get_text_features")


def _modules(
    model: Any, preprocessing: Preprocessing, settings: Settings, tokenizer: PretrainedTokenizer | None
) -> Modules:
    tower = _ImageTower(model, str(settings["pooling"]), int(settings.get("prefix_tokens", 0)))
    image = UnitRows(ChannelsFirst(), Normalise(preprocessing), tower).eval()
    if tokenizer is None:
        return Modules(image, None, None)
    return Modules(image, UnitRows(_TextTower(model, tokenizer)).eval(), tokenizer)


class _ImageTower(torch.nn.Module):
    def __init__(self, model: Any, pooling: str, prefix_tokens: int) -> None:
        """prefix_tokens : how many tokens precede those of the patches."""
        super().__init__()
        self.model, self.embeds_text = model, _embeds_text(model)
        self.pooling, self.prefix_tokens = pooling, prefix_tokens

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.embeds_text:
            return _pooled(self.model.get_image_features(pixel_values=images))
        output = self.model(pixel_values=images)
        if self.pooling == "pooled":
            return _pooled(output).flatten(1)  # of convolutions, (n, dim, 1, 1)
        tokens: torch.Tensor = output.last_hidden_state
        if self.pooling == "token":
            return tokens[:, 0]
        return tokens[:, self.prefix_tokens :].mean(1)


class _TextTower(torch.nn.Module):
    """What `get_text_features` gives, with the attention mask where the tokenizer gives one."""

    def __init__(self, model: Any, tokenizer: PretrainedTokenizer) -> None:
        super().__init__()
        self.model, self.padding = model, tokenizer.padding

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        mask = {} if self.padding is None else {"attention_mask": text_mask(tokens, *self.padding)}
        return _pooled(self.model.get_text_features(input_ids=tokens, **mask))


def text_mask(tokens: torch.Tensor, pad_id: int, is_end: bool) -> torch.Tensor:
    """1 for a token of the text, 0 for padding: int64 (n, context length).

    is_end : whether padding repeats the token that ends a text, and so starts behind the first of them.
    """
    padding = tokens == pad_id
    return ((padding.cumsum(1) <= 1) if is_end else ~padding).long()


def _pooled(output: Any) -> torch.Tensor:
    vectors: torch.Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return vectors
