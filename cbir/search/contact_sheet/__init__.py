"""The contact sheet: the results of a search as one HTML page that needs no other file."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from cbir.core.files import replacing
from cbir.core.html import data_uri
from cbir.core.text import printable
from cbir.search.query import QueryPart
from cbir.search.results import Results
from cbir.search.searcher import Searcher


def write_sheet(path: Path, query: str, parts: Sequence[QueryPart], results: Results, searcher: Searcher) -> None:
    """Write the page; text from data is escaped.  query : the query in words."""
    environment = Environment(
        loader=PackageLoader("cbir.search.contact_sheet"), undefined=StrictUndefined, autoescape=True
    )
    query_images = [image for part in parts if (image := searcher.query_image(part)) is not None]
    page = environment.get_template("sheet.html.j2").render(
        query=printable(query, max_characters=None),
        query_images=[_image_uri(image) for image in query_images],
        results=results,
        hits=[(hit, _image_uri(searcher.image_bytes(hit.image_id))) for hit in results],
        printable=printable,
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _image_uri(packed: bytes) -> str:
    return data_uri(packed, "image/png" if packed.startswith(b"\x89PNG") else "image/jpeg")
