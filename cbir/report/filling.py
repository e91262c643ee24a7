"""The templates of this package, filled: numbers look the same in every form of the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cbir.artifacts.names import ENCODERS
from cbir.core.files import replacing
from cbir.report.facts import TASKS
from cbir.report.figures import ats, counted, figure, megabytes, seconds, whole


def fill(
    out: Path,
    template: str,
    filters: Mapping[str, Any],
    names: Mapping[str, Any],
    values: Mapping[str, Any],
    html: bool,
) -> None:
    """Write a template's text.

    filters, names : of this form of the report; names are seen in macros too.  html : text is escaped where it is shown.
    """
    environment = Environment(
        loader=PackageLoader("cbir.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not html,
        autoescape=html,  # noqa: S701 - Markdown escapes by a filter of its own
    )
    environment.filters |= {"figure": figure, "mb": megabytes, "whole": whole, "counted": counted, "seconds": seconds}
    environment.filters |= filters
    environment.globals |= {"ats": ats, "tasks": TASKS, "encoders": ENCODERS, **names}
    page = environment.get_template(template).render(values)
    with replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
