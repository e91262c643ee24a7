"""`python -m cbir.summary`: the figures of the last run as a table, and where the reports lie."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from cbir.errors import told_in_one_line
from cbir.report.facts import TASKS, Facts, gather_facts

DATA, REPORTS = Path("data"), Path("reports")
_SHOWN = ("precision@1", "precision@10", "success@10", "ndcg@10", "map_at_r", "mrr")
_MODALITIES = {"cbir": "image", "tbir": "text"}


def main() -> None:
    facts = gather_facts(DATA, REPORTS)
    console = Console()
    for warning in facts.warnings:
        console.print(f"note: {warning}", markup=False, highlight=False)
    console.print(_table(facts))
    for what, where in (("report", "report.md"), ("figures", "metrics.json"), ("runs", "runs/")):
        console.print(f"{what:8} {REPORTS}/{where}", markup=False, highlight=False)


def _table(facts: Facts) -> Table:
    """Figures down, a column for each task and encoder, so that it fits a narrow terminal."""
    table = Table(title=f"{facts.summary['dataset']}: {facts.summary['gallery']['images']:,} gallery images")
    table.add_column("")
    columns = [_column(facts, task, encoder) for task in TASKS for encoder in facts.metrics[task]]
    for column in columns:
        table.add_column(column.pop("title"), justify="right")
    for name in dict.fromkeys(name for column in columns for name in column):
        table.add_row(name, *(column.get(name, "-") for column in columns))
    return table


def _column(facts: Facts, task: str, encoder: str) -> dict[str, str]:
    found, modality = facts.metrics[task][encoder], _MODALITIES[task]
    indexed = facts.metrics["ann"][encoder][modality]
    timed = facts.latency["encoders"][encoder][modality]["index"]
    shown = {"title": f"{task} {encoder}", "weights": facts.vectors(encoder)["origin"]}
    shown |= {name: f"{found[name]:.3f}" for name in _SHOWN if name in found}
    shown["index"] = facts.passports[encoder]["kind"]
    shown |= {f"ann_recall@{k}": f"{indexed[f'ann_recall@{k}']:.3f}" for k in facts.ann_ks}
    shown["p50 of one search"] = f"{timed['single_ms']['p50']:.2f} ms"
    return shown


if __name__ == "__main__":
    with told_in_one_line():
        main()
