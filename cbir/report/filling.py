"""Renders the templates of this package; numbers are formatted alike in all of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from cbir.artifacts.metrics import GALLERY_IMAGE, IMAGE, TEXT
from cbir.core.files import replacing
from cbir.core.text import listed
from cbir.report.figures import at_each, counted, figure, megabytes, seconds, whole

TASK_DESCRIPTIONS: Final = {"cbir": "image query -> similar images", "tbir": "text query -> images"}
QUERY_KINDS: Final = {IMAGE: "image queries", GALLERY_IMAGE: "gallery-image queries", TEXT: "text queries"}


def fill(
    out: Path,
    template: str,
    filters: Mapping[str, Any],
    globals_: Mapping[str, Any],
    values: Mapping[str, Any],
    html: bool,
    package: str = "cbir.report",
) -> None:
    """Render a template and write it to `out`.

    filters, globals_ : of this form of the report, beside the common ones; macros see globals_, but not values.
    html : whether to escape all values.  package : whose templates to look in first.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("cbir.report")]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not html,
        autoescape=html,  # noqa: S701 - the Markdown template escapes with a filter
    )
    environment.filters |= {"figure": figure, "mb": megabytes, "whole": whole, "counted": counted, "seconds": seconds}
    environment.filters["listed"] = listed
    environment.filters |= filters
    environment.globals |= {
        "at_each": at_each,
        "tasks": TASK_DESCRIPTIONS,
        "query_kinds": QUERY_KINDS,
        **globals_,
    }
    page = environment.get_template(template).render(values)
    with replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
