"""The metrics of a run as a table, for a terminal and in Markdown."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cbir.core.markdown import escaped, row, rule
from cbir.evaluation.trec import Evaluation

_HEADS = ("metric", "mean", "95 % interval")
FOOTNOTE = (
    "Results are ranked as by trec_eval: by descending score, equal scores by descending image_id; the column rank is not "
    "read. Intervals are bootstrapped over queries. map, map_at_r, r_precision and mrr are computed to the depth of the run."
)


def print_table(evaluation: Evaluation, console: Console) -> None:
    """Print the means, then the counts."""
    table = Table(box=box.SIMPLE)
    for head in _HEADS:
        table.add_column(head, justify="left" if head == "metric" else "right")
    for cells in _rows(evaluation):
        table.add_row(*map(Text, cells))
    console.print(table)
    for line in _counted(evaluation):
        console.print(line, markup=False, highlight=False)
    console.print(FOOTNOTE, markup=False, highlight=False)


def as_markdown(evaluation: Evaluation) -> str:
    """The same in Markdown."""
    lines = [row(*_HEADS), rule(1, 2), *(row(*map(escaped, cells)) for cells in _rows(evaluation)), ""]
    lines += [f"- {escaped(line)}" for line in _counted(evaluation)]
    return "\n".join([*lines, "", FOOTNOTE])


def _rows(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    rows = []
    for name, value in evaluation.means.items():
        interval = evaluation.intervals[name]
        rows.append((name, f"{value:.4f}", "-" if interval is None else f"[{interval.low:.4f}, {interval.high:.4f}]"))
    return rows


def _counted(evaluation: Evaluation) -> list[str]:
    counts = evaluation.counts
    lines = [
        f"{_queries(counts.queries)}, {counts.results:,} results, "
        f"{counts.found:,} of {counts.relevant:,} relevant images retrieved"
    ]
    for count, what in (
        (counts.unanswered, "not in the run: 0 in every metric, as by trec_eval -c"),
        (counts.without_relevant, "in the qrels without a relevant image: left out"),
        (counts.unjudged, "in the run without qrels: left out"),
        (
            counts.float32_ties,
            "with scores that are equal as float32: pytrec_eval and older versions of trec_eval may rank them in another order",
        ),
    ):
        if count:
            lines.append(f"{_queries(count)} {what}")
    return lines


def _queries(count: int) -> str:
    return f"{count:,} {'query' if count == 1 else 'queries'}"
