"""A picture of each ranking, `<task>_<encoder>/0.png` and so on, which DVC's tools show as the steps of one plot.

Pictures of one number are of one query.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from cbir.artifacts.paths import DataPaths
from cbir.core.files import fresh_folder, replacing
from cbir.core.text import printable
from cbir.report.class_names import short_name
from cbir.report.examples import Example, Ranking, images_of
from cbir.report.facts import Facts
from cbir.report.figures import figure
from cbir.report.judged import MAX_HITS, ExampleHit
from cbir.report.thumbnails import small_images

_PAPER, _INK, _GREY, _GREEN, _RED = "#ffffff", "#1d1f23", "#9aa0a8", "#177a3b", "#b3261e"
_FRAME, _GAP, _LINE, _TEXT_PX = 3, 10, 15, 11
_CHARACTERS: Final = 18  # of the class name below a picture
Font = ImageFont.FreeTypeFont


def write_galleries(out: Path, facts: Facts, examples: Sequence[Example], data: DataPaths, px: int) -> None:
    """Write a picture of each ranking: the query on the left, its ranked results on the right, framed green or red."""
    fresh_folder(out)
    pictures = {
        image_id: image
        for kind in ("gallery", "queries")
        for image_id, image in small_images(data.images(kind), images_of(examples), px)
    }
    font, counts = ImageFont.truetype(findfont("DejaVu Sans"), _TEXT_PX), Counter[str]()
    for example in examples:
        number = counts[example.task]
        counts[example.task] += 1
        for ranking in example.rankings:
            with replacing(out / f"{example.task}_{ranking.encoder}" / f"{number}.png") as temporary:
                _draw(example, ranking, facts, pictures, px, font).save(temporary, "PNG")


def _draw(
    example: Example, ranking: Ranking, facts: Facts, pictures: dict[str, Image.Image], px: int, font: Font
) -> Image.Image:
    tile = max(px, _CHARACTERS * _TEXT_PX * 3 // 5) + 2 * _FRAME + _GAP
    width, height = _GAP + (MAX_HITS + 1) * tile, 2 * _GAP + _LINE + px + 2 * _FRAME + 2 * _LINE
    page = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(page)
    value = "" if ranking.map_at_r is None else f", MAP@R {figure(ranking.map_at_r)}"
    query = example.query.query_id if example.query.text is None else f"“{example.query.text}”"
    label = "" if example.query.label is None else f" ({facts.class_name(example.query.label)})"
    pen.text((_GAP, _GAP // 2), printable(f"{example.kind}{value}: {query}{label}"), _INK, font)
    top = _GAP + _LINE
    if example.query.image_id is not None and example.query.image_id in pictures:
        _paste(page, pictures[example.query.image_id], (_GAP, top), _INK)
        pen.text((_GAP, top + px + 2 * _FRAME), "query", _INK, font)
    for place, hit in enumerate(ranking.hits, 1):
        left, (colour, judgement) = _GAP + place * tile, _judgement(hit)
        if hit.image_id in pictures:
            _paste(page, pictures[hit.image_id], (left, top), colour)
        below = top + px + 2 * _FRAME
        pen.text((left, below), f"{hit.rank}. {hit.score:.3f} {judgement}", colour, font)
        name = hit.image_id if hit.label is None else short_name(hit.label, facts.names)
        pen.text((left, below + _LINE), printable(name, _CHARACTERS), _INK, font)
    return page


def _judgement(hit: ExampleHit) -> tuple[str, str]:
    """Return colour and text of a result's judgement."""
    if hit.is_relevant is None:
        return _GREY, ""
    return (_GREEN, "relevant") if hit.is_relevant else (_RED, "not relevant")


def _paste(page: Image.Image, picture: Image.Image, corner: tuple[int, int], colour: str) -> None:
    framed = Image.new("RGB", (picture.width + 2 * _FRAME, picture.height + 2 * _FRAME), colour)
    framed.paste(picture, (_FRAME, _FRAME))
    page.paste(framed, corner)
