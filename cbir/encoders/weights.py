"""Bring an encoder's weights here, once, with everything that the weights imply, so that no later stage needs a network.

`<encoder>.weights` is one of
    torchvision:IMAGENET1K_V2     a tag of torchvision (mobilenet)
    openai, laion2b_s34b_b79k     a tag of open_clip for the architecture (clip)
    /path, file:/path, http(s)://  a file: safetensors, or a torch file read with weights_only=True
    demo                          this package's own, made by `python -m cbir.demo.train`: they know drawn shapes only
    random:<seed>                 no training at all, for trials

A tag implies more than numbers: QuickGELU, mean and std, interpolation, size.  A file has lost that, so `weights_tag` must
say whose settings it carries (open_clip#771: dropping them lowers quality silently).
"""

import contextlib
import json
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import open_clip
import torch
import torchvision
from safetensors.torch import load_file, save_file

from cbir.core.errors import ConfigError, FetchError, WeightsError
from cbir.core.files import replacing, write_json
from cbir.core.params import first_line, nearest
from cbir.encoders.base import EncoderCard, file_sha256, hash_settings
from cbir.encoders.demo import DEMO_MOBILENET_PX, DEMO_WEIGHTS
from cbir.encoders.families import open_clip as clip
from cbir.encoders.families import torchvision as mobilenet
from cbir.encoders.params import EncoderParams, Family
from cbir.encoders.preprocessing import Preprocessing
from cbir.fetching.fetch import fetch

State = Mapping[str, torch.Tensor]


def fetch_encoder(group: str, params: EncoderParams, out: Path) -> None:
    """Leave the encoder's folder (see `cbir.encoders.base`) in `out`.

    group : mobilenet or clip, for messages.
    Raises ConfigError for an architecture, tag or seed that does not exist, or a size that demo weights do not take;
    FetchError when the weights cannot be had or are damaged; WeightsError when they are of another architecture.
    """
    if _is_tagless(params) and (params.weights_sha256, params.weights_tag) != (None, None):
        raise ConfigError(
            f"{group}.weights: {params.weights} has no hash and no tag; set weights_sha256 and weights_tag to null"
        )
    out.mkdir(parents=True, exist_ok=True)
    makers: dict[Family, Callable[[str, EncoderParams, Path], EncoderCard]] = {
        Family.torchvision: _fetch_mobilenet,
        Family.open_clip: _fetch_clip,
    }
    with clip.quiet_loggers():
        makers[params.family](group, params, out).write(out)


def _fetch_mobilenet(group: str, params: EncoderParams, out: Path) -> EncoderCard:
    names = [name for name in torchvision.models.list_models() if name.startswith("mobilenet_v3_")]
    if params.architecture not in names:
        raise ConfigError(f"{group}.architecture: no {params.architecture!r}; {nearest(params.architecture, names)}")
    tags = {tag.name: tag for tag in torchvision.models.get_model_weights(params.architecture)}
    tag: str | None
    if params.weights.startswith("torchvision:"):
        tag = _known_tag(group, "weights", params.weights.removeprefix("torchvision:"), tags)
    else:
        tag = _tag_of_file(group, params, tags, prefix="torchvision:")
    settings = tags[tag] if tag is not None else torchvision.models.get_model_weights(params.architecture).DEFAULT
    with _seeded(group, params):
        model = torchvision.models.get_model(params.architecture, weights=None)
    if params.weights.startswith("torchvision:"):
        # the file's name ends in the first digits of its sha256, as torch.hub checks them
        digits = Path(settings.url).stem.rpartition("-")[2]
        _load_fetched(group, model, params, settings.url, sha256_prefix=digits)
    elif not _is_random(params):
        _load_fetched(group, model, params, params.weights)
    if params.weights == "demo" and params.image_px != DEMO_MOBILENET_PX:
        raise ConfigError(
            f"{group}.image_px: demo weights take {DEMO_MOBILENET_PX} px, found {params.image_px or 'null'}; "
            f"use {group}=demo, or set {group}.image_px={DEMO_MOBILENET_PX}"
        )
    return EncoderCard(
        family=params.family.value,
        architecture=params.architecture,
        origin=params.weights,
        tag=tag,
        weights_sha256=_save(model, out / mobilenet.WEIGHTS),
        settings_sha256=None,
        preprocessing=_torchvision_preprocessing(settings.transforms(), params.image_px),
        quick_gelu=None,
    )


