"""Comparisons as tables, for a terminal and in Markdown."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from cbir.core.markdown import escaped, row, rule
from cbir.core.text import printable
from cbir.runs.compare import IDENTICAL, Change, Comparison

_HEADS = ("metric", "first", "other", "difference", "p", "verdict")
_MAX_CLASSES = 3
_NAMES = {"exact": "exact search", "index": "index", "both": "exact search and index alike"}
FOOTNOTE = (
    "difference: the other run minus the first, query by query, with its 95 % interval over resamples of classes in brackets. "
    "p: paired randomisation test, two-sided, with Holm's correction over all rows. Rows without any change are left out."
)


def print_tables(comparisons: Sequence[Comparison], console: Console) -> None:
    """Print the tables of each pair of runs, and the classes and queries that changed most; 80 columns break no word."""
    for (base, run), pair in _by_pair(comparisons):
        console.print(printable(f"other: {run}; first: {base}"), style="bold", markup=False, highlight=False)
        for title, group in _groups(pair):
            if changed := _changed(group):
                console.print(_table(title, changed, base))
            for note in _notes(title, group):
                console.print(printable(note, max_characters=None), markup=False, highlight=False)
    console.print(FOOTNOTE, markup=False, highlight=False)


def _table(title: str, comparisons: Sequence[Comparison], base: str) -> Table:
    table = Table(title=Text(printable(title)), title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for head in _HEADS:
        is_verdict = head == _HEADS[-1]
        justify: JustifyMethod = "right" if head in ("first", "other") else "left"
        table.add_column(head, justify=justify, overflow="fold", no_wrap=not is_verdict)
    for comparison in comparisons:
        better = {f"{base} is better": "first is better", f"{comparison.run} is better": "other is better"}
        *cells, verdict = _cells(comparison)
        table.add_row(*(Text(printable(cell)) for cell in (*cells, better.get(verdict, verdict))))
    return table


def as_markdown(comparisons: Sequence[Comparison]) -> str:
    """The same as Markdown; text from data is escaped."""
    lines = []
    for (base, run), pair in _by_pair(comparisons):
        lines += [f"## {escaped(run)} against {escaped(base)}", ""]
        for title, group in _groups(pair):
            if changed := _changed(group):
                lines += [f"### {escaped(title)}", "", row(*_HEADS), rule(len(_HEADS))]
                lines += [row(*map(escaped, _cells(comparison))) for comparison in changed] + [""]
            lines += [f"- {escaped(note)}" for note in _notes(title, group)] + [""]
    return "\n".join([*lines, FOOTNOTE])


def _by_pair(comparisons: Sequence[Comparison]) -> Iterator[tuple[tuple[str, str], list[Comparison]]]:
    """Yield the names of two runs with their comparisons."""
    for names, pair in groupby(comparisons, lambda comparison: (comparison.base, comparison.run)):
        yield names, list(pair)


def _groups(pair: Sequence[Comparison]) -> Iterator[tuple[str, list[Comparison]]]:
    """Yield title and comparisons of each task, encoder and search; exact search and an index that changes nothing are one."""
    repeated = {(each.task, each.encoder, each.metric) for each in pair if each.is_repeated}
    for (task, encoder, search), group in groupby(pair, lambda comparison: comparison.group):
        comparisons = [comparison for comparison in group if not comparison.is_repeated]
        if not comparisons:
            continue
        alike = search == "exact" and all((task, encoder, each.metric) in repeated for each in comparisons)
        yield f"{task} {encoder}, {_NAMES['both' if alike else search]}", comparisons


def _changed(comparisons: Sequence[Comparison]) -> list[Comparison]:
    return [comparison for comparison in comparisons if comparison.verdict != IDENTICAL]


def _cells(comparison: Comparison) -> list[str]:
    interval = comparison.interval
    return [
        comparison.metric,
        f"{comparison.base_mean:.3f}",
        f"{comparison.run_mean:.3f}",
        f"{comparison.difference:+.4f}" + ("" if interval is None else f" [{interval.low:+.3f}, {interval.high:+.3f}]"),
        f"{comparison.p:.4f}" if comparison.p >= 0.0001 else "<0.0001",
        comparison.verdict,
    ]


def _notes(title: str, comparisons: Sequence[Comparison]) -> list[str]:
    """Whether a group is identical, or the classes and queries that changed most in its first metric."""
    if not _changed(comparisons):
        return [f"{title}: identical for every query"]
    first = comparisons[0]
    changes = {
        "classes that lost most": [change for change in first.classes[:_MAX_CLASSES] if change.change < 0],
        "classes that gained most": [change for change in first.classes[::-1][:_MAX_CLASSES] if change.change > 0],
        "queries that lost most": first.lost,
        "queries that gained most": first.won,
    }
    return [f"{first.metric}, {which}: {_list(most)}" for which, most in changes.items() if most]


def _list(changes: Iterable[Change]) -> str:
    return ", ".join(f"{change.name} {change.change:+.3f}" for change in changes)
