"""Figures of a study's report: forest plots, and lines with bands, as SVG in the colours of the page around them."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from wastelens.figures.style import keep_sides, shortened
from wastelens.system.arrays import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 420  # of every figure; in units of the SVG, about pixels on the screen
_CHART_HEIGHT, _LEGEND_ROW, _FOREST_ROW, _FOREST_FRAME = 250, 17, 38, 48
_SMALL, _TEXT, _TITLE = 11, 12, 13  # font sizes in the same units
_NAME_LETTERS, _SIDE_LETTERS = 28, 20
_CUT_AT = 3.0  # times the median reach: a wider interval would shrink all others to points
# Drawn in these colours, which svg() replaces by the page's CSS variables of the same name.
COLOURS = {
    "ink": "#1b1b1a",
    "muted": "#5f5f5a",
    "grid": "#ebebe7",
    "helps": "#00694a",
    "hurts": "#b0271f",
    "a0": "#d55e00",
    "a1": "#0072b2",
    "a2": "#009e73",
    "a3": "#cc79a7",
    "a4": "#8a6d00",
    "a5": "#595959",
}
_ARM_COLOURS = 6


@dataclass(frozen=True)
class ForestLine:
    """A difference with its interval, NaN where unknown.

    Attributes:
        numbers: the difference, its interval, the verdict and p as text.
        pooled: whether it covers all models.
    """

    name: str
    difference: float
    low: float
    high: float
    verdict: str
    numbers: str
    pooled: bool


def forest_reach(differences: FloatArray) -> float:
    """Return how far a forest plot's axis reaches beside zero; differences with low and high: (n, 3), may be NaN."""
    sizes = np.abs(differences[np.isfinite(differences[:, 0])])
    if not sizes.size:
        return 0.01
    farthest = np.fmax.reduce(sizes, axis=1)
    wide = min(float(farthest.max()), _CUT_AT * float(np.median(farthest)))
    return 1.05 * max(wide, float(sizes[:, 0].max()), 1e-3)


def forest(name: str, lines: Sequence[ForestLine], sides: tuple[str, str], reach: float) -> Figure:
    """Draw a forest plot.

    Args:
        name: begins the ids of its marks.
        lines: from top to bottom.
        sides: the arms that are better left and right of zero.
        reach: of the axis on either side of zero; an interval beyond it ends in an arrowhead.
    """
    figure, axes = _blank(_FOREST_FRAME + _FOREST_ROW * len(lines), (8, 8, 24, 20))
    axes.set_xlim(-reach, reach)
    axes.set_ylim(len(lines) - 0.6, -0.75)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(_round_ticks(6))
    axes.xaxis.set_major_formatter(lambda tick, _: _tick_text(tick, 0.92 * reach))  # at the edge it would be cut
    top, bottom = np.arange(len(lines)) - 0.2, np.arange(len(lines)) + 0.25  # of the strips below the texts
    axes.vlines(np.zeros(len(lines)), top, bottom, color=COLOURS["muted"], linewidth=1.5, zorder=1, gid=f"{name}-zero")
    keep_sides(axes, [])
    for x, text in (
        (0.0, f"← {shortened(sides[0], _SIDE_LETTERS)} better"),
        (1.0, f"{shortened(sides[1], _SIDE_LETTERS)} better →"),
    ):
        align = "left" if x == 0.0 else "right"
        axes.text(x, 1.0, text, transform=axes.transAxes, ha=align, va="bottom", color=COLOURS["muted"], size=_SMALL)
    for row, line in enumerate(lines):
        colour = COLOURS.get(line.verdict, COLOURS["ink"])
        weight = "bold" if line.pooled else "normal"
        label: dict[str, Any] = {"va": "center", "size": _SMALL, "transform": axes.get_yaxis_transform()}
        axes.text(0, row - 0.38, shortened(line.name, _NAME_LETTERS), color=COLOURS["ink"], weight=weight, **label)
        axes.text(1, row - 0.38, line.numbers, color=colour, ha="right", **label)
        _draw_interval(axes, row, line, reach, colour)
        mark, size = ("D", 9) if line.pooled else ("o", 8)
        axes.plot(line.difference, row, mark, color=colour, markersize=size, zorder=3, gid=f"{name}-mark-{row}")
    return figure


def _tick_text(tick: float, largest: float) -> str:
    if abs(tick) > largest:
        return ""
    return f"{tick:+z.4g}" if round(tick, 9) else "0"


def _draw_interval(axes: Axes, row: int, line: ForestLine, reach: float, colour: str) -> None:
    """Draw the interval, with an arrowhead where it goes on beyond the axis."""
    if not np.isfinite([line.low, line.high]).all():
        return
    ends = np.clip([line.low, line.high], -reach, reach)
    axes.plot(ends, [row, row], color=colour, linewidth=2, zorder=2)
    marks = ["<" if line.low < -reach else "|", ">" if line.high > reach else "|"]
    for end, mark in zip(ends, marks, strict=True):
        axes.plot(end, row, mark, color=colour, markersize=9, markeredgewidth=2 if mark == "|" else 0, clip_on=False)


