"""report.md, from a Jinja template; text from data is escaped where it is shown."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cbir.core.markdown import escaped, row, rule
from cbir.report.facts import Facts, Figure
from cbir.report.figures import figure
from cbir.report.filling import fill
from cbir.report.verdict import verdict

_SHOWN_QUARANTINE, _SHOWN_DUPLICATES = 20, 10


def write_markdown(out: Path, facts: Facts) -> None:
    """Write the report."""
    fill(
        out,
        "report.md.j2",
        {"text": escaped},
        {"duplicate_heads": duplicate_heads, "row": row, "rule": rule, "figures": figures, "cells": cells},
        {
            "facts": facts,
            "verdict": verdict(facts),
            "shown_quarantine": _SHOWN_QUARANTINE,
            "shown_duplicates": _SHOWN_DUPLICATES,
        },
        html=False,  # Markdown: `text` escapes both
    )


def figures(
    values: Mapping[str, float], names: Sequence[str], intervals: Mapping[str, Sequence[float]] | None = None
) -> list[str]:
    """The figures of these names, in this order, with their intervals where there are any."""
    return [figure(values.get(name), (intervals or {}).get(name)) for name in names]


def duplicate_heads(encoders: Sequence[str]) -> list[str]:
    """Two columns for each encoder.

    >>> duplicate_heads(["clip"])
    ['clip', 'clip without duplicates']
    """
    return [head for encoder in encoders for head in (encoder, f"{encoder} without duplicates")]


def cells(found: Sequence[Figure]) -> list[str]:
    """Figures with their intervals."""
    return [figure(*one) for one in found]
