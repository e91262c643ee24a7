"""Charts of quality against cost: one labelled point for each encoder, its interval as a line."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import hypot
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import Bbox

from cbir.artifacts.comparison import EncoderCost, MetricComparison
from cbir.core.text import printable
from cbir.report.charts import INK, as_svg, style_of
from cbir.report.figures import figure

_INCHES = (5.2, 3.8)
_ROOM = 1.9  # of the axis beyond its lowest and highest point, as a ratio
_WIDE = 200  # the ratio of the ends of an axis that has room for powers of 10 only
_NAME_CHARACTERS = 30
_MARK, _GAP = 5.0, 3.0  # half of a marker, and the space around it, in pixels of 1/72 inch
_CLEARER = 8  # by which a label is nearer to its point than to others, in the same pixels
_DISTANCES = (0, 8, 18, 32, 50, 72, 100)  # of a label from its point, in the same pixels


@dataclass(frozen=True)
class CostPoint:
    """An encoder.

    number : of its colour and marker.  x : its cost, above 0.  y, interval : its quality.  is_best : whether no test tells it
    from the best.
    """

    name: str
    number: int
    x: float
    y: float
    interval: Sequence[float] | None
    is_best: bool


def cost_charts(task: str, comparison: MetricComparison, costs: Mapping[str, EncoderCost]) -> list[str]:
    """Draw the metric against images embedded in a second, and against the bytes of an image in the index.

    comparison : of the metric that decides.  costs : of each encoder of the run, in its order, which numbers them.  An encoder
    without a speed is only in the second chart; a chart of fewer than two encoders is left out.
    """
    numbers = {name: number for number, name in enumerate(costs)}
    speeds = {name: cost.images_per_s for name, cost in costs.items()}
    sizes = {name: cost.bytes_per_vector for name, cost in costs.items()}
    best = comparison.best_group
    charts = []
    for title, label, values in (
        ("speed of embedding", "images embedded per second (faster to the right)", speeds),
        ("size in the index", "bytes per image in the index (smaller to the left)", sizes),
    ):
        points = [
            CostPoint(ranked.encoder, numbers[ranked.encoder], x, ranked.mean, ranked.interval, ranked.encoder in best)
            for ranked in comparison.ranking
            if (x := values.get(ranked.encoder))
        ]
        if len(points) > 1:
            charts.append(cost_chart(points, f"{task}: {comparison.metric} and {title}", label, comparison.metric))
    return charts


def cost_chart(points: Sequence[CostPoint], title: str, x_label: str, y_label: str) -> str:
    """Draw points over a logarithmic x axis, each with its name beside it; the best ones are filled."""

    def draw(axes: Axes) -> None:
        for point in points:
            colour, marker = style_of(point.number)
            if point.interval is not None:
                axes.plot([point.x] * 2, point.interval, color=colour, linewidth=1.2, marker="_", markersize=6)
            axes.plot(
                [point.x],
                [point.y],
                color=colour,
                linestyle="none",
                marker=marker,
                markersize=7,
                markerfacecolor=colour if point.is_best else "none",
            )
        axes.set_xscale("log")
        low, high = min(point.x for point in points) / _ROOM, max(point.x for point in points) * _ROOM
        axes.set_xlim(low, high)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < _WIDE * low else (1,)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.10g}")
        axes.set_ylim(*_limits(points))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        _place_labels(axes, points)

    return as_svg(draw, _INCHES, title, _description(points, x_label, y_label))


def _description(points: Sequence[CostPoint], x_label: str, y_label: str) -> str:
    """The values of the chart in words."""
    values = (
        f"{printable(point.name)}: {figure(point.y, point.interval)}, {point.x:,.0f}"
        + ", among the best" * point.is_best
        for point in points
    )
    return f"{y_label} and {x_label}. {'; '.join(values)}."


def _limits(points: Sequence[CostPoint]) -> tuple[float, float]:
    """The lowest and highest quality with their intervals, and some room, but not below 0 where no quality is."""
    ys = [y for point in points for y in (point.y, *(point.interval or ()))]
    low, high = min(ys), max(ys)
    room = max(0.12 * (high - low), 0.005)
    return low - room if low < 0 else max(0.0, low - room), high + room


def _place_labels(axes: Axes, points: Sequence[CostPoint]) -> None:
    """Write each name where it covers no point, interval or other name; one far from its point gets a line to it."""
    canvas: Any = axes.figure
    canvas.draw_without_rendering()  # computes the layout
    per_point = canvas.dpi / 72
    taken = [box for point in points for box in _boxes(axes, point, per_point)]
    inside = axes.get_window_extent()
    centres = [tuple(map(float, axes.transData.transform((point.x, point.y)))) for point in points]
    for point, (x, y) in zip(points, centres, strict=True):
        colour, _ = style_of(point.number)
        others = [centre for centre in centres if centre != (x, y)]
        text = axes.annotate(
            printable(point.name, _NAME_CHARACTERS),
            (point.x, point.y),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=9,
            va="center",
            ha="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.0},
            color=INK,  # a colour for marks need not be dark enough for text
        )
        text.set_in_layout(False)
        size = text.get_window_extent()
        candidates = _candidates(x, y, size.width, size.height, per_point)
        badness = [_badness(candidate, (x, y), others, taken, inside, per_point) for candidate in candidates]
        best = candidates[badness.index(min(badness))]
        taken.append(best)
        across, down = (best.x0 + best.x1) / 2 - x, (best.y0 + best.y1) / 2 - y
        text.set_position((across / per_point, down / per_point))
        if _distance(best, x, y) > (_MARK + _GAP + 4) * per_point and text.arrow_patch is not None:
            text.arrow_patch.set_alpha(1.0)


def _boxes(axes: Axes, point: CostPoint, per_point: float) -> Iterator[Bbox]:
    """The rectangles of a marker and of its interval, in pixels."""
    x, y = axes.transData.transform((point.x, point.y))
    half = _MARK * per_point
    yield Bbox([[x - half, y - half], [x + half, y + half]])
    if point.interval is not None:
        low, high = (axes.transData.transform((point.x, bound))[1] for bound in point.interval)
        yield Bbox([[x - half, low - half / 2], [x + half, high + half / 2]])


def _candidates(x: float, y: float, width: float, height: float, per_point: float) -> list[Bbox]:
    """Places around a point: at its sides, above, below and at the corners, the nearest first."""
    boxes = []
    for distance, (across, up) in product(
        _DISTANCES, ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1))
    ):
        space = (_MARK + _GAP + distance) * per_point
        centre_x = x + across * (space + width / 2)
        centre_y = y + up * (space + height / 2)
        boxes.append(Bbox.from_bounds(centre_x - width / 2, centre_y - height / 2, width, height))
    return boxes


def _badness(
    box: Bbox,
    point: tuple[float, ...],
    others: Sequence[tuple[float, ...]],
    taken: Sequence[Bbox],
    inside: Bbox,
    per_point: float,
) -> float:
    """Covering something is worst, and leaving the axes; then being nearer to another point; then being far away."""
    covered = sum(_overlap(box, other) for other in taken)
    outside = box.width * box.height - _overlap(box, inside)
    distance = _distance(box, *point) / per_point
    is_ambiguous = any(_distance(box, *other) / per_point < distance + _CLEARER for other in others)
    return 1000 * (covered + outside) + 60 * is_ambiguous + distance


def _overlap(first: Bbox, second: Bbox) -> float:
    both = Bbox.intersection(first, second)
    return 0.0 if both is None else both.width * both.height


def _distance(box: Bbox, x: float, y: float) -> float:
    """From a point to the nearest point of a box."""
    return hypot(max(box.x0 - x, 0, x - box.x1), max(box.y0 - y, 0, y - box.y1))
