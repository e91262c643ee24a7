"""Prompt sets: templates of the package and of a user's file, and the prompts of each class."""

from pathlib import Path

import pytest
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

from cbir.core.errors import ConfigError
from cbir.datasets.prompt_sets import prompt_table, read_templates

NAMES = {"n01": ["goldfish", "Carassius auratus"], "n02": ["cat"]}


def test_the_80_templates_are_those_of_open_clip() -> None:
    assert read_templates("clip_80") == [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]
    assert read_templates("bare") == ["{}"]
    assert read_templates("photo") == ["a photo of a {}."]


def test_each_class_gets_each_template_and_each_synonym() -> None:
    rows = prompt_table(["bare", "synonyms"], NAMES).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("bare", "n01", 0, "goldfish"),
        ("bare", "n02", 0, "cat"),
        ("synonyms", "n01", 0, "a photo of a goldfish."),
        ("synonyms", "n01", 1, "a photo of a Carassius auratus."),
        ("synonyms", "n02", 0, "a photo of a cat."),
    ]
    assert prompt_table([], NAMES).num_rows == 0
    assert prompt_table(["clip_80"], NAMES).num_rows == 160


def test_templates_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("an engraving of {}\n\n  {} in the snow  \n", encoding="utf-8")
    assert read_templates(str(tmp_path / "mine.txt")) == ["an engraving of {}", "{} in the snow"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"a photo of a cat",
            r"mine\.txt line 1: expected exactly one \{\} where the class name goes, found 'a photo of",
        ),
        (b"{}\n{} and {}", r"mine\.txt line 2: expected exactly one \{\}"),
        (b"\n\n", r"mine\.txt: expected one template per line, found none"),
        (
            b"\xff{}",
            r"queries\.prompt_sets: expected bare, clip_80, photo, synonyms or a text file, found '.*mine\.txt'",
        ),
        (None, r"queries\.prompt_sets: expected bare, clip_80, photo, synonyms or a text file, found '.*mine\.txt'"),
    ],
)
def test_invalid_templates_are_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "mine.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_templates(str(tmp_path / "mine.txt"))
