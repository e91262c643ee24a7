"""report: readable pages, pictures and the points of the plots, from what the other stages left."""

from pathlib import Path

from cbir.artifacts.runs import read_open_table
from cbir.config import load_params
from cbir.errors import told_in_one_line
from cbir.report.examples import Judge, choose_examples
from cbir.report.facts import gather_facts
from cbir.report.galleries import write_galleries
from cbir.report.html import write_html
from cbir.report.markdown import write_markdown
from cbir.report.plots import write_plots

PARAMS = ("report.sampled_queries", "report.thumbnail_px", "report.seed")
DATA, REPORTS = Path("data"), Path("reports")


def main() -> None:
    params = load_params(PARAMS).report
    facts, judge = gather_facts(DATA, REPORTS), Judge(DATA)
    examples = choose_examples(judge, REPORTS, params.sampled_queries, params.seed)
    write_plots(REPORTS / "plots", facts, read_open_table(REPORTS / "classes.parquet"))
    write_galleries(REPORTS / "plots" / "galleries", facts, examples, DATA, params.thumbnail_px)
    write_markdown(REPORTS / "report.md", facts)
    write_html(REPORTS / "report.html", facts, judge, examples, DATA, REPORTS, params.thumbnail_px)


if __name__ == "__main__":
    with told_in_one_line():
        main()
