"""report: a readable page, and the points of the plots, from what the other stages left."""

from pathlib import Path

from cbir.artifacts.runs import read_open_table
from cbir.errors import told_in_one_line
from cbir.report.facts import gather_facts
from cbir.report.markdown import write_markdown
from cbir.report.plots import write_plots

DATA, REPORTS = Path("data"), Path("reports")
PARAMS = ()


def main() -> None:
    facts = gather_facts(DATA, REPORTS)
    write_markdown(REPORTS / "report.md", facts)
    write_plots(REPORTS / "plots", facts, read_open_table(REPORTS / "classes.parquet"))


if __name__ == "__main__":
    with told_in_one_line():
        main()
