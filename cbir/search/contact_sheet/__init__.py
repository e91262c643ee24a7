"""The results of a search as one page that needs no other file."""

from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from cbir.core.files import replacing
from cbir.core.text import printable
from cbir.search.searcher import Part, Results, Searcher


def write_sheet(path: Path, asked: str, parts: Sequence[Part], found: Results, searcher: Searcher) -> None:
    """Write the page; text from data is escaped.

    asked : the query in words.
    """
    environment = Environment(
        loader=PackageLoader("cbir.search.contact_sheet"), undefined=StrictUndefined, autoescape=True
    )
    page = environment.get_template("sheet.html.j2").render(
        asked=printable(asked, max_characters=None),
        queried=[_address(picture) for part in parts if (picture := searcher.picture_of(part)) is not None],
        found=found,
        hits=[(hit, _address(searcher.image_bytes(hit.image_id))) for hit in found],
        printable=printable,
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _address(packed: bytes) -> str:
    """A packed image as an address that holds it."""
    kind = "png" if packed.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{b64encode(packed).decode()}"
