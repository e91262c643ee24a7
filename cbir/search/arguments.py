"""What `cbir search` may be asked: the arguments, and the query that they make.  Light, for every command imports it."""

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cbir.artifacts.names import ENCODERS
from cbir.core.errors import ConfigError
from cbir.datasets.base import IMAGE_SUFFIXES

_PATH_BEGINS = ("/", "./", "../")
_WORDS = "words"  # the part without an option


@dataclass(frozen=True)
class Given:
    """A part of the query as it was typed: which option, its value, its weight."""

    kind: str
    value: str
    weight: float


class _Add(argparse.Action):
    """Parts stand in their order, for --weight belongs to the one before it."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        given: list[Given] = getattr(namespace, self.dest, None) or []
        kind = (option or "").removeprefix("--")
        if kind == "weight":
            if not given and not namespace.words:
                parser.error("--weight: expected a part of the query before it, as in --text star --weight 0.5")
            last = given[-1] if given else Given(_WORDS, "", 1.0)
            given = [*given[:-1], replace(last, weight=last.weight * values)]
        else:
            what = {"not": "text", "not-image": "image"}.get(kind, kind)
            given = [*given, Given(what, values, 1.0 if what == kind else -1.0)]
        setattr(namespace, self.dest, given)


def add_arguments(parser: argparse.ArgumentParser, data: Path) -> None:
    """The arguments of `cbir search`."""
    parser.add_argument("words", nargs="*", metavar="[encoder] query", help="a text, or the path of an image")
    query = parser.add_argument_group("parts of the query, as many as you like; they are added up")
    for option, name, told in (
        ("--text", "TEXT", "words to search for"),
        ("--image", "FILE", "an image file to search for"),
        ("--like", "ID", "an image of the gallery to search for"),
        ("--not", "TEXT", "words that lead away"),
        ("--not-image", "FILE", "an image file that leads away"),
    ):
        query.add_argument(option, dest="given", action=_Add, metavar=name, help=told)
    query.add_argument("--weight", dest="given", action=_Add, type=float, metavar="W", help="of the part before it (1)")
    parser.add_argument("--encoder", choices=ENCODERS, help="who looks (clip)")
    parser.add_argument("-k", type=int, default=10, help="at most so many results (%(default)s)")
    parser.add_argument("--exact", action="store_true", help="search by brute force, not by the index")
    parser.add_argument(
        "--class", dest="labels", action="append", default=[], metavar="LABEL", help="only images of this class"
    )
    parser.add_argument("--json", action="store_true", help="results for a program")
    parser.add_argument("--open", action="store_true", help="a contact sheet in the browser")
    parser.add_argument("--data", type=Path, default=data, help="artifacts of a pipeline that has run (%(default)s)")


def query_of(options: argparse.Namespace) -> tuple[str, list[Given]]:
    """The encoder, and all parts: `cbir search mobilenet photo.jpg` names both without an option."""
    words, given = list(options.words), list(options.given or [])
    encoder = options.encoder
    if words and words[0] in ENCODERS:
        if encoder not in (None, words[0]):
            raise ConfigError(f"expected one encoder, found {words[0]} and --encoder {encoder}")
        encoder = words.pop(0)
    encoder = encoder or "clip"
    weight = given.pop(0).weight if given and given[0].kind == _WORDS else 1.0
    if words:
        value = " ".join(words)  # quotes forgotten
        path = os.path.expanduser(value)
        if os.path.isfile(path):
            given.insert(0, Given("image", path, weight))
        elif encoder == "mobilenet" or path.startswith(_PATH_BEGINS) or path.lower().endswith(IMAGE_SUFFIXES):
            more = "" if encoder == "mobilenet" else "; to search for these words: --text"
            raise ConfigError(f"{value}: expected an image file, found none there{more}")
        else:
            given.insert(0, Given("text", value, weight))
    return encoder, given


def told(given: Given) -> str:
    """How a part is told.

    >>> told(Given("text", "a red star", -0.5)), told(Given("image", "a.jpg", 1.0))
    ("-0.5 x 'a red star'", 'a.jpg')
    """
    weight = "" if given.weight == 1 else f"{given.weight:g} x "
    return weight + (repr(given.value) if given.kind == "text" else given.value)
