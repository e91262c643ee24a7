"""The arguments of `cbir search`, and the query that they describe.  A light module: every command imports it."""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from cbir.artifacts.names import check_encoder
from cbir.core.errors import ConfigError
from cbir.fetching.views import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES

_PATH_PREFIXES = ("/", "./", "../")
_WORDS = "words"  # the part that is given without an option


@dataclass(frozen=True)
class PartArgument:
    """A part of the query as it was typed.  kind : "text", "image" (a path) or "like" (an image_id)."""

    kind: str
    value: str
    weight: float


class _AddPart(argparse.Action):
    """Collect the parts in the order in which they were typed, because --weight belongs to the part before it."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        parts: list[PartArgument] = getattr(namespace, self.dest, None) or []
        name = (option or "").removeprefix("--")
        if name == "weight":
            if not parts and not namespace.words:
                parser.error("--weight: expected a part of the query before it, as in --text star --weight 0.5")
            last = parts[-1] if parts else PartArgument(_WORDS, "", 1.0)
            parts = [*parts[:-1], replace(last, weight=last.weight * values)]
        else:
            kind = {"not": "text", "not-image": "image"}.get(name, name)
            parts = [*parts, PartArgument(kind, values, 1.0 if kind == name else -1.0)]
        setattr(namespace, self.dest, parts)


def add_arguments(parser: argparse.ArgumentParser, data: Path) -> None:
    """Add the arguments of `cbir search`.  data : the default of --data."""
    parser.add_argument("words", nargs="*", metavar="[encoder] query", help="a text, or the path of an image")
    query = parser.add_argument_group("parts of the query; give any number, their weighted embeddings are added")
    for option, name, meaning in (
        ("--text", "TEXT", "search for a text"),
        ("--image", "FILE", "search for an image file"),
        ("--like", "ID", "search for images like this gallery image"),
        ("--not", "TEXT", "move away from a text"),
        ("--not-image", "FILE", "move away from an image file"),
    ):
        query.add_argument(option, dest="parts", action=_AddPart, metavar=name, help=meaning)
    query.add_argument(
        "--weight", dest="parts", action=_AddPart, type=float, metavar="W", help="weight of the part before it (1)"
    )
    parser.add_argument("--encoder", metavar="NAME", help="encoder to use (the first that reads text)")
    parser.add_argument("-k", type=int, default=10, help="maximum number of results (%(default)s)")
    parser.add_argument("--exact", action="store_true", help="search by brute force instead of with the index")
    parser.add_argument(
        "--class", dest="labels", action="append", default=[], metavar="LABEL", help="only images of this class"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--open", action="store_true", help="open a contact sheet in the browser")
    parser.add_argument("--data", type=Path, default=data, help="artifacts of a finished pipeline run (%(default)s)")


def parse_query(
    options: argparse.Namespace,
    encoders: Sequence[str],
    reads_text: Callable[[str], bool],
    has_image: Callable[[str], bool],
) -> tuple[str, list[PartArgument]]:
    """The encoder and all parts of the query: `cbir search clip_demo photo.jpg` gives both without an option.

    encoders : of the run; the first is the default.  has_image : whether the gallery has an image_id.
    Raises ConfigError for an unknown encoder or two different ones, and for words that must be the path of an image and are
    not.
    """
    words, parts = list(options.words), list(options.parts or [])
    encoder = options.encoder
    if encoder is not None:
        check_encoder(encoder, encoders)
    if words and words[0] in encoders:
        if encoder not in (None, words[0]):
            raise ConfigError(f"expected one encoder, found {words[0]} and --encoder {encoder}")
        encoder = words.pop(0)
    encoder = encoder or encoders[0]
    weight = parts.pop(0).weight if parts and parts[0].kind == _WORDS else 1.0
    if words:
        value = " ".join(words)  # quotes are optional
        path = os.path.expanduser(value)
        if os.path.isfile(path):
            parts.insert(0, PartArgument("image", path, weight))
        elif has_image(value):
            raise ConfigError(
                f"{value} is an image of the gallery: to search for images like it, use --like {quote(value)}"
            )
        elif not reads_text(encoder):
            raise ConfigError(f"{value}: expected an image file, found none there; the encoder {encoder} reads no text")
        elif "://" in value:
            raise ConfigError(
                f"{value}: expected a text or an image file, found an address: fetch the image, then give its path; to search "
                "for these words, use --text"
            )
        elif path.startswith(_PATH_PREFIXES) or path.lower().endswith(IMAGE_SUFFIXES + OTHER_IMAGE_SUFFIXES):
            raise ConfigError(
                f"{value}: expected an image file, found none there; to search for these words, use --text"
            )
        else:
            parts.insert(0, PartArgument("text", value, weight))
    return encoder, parts


def describe(part: PartArgument) -> str:
    """A part of the query in words.

    >>> describe(PartArgument("text", "a red star", -0.5)), describe(PartArgument("image", "a.jpg", 1.0))
    ('-0.5 x a red star', 'a.jpg')
    """
    return part.value if part.weight == 1 else f"{part.weight:g} x {part.value}"
