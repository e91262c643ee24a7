"""The words that describe a drawing."""

from dataclasses import replace

import pytest

from cbir.drawing.attributes import BACKGROUNDS, COLOURS, SHAPES, SIZES, TEXTURES, Attributes

STAR = Attributes("star", "red", "striped", "large", "grey")


def test_label_and_caption_name_the_attributes():
    assert STAR.label == "red star"
    assert STAR.caption == "a large striped red star on a grey background"
    assert replace(STAR, texture="plain").caption == "a large plain red star on a grey background"


@pytest.mark.parametrize(
    ("field", "valid"),
    [
        ("shape", SHAPES),
        ("colour", COLOURS),
        ("texture", TEXTURES),
        ("size", SIZES),
        ("background", BACKGROUNDS),
    ],
)
def test_unknown_word_is_refused_with_the_valid_ones(field, valid):
    with pytest.raises(ValueError, match=f"{field} must be one of {', '.join(valid)}; found 'mauve'"):
        replace(STAR, **{field: "mauve"})
