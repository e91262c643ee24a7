"""Charts as inline SVG, drawn by matplotlib: text stays text, and colours follow the page's light or dark theme.

The colours that matplotlib writes are replaced by the page's CSS variables (--ink, --faint, --c0 ...).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from math import ceil, floor, log10
from textwrap import wrap
from typing import Any, Final
from unicodedata import east_asian_width
from warnings import catch_warnings, filterwarnings

from markupsafe import escape
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from cbir.report.figures import signed

PALETTE: Final = 6  # series colours of the page
# placeholders that occur nowhere else; each is replaced by a CSS variable
INK, FAINT = "#010203", "#040506"
COLOURS = tuple(f"#0a0b0{number}" for number in range(PALETTE))
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # the name of a class may be $x$
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_NAME_WIDTH = 40  # letters beside a bar: more would leave it no room
_NAMES_INSIDE = 3  # of series that a legend inside the axes has room for
_TITLE_WIDTH = 60  # letters in a line of a title, which is as wide as the chart
MARKERS = "osD^vP"
_STYLED = re.compile(r'style="[^"]*"(?=[^<>]*>)')  # attributes of elements, not text
_STYLES = re.compile(r"<style.*?</style>", re.DOTALL)  # they would apply to the whole page
_GROUP_IDS = re.compile(r'(<g) id="[^"]*"')  # unused, and the same in all charts


def style_of(number: int) -> tuple[str, str]:
    """Return the colour and the marker of a series; no two of the first 36 have the same."""
    return COLOURS[number % PALETTE], MARKERS[(number + number // PALETTE) % len(MARKERS)]


@dataclass(frozen=True)
class Series:
    """Points (x, y) of a line.

    bounds : the interval of each point, None if it has none.  ceiling : the best possible y of each point.  number : of its
    colour and marker; None for its place among the lines of the chart.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    bounds: Sequence[tuple[float, float] | None] = ()
    ceiling: Sequence[float] = ()
    number: int | None = None

    @classmethod
    def over_k(
        cls,
        name: str,
        family: str,
        values: Mapping[str, float | None],
        intervals: Mapping[str, Sequence[float]],
        ceilings: Mapping[str, float],
        number: int | None = None,
    ) -> "Series":
        """Build the series of a metric over k.

        values, intervals, ceilings : name of the metric, such as "precision@10" -> its value, interval and ceiling.
        """
        names = {int(key.partition("@")[2]): key for key in values if key.startswith(f"{family}@")}
        known = [(k, names[k], value) for k in sorted(names) if (value := values[names[k]]) is not None]
        bounds = [intervals.get(key) for _, key, _ in known]
        return cls(
            name,
            [k for k, _, _ in known],
            [value for _, _, value in known],
            [(interval[0], interval[1]) if interval else None for interval in bounds],
            [ceilings[key] for _, key, _ in known if key in ceilings],
            number,
        )


def line_chart(lines: Sequence[Series], title: str, x_label: str, y_label: str) -> str:
    """Draw lines, their intervals as bands and their ceilings dotted."""

    def draw(axes: Axes) -> None:
        handles: list[Any] = []
        for number, line in enumerate(lines):
            colour, marker = style_of(number if line.number is None else line.number)
            handles += axes.plot(line.xs, line.ys, color=colour, marker=marker, markersize=4)
            band = [(x, *bound) for x, bound in zip(line.xs, line.bounds, strict=False) if bound is not None]
            if band:
                xs, lows, highs = zip(*band, strict=True)
                axes.fill_between(
                    xs, lows, highs, color=colour, alpha=0.15 if len(lines) <= _NAMES_INSIDE else 0.07, linewidth=0
                )
            if len(line.ceiling):
                axes.plot(line.xs, line.ceiling, color=INK, linestyle=":", linewidth=1, zorder=1)
        highest = max(
            (y for line in lines for y in (*line.ys, *(interval[1] for interval in line.bounds if interval))),
            default=1.0,
        )
        axes.set_ylim(0, 1.03 if highest > 0.5 else max(1.25 * highest, 0.01))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        _legend(axes, handles, [line.name for line in lines])

    return as_svg(draw, (5.2, 3.4), title)


@dataclass(frozen=True)
class Dot:
    """A point of a series, filled or hollow.  number : of the series' colour and marker."""

    series: str
    x: float
    y: float
    is_filled: bool
    number: int


