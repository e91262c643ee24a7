"""HTML and Markdown of the page; every text that comes from a gallery or a user is escaped here."""

import re
from collections.abc import Sequence
from html import escape

from cbir.core.text import printable
from cbir.search.results import Category, Hit
from cbir.search.thumbnails import Thumbnail

_JOINER = "\u2060"  # has no width
_MARKS = re.compile(r"([!-/:-@\[-`{-~])")
_REPLACED = re.compile(r"(:(?=\S)|[<>~-](?=[<>=-])|(?<=www)\.|@)", re.IGNORECASE)
_CARD_PX, _QUERY_PX = 192, 128
_MAX_SCALE = 2  # larger, small images look blurred or show squares

STYLE = """<style>
[data-testid="stMainBlockContainer"] {padding: 1rem 1.25rem 3rem; max-width: 76rem;}
[data-testid="stMainBlockContainer"] h1 {font-size: 1.9rem; padding: .4rem 0;}
[data-testid="stMainBlockContainer"] [data-testid="stBaseButton-tertiary"] {
  min-height: 1.5rem; font-size: .82rem; color: #b32b3d; text-decoration: underline; text-underline-offset: .2em;}
[data-testid="stMain"]:has([data-testid="stIFrame"]) [data-testid="stMainBlockContainer"] {padding-bottom: 0;}
[data-testid="stIFrame"] {height: calc(100dvh - 4rem);}
[data-testid="stPageLink-NavLink"]:focus-visible {outline: 2px solid #b32b3d;}
[data-testid="stHeader"] {pointer-events: none; background: none;}  /* it lies above the menu */
.cbir-card {margin: 0; line-height: 1.35; font-size: .82rem; overflow-wrap: anywhere;}
.cbir-card img {display: block; max-width: 100%; height: auto; border-radius: .4rem; margin-bottom: .35rem;}
.cbir-card .score {font-variant-numeric: tabular-nums;}
.cbir-card .id {opacity: .65; font-size: .74rem; display: -webkit-box; overflow: hidden; -webkit-box-orient: vertical;
  -webkit-line-clamp: 3;}
.stHtml ol.cbir-chips {margin: 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .4rem;}
.stHtml ol.cbir-chips li {border: 1px solid rgba(128, 128, 128, .35); border-radius: 1rem; padding: .1rem .7rem; margin: 0;
  font-size: .86rem; overflow-wrap: anywhere;}
.cbir-chips span {opacity: .65; font-variant-numeric: tabular-nums;}
</style>"""


def as_markdown(text: str) -> str:
    r"""Markdown that shows `text` as it is, for buttons and messages, which Streamlit takes only as Markdown.

    Streamlit replaces :smile:, -> and www.x.com even if their characters are escaped; an invisible joiner prevents that.

    >>> print(as_markdown("**bold** #1"))
    \*\*bold\*\* \#1
    """
    return _MARKS.sub(r"\\\1", _REPLACED.sub(rf"\1{_JOINER}", printable(text, None)))


def image_html(thumbnail: Thumbnail, alt: str, max_px: int) -> str:
    """An <img> that contains its image, so that nothing is left on the server when the user leaves.  max_px : of its width."""
    width = min(_MAX_SCALE * thumbnail.width, max_px)
    return f'<img src="{thumbnail.uri}" alt="{escape(alt)}" width="{width}">'


def result_html(hit: Hit, thumbnail: Thumbnail) -> str:
    """The card of a result: the image, and below it rank, score, label if it has one, and id."""
    name = printable(hit.label_name or "")
    alt = f"Result {hit.rank}: {name or printable(hit.image_id)}"
    return (
        f'<figure class="cbir-card">{image_html(thumbnail, alt, _CARD_PX)}<figcaption>'
        f'<span class="score">{hit.rank}. <b>{hit.score:.3f}</b></span> {escape(name)}'
        f'<span class="id">{escape(printable(hit.image_id))}</span></figcaption></figure>'
    )


def captioned_html(thumbnail: Thumbnail, caption: str) -> str:
    """An image with a caption."""
    caption = printable(caption)
    image = image_html(thumbnail, caption, _QUERY_PX)
    return f'<figure class="cbir-card">{image}<figcaption>{escape(caption)}</figcaption></figure>'


def query_html(added: Sequence[str], without: str) -> str:
    """The parts of a query: those that it adds, and the words that it leaves out."""
    items = [f"<li>{'+ ' * (number > 0)}{escape(printable(part))}</li>" for number, part in enumerate(added)]
    items += [f"<li>\N{MINUS SIGN} {escape(printable(without))}</li>"] if without else []
    return f'<ol class="cbir-chips" aria-label="Query">{"".join(items)}</ol>'


def categories_html(categories: tuple[Category, ...]) -> str:
    """A list of categories with their distances."""
    items = [
        f"<li>{escape(printable(category.label_name))} <span>{category.distance:.3f}</span></li>"
        for category in categories
    ]
    return f'<ol class="cbir-chips">{"".join(items)}</ol>'
