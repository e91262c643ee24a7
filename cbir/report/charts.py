"""Charts as SVG that stands inside a page: text stays text, and the page's own colours make it light or dark.

matplotlib draws; its colours become the page's CSS variables (--ink, --faint, --c0 ...).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from math import ceil, floor, log10
from typing import Any, Final
from unicodedata import east_asian_width
from warnings import catch_warnings, filterwarnings

from markupsafe import escape
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from cbir.report.figures import signed

SERIES: Final = 6  # colours that the page has
# colours that nothing else has, each to be replaced by a variable of the page
_INK, _FAINT = "#010203", "#040506"
_COLOURS = tuple(f"#0a0b0{number}" for number in range(SERIES))
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called $x$
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _FAINT,
    "grid.linewidth": 0.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_NAME_LETTERS = 40  # of a bar: more would leave it no room
_MARKERS = "osD^vP"
_STYLED = re.compile(r'style="[^"]*"(?=[^<>]*>)')  # of an element, not in text
_STYLES = re.compile(r"<style.*?</style>", re.DOTALL)  # it would hold for the whole page
_GROUP_IDS = re.compile(r'(<g) id="[^"]*"')  # nothing refers to them, and they are the same in every drawing


@dataclass(frozen=True)
class Series:
    """A series: points (x, y), and for each the bounds of its interval where it has one.  ceiling : the best possible."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    bounds: Sequence[tuple[float, float] | None] = ()
    ceiling: Sequence[float] = ()

    @classmethod
    def over_k(
        cls,
        name: str,
        family: str,
        values: Mapping[str, float | None],
        intervals: Mapping[str, Sequence[float]],
        ceilings: Mapping[str, float],
    ) -> "Series":
        """A metric at every k that it has a value at; all three hold it under names such as "precision@10"."""
        at = {int(key.partition("@")[2]): key for key in values if key.startswith(f"{family}@")}
        known = [(k, at[k], value) for k in sorted(at) if (value := values[at[k]]) is not None]
        bounds = [intervals.get(key) for _, key, _ in known]
        return cls(
            name,
            [k for k, _, _ in known],
            [value for _, _, value in known],
            [(one[0], one[1]) if one else None for one in bounds],
            [ceilings[key] for _, key, _ in known if key in ceilings],
        )


def line_chart(lines: Sequence[Series], title: str, x_label: str, y_label: str) -> str:
    """Lines over x with bands of their intervals, ceilings dotted."""

    def draw(axes: Axes) -> None:
        handles: list[Any] = []
        for number, line in enumerate(lines):
            colour, marker = _COLOURS[number % SERIES], _MARKERS[number % SERIES]
            handles += axes.plot(line.xs, line.ys, color=colour, marker=marker, markersize=4)
            band = [(x, *bound) for x, bound in zip(line.xs, line.bounds, strict=False) if bound is not None]
            if band:
                xs, lows, highs = zip(*band, strict=True)
                axes.fill_between(xs, lows, highs, color=colour, alpha=0.15, linewidth=0)
            if len(line.ceiling):
                axes.plot(line.xs, line.ceiling, color=_INK, linestyle=":", linewidth=1, zorder=1)
        highest = max(
            (value for line in lines for value in (*line.ys, *(one[1] for one in line.bounds if one))), default=1.0
        )
        axes.set_ylim(0, 1.03 if highest > 0.5 else max(1.25 * highest, 0.01))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        axes.legend(handles, [line.name for line in lines], frameon=False, fontsize=9)

    return _svg(draw, (5.2, 3.4), title)


@dataclass(frozen=True)
class Dot:
    """A measurement of a series, filled or hollow."""

    series: str
    x: float
    y: float
    is_filled: bool


def scatter_chart(dots: Sequence[Dot], title: str, x_label: str, y_label: str) -> str:
    """Dots over a logarithmic x."""

    def draw(axes: Axes) -> None:
        handles: list[Any] = []
        names = list(dict.fromkeys(dot.series for dot in dots))
        for number, name in enumerate(names):
            colour, marker = _COLOURS[number % SERIES], _MARKERS[number % SERIES]
            for is_filled in (True, False):
                of = [dot for dot in dots if (dot.series, dot.is_filled) == (name, is_filled)]
                drawn = axes.scatter(
                    [dot.x for dot in of],
                    [dot.y for dot in of],
                    marker=marker,
                    facecolors=colour if is_filled else "none",
                    edgecolors=colour,
                )
                handles += [drawn] if is_filled else []
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
        axes.legend(handles, names, frameon=False, fontsize=9)

    return _svg(draw, (5.2, 3.4), title)


def bar_chart(
    bars: Sequence[tuple[str, float]], title: str, x_label: str, series: int = 0, is_change: bool = False
) -> str:
    """Horizontal bars, the first on top, each with its figure: from 0 to 1, or changes to both sides of 0."""

    def draw(axes: Axes) -> None:
        places, values = range(len(bars)), [value for _, value in bars]
        axes.barh(places, values, color=_COLOURS[series % SERIES], height=0.7)
        axes.set_yticks(places, [_fitting(name) for name, _ in bars])
        axes.invert_yaxis()
        reach = 1.4 * (max(map(abs, values), default=0.0) or 1.0)
        axes.set_xlim(*((-reach, reach) if is_change else (0, 1.12)))
        for place, value in enumerate(values):
            told, left = (signed(value), value < 0) if is_change else (f"{value:.2f}", False)
            axes.annotate(
                told, (value, place), textcoords="offset points", xytext=(-3 if left else 3, -3), fontsize=8,
                ha="right" if left else "left",
            )  # fmt: skip
        if is_change:
            axes.axvline(0, color=_FAINT, linewidth=1)
        axes.set_xlabel(x_label)

    return _svg(draw, (5.2, 0.55 + 0.24 * max(2, len(bars))), title)


def _fitting(name: str) -> str:
    """The beginning of a name that leaves room for its bar: wide letters count for more than one."""
    width = 0.0
    for place, letter in enumerate(name):
        width += 2 if east_asian_width(letter) in "WF" else 1.7 if letter in "WM@%" else 1.2 if letter.isupper() else 1
        if width > _NAME_LETTERS:
            return f"{name[:place]}…"
    return name


def _svg(draw: Any, inches: tuple[float, float], title: str) -> str:
    """The drawing as an <svg> element with a title for those who cannot see it."""
    with (
        style.context(["default", {**_STYLE, "svg.hashsalt": title}]),
        catch_warnings(),
    ):  # ids of its own, the same in every run
        filterwarnings("ignore", "Glyph")  # of a script that matplotlib's own font lacks: the page's reader has another
        canvas = Canvas(figsize=inches, layout="constrained")
        canvas.patch.set_alpha(0)
        axes = canvas.add_subplot()
        axes.patch.set_alpha(0)
        draw(axes)
        axes.set_title(title, fontsize=10)
        out = StringIO()
        canvas.savefig(out, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = out.getvalue()
    text = _STYLES.sub("", _GROUP_IDS.sub(r"\1", text[text.index("<svg") :]))
    text = _STYLED.sub(_with_variables, text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" class="chart" ', 1)


def _with_variables(styled: re.Match[str]) -> str:
    """The page's variables for the colours that stand for them; a class may have a colour's name."""
    variables = {_INK: "--ink", _FAINT: "--faint"} | {one: f"--c{number}" for number, one in enumerate(_COLOURS)}
    text = styled[0]
    for colour, variable in variables.items():
        text = text.replace(colour, f"var({variable})")
    return text
