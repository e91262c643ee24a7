"""report.md, from a Jinja template that escapes text from data with a filter."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cbir.core.markdown import escaped, row, rule
from cbir.report.choice import choices
from cbir.report.facts import Estimate, Facts
from cbir.report.figures import figure
from cbir.report.filling import fill
from cbir.report.notes import notes
from cbir.report.verdict import verdict

_QUARANTINE_ROWS, _DUPLICATE_ROWS = 20, 10


def write_markdown(out: Path, facts: Facts) -> None:
    """Write the report."""
    fill(
        out,
        "report.md.j2",
        {"text": escaped},
        {"row": row, "rule": rule, "figures": figures, "cells": cells},
        {
            "facts": facts,
            "verdict": verdict(facts),
            "choices": choices(facts.comparison),
            "notes": notes(facts),
            "quarantine_rows": _QUARANTINE_ROWS,
            "duplicate_rows": _DUPLICATE_ROWS,
        },
        html=False,  # the filter `text` escapes Markdown and HTML
    )


def figures(
    values: Mapping[str, float], names: Sequence[str], intervals: Mapping[str, Sequence[float]] | None = None
) -> list[str]:
    """Format the values of these metrics, in this order, with their intervals if there are any."""
    return [figure(values.get(name), (intervals or {}).get(name)) for name in names]


def cells(estimates: Sequence[Estimate]) -> list[str]:
    """Format estimates with their intervals."""
    return [figure(*estimate) for estimate in estimates]
