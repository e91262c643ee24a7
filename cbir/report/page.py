"""Self-contained HTML pages: templates, pictures and charts in one file; text from data is escaped."""

import json
import re
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from cbir.artifacts.paths import DataPaths
from cbir.core.text import printable
from cbir.evaluation.definitions import FAMILIES
from cbir.report.class_names import full_name, short_name
from cbir.report.figures import flatten, signed
from cbir.report.filling import fill
from cbir.report.thumbnails import Thumbnail, read_thumbnails

_SCRIPT = Path(__file__).with_name("templates") / "page.js"


def write_page(
    out: Path,
    template: str,
    names: Mapping[str, str],
    definitions: Mapping[str, Any],
    package: str = "cbir.report",
    **values: Any,
) -> None:
    """Render a template of a package and write it to `out`.

    names : label -> name of the class.  definitions : of the metrics.
    """
    script = _SCRIPT.read_text(encoding="utf-8")
    fill(
        out,
        template,
        {
            "signed": signed,
            "printable": printable,
            "class_name": partial(full_name, names=names),
            "short_name": partial(short_name, names=names),
            "marked": _marked,
            "flatten": flatten,
        },
        {
            "definitions": definitions,
            "family_of": {name: definition["family"] for name, definition in definitions.items()},
            "family_definitions": FAMILIES,
        },
        values
        | {
            "script": Markup(script),  # noqa: S704 - a file of this package
            "script_hash": f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}",  # the only script that may run
        },
        html=True,
        package=package,
    )


def _marked(text: str) -> Markup:
    """Convert `code` and *emphasis* from Markdown to HTML; everything else is escaped."""
    escaped = str(escape(text))
    return Markup(re.sub(r"\*(\w+)\*", r"<em>\1</em>", re.sub(r"`([^`]*)`", r"<code>\1</code>", escaped)))  # noqa: S704


def drawings(charts: Sequence[str]) -> list[Markup]:
    """Mark charts as safe markup."""
    return [Markup(chart) for chart in charts]  # noqa: S704 - `cbir.report.charts` escapes all text


def script_json(value: Any) -> Markup:
    """Return JSON for a <script> element, which no string in it can end.

    >>> script_json("</script>")
    Markup('"\\\\u003c/script\\\\u003e"')
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))  # noqa: S704


def read_pictures(data: DataPaths, image_ids: Collection[str], px: int) -> dict[str, Thumbnail]:
    """Return image_id -> thumbnail, for images of the gallery and of the queries."""
    pictures: dict[str, Thumbnail] = {}
    for kind in ("gallery", "queries"):
        pictures |= read_thumbnails(data.images(kind), image_ids, px)
    return pictures
