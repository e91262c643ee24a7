"""Small models in transformers' layout, whose vectors depend on the image and the text (with small weights, they hardly do)."""

from pathlib import Path
from typing import Any

import open_clip
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

PX, PATCH = 32, 8
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**TOWER, "image_size": PX, "patch_size": PATCH}
STAGES = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}


def save_model(folder: Path, model: Any, processor: Any, tokenizer: Any = None) -> Path:
    """Save the model, with weights that make its vectors depend on the input, and what it needs."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1:
                value.copy_(torch.randn_like(value) * (0.5 if "embedding" in name else value[0].numel() ** -0.5 * 1.5))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def cropping(kind: str = "CLIPImageProcessor", px: int = PX, **changes: Any) -> Any:
    """An image processor that resizes the shorter side and crops."""
    size = {"shortest_edge": px}
    return getattr(transformers, kind)(size=size, crop_size={"height": px, "width": px}, **changes)


def squashing(kind: str = "SiglipImageProcessor", px: int = PX, **changes: Any) -> Any:
    """An image processor that makes an image square."""
    return getattr(transformers, kind)(size={"height": px, "width": px}, **changes)


def clip_tokenizer() -> Any:
    """CLIP's tokenizer, with the vocabulary that open_clip ships."""
    source = open_clip.tokenizer.SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocab = {names.get(token, token): number for token, number in source.encoder.items()}
    return transformers.CLIPTokenizer(vocab=vocab, merges=list(source.bpe_ranks), model_max_length=77)


def gemma_tokenizer(**changes: Any) -> Any:
    """SigLIP 2's tokenizer as its checkpoints have it, with the letters of the alphabet."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *letters, *letters.upper(), "▁a", "▁A", *".,'!"]
    settings = {"add_bos_token": False, "add_eos_token": True, "padding_side": "right", "do_lower_case": True}
    return transformers.GemmaTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[("▁", "a"), ("▁", "A")],
        model_input_names=["input_ids"],
        **{**settings, **changes},
    )


def word_tokenizer(**changes: Any) -> Any:
    """A tokenizer of a few words, with a padding token of its own."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "blue", "star", "circle", "of", "photo"]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokens = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    settings = {**tokens, "model_max_length": 16, **changes}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **settings)


def save_clip(folder: Path) -> Path:
    """CLIP: causal text tower, padding that repeats the last token."""
    text = {**TOWER, "vocab_size": 49408, "max_position_embeddings": 77}
    text |= {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    config = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
    return save_model(folder, transformers.CLIPModel(config), cropping(), clip_tokenizer())


def save_siglip(folder: Path, tokenizer: Any = None) -> Path:
    """SigLIP: squashed images, a text tower that reads padding, the tokenizer of SigLIP 2."""
    text = {**TOWER, "vocab_size": 80, "max_position_embeddings": 16, "projection_size": 32}
    config = transformers.SiglipConfig(text_config=text, vision_config=VISION)
    return save_model(folder, transformers.SiglipModel(config), squashing(), tokenizer or gemma_tokenizer())


def save_bert_clip(folder: Path) -> Path:
    """ChineseCLIP: a BERT that needs the attention mask as its text tower."""
    text = {**TOWER, "vocab_size": 11, "max_position_embeddings": 32}
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
    model = transformers.ChineseCLIPModel(config)
    return save_model(folder, model, cropping("ChineseCLIPImageProcessor"), word_tokenizer())


def save_dinov2(folder: Path, registers: int = 0) -> Path:
    """DINOv2, with register tokens if any."""
    settings = {key: value for key, value in VISION.items() if key != "intermediate_size"}
    if registers:
        config: Any = transformers.Dinov2WithRegistersConfig(**settings, num_register_tokens=registers)
        model: Any = transformers.Dinov2WithRegistersModel(config)
    else:
        model = transformers.Dinov2Model(transformers.Dinov2Config(**settings))
    return save_model(folder, model, cropping("BitImageProcessor"))


def save_dinov3(folder: Path) -> Path:
    """DINOv3 with four register tokens."""
    model = transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**VISION, num_register_tokens=4))
    return save_model(folder, model, squashing("DINOv3ViTImageProcessor"))


def save_vit(folder: Path, head: bool = False) -> Path:
    """A ViT with its pooling layer; head : a classifier in place of it, as most checkpoints have."""
    config = transformers.ViTConfig(**VISION, num_labels=7)
    model = transformers.ViTForImageClassification(config) if head else transformers.ViTModel(config)
    return save_model(folder, model, squashing("ViTImageProcessor"))


def save_convnext(folder: Path) -> Path:
    """ConvNeXt, whose processor crops by `crop_pct`."""
    model = transformers.ConvNextModel(transformers.ConvNextConfig(**STAGES, image_size=PX))
    return save_model(folder, model, transformers.ConvNextImageProcessor(size={"shortest_edge": PX}))


def save_resnet(folder: Path) -> Path:
    """A ResNet, whose pooled output is a map of one pixel."""
    model = transformers.ResNetModel(transformers.ResNetConfig(embedding_size=8, **STAGES))
    return save_model(folder, model, transformers.ConvNextImageProcessor(size={"shortest_edge": PX}))
