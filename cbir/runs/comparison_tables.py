"""Comparisons as tables, for a terminal and in Markdown."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cbir.core.markdown import escaped, row, rule
from cbir.core.text import printable
from cbir.runs.compare import IDENTICAL, Change, Comparison

_HEADS = ("", "searched by", "metric", "first", "other", "difference", "p", "verdict")
_MAX_CLASSES = 3
FOOTNOTE = (
    "difference: the other run minus the first, query by query, with its 95 % interval over resamples of classes in brackets. "
    "p: paired randomisation test, two-sided, with Holm's correction over all rows. Rows without any change are left out."
)


def print_tables(comparisons: Sequence[Comparison], console: Console) -> None:
    """Print a table for each pair of runs, and the classes and queries that changed most."""
    for (base, run), pair in _by_pair(comparisons):
        table = Table(title=Text(printable(f"{run} against {base}")), box=box.SIMPLE)
        for head in _HEADS:
            table.add_column(head, justify="right" if head in ("first", "other") else "left", overflow="fold")
        changed = _changed(pair)
        for comparison in changed:
            table.add_row(*(Text(printable(cell)) for cell in _cells(comparison)))
        if changed:
            console.print(table)
        for note in _notes(pair):
            console.print(printable(note, max_characters=None), markup=False, highlight=False)
    console.print(FOOTNOTE, markup=False, highlight=False)


def as_markdown(comparisons: Sequence[Comparison]) -> str:
    """The same as Markdown; text from data is escaped."""
    lines = []
    for (base, run), pair in _by_pair(comparisons):
        lines += [f"## {escaped(run)} against {escaped(base)}", ""]
        if changed := _changed(pair):
            lines += [row(*_HEADS), rule(len(_HEADS))]
            lines += [row(*map(escaped, _cells(comparison))) for comparison in changed] + [""]
        lines += [f"- {escaped(note)}" for note in _notes(pair)] + [""]
    return "\n".join([*lines, FOOTNOTE])


def _by_pair(comparisons: Sequence[Comparison]) -> Iterator[tuple[tuple[str, str], list[Comparison]]]:
    """Yield the names of two runs with their comparisons."""
    for names, pair in groupby(comparisons, lambda comparison: (comparison.base, comparison.run)):
        yield names, list(pair)


def _changed(comparisons: Sequence[Comparison]) -> list[Comparison]:
    return [comparison for comparison in comparisons if comparison.verdict != IDENTICAL]


def _cells(comparison: Comparison) -> list[str]:
    interval = comparison.interval
    return [
        f"{comparison.task} {comparison.encoder}",
        comparison.search,
        comparison.metric,
        f"{comparison.base_mean:.3f}",
        f"{comparison.run_mean:.3f}",
        f"{comparison.difference:+.4f}" + ("" if interval is None else f" [{interval.low:+.3f}, {interval.high:+.3f}]"),
        f"{comparison.p:.4f}" if comparison.p >= 0.0001 else "<0.0001",
        comparison.verdict,
    ]


def _notes(pair: Sequence[Comparison]) -> list[str]:
    """What is identical, and the classes and queries that changed most, in the first metric of each group."""
    notes = []
    for (task, encoder, search), group in groupby(pair, lambda comparison: comparison.group):
        comparisons = list(group)
        first = comparisons[0]
        where = f"{task} {encoder}, {search} search"
        if not _changed(comparisons):
            notes.append(f"{where}: identical for every query")
            continue
        for title, changes in {
            "classes that lost most": [change for change in first.classes[:_MAX_CLASSES] if change.change < 0],
            "classes that gained most": [change for change in first.classes[::-1][:_MAX_CLASSES] if change.change > 0],
            "queries that lost most": first.lost,
            "queries that gained most": first.won,
        }.items():
            if changes:
                notes.append(f"{where}, {first.metric}, {title}: {_list(changes)}")
    return notes


def _list(changes: Iterable[Change]) -> str:
    return ", ".join(f"{change.name} {change.change:+.3f}" for change in changes)
