"""Pages that need no other file and no network: templates, pictures and charts in one; text from data is escaped."""

import json
import re
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from cbir.core.text import printable
from cbir.evaluation.definitions import FAMILIES
from cbir.report.facts import flat, name_of, short_name
from cbir.report.figures import signed
from cbir.report.filling import fill
from cbir.report.thumbnails import Thumbnail, read_thumbnails

_SCRIPT = Path(__file__).with_name("templates") / "page.js"


def write_page(
    out: Path, template: str, names: Mapping[str, str], definitions: Mapping[str, Any], **values: Any
) -> None:
    """Fill a template.  names : label -> what people call the class.  definitions : of the metrics."""
    script = _SCRIPT.read_text(encoding="utf-8")
    fill(
        out,
        template,
        {
            "signed": signed,
            "printable": printable,
            "class_name": partial(name_of, names=names),
            "short_name": partial(short_name, names=names),
            "marked": _marked,
            "flat": flat,
        },
        {
            "definitions": definitions,
            "family_of": {name: one["family"] for name, one in definitions.items()},
            "defined": FAMILIES,
        },
        values
        | {
            "script": Markup(script),  # noqa: S704 - our own
            "script_hash": f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}",  # no other runs in the page
        },
        html=True,
    )


def _marked(text: str) -> Markup:
    """Our own Markdown of `code` and *emphasis* as HTML; everything else in it is escaped."""
    escaped = str(escape(text))
    return Markup(re.sub(r"\*(\w+)\*", r"<em>\1</em>", re.sub(r"`([^`]*)`", r"<code>\1</code>", escaped)))  # noqa: S704


def drawings(charts: Sequence[str]) -> list[Markup]:
    """Charts as elements of a page: with script_json the only markup that passes, drawn by us from escaped text."""
    return [Markup(chart) for chart in charts]  # noqa: S704


def script_json(value: Any) -> Markup:
    """JSON for a <script> element, which nothing in it can end.

    >>> script_json("</script>")
    Markup('"\\\\u003c/script\\\\u003e"')
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))  # noqa: S704


def pictures_of(data: Path, image_ids: Collection[str], px: int) -> dict[str, Thumbnail]:
    """image_id -> its thumbnail, of images of the gallery and of the queries."""
    found: dict[str, Thumbnail] = {}
    for kind in ("gallery", "queries"):
        found |= read_thumbnails(data / "images" / kind, image_ids, px)
    return found