def lines_with_bands(
    title: str,
    labels: tuple[str, str],
    cells: pd.DataFrame,
    x: str,
    columns: Sequence[str],
    arms: Sequence[tuple[str, str]],
) -> Figure | None:
    """Draw, for each arm, the mean over cells of each column; None where no line has more than one point.

    The first column's lines are solid and have a band from the minimum to the maximum over cells; those of the other
    columns are dashed. A line is faint where some of its cells have ended already.

    Args:
        title: of the figure.
        labels: of the x and y axes.
        cells: with the columns ``arm``, `x`, and `columns`.
        x: the column on the x axis.
        columns: to draw.
        arms: value in ``arm`` → name in the legend; their order gives the colours.
    """
    from matplotlib.lines import Line2D

    drawn = [
        (COLOURS[f"a{place % _ARM_COLOURS}"], column, bands)
        for column in columns
        for place, (arm, _) in enumerate(arms)
        if len(bands := mean_and_range(cells[cells["arm"] == arm], x, column))
    ]
    if all(len(bands) < 2 for *_, bands in drawn):
        return None
    figure, axes = _blank(_CHART_HEIGHT + _LEGEND_ROW * len(arms), (58, 8, 44 + _LEGEND_ROW * len(arms), 26))
    for colour, column, bands in drawn:
        _draw_line(axes, bands, colour, dashed=column != columns[0])
    axes.set_title(shortened(title, 50), loc="left", fontsize=_TITLE, weight="bold", color=COLOURS["ink"])
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.xaxis.set_major_locator(_round_ticks(6, whole=x == "epoch"))
    axes.yaxis.set_major_locator(_round_ticks(5))
    axes.grid(axis="y", color=COLOURS["grid"], linewidth=1)
    keep_sides(axes, ["bottom"])
    handles = [
        Line2D([], [], color=COLOURS[f"a{place % _ARM_COLOURS}"], linewidth=3, label=shortened(name, 60))
        for place, (_, name) in enumerate(arms)
    ]
    place_below = {"loc": "lower left", "frameon": False, "borderpad": 0, "labelspacing": 0.2}
    figure.legend(handles=handles, fontsize=_TEXT, labelcolor=COLOURS["ink"], **place_below)
    return figure


def mean_and_range(cells: pd.DataFrame, x: str, column: str) -> pd.DataFrame:
    """Return mean, min, max and size of a column's finite values at each x."""
    known = cells.assign(value=cells[column].astype(float).replace([np.inf, -np.inf], np.nan)).dropna(subset=["value"])
    return known.groupby(x)["value"].agg(["mean", "min", "max", "size"])


def _draw_line(axes: Axes, bands: pd.DataFrame, colour: str, *, dashed: bool) -> None:
    at, mean = bands.index.to_numpy(float), bands["mean"].to_numpy(float)
    whole = int((bands["size"] == bands["size"].max()).to_numpy().nonzero()[0].max()) + 1
    style: dict[str, Any] = {"color": colour, "linewidth": 2, "linestyle": (0, (1, 2)) if dashed else "-"}
    if len(at) == 1:
        style["marker"] = "o"  # a line of one point would be invisible
    axes.plot(at[:whole], mean[:whole], **style)
    if whole < len(at):
        axes.plot(at[whole - 1 :], mean[whole - 1 :], alpha=0.4, **style)
    if not dashed:
        axes.fill_between(at, bands["min"].to_numpy(), bands["max"].to_numpy(), color=colour, alpha=0.16, linewidth=0)


def svg(figure: Figure) -> str:
    """Return a figure as an ``<svg>`` element: text stays text, colours are the CSS variables of `COLOURS`."""
    from matplotlib import rc_context
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # names are data: a $ in them starts no formula
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "wastelens"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the browser's fonts have it
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    drawn = file.getvalue().partition("<svg")[2]
    drawn = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", f"<svg{drawn}", flags=re.DOTALL)
    names = {colour: f"var(--{name})" for name, colour in COLOURS.items()}
    return re.sub(r"(?<=: )#[0-9a-f]{6}(?=[;\"])", lambda found: names.get(found[0], found[0]), drawn)


def _blank(height: int, margins: tuple[int, int, int, int]) -> tuple[Figure, Axes]:
    """Return an empty figure with fixed margins left, right, bottom and top: a layout engine would draw it twice."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72, height / 72))  # SVG has 72 units to the inch
    left, right, bottom, top = margins
    axes = figure.add_axes((left / WIDTH, bottom / height, 1 - (left + right) / WIDTH, 1 - (bottom + top) / height))
    axes.tick_params(length=0, labelsize=_TEXT, labelcolor=COLOURS["muted"])
    axes.spines["bottom"].set_color(COLOURS["muted"])
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(fontsize=_TEXT, color=COLOURS["muted"])
    return figure, axes


def _round_ticks(most: int, *, whole: bool = False) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=most, integer=whole, steps=[1, 2, 5, 10], min_n_ticks=1)
