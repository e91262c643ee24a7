"""An evaluated run as a table: for a terminal and in Markdown."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cbir.core.markdown import escaped, row, rule
from cbir.evaluation.trec import Evaluation

_HEADS = ("metric", "mean", "95 % interval")
FOOTNOTE = (
    "Ranked by score, the highest first, equal scores by image_id, descending, as trec_eval does; the column rank is not read. "
    "The interval is over draws of queries, each on its own. map, map_at_r, r_precision and mrr reach as deep as the run."
)


def print_table(found: Evaluation, console: Console) -> None:
    """The means, then what was counted."""
    table = Table(box=box.SIMPLE)
    for head in _HEADS:
        table.add_column(head, justify="left" if head == "metric" else "right")
    for cells in _rows(found):
        table.add_row(*map(Text, cells))
    console.print(table)
    for told in _told(found):
        console.print(told, markup=False, highlight=False)
    console.print(FOOTNOTE, markup=False, highlight=False)


def as_markdown(found: Evaluation) -> str:
    """The same for a web page."""
    lines = [row(*_HEADS), rule(1, 2), *(row(*map(escaped, cells)) for cells in _rows(found)), ""]
    lines += [f"- {escaped(told)}" for told in _told(found)]
    return "\n".join([*lines, "", FOOTNOTE])


def _rows(found: Evaluation) -> list[tuple[str, str, str]]:
    rows = []
    for name, value in found.means.items():
        interval = found.intervals[name]
        rows.append((name, f"{value:.4f}", "-" if interval is None else f"[{interval.low:.4f}, {interval.high:.4f}]"))
    return rows


def _told(found: Evaluation) -> list[str]:
    counts = found.counts
    told = [
        f"{_queries(counts.queries)}, {counts.results:,} results, {counts.found:,} of {counts.relevant:,} relevant images found"
    ]
    for number, what in (
        (counts.unanswered, "of them not in the run: 0 in every metric, as by trec_eval -c"),
        (counts.without_relevant, "of the qrels without a relevant image: left out"),
        (counts.unjudged, "of the run without qrels: left out"),
        (
            counts.float32_ties,
            "with scores that are equal as float32: pytrec_eval and older trec_eval may rank otherwise",
        ),
    ):
        if number:
            told.append(f"{_queries(number)} {what}")
    return told


def _queries(number: int) -> str:
    return f"{number:,} {'query' if number == 1 else 'queries'}"
