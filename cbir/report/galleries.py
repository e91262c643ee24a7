"""Each example as a picture of its own, `<task>_<encoder>/0.png` and so on, as DVC's tools show them: as steps of one plot."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from cbir.core.files import fresh_folder, replacing
from cbir.core.text import printable
from cbir.report.examples import SHOWN_RESULTS, Example, Found, images_of
from cbir.report.facts import Facts, short_name
from cbir.report.figures import figure
from cbir.report.thumbnails import small_images

_PAPER, _INK, _GREY, _RIGHT, _WRONG = "#ffffff", "#1d1f23", "#9aa0a8", "#177a3b", "#b3261e"
_FRAME, _GAP, _LINE, _TEXT_PX = 3, 10, 15, 11
_WORDS: Final = 18  # characters below a picture
Font = ImageFont.FreeTypeFont


def write_galleries(out: Path, facts: Facts, examples: Sequence[Example], data: Path, px: int) -> None:
    """Write a picture of each example: the query on the left, its ranked results right, framed green or red."""
    fresh_folder(out)
    pictures = {
        image_id: image
        for kind in ("gallery", "queries")
        for image_id, image in small_images(data / "images" / kind, images_of(examples), px)
    }
    font, counts = ImageFont.truetype(findfont("DejaVu Sans"), _TEXT_PX), Counter[str]()
    for one in examples:
        folder = f"{one.task}_{one.encoder}"
        path = out / folder / f"{counts[folder]}.png"
        counts[folder] += 1
        with replacing(path) as temporary:
            _draw(one, facts, pictures, px, font).save(temporary, "PNG")


def _draw(one: Example, facts: Facts, pictures: dict[str, Image.Image], px: int, font: Font) -> Image.Image:
    tile = max(px, _WORDS * _TEXT_PX * 3 // 5) + 2 * _FRAME + _GAP
    width, height = _GAP + (SHOWN_RESULTS + 1) * tile, 2 * _GAP + _LINE + px + 2 * _FRAME + 2 * _LINE
    page = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(page)
    value = "" if one.map_at_r is None else f", MAP@R {figure(one.map_at_r)}"
    asked = one.query.query_id if one.query.text is None else f"“{one.query.text}”"
    label = "" if one.query.label is None else f" ({facts.class_name(one.query.label)})"
    pen.text((_GAP, _GAP // 2), printable(f"{one.kind}{value}: {asked}{label}"), _INK, font)
    top = _GAP + _LINE
    if one.query.image_id is not None and one.query.image_id in pictures:
        _paste(page, pictures[one.query.image_id], (_GAP, top), _INK)
        pen.text((_GAP, top + px + 2 * _FRAME), "query", _INK, font)
    for place, hit in enumerate(one.found, 1):
        left, (colour, word) = _GAP + place * tile, _judged(hit)
        if hit.image_id in pictures:
            _paste(page, pictures[hit.image_id], (left, top), colour)
        below = top + px + 2 * _FRAME
        pen.text((left, below), f"{hit.rank}. {hit.score:.3f} {word}", colour, font)
        name = hit.image_id if hit.label is None else short_name(hit.label, facts.names)
        pen.text((left, below + _LINE), printable(name, _WORDS), _INK, font)
    return page


def _judged(hit: Found) -> tuple[str, str]:
    """Colour and word."""
    if hit.is_relevant is None:
        return _GREY, ""
    return (_RIGHT, "right") if hit.is_relevant else (_WRONG, "wrong")


def _paste(page: Image.Image, picture: Image.Image, corner: tuple[int, int], colour: str) -> None:
    framed = Image.new("RGB", (picture.width + 2 * _FRAME, picture.height + 2 * _FRAME), colour)
    framed.paste(picture, (_FRAME, _FRAME))
    page.paste(framed, corner)
