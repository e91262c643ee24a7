"""The query that the arguments of `cbir search` describe."""

import argparse
import re
from pathlib import Path
from shlex import quote

import pytest

from cbir.core.errors import ConfigError
from cbir.search.arguments import PartArgument, add_arguments, parse_query


def test_parts_keep_their_order_and_signs() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Path("data"))
    arguments = ["a star", "--not", "red", "--weight", "0.5", "--like", "i", "--weight", "2", "--weight", "-1"]
    assert parse_query(
        parser.parse_args(arguments), ["clip", "mobilenet"], lambda encoder: True, lambda image_id: False
    ) == (
        "clip",
        [PartArgument("text", "a star", 1.0), PartArgument("text", "red", -0.5), PartArgument("like", "i", -2.0)],
    )


@pytest.mark.parametrize(
    ("arguments", "encoders", "expected"),
    [
        ("a star", ["b"], ("b", "a star")),
        ("a star", ["b", "a", "c"], ("a", "star")),
        ("c star", ["b", "a", "c"], ("c", "star")),
        ("star --encoder c", ["b", "a", "c"], ("c", "star")),
        ("c star --encoder c", ["b", "a", "c"], ("c", "star")),
    ],
)
def test_the_first_word_may_be_an_encoder_of_the_run(
    arguments: str, encoders: list[str], expected: tuple[str, str]
) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Path("data"))
    encoder, (part,) = parse_query(
        parser.parse_args(arguments.split()), encoders, lambda encoder: True, lambda image_id: False
    )
    assert (encoder, part.value) == expected


@pytest.mark.parametrize("encoders", [["clip_demo"], ["mobilenet_demo", "clip_demo"], ["a", "b", "clip_demo"]])
def test_an_unknown_encoder_is_refused_with_the_nearest(encoders: list[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Path("data"))
    options = parser.parse_args(["star", "--encoder", "clip_dmo"])
    with pytest.raises(ConfigError, match=r"^encoder: the run has no 'clip_dmo'; nearest: clip_demo$"):
        parse_query(options, encoders, lambda encoder: True, lambda image_id: False)


@pytest.mark.parametrize("words", ["cats/my 1.jpg", "star"])
def test_the_id_of_a_gallery_image_is_no_text(words: str) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Path("data"))
    message = f"{words} is an image of the gallery: to search for images like it, use --like {quote(words)}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        parse_query(parser.parse_args([words]), ["clip"], lambda encoder: True, {words}.__contains__)


@pytest.mark.parametrize(
    "query",
    ["IMG_0001.HEIC", "photos/IMG_0001.heic", "my holiday.avif", "missing.jpg", "a.CR2", "x.jxl", "./words", "/x"],
)
def test_the_path_of_a_missing_image_is_no_text(query: str) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Path("data"))
    with pytest.raises(ConfigError, match=r"expected an image file, found none there; .* use --text$"):
        parse_query(parser.parse_args(query.split()), ["clip"], lambda encoder: True, lambda image_id: False)


def test_the_address_of_an_image_is_no_text() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Path("data"))
    options = parser.parse_args(["https://host/cat.jpg?size=large"])
    with pytest.raises(ConfigError, match=r"found an address: fetch the image, then give its path; .* use --text$"):
        parse_query(options, ["clip"], lambda encoder: True, lambda image_id: False)


@pytest.mark.parametrize("query", ["a red star", "black/white photo", "a jpg", "no. 5", "heic"])
def test_other_words_are_a_text(query: str) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Path("data"))
    _, (part,) = parse_query(parser.parse_args(query.split()), ["clip"], lambda encoder: True, lambda image_id: False)
    assert part == PartArgument("text", query, 1.0)
