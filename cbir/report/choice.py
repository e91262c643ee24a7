"""The section of the report that says which encoder to take: sentences, a table and charts for each task."""

from dataclasses import dataclass

from markupsafe import Markup

from cbir.artifacts.comparison import EncoderComparison
from cbir.report.choice_sentences import choice_sentences
from cbir.report.choice_table import ChoiceTable, choice_markdown, choice_table
from cbir.report.cost_chart import cost_charts
from cbir.report.page import drawings


@dataclass(frozen=True)
class Choice:
    """What a task's comparison says.  charts : <svg> elements of quality against cost."""

    sentences: list[str]
    table: ChoiceTable
    charts: list[Markup]

    @property
    def markdown(self) -> str:
        """Sentences and table as Markdown, without a heading."""
        return f"{' '.join(self.sentences)}\n\n{choice_markdown(self.table)}"


def choices(comparison: EncoderComparison) -> dict[str, Choice]:
    """Return task -> choice; empty for a run without metrics."""
    return {
        task: Choice(
            choice_sentences(task, metrics, comparison.costs),
            choice_table(task, metrics, comparison.costs),
            drawings(cost_charts(task, metrics[0], comparison.costs)),
        )
        for task, metrics in comparison.tasks.items()
    }
