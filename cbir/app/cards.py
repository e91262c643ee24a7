"""What the page shows of data: every text of a gallery or a user is escaped here, for HTML or for Markdown."""

import re
from base64 import b64encode
from html import escape

from cbir.app.state import CardImage
from cbir.core.text import printable
from cbir.search.searcher import Category, Hit

_JOINER = "\u2060"  # has no width
_MARKS = re.compile(r"([!-/:-@\[-`{-~])")
_REPLACED = re.compile(r"(:(?=\S)|[<>~-](?=[<>=-])|(?<=www)\.|@)", re.IGNORECASE)
_CARD_PX, _PICTURE_PX = 192, 128
_ENCODERS = {"clip": "CLIP", "mobilenet": "MobileNetV3"}
_SCALE = 2  # small images are blurs, or squares, when they are drawn much larger

STYLE = """<style>
[data-testid="stMainBlockContainer"] {padding: 4rem 1.25rem 3rem; max-width: 76rem;}
[data-testid="stMainBlockContainer"] h1 {font-size: 1.9rem; padding: .4rem 0;}
[data-testid="stMainBlockContainer"] [data-testid="stBaseButton-tertiary"] {
  min-height: 1.5rem; font-size: .82rem; color: #b32b3d; text-decoration: underline; text-underline-offset: .2em;}
.cbir-card {margin: 0; line-height: 1.35; font-size: .82rem; overflow-wrap: anywhere;}
.cbir-card img {display: block; max-width: 100%; height: auto; border-radius: .4rem; margin-bottom: .35rem;}
.cbir-card .score {font-variant-numeric: tabular-nums;}
.cbir-card .id {opacity: .65; font-size: .74rem; display: block;}
.stHtml ol.cbir-chips {margin: 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .4rem;}
.stHtml ol.cbir-chips li {border: 1px solid rgba(128, 128, 128, .35); border-radius: 1rem; padding: .1rem .7rem; margin: 0;
  font-size: .86rem; overflow-wrap: anywhere;}
.cbir-chips span {opacity: .65; font-variant-numeric: tabular-nums;}
</style>"""


def as_markdown(text: str) -> str:
    r"""Markdown that shows `text` as it is, for what Streamlit only takes as Markdown: buttons and messages.

    Streamlit replaces :smile:, -> and www.x.com when Markdown's own escapes are gone: an invisible joiner keeps those apart.

    >>> print(as_markdown("**bold** #1"))
    \*\*bold\*\* \#1
    """
    return _MARKS.sub(r"\\\1", _REPLACED.sub(rf"\1{_JOINER}", printable(text, None)))


def encoder_name(encoder: str) -> str:
    """What people call an encoder.

    >>> encoder_name("mobilenet")
    'MobileNetV3'
    """
    return _ENCODERS.get(encoder, encoder)


def image_html(thumbnail: CardImage, alt: str, most_px: int) -> str:
    """The image itself within HTML, at most so wide: nothing is left on the server when the page goes."""
    width = min(_SCALE * thumbnail.width, most_px)
    source = f"data:image/{thumbnail.kind};base64,{b64encode(thumbnail.data).decode()}"
    return f'<img src="{source}" alt="{escape(alt)}" width="{width}">'


def card_html(hit: Hit, thumbnail: CardImage) -> str:
    """A result: the image, with rank, score, label and id under it."""
    name = printable(hit.label_name or "no label")
    alt = f"Result {hit.rank}: {name}"
    return (
        f'<figure class="cbir-card">{image_html(thumbnail, alt, _CARD_PX)}<figcaption>'
        f'<span class="score">{hit.rank}. <b>{hit.score:.3f}</b></span> {escape(name)}'
        f'<span class="id">{escape(printable(hit.image_id))}</span></figcaption></figure>'
    )


def picture_html(thumbnail: CardImage, caption: str) -> str:
    """An image that is no result, with words under it."""
    words = printable(caption)
    image = image_html(thumbnail, words, _PICTURE_PX)
    return f'<figure class="cbir-card">{image}<figcaption>{escape(words)}</figcaption></figure>'


def categories_html(categories: tuple[Category, ...]) -> str:
    """Classes and their distances, the nearest first."""
    items = [f"<li>{escape(printable(one.label_name))} <span>{one.distance:.3f}</span></li>" for one in categories]
    return f'<ol class="cbir-chips">{"".join(items)}</ol>'
