"""Where the marks of a study's figures go: forest plots, and lines with bands. The page draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.evaluation.paired import ALL_MODELS
from wastelens.studies.results import FINISHED
from wastelens.studies.words import Row, arm_name, contrast_name, difference, p_value, rows_of

FloatArray = npt.NDArray[np.float64]

WIDTH, HEIGHT = 420, 250  # of a chart, in its own units, about pixels on the screen
LEFT, RIGHT, TOP, BOTTOM = 60, 12, 10, 38
_CUT_AT = 3.0  # times the typical reach of an interval: one that is wider would make points of all others
_NAMING = ("model", "arm", "stratum", "seed", "fold")


@dataclass(frozen=True)
class ForestLine:
    """A difference with its interval; places are percent of the plot's width.

    Attributes:
        name: the model, or the stratum below its model's heading.
        numbers: the difference and its interval as text.
        p_adjusted: as text.
        verdict: helps, hurts or undecided.
        pooled: whether it is that of all models.
        at: of the difference; None where it is not known.
        ends: of the interval; None where there is none.
        cut: whether the interval goes on beyond the plot's left, right end.
    """

    name: str
    numbers: str
    p_adjusted: str
    verdict: str
    pooled: bool
    at: float | None
    ends: tuple[float, float] | None
    cut: tuple[bool, bool]


@dataclass(frozen=True)
class Forest:
    """A forest plot of one metric.

    Attributes:
        title: what is compared with what.
        left, right: the arms that are better on either side of zero.
        groups: heading (or nothing) and lines.
        ticks: place in percent and text.
    """

    title: str
    left: str
    right: str
    groups: Sequence[tuple[str, Sequence[ForestLine]]]
    ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Line:
    """A line of a chart with its band, as SVG's points.

    Attributes:
        place: the arm's, which gives the colour.
        points: of the line.
        fading: of its end, where fewer cells go into the mean than before.
        band: the outline of the band; empty for none.
        dashed: whether it is the lesser of the arm's two lines.
    """

    place: int
    points: str
    fading: str
    band: str
    dashed: bool


@dataclass(frozen=True)
class Chart:
    """Lines over a common axis. Ticks: place in the chart's units and text."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]


def forests(comparisons: pd.DataFrame, metric: str, factor: str) -> list[Forest]:
    """A forest plot of this metric for each level that is compared with the first, all over the same axis.

    With one stratum it has a line a model; with several a group a model, and in it a line a stratum.
    """
    rows = rows_of(comparisons[comparisons["metric"] == metric])
    reach = _reach(rows)
    found = []
    for second in dict.fromkeys(row["second"] for row in rows):
        of_second = [row for row in rows if row["second"] == second]
        first = of_second[0]
        left, right = (f"{arm_name(factor, first[side])} better" for side in ("first", "second"))
        title = contrast_name({**first, "stratum": ""}, factor)
        found.append(Forest(title, left, right, _groups(of_second, reach), _forest_ticks(reach)))
    return found


def _reach(rows: Sequence[Row]) -> float:
    """How far the axis goes to either side of zero."""
    differences = np.array([[row["difference"], row["low"], row["high"]] for row in rows], dtype=np.float64)
    sizes = np.abs(differences[np.isfinite(differences[:, 0])]) if len(rows) else np.zeros((0, 3))
    if not sizes.size:
        return 0.01
    farthest = np.fmax.reduce(sizes, axis=1)
    wide = min(float(farthest.max()), _CUT_AT * float(np.median(farthest)))
    return 1.05 * max(wide, float(sizes[:, 0].max()), 1e-3)


def _groups(rows: Sequence[Row], reach: float) -> list[tuple[str, list[ForestLine]]]:
    models = sorted(dict.fromkeys(row["model"] for row in rows), key=lambda model: model == ALL_MODELS)
    if len({row["stratum"] for row in rows}) == 1:
        ordered = sorted(rows, key=lambda row: models.index(row["model"]))
        return [("", [_forest_line(row, row["model"], reach) for row in ordered])]
    return [
        (model, [_forest_line(row, row["stratum"], reach) for row in rows if row["model"] == model]) for model in models
    ]


def _forest_line(row: Row, name: str, reach: float) -> ForestLine:
    low, high = row["low"], row["high"]
    there = math.isfinite(low) and math.isfinite(high)
    return ForestLine(
        name=name,
        numbers=difference(row),
        p_adjusted=p_value(row["p_adjusted"]),
        verdict=row["verdict"],
        pooled=row["model"] == ALL_MODELS,
        at=_percent(row["difference"], reach) if math.isfinite(row["difference"]) else None,
        ends=(_percent(low, reach), _percent(high, reach)) if there else None,
        cut=(there and low < -reach, there and high > reach),
    )


def _percent(value: float, reach: float) -> float:
    return round(50 + 50 * min(max(value / reach, -1.0), 1.0), 2)


def _forest_ticks(reach: float) -> list[tuple[float, str]]:
    return [(_percent(tick, reach), f"{tick:+z.4g}" if tick else "0") for tick in _ticks(-reach, reach, 6)]


