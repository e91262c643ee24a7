"""Fit the tensors of a checkpoint to a model: trainers wrap them, prefix their names, and keep a head of their own.

{"state_dict": {"module.backbone.conv1.weight": ...}, "optimizer": ...}    a wrapper and a prefix: removed
{"teacher": ..., "student": ...}, {"model": ..., "model_ema": ...}         two that fit equally well: the averaged one
fc.weight, head.bias, projector.0.weight                                   what the embedding does not read: dropped
layer3.6.conv1.weight for a ResNet50, whose layer3 ends with layer3.5      another architecture: refused
"""

import argparse
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file

from cbir.core.errors import WeightsError

State = Mapping[str, torch.Tensor]
Convert = Callable[[dict[str, torch.Tensor]], State]  # a library's own conversion of older names and other sizes

_AVERAGED = {"ema", "teacher"}
_NAMED = 3  # tensors in a message


def load_checkpoint(
    model: torch.nn.Module, path: Path, unread: Sequence[str] = (), convert: Convert = dict
) -> list[str]:
    """Load the tensors of a file into the model; return the names of those that it does not have, such as a head's.

    unread : the names of modules that were removed from the model because the embedding does not read them.
    Raises WeightsError when a tensor of the model is missing or has another shape, and when a module of the model has more
    parameters in the file; ValueError, UnpicklingError and others when the file holds no plain tensors.
    """
    expected = model.state_dict()
    fitted = _fit(_read(path), expected, convert)
    # an old BatchNorm has no count of its batches, which an embedding does not read
    needed = {name: tensor for name, tensor in expected.items() if not name.endswith(".num_batches_tracked")}
    differences = [
        f"{name} expected {_shape(tensor)}, found {_shape(fitted.state.get(name))}"
        for name, tensor in needed.items()
        if _shape(fitted.state.get(name)) != _shape(tensor)
    ]
    rest = {name: tensor for name, tensor in fitted.state.items() if name not in expected}
    modules = {name.partition(".")[0] for name in expected}
    parameters = [name for name in rest if name.endswith((".weight", ".bias"))]
    heads = tuple(f"{module}." for module in unread)
    foreign = [name for name in parameters if name.partition(".")[0] in modules and not name.startswith(heads)]
    if differences or foreign:
        differences += [f"{name} expected none, found {_shape(rest[name])}" for name in foreign]
        others = [
            f"{name} {_shape(rest[name])}" for name in parameters if name not in foreign and name.endswith("weight")
        ]
        raise WeightsError(
            f"{len(differences)} of its tensors differ from the model's: {'; '.join(differences[:_NAMED])}"
            + (f"; it has {', '.join(others[:_NAMED])}" if others else "")
        )
    expected.update({name: fitted.state[name] for name in expected if name in fitted.state})
    model.load_state_dict(expected)
    return [*rest, *fitted.outside]


def _read(path: Path) -> Any:
    """The content of a safetensors or torch file, without running code in it."""
    if path.suffix == ".safetensors":
        return load_file(path)
    with torch.serialization.safe_globals([argparse.Namespace]):  # the arguments of many trainers: it only holds values
        return torch.load(path, map_location="cpu", weights_only=True)


class _Fitted(NamedTuple):
    """state : tensors by the model's names, as far as it has them.  outside : the names of the others in the same wrapper."""

    state: State
    outside: list[str]
    matches: int
    averaged: bool


def _fit(content: Any, expected: State, convert: Convert) -> _Fitted:
    """The tensors of the content that fit best.  Raises ValueError when it holds none."""
    fits = [
        _fitted(tensors, wrapper, prefix, expected, convert)
        for wrapper, tensors in _wrapped(content)
        for prefix in ["", *_prefixes(tensors, expected)]
    ]
    if not fits:
        raise ValueError("it holds no tensors by name")
    return max(fits, key=lambda fitted: (fitted.matches, fitted.averaged))


def _wrapped(content: Any, wrapper: str = "") -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Each mapping from names to tensors in the content, with the keys that lead to it."""
    if not isinstance(content, Mapping):
        return
    named = {name: value for name, value in content.items() if isinstance(name, str)}  # an optimizer counts
    tensors = {
        name.replace("_orig_mod.", ""): value  # torch.compile's, at any place
        for name, value in named.items()
        if isinstance(value, torch.Tensor)
    }
    if tensors:
        yield wrapper, tensors
    for name, value in named.items():
        yield from _wrapped(value, f"{wrapper}{name}.")


def _prefixes(tensors: State, expected: State) -> list[str]:
    """The prefixes that, removed, turn most names into the model's: several when they tie."""
    counts: Counter[str] = Counter()
    for name in tensors:
        dots = [match.end() for match in re.finditer(r"\.", name)]
        counts.update(name[:dot] for dot in dots if name[dot:] in expected)
    most = max(counts.values(), default=0)
    return [prefix for prefix, count in counts.items() if count == most]


def _fitted(tensors: dict[str, torch.Tensor], wrapper: str, prefix: str, expected: State, convert: Convert) -> _Fitted:
    inside = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    outside = [name for name in tensors if not name.startswith(prefix)]
    try:
        state = convert(inside)
    except Exception:  # written for a checkpoint of its own architecture, it fails on others in any way
        state = inside
    matches = sum(_shape(state.get(name)) == _shape(tensor) for name, tensor in expected.items())
    return _Fitted(state, outside, matches, not _AVERAGED.isdisjoint(re.split(r"[._]", wrapper + prefix)))


def _shape(tensor: torch.Tensor | None) -> str:
    return "none" if tensor is None else str(tuple(tensor.shape))