def _torchvision_preprocessing(transforms: Any, image_px: int | None) -> Preprocessing:
    found = Preprocessing(
        resize_px=transforms.resize_size[0],
        crop_px=transforms.crop_size[0],
        resize_mode="shortest",
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )
    return found if image_px is None else replace(found, resize_px=image_px, crop_px=image_px)


def _fetch_clip(group: str, params: EncoderParams, out: Path) -> EncoderCard:
    if params.image_px is not None:
        raise ConfigError(
            f"{group}.image_px: the input of {params.architecture} is part of its architecture; leave it null"
        )
    model_cfg = _clip_architecture(group, params.architecture)
    if params.tokenizer is not None:
        model_cfg["text_cfg"] = {**model_cfg["text_cfg"], "hf_tokenizer_name": params.tokenizer}
    tags = {tag: tag for tag in open_clip.list_pretrained_tags_by_model(params.architecture)}
    tag = params.weights if params.weights in tags else _tag_of_file(group, params, tags)
    implied = open_clip.get_pretrained_cfg(params.architecture, tag) if tag is not None else {}
    quick_gelu = bool(model_cfg.get("quick_gelu", False) or implied.get("quick_gelu", False))
    preprocess_cfg = open_clip.transform.merge_preprocess_dict(asdict(open_clip.transform.PreprocessCfg()), implied)
    write_json(
        out / clip.CONFIG,
        {"model_cfg": {**model_cfg, "quick_gelu": quick_gelu}, "preprocess_cfg": _known_settings(preprocess_cfg)},
    )
    with _seeded(group, params):
        model = _build_clip(group, params.architecture, out)
    if params.weights in tags:
        _load_clip(group, model, params, _fetch_tag(group, params, implied))
    elif not _is_random(params):
        with tempfile.TemporaryDirectory() as folder:
            path = _fetch_file(group, params, params.weights, Path(folder))
            _load_clip(group, model, params, path)
    _save_tokenizer(group, model_cfg, out)
    cfg = model.visual.preprocess_cfg
    size = cfg["size"] if isinstance(cfg["size"], int) else cfg["size"][0]
    return EncoderCard(
        family=params.family.value,
        architecture=params.architecture,
        origin=params.weights,
        tag=tag,
        weights_sha256=_save(model, out / clip.WEIGHTS),
        settings_sha256=hash_settings(out, clip.WEIGHTS),
        preprocessing=Preprocessing(
            resize_px=size,
            crop_px=size,
            resize_mode=cfg["resize_mode"],
            interpolation=cfg["interpolation"],
            mean=tuple(cfg["mean"]),
            std=tuple(cfg["std"]),
        ),
        quick_gelu=quick_gelu,
    )


