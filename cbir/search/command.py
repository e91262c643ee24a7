"""`cbir search`: results in the terminal, as JSON, or in the browser."""

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

from cbir.artifacts.paths import ReportPaths
from cbir.core.text import printable
from cbir.encoders.demo import DEMO_NOTE
from cbir.search.arguments import PartArgument, describe, parse_query
from cbir.search.contact_sheet import write_sheet
from cbir.search.query import QueryPart, read_query_image
from cbir.search.results import Results
from cbir.search.searcher import Searcher

_IMAGE_CELLS = (10, 5)  # columns and lines of a terminal: about a square


def run(options: argparse.Namespace, reports: Path) -> None:
    """Search, and print the results."""
    searcher = Searcher.open(options.data)
    encoder, arguments = parse_query(options, searcher.encoders, searcher.takes_words, searcher.has_image)
    parts = [_query_part(argument) for argument in arguments]
    results = searcher.search(parts, options.k, encoder=encoder, exact=options.exact, labels=options.labels)
    query = " + ".join(map(describe, arguments))
    if options.json:
        print(json.dumps({"query": query, **results.to_json()}, indent=2, ensure_ascii=False))
    else:
        _print(results, options.k, searcher, Console())
    if options.open:
        sheet = ReportPaths(reports).contact_sheet
        write_sheet(sheet, query, parts, results, searcher)
        _open_in_browser(sheet)


def _query_part(argument: PartArgument) -> QueryPart:
    if argument.kind == "image":
        path = Path(argument.value).expanduser()
        return QueryPart(image=read_query_image(path), weight=argument.weight, name=str(path))
    if argument.kind == "like":
        return QueryPart(image_id=argument.value, weight=argument.weight)
    return QueryPart(text=argument.value, weight=argument.weight)


def _print(results: Results, k: int, searcher: Searcher, console: Console) -> None:
    draw = _image_drawer(console)
    table = Table(box=box.SIMPLE)
    with_files = any(hit.source != hit.image_id for hit in results)
    for head in (*([""] if draw else []), "rank", "score", "class", "id", *(["file"] if with_files else [])):
        table.add_column(head, justify="right" if head in ("rank", "score") else "left", overflow="fold")
    for hit in results:
        cells: list[Any] = [
            f"{hit.rank}",
            f"{hit.score:.3f}",
            Text(printable(hit.label_name or "-")),
            Text(printable(hit.image_id)),
            *([Text(printable(hit.source))] if with_files else []),
        ]
        table.add_row(*([draw(searcher.image_bytes(hit.image_id))] if draw else []), *cells)
    console.print(table)
    if searcher.files is not None and any(hit.path for hit in results):
        console.print(
            f"files below {printable(searcher.files, max_characters=None)}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if len(results) < k:
        console.print(
            f"{len(results)} {'result' if len(results) == 1 else 'results'}, fewer than -k {k}", highlight=False
        )
    if results.categories:
        console.print("nearest categories, with their cosine distance:")
        for category in results.categories:
            console.print(f"  {category.distance:.3f}  {printable(category.label_name)}", markup=False, highlight=False)
    times = f"{results.encode_ms:.0f} ms to embed the query, {results.search_ms:.1f} ms to search"
    console.print(f"{results.encoder}, {results.by}: {times}", markup=False, highlight=False)
    if searcher.has_demo_weights(results.encoder):
        console.print(f"note: {results.encoder} {DEMO_NOTE}", markup=False, highlight=False)


def _image_drawer(console: Console) -> Any:
    """A function that draws an image in this terminal; None if the terminal cannot show images."""
    if not console.is_terminal or console.color_system not in ("truecolor", "256"):
        return None
    if not sys.stdin.isatty() or 0 in os.get_terminal_size(sys.stdout.fileno()):
        return None  # the terminal cannot be queried, or has no size
    logging.getLogger("textual_image").setLevel(logging.CRITICAL)  # it warns when the terminal does not reply
    from PIL import Image
    from textual_image.renderable import Image as TerminalImage  # the import asks the terminal what it can show

    width, height = _IMAGE_CELLS
    return lambda data: TerminalImage(Image.open(BytesIO(data)).convert("RGB"), width=width, height=height)


def _open_in_browser(path: Path) -> None:
    opened = webbrowser.open(path.resolve().as_uri())
    print(f"contact sheet: {path}{'' if opened else ' (no browser was found)'}", file=sys.stderr)
