"""JSON and YAML that would end in a traceback, or never."""

from itertools import pairwise
from pathlib import Path
from time import perf_counter

import pytest

from cbir.core.errors import ConfigError, DataError
from cbir.core.params import read_yaml
from cbir.core.parsing import parse_json, parse_yaml
from cbir.runs.repair import repair

LETTERS = "abcdefghijk"
BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise(LETTERS))
DEEP = {
    "list": "[" * 100_000,
    "flow": "a: " + "{a: " * 5_000,
    "block": "".join(f"{' ' * depth}a:\n" for depth in range(1_000)),
}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{", "", "a: 1"])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"nested too deeply|Expecting"):
        parse_json(text)
    with pytest.raises(ValueError, match=r"nested too deeply|Expecting"):
        parse_json(text.encode())


@pytest.mark.parametrize(
    "text", [BOMB, *DEEP.values(), "a: [", "\x00", "- *a"], ids=["bomb", *DEEP, "open", "zero", "unknown"]
)
def test_what_is_no_plain_yaml_is_refused_at_once(text: str, tmp_path: Path) -> None:
    begun = perf_counter()
    with pytest.raises(
        ValueError, match=r"expected no alias, found \*a|nested more than 50 deep|expected|unacceptable"
    ):
        parse_yaml(text)
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"params\.yaml is not readable as YAML: [^\n]+$"):
        read_yaml(tmp_path / "params.yaml")
    assert perf_counter() - begun < 60


def test_plain_yaml_is_parsed() -> None:
    assert parse_yaml("a: [1, {b: 'c'}]\nd: null\n") == {"a": [1, {"b": "c"}], "d": None}


OTHER_SHAPES = ["[]", "stages: []", "stages: {a: []}", "stages: {a: {outs: [{}]}}", "stages: {a: {outs: 5}}"]


@pytest.mark.parametrize("text", [*OTHER_SHAPES, BOMB, DEEP["list"]], ids=[*OTHER_SHAPES, "bomb", "deep"])
def test_a_lock_of_another_shape_is_refused_in_one_line(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbir.runs.repair.dvc_cache_folder", lambda root: root)
    (tmp_path / "dvc.lock").write_text(text)
    with pytest.raises(DataError, match=r"^[^\n]*dvc\.lock: expected the file that DVC writes [^\n]*$"):
        repair(tmp_path)
