"""load_checkpoint: wrappers, prefixes and heads of trainers; what is refused."""

import argparse
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cbir.core.errors import WeightsError
from cbir.encoders.checkpoints import load_checkpoint

State = dict[str, torch.Tensor]


def make_model(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    body = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 1), torch.nn.BatchNorm2d(4))
    return torch.nn.Sequential(OrderedDict(stem=torch.nn.Conv2d(3, 4, 1), body=body))


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def loaded(content: Any, folder: Path, **options: Any) -> tuple[State, list[str]]:
    """The state of the model after loading, and what was not used."""
    torch.save(content, folder / "checkpoint.pth")
    model = make_model(seed=1)
    return model.state_dict(), load_checkpoint(model, folder / "checkpoint.pth", **options)


def same(state: State, other: State) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


@pytest.fixture
def state() -> State:
    return dict(make_model().state_dict())


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "backbone.", "visual.", "encoder.", "_orig_mod.", "net.0."]
)
@pytest.mark.parametrize("outer", ["", "module.", "_orig_mod.module.", "model."])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
        lambda state: {"model": state, "optimizer": {"state": {0: {"exp_avg": torch.zeros(4)}}, "param_groups": []}},
        lambda state: {"model_state_dict": state},
        lambda state: {"ema": {"module": state}},
    ],
    ids=["plain", "state_dict", "model", "model_state_dict", "nested"],
)
def test_wrappers_and_prefixes_are_removed(
    wrap: Callable[[State], Any], outer: str, prefix: str, state: State, tmp_path: Path
) -> None:
    assert same((result := loaded(wrap(prefixed(state, outer + prefix)), tmp_path))[0], state)
    assert result[1] == []


def test_a_safetensors_file_may_have_a_prefix(state: State, tmp_path: Path) -> None:
    save_file(prefixed(state, "backbone."), tmp_path / "mine.safetensors")
    model = make_model(seed=1)
    assert load_checkpoint(model, tmp_path / "mine.safetensors") == []
    assert same(dict(model.state_dict()), state)


def test_a_compiled_part_keeps_no_mark(state: State, tmp_path: Path) -> None:
    compiled = {name.replace("body.", "body._orig_mod."): tensor for name, tensor in state.items()}
    assert same(loaded(compiled, tmp_path)[0], state)


def test_a_prefix_that_the_model_has_is_kept(state: State, tmp_path: Path) -> None:
    model = torch.nn.Sequential(OrderedDict(backbone=make_model(1), model=make_model(2)))
    wanted = prefixed(state, "backbone.") | prefixed(state, "model.")
    torch.save(wanted, tmp_path / "both.pth")
    assert load_checkpoint(model, tmp_path / "both.pth") == []
    assert same(dict(model.state_dict()), wanted)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda plain, averaged: {"state_dict": plain, "state_dict_ema": averaged},
        lambda plain, averaged: {"model_ema": averaged, "model": plain},
        lambda plain, averaged: {"student": prefixed(plain, "backbone."), "teacher": prefixed(averaged, "backbone.")},
        lambda plain, averaged: prefixed(plain, "student.backbone.") | prefixed(averaged, "teacher.backbone."),
    ],
)
def test_averaged_weights_are_preferred(wrap: Callable[[State, State], Any], state: State, tmp_path: Path) -> None:
    plain = {name: tensor + 1 for name, tensor in state.items()}
    assert same(loaded(wrap(plain, state), tmp_path)[0], state)


def test_averaged_weights_without_a_tensor_are_not_preferred(state: State, tmp_path: Path) -> None:
    averaged = {"stem.weight": state["stem.weight"] + 1}
    assert same(loaded({"model": state, "model_ema": averaged}, tmp_path)[0], state)


def test_heads_are_named_and_dropped(state: State, tmp_path: Path) -> None:
    heads = {"fc.weight": torch.zeros(7, 4), "body.fc.bias": torch.zeros(7), "projector.0.weight": torch.zeros(2, 2)}
    assert same((result := loaded(state | heads, tmp_path, unread=["body.fc"]))[0], state)
    assert result[1] == list(heads)
    wrapped = prefixed(state, "backbone.") | {"head.weight": torch.zeros(7, 4)}
    assert loaded({"state_dict": wrapped}, tmp_path)[1] == ["head.weight"]


def test_a_count_of_batches_may_be_missing(state: State, tmp_path: Path) -> None:
    del state["body.1.num_batches_tracked"]
    assert loaded(state, tmp_path)[1] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("stem.weight"), r"1 of .*: stem\.weight expected \(4, 3, 1, 1\), found none$"),
        (
            lambda state: state.update({"stem.weight": torch.zeros(4, 1, 1, 1)}),
            r"stem\.weight expected \(4, 3, 1, 1\), found \(4, 1, 1, 1\)$",
        ),
        (
            lambda state: state.update({"body.2.weight": torch.zeros(9)}),
            r"body\.2\.weight expected none, found \(9,\)$",
        ),
        (
            lambda state: (state.clear(), state.update({"conv1.weight": torch.zeros(2, 1)})),
            r"8 of .* stem\.weight expected .* it has conv1\.weight \(2, 1\)$",
        ),
    ],
    ids=["missing", "shape", "deeper", "foreign"],
)
def test_another_architecture_is_refused(
    change: Callable[[State], Any], message: str, state: State, tmp_path: Path
) -> None:
    change(state)
    before = make_model(seed=1).state_dict()
    torch.save(state, tmp_path / "other.pth")
    model = make_model(seed=1)
    with pytest.raises(WeightsError, match=message):
        load_checkpoint(model, tmp_path / "other.pth")
    assert same(dict(model.state_dict()), dict(before))


def test_a_librarys_conversion_is_used_where_it_fits_better(state: State, tmp_path: Path) -> None:
    old = {name.replace("stem", "conv1"): tensor for name, tensor in state.items()}

    def convert(tensors: State) -> State:
        return {name.replace("conv1", "stem"): tensor for name, tensor in tensors.items()}

    assert same(loaded(prefixed(old, "module."), tmp_path, convert=convert)[0], state)


def test_a_conversion_that_fails_changes_nothing(state: State, tmp_path: Path) -> None:
    def convert(tensors: State) -> State:
        raise KeyError("pos_embed")

    assert same(loaded(state, tmp_path, convert=convert)[0], state)
