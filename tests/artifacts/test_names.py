"""The names of encoders: on a stage's command line, in the list of the run, and as part of paths and keys."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cbir.artifacts.names import (
    check_encoder,
    check_encoder_name,
    encoder_argument,
    read_encoder_names,
    write_encoder_names,
)
from cbir.core.errors import ConfigError, DataError
from cbir.core.files import write_json
from tests.support.imports import ROOT

NAMES = ["small", "clip-b_32", "7"]


@pytest.fixture
def params(tmp_path: Path) -> Path:
    """A params.yaml with three encoders."""
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"encoders": {name: {"family": "torchvision"} for name in NAMES}}), encoding="utf-8")
    return path


# ---- on the command line


@pytest.mark.parametrize("name", NAMES)
def test_each_encoder_of_params_may_be_named(params: Path, name: str) -> None:
    assert encoder_argument(["stages.embed", name], params) == name


@pytest.mark.parametrize(("arguments", "found"), [([], "none"), (["small", "clip-b_32"], "small clip-b_32")])
def test_encoder_argument_is_required(params: Path, arguments: list[str], found: str) -> None:
    with pytest.raises(ConfigError, match=f"^expected the name of an encoder, found {found}$"):
        encoder_argument(["stages.embed", *arguments], params)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("smal", "nearest: small"), ("zzzz", "expected one of 7, clip-b_32, small"), ("", "expected one")],
)
def test_an_encoder_that_params_lack_is_refused(params: Path, name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(params))}: encoders has no '{name}'; {hint}"):
        encoder_argument(["stages.embed", name], params)


@pytest.mark.parametrize("text", ["dataset: {}\n", "encoders:\n"])
def test_params_without_encoders_have_no_encoder(params: Path, text: str) -> None:
    params.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"params\.yaml: encoders has no 'small'"):
        encoder_argument(["stages.embed", "small"], params)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected the name of an encoder, found none"),
        (["smal"], "params.yaml: encoders has no 'smal'; nearest: small"),
    ],
)
def test_stage_without_its_encoder_ends_with_one_line(params: Path, arguments: list[str], message: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "stages.build_index", *arguments],
        cwd=params.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (1, f"error: {message}\n")
    assert sorted(params.parent.iterdir()) == [params]


# ---- the list of the run


@pytest.mark.parametrize("names", [[], NAMES[:1], NAMES[:2], NAMES, NAMES[::-1]])
def test_the_list_keeps_names_and_order(tmp_path: Path, names: list[str]) -> None:
    path = tmp_path / "reports" / "encoders.json"
    write_encoder_names(path, dict.fromkeys(names))
    assert read_encoder_names(path) == names


@pytest.mark.parametrize("value", [{}, {"encoders": None}, {"encoders": "clip"}, {"encoders": ["clip", 7]}])
def test_another_list_is_refused(tmp_path: Path, value: Any) -> None:
    write_json(tmp_path / "encoders.json", value)
    with pytest.raises(
        DataError, match=r"encoders\.json: expected the names of the encoders, found .*: run `dvc repro`$"
    ):
        read_encoder_names(tmp_path / "encoders.json")


def test_an_absent_list_is_an_error_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^[^\n]*encoders\.json is not here[^\n]*$"):
        read_encoder_names(tmp_path / "encoders.json")


@pytest.mark.parametrize("names", [NAMES[:1], NAMES])
def test_a_name_of_the_run_is_accepted(names: list[str]) -> None:
    for name in names:
        check_encoder(name, iter(names))


@pytest.mark.parametrize(
    ("name", "hint"), [("clip-b_23", "nearest: clip-b_32"), ("xyz", "expected one of 7, clip-b_32, ")]
)
def test_another_name_is_answered_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"^encoder: the run has no '{name}'; {hint}"):
        check_encoder(name, iter(NAMES))


# ---- as part of paths and keys


@pytest.mark.parametrize("name", ["a", "7", "A-b_C-9", "a" * 64])
def test_letters_digits_and_two_signs_make_a_name(name: str) -> None:
    check_encoder_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a.b", "a/b", "a@b", "a b", "a\n", "-a", "_a", "é", "a:b", "${a}", "a" * 65, 7, True, None]
)
def test_every_other_name_is_refused(name: object) -> None:
    with pytest.raises(ConfigError) as refused:
        check_encoder_name(name)
    assert str(refused.value) == (
        f"encoders: expected a name of at most 64 letters, digits, _ and -, the first a letter or digit, found {name!r}"
    )
