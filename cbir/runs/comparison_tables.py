"""A comparison as tables: for a terminal and in Markdown."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cbir.core.markdown import escaped, row, rule
from cbir.core.text import printable
from cbir.runs.compare import IDENTICAL, Change, Comparison

_HEADS = ("", "searched by", "metric", "first", "other", "difference", "p", "verdict")
_CLASSES = 3
FOOTNOTE = (
    "difference: the other less the first, in brackets its 95 % interval over draws of classes. p: paired randomisation test, "
    "two-sided, Holm's correction over all lines. Lines without any change are left out."
)


def print_tables(found: Sequence[Comparison], console: Console) -> None:
    """One table for each pair of runs, then who changed most."""
    for (base, run), pair in _pairs(found):
        table = Table(title=Text(printable(f"{run} against {base}")), box=box.SIMPLE)
        for head in _HEADS:
            table.add_column(head, justify="right" if head in ("first", "other") else "left", overflow="fold")
        lines = _changed(pair)
        for one in lines:
            table.add_row(*(Text(printable(cell)) for cell in _cells(one)))
        if lines:
            console.print(table)
        for told in _told(pair):
            console.print(printable(told, max_characters=None), markup=False, highlight=False)
    console.print(FOOTNOTE, markup=False, highlight=False)


def as_markdown(found: Sequence[Comparison]) -> str:
    """The same for a web page; text from data is escaped."""
    lines = []
    for (base, run), pair in _pairs(found):
        lines += [f"## {escaped(run)} against {escaped(base)}", ""]
        if _changed(pair):
            lines += [row(*_HEADS), rule(len(_HEADS))]
            lines += [row(*map(escaped, _cells(one))) for one in _changed(pair)] + [""]
        lines += [f"- {escaped(told)}" for told in _told(pair)] + [""]
    return "\n".join([*lines, FOOTNOTE])


def _pairs(found: Sequence[Comparison]) -> Iterable[tuple[tuple[str, str], list[Comparison]]]:
    return ((names, list(pair)) for names, pair in groupby(found, lambda one: (one.base, one.run)))


def _changed(pair: Sequence[Comparison]) -> list[Comparison]:
    return [one for one in pair if one.verdict != IDENTICAL]


def _cells(one: Comparison) -> list[str]:
    interval = "" if one.interval is None else f" [{one.interval.low:+.3f}, {one.interval.high:+.3f}]"
    return [
        f"{one.task} {one.encoder}",
        one.search,
        one.metric,
        f"{one.base_mean:.3f}",
        f"{one.run_mean:.3f}",
        f"{one.difference:+.4f}{interval}",
        f"{one.p:.4f}" if one.p >= 0.0001 else "<0.0001",
        one.verdict,
    ]


def _told(pair: Sequence[Comparison]) -> list[str]:
    """What did not change, and of what did the classes and queries that changed most, in the first metric."""
    told = []
    for (task, encoder, search), group in groupby(pair, lambda one: (one.task, one.encoder, one.search)):
        first, *rest = group
        where = f"{task} {encoder}, {search} search"
        if not _changed([first, *rest]):
            told.append(f"{where}: identical for every query")
            continue
        for what, changes in {
            "classes that lost most": [one for one in first.classes[:_CLASSES] if one.change < 0],
            "classes that won most": [one for one in first.classes[::-1][:_CLASSES] if one.change > 0],
            "queries that lost most": first.lost,
            "queries that won most": first.won,
        }.items():
            if changes:
                told.append(f"{where}, {first.metric}, {what}: {_named(changes)}")
    return told


def _named(changes: Iterable[Change]) -> str:
    return ", ".join(f"{one.name} {one.change:+.3f}" for one in changes)