def _clip_architecture(group: str, name: str) -> dict[str, Any]:
    """open_clip's configuration of a built-in architecture, or that in a JSON file of the same form."""
    if name.endswith(".json"):
        try:
            found = json.loads(Path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{group}.architecture: {name} is not readable as JSON: {error}") from error
        parts = {"embed_dim": int, "vision_cfg": dict, "text_cfg": dict}
        if not isinstance(found, dict) or not all(isinstance(found.get(part), kind) for part, kind in parts.items()):
            raise ConfigError(
                f"{group}.architecture: {name}: expected an object with {', '.join(parts)}, as in cbir/demo/clip_demo.json"
            )
        return found
    config = open_clip.get_model_config(name)
    if config is None:
        raise ConfigError(f"{group}.architecture: open_clip has no {name!r}; {nearest(name, open_clip.list_models())}")
    return dict(config)


def _build_clip(group: str, name: str, folder: Path) -> Any:
    """The model of the configuration in `folder`, without weights; those in the folder are of an earlier run."""
    try:
        return open_clip.create_model(f"local-dir:{folder.resolve()}", load_weights=False, pretrained_text=False)
    except Exception as error:  # whatever a tower makes of wrong numbers; some towers ask a hub for their configuration
        raise ConfigError(
            f"{group}.architecture: {name} cannot be built: {type(error).__name__}: {first_line(error)}"
        ) from error


def _known_settings(preprocess_cfg: Mapping[str, Any]) -> dict[str, Any]:
    return {name: preprocess_cfg[name] for name in ("mean", "std", "interpolation", "resize_mode")}


def _fetch_tag(group: str, params: EncoderParams, implied: Mapping[str, Any]) -> Path:
    tag, where = params.weights, implied.get("hf_hub") or implied.get("url")
    try:
        path = Path(open_clip.download_pretrained(dict(implied)))
    except Exception as error:  # the hub's client raises a family of its own, and plain OSError
        raise FetchError(
            f"{group}.weights: {tag!r} cannot be fetched from {where}: {first_line(error)}; check the network, then run "
            f"`dvc repro` again, or give the file: {group}.weights=/path {group}.weights_tag={tag}"
        ) from error
    if params.weights_sha256 is not None and (found := file_sha256(path)) != params.weights_sha256.lower():
        raise FetchError(
            f"{group}.weights: {tag!r} from {where}: expected sha256 {params.weights_sha256}, got {found}; "
            f"check {group}.weights_sha256, or delete {path} and run `dvc repro` again"
        )
    return path


def _load_clip(group: str, model: Any, params: EncoderParams, path: Path) -> None:
    # open_clip's own loader, for it converts the older forms of a checkpoint
    with _misfit_told(group, params):
        open_clip.load_checkpoint(model, str(path), strict=True, weights_only=True, device="cpu")


def _save_tokenizer(group: str, model_cfg: Mapping[str, Any], out: Path) -> None:
    """Keep the files of a hub's tokenizer; open_clip's own tokenizer has its vocabulary in the package."""
    name = model_cfg["text_cfg"].get("hf_tokenizer_name")
    if name is None:
        return
    try:
        open_clip.tokenizer.HFTokenizer(name).tokenizer.save_pretrained(out)
    except Exception as error:  # see _fetch_tag
        raise FetchError(
            f"{group}.tokenizer: {name!r} cannot be fetched: {first_line(error)}; check the network, then run `dvc repro` "
            f"again, or name a folder with its files: {group}.tokenizer=/path"
        ) from error


def _known_tag(group: str, key: str, tag: str, tags: Mapping[str, Any]) -> str:
    if tag not in tags:
        raise ConfigError(f"{group}.{key}: no tag {tag!r}; {nearest(tag, tags)}")
    return tag


def _tag_of_file(group: str, params: EncoderParams, tags: Mapping[str, Any], prefix: str = "") -> str | None:
    """Whose settings the weights carry: weights_tag for a file, nobody's for this package's own and random ones.

    prefix : what stands before a tag in `weights`.
    """
    if _is_tagless(params):
        return None
    if "/" not in params.weights and "." not in params.weights:
        choices = nearest(params.weights, [*(prefix + known for known in tags), "demo", "random:0"])
        raise ConfigError(
            f"{group}.weights: {params.architecture} has no tag {params.weights!r}, and no file; {choices}"
        )
    if params.weights_tag is None and tags:
        raise ConfigError(
            f"{group}.weights_tag: expected the tag whose settings (size, mean, std, activation) {params.weights} carries, "
            f"found null; one of {', '.join(tags)}, or 'none' for the architecture's own"
        )
    if params.weights_tag in (None, "none"):
        return None
    return _known_tag(group, "weights_tag", str(params.weights_tag), {**tags, "none": None})


def _is_random(params: EncoderParams) -> bool:
    return params.weights.startswith("random:")


def _is_tagless(params: EncoderParams) -> bool:
    """Whether the weights come with this package: nobody's tag tells their settings, and no hash is needed."""
    return params.weights == "demo" or _is_random(params)


def _load_fetched(
    group: str,
    model: torch.nn.Module,
    params: EncoderParams,
    url: str,
    sha256_prefix: str | None = None,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = _fetch_file(group, params, url, Path(folder), sha256_prefix)
        with _misfit_told(group, params):
            model.load_state_dict(_read_state(path))


def _fetch_file(group: str, params: EncoderParams, url: str, folder: Path, sha256_prefix: str | None = None) -> Path:
    if params.weights == "demo":
        return _demo_file(group)
    # the suffix says how to read the file; an address may go on after it, as in model.safetensors?download=true
    name = Path(urlsplit(url).path if "://" in url else url).name
    try:
        return fetch(url, folder / (name or "weights"), sha256=params.weights_sha256, sha256_prefix=sha256_prefix)
    except (ConfigError, FetchError) as error:
        raise type(error)(f"{group}.weights: {error}") from error


def _demo_file(group: str) -> Path:
    """This package's own weights.  Raises FetchError when they are not those that the log of their training names."""
    path, log = (DEMO_WEIGHTS / f"{group}.{suffix}" for suffix in ("safetensors", "json"))
    remedy = "run `git checkout cbir/demo/weights`, or `make demo`"
    try:
        expected, found = json.loads(log.read_bytes())["sha256"], file_sha256(path)
    except (OSError, ValueError, KeyError) as error:
        raise FetchError(f"{group}.weights: demo: expected {path} and {log.name}, found {error!r}; {remedy}") from error
    if found != expected:
        raise FetchError(f"{group}.weights: demo: {path}: expected sha256 {expected}, found {found}; {remedy}")
    return path


def _read_state(path: Path) -> State:
    """The tensors of a safetensors or torch file, never unpickled; wrappings of trainers taken off."""
    if path.suffix == ".safetensors":
        state = load_file(path)
    else:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        state = loaded.get("state_dict", loaded)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


@contextlib.contextmanager
def _misfit_told(group: str, params: EncoderParams) -> Iterator[None]:
    """Turn any failure to read or fit weights into one line."""
    try:
        yield
    except Exception as error:  # load_state_dict, torch.load and safetensors raise RuntimeError, UnpicklingError, ...
        if params.weights == "demo":
            raise WeightsError(
                f"{group}.weights: demo does not fit {params.architecture}: these weights have an architecture of their own; "
                f"use {group}=demo"
            ) from error
        detail = " ".join(str(error).split())
        if isinstance(error, pickle.UnpicklingError):  # torch's own words advise to allow what must not be allowed
            detail = "it holds something else, or is no weights file at all"
        raise WeightsError(
            f"{group}.weights: {params.weights} does not fit {params.architecture}, or is no file of plain tensors "
            f"(safetensors, or torch's with weights_only): {detail[:300]}{'...' if len(detail) > 300 else ''}"
        ) from error


def _save(model: torch.nn.Module, path: Path) -> str:
    """Write the state as safetensors; returns the file's sha256."""
    with replacing(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, temporary)
        temporary.chmod(0o644)  # safetensors makes it the owner's alone, which a shared DVC cache keeps
    return file_sha256(path)


@contextlib.contextmanager
def _seeded(group: str, params: EncoderParams) -> Iterator[None]:
    """Initialise from the seed of "random:<seed>"; torch's own generator is left as it was."""
    seed = params.weights.removeprefix("random:") if _is_random(params) else "0"
    if not seed.isdigit():
        raise ConfigError(f"{group}.weights: expected random:<seed> with a whole number, found {params.weights!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        yield
