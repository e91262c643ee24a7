"""`python -m cbir.report.summary`: the metrics of the last run as a table, and the paths of the reports."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.core.errors import one_line_errors
from cbir.report.facts import Facts
from cbir.report.figures import figure
from cbir.report.gathering import gather_facts
from cbir.report.notes import notes

_METRICS = ("precision@1", "precision@10", "success@10", "ndcg@10", "map_at_r", "mrr")


def main() -> None:
    reports = ReportPaths()
    facts = gather_facts(DataPaths(), reports)
    console = Console()
    for note in notes(facts):
        console.print(f"note: {note}", markup=False, highlight=False)
    console.print(_table(facts))
    for line in (
        f"report   {reports.html}",
        f"metrics  {reports.all_headlines}/, all of them in {reports.all_evaluations}/",
        "search   `make app` in a browser, `.venv/bin/cbir search a red star` in this terminal",
    ):
        console.print(line, markup=False, highlight=False)


def _table(facts: Facts) -> Table:
    """Return a table with a column for each task and encoder, which fits a narrow terminal."""
    table = Table(title=f"{facts.summary['dataset']}: {facts.summary['gallery']['images']:,} gallery images")
    table.add_column("")
    columns = [_column(facts, task, encoder) for task, encoder in facts.evaluated]
    for title in facts.titles:
        table.add_column(title, justify="right")
    for name in dict.fromkeys(name for column in columns for name in column):
        table.add_row(name, *(Text(column.get(name, "-")) for column in columns))  # Text: a path may hold "[/]"
    return table


def _column(facts: Facts, task: str, encoder: str) -> dict[str, str]:
    exact, indexed = facts.metrics.of_task(task)[encoder], facts.indexed(task, encoder)
    column = {"weights": facts.vectors(encoder)["origin"]}
    column |= {name: figure(exact[name]) for name in _METRICS if name in exact}
    column["index"] = facts.passports[encoder]["kind"]
    column |= {f"ann_recall@{k}": figure(indexed[f"ann_recall@{k}"]) for k in facts.ann_ks}
    p50_ms = facts.p50_ms(task, encoder)
    column["p50 of one search"] = "-" if p50_ms is None else f"{p50_ms:.2f} ms"
    return column


if __name__ == "__main__":
    with one_line_errors():
        main()
