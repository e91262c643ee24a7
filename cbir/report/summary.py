"""`python -m cbir.report.summary`: the metrics of the last run as a table, and the paths of the reports."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from shlex import quote

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.core.errors import one_line_errors
from cbir.core.secrets import without_secrets
from cbir.core.text import printable
from cbir.report.facts import Facts
from cbir.report.figures import figure
from cbir.report.filling import TASK_DESCRIPTIONS
from cbir.report.gathering import gather_facts
from cbir.report.notes import notes

_WORDS = ("encoder", "task", "index", "weights")  # columns of text
_METRICS = ("precision@1", "precision@10", "success@10", "ndcg@10", "map_at_r", "mrr")


def main() -> None:
    reports = ReportPaths()
    facts = gather_facts(DataPaths(), reports)
    console = Console()
    for note in notes(facts):
        console.print(f"note: {note}", markup=False, highlight=False)
    gallery = facts.summary["gallery"]["images"]
    console.print(f"{printable(facts.summary['title'])}: {gallery:,} gallery images\n", markup=False, highlight=False)
    for table in _tables(facts):
        console.print(table, "")
    for line in (
        f"report   {reports.html}",
        f"metrics  {reports.all_headlines}/, all of them in {reports.all_evaluations}/",
        f"search   `make app` in a browser, `.venv/bin/cbir search {_example(facts)}` in this terminal",
    ):
        console.print(line, markup=False, highlight=False)


def _example(facts: Facts) -> str:
    """What to search for: the name of a class of this gallery, quoted for the shell; an image where no encoder reads text."""
    names = sorted(name for name in facts.names.values() if printable(name) == name)
    return quote(names[0]) if names and facts.metrics.tbir else "photo.jpg"


def _tables(facts: Facts) -> Iterator[Table]:
    """Yield tables with a row for each encoder, which fit a narrow terminal: the metrics of each task, and the indexes."""
    for task, encoders in groupby(facts.evaluated, key=itemgetter(0)):
        means = {encoder: facts.metrics.of_task(task)[encoder] for _, encoder in encoders}
        names = [name for name in _METRICS if any(name in values for values in means.values())]
        if not names:  # no query has a relevant image, as a note says
            continue
        table = _new_table(f"{task}: {TASK_DESCRIPTIONS[task]}", ["encoder", *names])
        for encoder, values in means.items():
            table.add_row(encoder, *(figure(values.get(name)) for name in names))
        yield table
    recall = f"ann_recall@{facts.ann_k}"
    table = _new_table("Search with the index", ["encoder", "task", "index", recall, "p50, ms", "weights"])
    for task, encoder in facts.evaluated:
        p50_ms = facts.p50_ms(task, encoder)
        table.add_row(
            encoder,
            task,
            facts.passports[encoder]["kind"],
            figure(facts.indexed(task, encoder).get(recall)),
            "-" if p50_ms is None else f"{p50_ms:.2f}",
            Text(without_secrets(facts.vectors(encoder)["origin"])),  # a path may hold "[/]"
        )
    yield table


def _new_table(title: str, names: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in names:
        justify: JustifyMethod = "left" if name in _WORDS else "right"
        table.add_column(name.replace("@", "\n@"), justify=justify, overflow="fold")
    return table


if __name__ == "__main__":
    with one_line_errors():
        main()
