"""The encoders of a task as a table, best first: quality, groups that cannot be told apart, and cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cbir.artifacts.comparison import EncoderCost, MetricComparison, PairedTest
from cbir.core.markdown import escaped, row, rule
from cbir.report.costs import MIN_TIMED_IMAGES
from cbir.report.facts import Estimate
from cbir.report.figures import figure, whole


@dataclass(frozen=True)
class ChoiceRow:
    """An encoder.  rank : from 1.  estimates : of each metric of the table.  letters : of the metric that decides."""

    rank: int
    encoder: str
    letters: str
    estimates: list[Estimate]
    cost: EncoderCost | None

    @property
    def costs(self) -> list[str]:
        """The cells below COST_HEADS; a dash where nothing is known."""
        cost = self.cost
        if cost is None:
            return ["-"] * len(COST_HEADS)
        return [
            "-" if cost.images_per_s is None else f"{cost.images_per_s:,.1f}",
            whole(cost.dim),
            whole(cost.bytes_per_vector),
            "-" if cost.weights_bytes is None else f"{cost.weights_bytes / 1e6:,.1f}",
            "-" if cost.parameters is None else f"{cost.parameters / 1e6:,.1f}",
        ]


COST_HEADS = ("images/s", "dimensions", "index, bytes an image", "weights, MB", "parameters, millions")


@dataclass(frozen=True)
class ChoiceTable:
    """The table of a task.  metrics : names, the first decides.  tests : of the metric that decides."""

    task: str
    metrics: list[str]
    rows: list[ChoiceRow]
    tests: list[PairedTest]
    is_testable: bool

    @property
    def is_ranked(self) -> bool:
        """Whether ranks and groups mean anything: not with a single encoder."""
        return len(self.rows) > 1

    @property
    def cost_heads(self) -> tuple[str, ...]:
        """The headings of the cells in `ChoiceRow.costs`."""
        return COST_HEADS

    @property
    def notes(self) -> list[str]:
        """How to read the letters, and why a speed is absent."""
        notes = []
        if not self.is_testable:
            notes.append(
                "There are too few classes for tests: no encoder can be told from another, whatever the difference."
            )
        elif self.tests:
            pairs = "a paired randomisation test"
            if len(self.tests) > 1:
                pairs = f"paired randomisation tests of all {len(self.tests)} pairs, with Holm's correction"
            notes.append(
                f"Encoders that share a letter cannot be told apart in {self.metrics[0]}: {pairs}, level 5 %, over the same "
                "queries, with classes as the unit. Whether the intervals overlap says nothing about that."
            )
        if any(row.cost is not None and row.cost.images_per_s is None for row in self.rows):
            notes.append(
                f"Without images/s: the run embedded fewer than {MIN_TIMED_IMAGES} images; it read the vectors of the others, "
                "or they were made elsewhere."
            )
        return notes


def choice_table(task: str, metrics: Sequence[MetricComparison], costs: Mapping[str, EncoderCost]) -> ChoiceTable:
    """Return the table of a task.

    metrics : its comparisons; the first decides the order and the letters.  costs : encoder -> cost; may lack encoders.
    """
    estimates = [
        {ranked.encoder: Estimate(ranked.mean, ranked.interval) for ranked in each.ranking} for each in metrics
    ]
    return ChoiceTable(
        task,
        [each.metric for each in metrics],
        [
            ChoiceRow(
                rank,
                ranked.encoder,
                ranked.letters,
                [of_metric.get(ranked.encoder, Estimate(None)) for of_metric in estimates],
                costs.get(ranked.encoder),
            )
            for rank, ranked in enumerate(metrics[0].ranking, 1)
        ],
        metrics[0].tests,
        metrics[0].is_testable,
    )


def choice_markdown(table: ChoiceTable) -> str:
    """Return the table and its note as Markdown, without a heading."""
    first, *others = table.metrics
    if table.is_ranked:
        lines = [
            row("rank", "encoder", first, "group", list(others), list(COST_HEADS)),
            "|---:|---|---:|---|" + rule(0, len(others) + len(COST_HEADS))[1:],
        ]
    else:
        lines = [row("encoder", table.metrics, list(COST_HEADS)), rule(1, len(table.metrics) + len(COST_HEADS))]
    for ranked in table.rows:
        estimate, *rest = (figure(*estimate) for estimate in ranked.estimates)
        if table.is_ranked:
            lines.append(row(ranked.rank, escaped(ranked.encoder), estimate, ranked.letters, rest, ranked.costs))
        else:
            lines.append(row(escaped(ranked.encoder), estimate, rest, ranked.costs))
    return "\n".join([*lines, *(["", " ".join(table.notes)] if table.notes else [])]) + "\n"
