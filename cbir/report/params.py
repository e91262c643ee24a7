"""The group `report`."""

from dataclasses import dataclass

from cbir.core.params import Parameters, at_least, at_most

MAX_SAMPLED_QUERIES, MAX_THUMBNAIL_PX = 50, 256  # the report is a single file, small enough for e-mail


@dataclass
class ReportParams(Parameters):
    """Group `report`: the example queries on the page; see the comments in `conf/report/`."""

    sampled_queries: int = 5
    thumbnail_px: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(0, self, "sampled_queries", "seed")
        at_least(16, self, "thumbnail_px")
        at_most(MAX_SAMPLED_QUERIES, self, "sampled_queries")
        at_most(MAX_THUMBNAIL_PX, self, "thumbnail_px")
