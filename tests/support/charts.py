"""Charts of each kind, and the values that they show."""

from cbir.report.charts import Dot, Series, bar_chart, line_chart, scatter_chart

LINES = [
    Series("cbir mobilenet", [1, 5, 10], [0.9, 0.5, 0.25], [(0.8, 0.95), (0.4, 0.6), (0.2, 0.3)], [1, 1, 0.75]),
    Series("cbir clip", [1, 5, 10], [0.7, 0.6, 0.35], [None, (0.5, 0.65), None], [1, 1, 0.75]),
    Series("tbir clip", [1, 5, 10], [0.1, 0.2, 0.3]),
]
DOTS = [Dot("cbir clip", 0.5, 0.97, True, 0), Dot("cbir clip", 8, 1.0, False, 0), Dot("tbir clip", 40, 0.94, True, 1)]
BARS = [("cat", 0.1), ("dog", 0.75), ("fish", 1.0), ("none", 0.0)]
CHANGES = [("cat", -0.4), ("dog", -0.05), ("fish", 0.2)]


def chart_of_each_kind() -> dict[str, str]:
    """Draw two charts with lines, one with dots, two with bars and one with changes."""
    return {
        "lines": line_chart(LINES, "precision@k by exact search", "k", "precision"),
        "more lines": line_chart(LINES[:1], "recall@k by exact search", "k", "recall"),
        "dots": scatter_chart(DOTS, "what the index finds", "ms", "ann_recall@10"),
        "bars": bar_chart(BARS, "cbir clip: worst classes", "precision@10", 1),
        "more bars": bar_chart(BARS, "cbir clip: best classes", "precision@10", 1),
        "changes": bar_chart(CHANGES, "cbir clip: classes that changed most", "change", 2, is_change=True),
    }
