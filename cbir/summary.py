"""`python -m cbir.summary`: the figures of the last run as a table, and where the reports lie."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from cbir.errors import told_in_one_line
from cbir.report.facts import TASKS, Facts, gather_facts

DATA, REPORTS = Path("data"), Path("reports")
_SHOWN = ("precision@1", "precision@10", "success@10", "ndcg@10", "map_at_r", "mrr")


def main() -> None:
    facts = gather_facts(DATA, REPORTS)
    console = Console()
    for warning in facts.warnings:
        console.print(f"note: {warning}", markup=False)
    console.print(_table(facts))
    console.print(
        f"report: {REPORTS / 'report.md'}   figures: {REPORTS / 'metrics.json'}   runs: {REPORTS / 'runs'}/",
        markup=False,
    )


def _table(facts: Facts) -> Table:
    table = Table(title=f"{facts.summary['dataset']}: {facts.summary['gallery']['images']:,} gallery images")
    for name in ("task", "encoder", "weights"):
        table.add_column(name)
    names = [
        name for name in _SHOWN if any(name in values for task in TASKS for values in facts.metrics[task].values())
    ]
    for name in (*names, "index", "ann_recall", "p50 ms"):
        table.add_column(name, justify="right")
    for task, modality in (("cbir", "image"), ("tbir", "text")):
        for encoder, found in facts.metrics[task].items():
            indexed, timed = facts.metrics["ann"][encoder][modality], facts.latency["encoders"][encoder][modality]
            table.add_row(
                task,
                encoder,
                facts.vectors(encoder)["origin"],
                *(f"{found[name]:.3f}" if name in found else "-" for name in names),
                facts.passports[encoder]["kind"],
                f"{indexed[f'ann_recall@{facts.ann_ks[0]}']:.3f}",
                f"{timed['index']['single_ms']['p50']:.2f}",
            )
    return table


if __name__ == "__main__":
    with told_in_one_line():
        main()
