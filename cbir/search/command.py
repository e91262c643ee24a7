"""`cbir search`: results for a terminal, a program or a browser."""

import argparse
import json
import logging
import os
import sys
import webbrowser
from io import BytesIO
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cbir.core.text import printable
from cbir.search.arguments import Given, query_of, told
from cbir.search.contact_sheet import write_sheet
from cbir.search.searcher import Part, Results, Searcher, read_query_image

_PICTURE_CELLS = (10, 5)  # columns and lines of a terminal: about a square
_SHEET_FOLDER = Path("search")


def run(options: argparse.Namespace, reports: Path) -> None:
    """Search, and show what was found."""
    encoder, given = query_of(options)
    parts = [_part(one) for one in given]
    searcher = Searcher.open(options.data)
    found = searcher.search(parts, options.k, encoder=encoder, exact=options.exact, labels=options.labels)
    asked = " + ".join(told(one) for one in given)
    if options.json:
        print(json.dumps({"query": asked, **found.to_json()}, indent=2, ensure_ascii=False))
    else:
        _print(found, options.k, searcher, Console())
    if options.open:
        sheet = reports / _SHEET_FOLDER / "contact_sheet.html"
        write_sheet(sheet, asked, parts, found, searcher)
        _show(sheet)


def _part(given: Given) -> Part:
    if given.kind == "image":
        path = Path(given.value).expanduser()
        return Part(image=read_query_image(path), weight=given.weight, name=str(path))
    if given.kind == "like":
        return Part(image_id=given.value, weight=given.weight)
    return Part(text=given.value, weight=given.weight)


def _print(found: Results, k: int, searcher: Searcher, console: Console) -> None:
    picture = _pictures(console)
    table = Table(box=box.SIMPLE)
    for head in (*([""] if picture else []), "rank", "score", "class", "id"):
        table.add_column(head, justify="right" if head in ("rank", "score") else "left", overflow="fold")
    for hit in found:
        cells: list[Any] = [
            f"{hit.rank}",
            f"{hit.score:.3f}",
            Text(printable(hit.label_name or "-")),
            Text(printable(hit.image_id)),
        ]
        table.add_row(*([picture(searcher.image_bytes(hit.image_id))] if picture else []), *cells)
    console.print(table)
    if len(found) < k:
        console.print(f"no more than {len(found)} {'was' if len(found) == 1 else 'were'} found")
    if found.categories:
        console.print("similar categories, with their cosine distance:")
        for one in found.categories:
            console.print(f"  {one.distance:.3f}  {printable(one.label_name)}", markup=False, highlight=False)
    times = f"{found.encode_ms:.0f} ms to embed, {found.search_ms:.1f} ms to search"
    console.print(f"{found.encoder}, {found.by}: {times}", markup=False, highlight=False)


def _pictures(console: Console) -> Any:
    """What draws an image in this terminal; None where it cannot."""
    if not console.is_terminal or console.color_system not in ("truecolor", "256"):
        return None
    if not sys.stdin.isatty() or 0 in os.get_terminal_size(sys.stdout.fileno()):
        return None  # it could not be asked, or has no size
    logging.getLogger("textual_image").setLevel(logging.CRITICAL)  # a terminal that does not answer is no news
    from PIL import Image
    from textual_image.renderable import Image as Drawn  # asks the terminal what it can

    width, height = _PICTURE_CELLS
    return lambda data: Drawn(Image.open(BytesIO(data)).convert("RGB"), width=width, height=height)


def _show(path: Path) -> None:
    opened = webbrowser.open(path.resolve().as_uri())
    print(f"contact sheet: {path}{'' if opened else ' (no browser was found here)'}", file=sys.stderr)
