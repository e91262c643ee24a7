"""`python -m cbir.report.summary`: the figures of the last run as a table, and where the reports lie."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cbir.core.errors import one_line_errors
from cbir.report.facts import Facts, gather_facts
from cbir.report.figures import figure

DATA, REPORTS = Path("data"), Path("reports")
_SHOWN = ("precision@1", "precision@10", "success@10", "ndcg@10", "map_at_r", "mrr")


def main() -> None:
    facts = gather_facts(DATA, REPORTS)
    console = Console()
    for warning in facts.warnings:
        console.print(f"note: {warning}", markup=False, highlight=False)
    console.print(_table(facts))
    for what, where in (("report", "report.html"), ("figures", "metrics.json"), ("runs", "runs/")):
        console.print(f"{what:8} {REPORTS}/{where}", markup=False, highlight=False)
    console.print(
        "search   `make app` in the browser, `.venv/bin/cbir search a red star` here", markup=False, highlight=False
    )


def _table(facts: Facts) -> Table:
    """Figures down, a column for each task and encoder, so that it fits a narrow terminal."""
    table = Table(title=f"{facts.summary['dataset']}: {facts.summary['gallery']['images']:,} gallery images")
    table.add_column("")
    columns = [_column(facts, task, encoder) for task, encoder in facts.answered]
    for title in facts.titles:
        table.add_column(title, justify="right")
    for name in dict.fromkeys(name for column in columns for name in column):
        table.add_row(name, *(Text(column.get(name, "-")) for column in columns))  # Text: a path may hold "[/]"
    return table


def _column(facts: Facts, task: str, encoder: str) -> dict[str, str]:
    found, indexed = facts.metrics[task][encoder], facts.indexed(task, encoder)
    shown = {"weights": facts.vectors(encoder)["origin"]}
    shown |= {name: figure(found[name]) for name in _SHOWN if name in found}
    shown["index"] = facts.passports[encoder]["kind"]
    shown |= {f"ann_recall@{k}": figure(indexed[f"ann_recall@{k}"]) for k in facts.ann_ks}
    p50_ms = facts.p50_ms(task, encoder)
    shown["p50 of one search"] = "-" if p50_ms is None else f"{p50_ms:.2f} ms"
    return shown


if __name__ == "__main__":
    with one_line_errors():
        main()
