"""report: a readable page from what the other stages left."""

from pathlib import Path

from cbir.errors import told_in_one_line
from cbir.report.facts import gather_facts
from cbir.report.markdown import write_markdown

DATA, REPORTS = Path("data"), Path("reports")
PARAMS = ()


def main() -> None:
    write_markdown(REPORTS / "report.md", gather_facts(DATA, REPORTS))


if __name__ == "__main__":
    with told_in_one_line():
        main()