def scatter_chart(dots: Sequence[Dot], title: str, x_label: str, y_label: str) -> str:
    """Draw dots over a logarithmic x axis."""

    def draw(axes: Axes) -> None:
        handles: list[Any] = []
        names = {dot.series: dot.number for dot in dots}
        for name, number in names.items():
            colour, marker = style_of(number)
            for is_filled in (True, False):
                chosen = [dot for dot in dots if (dot.series, dot.is_filled) == (name, is_filled)]
                handle = axes.scatter(
                    [dot.x for dot in chosen],
                    [dot.y for dot in chosen],
                    marker=marker,
                    facecolors=colour if is_filled else "none",
                    edgecolors=colour,
                )
                handles += [handle] if is_filled else []
        axes.set_xscale("log")
        xs = [dot.x for dot in dots] or [1.0]
        axes.set_xlim(10 ** floor(log10(min(xs) / 1.1)), 10 ** ceil(log10(max(xs) * 1.1)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.tick_params(axis="x", which="both", length=3, pad=4)
        low = min((dot.y for dot in dots), default=0.0)
        axes.set_ylim(min(0.9, low - 0.05), 1.02)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        _legend(axes, handles, list(names))

    return as_svg(draw, (5.2, 3.4), title)


def _legend(axes: Axes, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Name the series: inside the axes, or below them when they are many."""
    if len(names) <= _NAMES_INSIDE:
        axes.legend(handles, names, frameon=False, fontsize=9)
    else:
        canvas: Any = axes.figure
        canvas.set_figheight(canvas.get_figheight() + 0.2 * ceil(len(names) / 2))
        canvas.legend(handles, names, frameon=False, fontsize=9, loc="outside lower center", ncols=2)


def bar_chart(
    bars: Sequence[tuple[str, float]], title: str, x_label: str, series: int = 0, is_change: bool = False
) -> str:
    """Draw horizontal bars with their values, the first on top: from 0 to 1, or changes to both sides of 0."""

    def draw(axes: Axes) -> None:
        places, values = range(len(bars)), [value for _, value in bars]
        axes.barh(places, values, color=COLOURS[series % PALETTE], height=0.7)
        axes.set_yticks(places, [_cut(name) for name, _ in bars])
        axes.invert_yaxis()
        reach = 1.4 * (max(map(abs, values), default=0.0) or 1.0)
        axes.set_xlim(*((-reach, reach) if is_change else (0, 1.12)))
        for place, value in enumerate(values):
            text, left = (signed(value), value < 0) if is_change else (f"{value:.2f}", False)
            axes.annotate(
                text, (value, place), textcoords="offset points", xytext=(-3 if left else 3, -3), fontsize=8,
                ha="right" if left else "left",
            )  # fmt: skip
        if is_change:
            axes.axvline(0, color=FAINT, linewidth=1)
        axes.set_xlabel(x_label)

    return as_svg(draw, (5.2, 0.55 + 0.24 * max(2, len(bars))), title)


def _cut(name: str) -> str:
    """Cut a name so that its bar has room; wide letters count for more than one."""
    width = 0.0
    for place, letter in enumerate(name):
        width += 2 if east_asian_width(letter) in "WF" else 1.7 if letter in "WM@%" else 1.2 if letter.isupper() else 1
        if width > _NAME_WIDTH:
            return f"{name[:place]}…"
    return name


def as_svg(draw: Any, inches: tuple[float, float], title: str, description: str = "") -> str:
    """Return the drawing as an <svg> element; title and description are for screen readers."""
    with (
        style.context(["default", {**_STYLE, "svg.hashsalt": title}]),  # ids unique to the chart, the same in every run
        catch_warnings(),
    ):
        filterwarnings("ignore", "Glyph")  # missing in matplotlib's font; the browser uses another one
        lines = wrap(title, _TITLE_WIDTH)
        width, height = inches
        canvas = Canvas(figsize=(width, height + 0.17 * (len(lines) - 1)), layout="constrained")
        canvas.patch.set_alpha(0)
        axes = canvas.add_subplot()
        axes.patch.set_alpha(0)
        canvas.suptitle("\n".join(lines), fontsize=10)
        draw(axes)
        out = StringIO()
        canvas.savefig(out, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = out.getvalue()
    text = _STYLES.sub("", _GROUP_IDS.sub(r"\1", text[text.index("<svg") :]))
    text = _STYLED.sub(_with_variables, text)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" class="chart" ', 1)
    return text.replace(">", f"><desc>{escape(description)}</desc>", 1) if description else text


def _with_variables(styled: re.Match[str]) -> str:
    """Replace the placeholders in a style attribute by CSS variables."""
    variables = {INK: "--ink", FAINT: "--faint"}
    variables |= {colour: f"--c{number}" for number, colour in enumerate(COLOURS)}
    text = styled[0]
    for colour, variable in variables.items():
        text = text.replace(colour, f"var({variable})")
    return text
