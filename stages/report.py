"""report: write pages, pictures and plots from the results of the other stages."""

from cbir.artifacts.comparison import write_comparison
from cbir.artifacts.evaluations import read_classes
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.core.errors import one_line_errors
from cbir.core.params import load_params
from cbir.report.examples import choose_examples
from cbir.report.galleries import write_galleries
from cbir.report.gathering import compare_encoders_of_run, gather_facts
from cbir.report.html import write_html
from cbir.report.judged import JudgedCollection
from cbir.report.markdown import write_markdown
from cbir.report.params import ReportParams
from cbir.report.plots import write_plots

PARAMS = ("report.sampled_queries", "report.thumbnail_px", "report.seed")


def main() -> None:
    data, reports, params = DataPaths(), ReportPaths(), load_params("report", ReportParams, PARAMS)
    write_comparison(reports.comparison, compare_encoders_of_run(data, reports))
    facts, collection = gather_facts(data, reports), JudgedCollection(data)
    examples = choose_examples(collection, reports, params.sampled_queries, params.seed)
    write_plots(reports.plots, facts, read_classes(reports))
    write_galleries(reports.galleries, facts, examples, data, params.thumbnail_px)
    write_markdown(reports.markdown, facts)
    write_html(reports.html, facts, collection, examples, data, reports, params.thumbnail_px)


if __name__ == "__main__":
    with one_line_errors():
        main()