def learning_charts(curves: pd.DataFrame, arms: Sequence[str]) -> list[tuple[str, list[Chart]]]:
    """Macro AP on val and losses over the epochs: heading, and a chart a model; of each stratum by itself.

    A line is the mean over an arm's cells, a band from their least to their greatest value.
    """
    kinds = (("macro AP on val", "macro AP", ["val_macro_ap"]), ("loss", "nats", ["val_loss", "loss"]))
    found = []
    for stratum, of_stratum in curves.groupby("stratum", sort=False):
        models = [(str(model), part) for model, part in of_stratum.groupby("model", sort=False)]
        for kind, unit, columns in kinds:
            charts = [_chart(model, "epoch", unit, part, "epoch", columns, arms) for model, part in models]
            found.append((", ".join(filter(None, [kind, str(stratum)])), charts))
    return found


def ledger_charts(cells: pd.DataFrame, factor: str, arms: Sequence[str]) -> list[Chart]:
    """Of each model the test macro AP over the other factor, where that is a number; nothing where there is none."""
    names = list(cells.columns)
    factors = [name for name in names[: names.index("status")] if name not in {*_NAMING, factor}]
    varied = [name for name in factors if cells[name].nunique() > 1]
    if len(varied) != 1:
        return []
    amounts = pd.to_numeric(cells[varied[0]], errors="coerce")
    finished = cells.assign(amount=amounts)[cells["status"] == FINISHED]
    if amounts.isna().any() or finished.empty:
        return []
    label, columns = varied[0].replace("_", " "), ["test_macro_ap", "strongest_control_macro_ap"]
    return [
        _chart(str(model), label, "test macro AP", part, "amount", columns, arms)
        for model, part in finished.groupby("model", sort=False)
    ]


def _chart(
    title: str, x_label: str, y_label: str, frame: pd.DataFrame, x: str, columns: Sequence[str], arms: Sequence[str]
) -> Chart:
    """Of each column and arm the mean over cells; the first column's lines have bands, the others' are dashed."""
    found = [
        (place, column, _bands(frame[frame["arm"] == arm], x, column))
        for column in columns
        for place, arm in enumerate(arms)
    ]
    shown = [(place, column, bands) for place, column, bands in found if len(bands)]
    if not shown:
        return Chart(title, x_label, y_label, [], [], [])
    x_axis = _Axis.around(np.concatenate([bands.index.to_numpy(float) for *_, bands in shown]), LEFT, WIDTH - RIGHT, 6)
    seen = [
        bands[["min", "max"] if column == columns[0] else ["mean"]].to_numpy().ravel() for _, column, bands in shown
    ]
    y_axis = _Axis.around(np.concatenate(seen), HEIGHT - BOTTOM, TOP, 5)
    lines = [_line(place, bands, x_axis, y_axis, dashed=column != columns[0]) for place, column, bands in shown]
    return Chart(title, x_label, y_label, lines, x_axis.ticks(whole=x == "epoch"), y_axis.ticks())


def _bands(cells: pd.DataFrame, x: str, column: str) -> pd.DataFrame:
    known = cells.assign(value=cells[column].astype(float).replace([np.inf, -np.inf], np.nan)).dropna(subset=["value"])
    return known.groupby(x)["value"].agg(["mean", "min", "max", "size"])


def _line(place: int, bands: pd.DataFrame, x_axis: _Axis, y_axis: _Axis, *, dashed: bool) -> Line:
    at = x_axis.places(bands.index.to_numpy(float))
    mean, low, high = (y_axis.places(bands[name].to_numpy(float)) for name in ("mean", "min", "max"))
    whole = int((bands["size"] == bands["size"].max()).to_numpy().nonzero()[0].max()) + 1
    outline = _points(np.append(at, at[::-1]), np.append(low, high[::-1]))
    return Line(
        place=place,
        points=_points(at[:whole], mean[:whole]),
        fading=_points(at[whole - 1 :], mean[whole - 1 :]) if whole < len(at) else "",
        band="" if dashed else outline,
        dashed=dashed,
    )


def _points(x: FloatArray, y: FloatArray) -> str:
    """As SVG writes them; a single one twice, or its line would not be drawn at all."""
    points = [f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True)]
    return " ".join(points * 2 if len(points) == 1 else points)


@dataclass(frozen=True)
class _Axis:
    """From low to high in data, from start to end in the chart's units."""

    low: float
    high: float
    start: float
    end: float
    most_ticks: int

    @classmethod
    def around(cls, values: FloatArray, start: float, end: float, most_ticks: int) -> _Axis:
        """An axis that holds all values, with a little room for one alone."""
        low, high = float(values.min()), float(values.max())
        room = 0.02 * (high - low) or max(0.05 * abs(low), 0.5 if low == round(low) else 0.01)
        return cls(low - room, high + room, start, end, most_ticks)

    def places(self, values: FloatArray) -> FloatArray:
        """Values in the chart's units."""
        return self.start + (values - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, *, whole: bool = False) -> list[tuple[float, str]]:
        """Place and text of round values."""
        ticks = _ticks(self.low, self.high, self.most_ticks, whole=whole)
        places = self.places(np.array(ticks))
        return [(round(float(place), 1), f"{tick:z.4g}") for place, tick in zip(places, ticks, strict=True)]


def _ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Round values from low to high."""
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(nbins=most, integer=whole, steps=[1, 2, 5, 10], min_n_ticks=1).tick_values(low, high)
    return [float(value) for value in values if low <= value <= high]
