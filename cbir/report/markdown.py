"""report.md, from a Jinja template; text from data is escaped where it is shown."""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cbir.artifacts.files import replacing
from cbir.report.facts import ENCODERS, TASKS, Facts

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#+|~!-])")
_SHOWN_QUARANTINE = 20


def write_markdown(out: Path, facts: Facts) -> None:
    """Write the report."""
    environment = Environment(
        loader=PackageLoader("cbir.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Markdown, not HTML: `text` escapes both
    )
    environment.filters |= {"text": escaped, "figure": figure, "mb": megabytes, "rate": rate}
    page = environment.get_template("report.md.j2").render(
        facts=facts, encoders=ENCODERS, tasks=TASKS, shown_quarantine=_SHOWN_QUARANTINE
    )
    with replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")


def escaped(value: Any) -> str:
    """Text from data as one line of Markdown that shows it and does nothing else.

    >>> escaped("a|b <script>")
    'a\\\\|b \\\\<script\\\\>'
    """
    return _MARKUP.sub(r"\\\1", " ".join(str(value).split()))


def figure(value: float | None) -> str:
    """A metric with three decimals; a dash where it is undefined."""
    return "-" if value is None else f"{value:.3f}"


def megabytes(value: float) -> str:
    """Bytes as MB (10^6)."""
    return f"{value / 1e6:.1f} MB"


def rate(value: float) -> str:
    """A number a second, without decimals."""
    return f"{value:,.0f}"
