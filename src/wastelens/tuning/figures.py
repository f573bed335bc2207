"""Figures of a tuning: what its trials came to, which parameters mattered, and the learning rates they tried.

Each is a free-standing matplotlib ``Figure`` of a table with a row a trial: ``state``, ``val_macro_ap``, ``defaults``
and a column a parameter, empty where it was not varied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.data.drawing import (
    SMALL_PT,
    TEXT_PT,
    blank_figure,
    keep_sides,
    name_rows,
    shortened,
    write_title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from wastelens.tune_config import ParameterConfig

_BLUE, _ORANGE, _GREEN, _GREY, _PALE = "#0072B2", "#D55E00", "#009E73", "#595959", "#B8B8B8"
_NOT_VARIED = "not varied"
_COLUMNS = 4
_LETTERS = 18


def optimisation_history(table: pd.DataFrame) -> Figure:
    """Every trial's val_macro_ap in the order they began, and the best so far of those that were complete."""
    from matplotlib.ticker import MaxNLocator

    figure = blank_figure(9.5, 4.6)
    axes = figure.add_subplot()
    scored = table[table["val_macro_ap"].notna()]
    complete = scored[scored["state"] == "COMPLETE"]
    for state, colour, marker in (("COMPLETE", _BLUE, "o"), ("PRUNED", _PALE, "v")):
        part = scored[(scored["state"] == state) & ~scored["defaults"]]
        axes.scatter(part["trial"], part["val_macro_ap"], c=colour, marker=marker, s=34, label=state.lower(), zorder=3)
    defaults = scored[scored["defaults"]]
    axes.scatter(
        defaults["trial"], defaults["val_macro_ap"], c=_ORANGE, marker="D", s=44, label="the defaults", zorder=4
    )
    axes.step(complete["trial"], complete["val_macro_ap"].cummax(), where="post", color=_BLUE, label="best so far")
    failed = table[table["state"] == "FAILED"]
    bottom = axes.get_ylim()[0]
    axes.scatter(
        failed["trial"], np.full(len(failed), bottom), c=_GREY, marker="x", label="failed", clip_on=False, zorder=4
    )
    axes.set_ylim(bottom=bottom)
    axes.set_xlabel("trial", fontsize=TEXT_PT)
    axes.set_ylabel("val_macro_ap, best of its epochs", fontsize=TEXT_PT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    keep_sides(axes, ["left", "bottom"])
    axes.legend(fontsize=TEXT_PT, frameon=False, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    write_title(axes, "What each trial came to")
    return figure


def parameter_importances(importances: Mapping[str, float]) -> Figure:
    """How much of the variance of val_macro_ap each parameter explains; they add up to 1."""
    names = list(importances)
    figure = blank_figure(9.5, 1.2 + 0.3 * len(names))
    axes = figure.add_subplot()
    axes.barh(range(len(names)), list(importances.values()), color=_BLUE, height=0.6)
    name_rows(axes, names)
    for row, value in enumerate(importances.values()):
        axes.text(value, row, f" {value:.2f}", va="center", fontsize=SMALL_PT)
    axes.set_xlabel("share of the variance of val_macro_ap over the space", fontsize=TEXT_PT)
    keep_sides(axes, ["bottom"])
    write_title(axes, "Which parameters mattered")
    return figure


def slices(table: pd.DataFrame, parameters: Mapping[str, ParameterConfig]) -> Figure:
    """val_macro_ap over the values of each parameter, complete and pruned trials."""
    scored = table[table["val_macro_ap"].notna()]
    shown = [key for key in parameters if key in table and (scored[key] != "").any()]
    rows = math.ceil(len(shown) / _COLUMNS)
    figure = blank_figure(3.1 * _COLUMNS, 0.6 + 2.3 * rows)
    for number, key in enumerate(shown):
        axes = figure.add_subplot(rows, _COLUMNS, number + 1)
        tried = scored[scored[key] != ""]
        scale = _Scale(tried[key], parameters[key])
        pruned = (tried["state"] != "COMPLETE").to_numpy()
        colours = np.where(tried["defaults"].to_numpy(), _ORANGE, np.where(pruned, _PALE, _BLUE))
        axes.scatter(scale.positions(tried[key]), tried["val_macro_ap"], c=list(colours), s=22)
        scale.write(axes, "x")
        axes.set_title(key, fontsize=TEXT_PT, loc="left")
        axes.tick_params(labelsize=SMALL_PT)
        keep_sides(axes, ["left", "bottom"])
    figure.suptitle(
        "val_macro_ap over each parameter: complete (blue), pruned (grey), the defaults (orange)", fontsize=TEXT_PT
    )
    return figure


def parallel_coordinates(table: pd.DataFrame, parameters: Mapping[str, ParameterConfig]) -> Figure:
    """A line a complete trial through its values of all parameters; the better, the darker."""
    from matplotlib import colormaps

    complete = table[table["state"] == "COMPLETE"].sort_values("val_macro_ap")
    shown = [key for key in parameters if key in table and (complete[key] != "").any()]
    figure = blank_figure(max(9.5, 1.05 * len(shown)), 5.6)
    axes = figure.add_subplot()
    scales = [_Scale(complete[key][complete[key] != ""], parameters[key]) for key in shown]
    heights = np.column_stack([scale.shares(complete[key]) for key, scale in zip(shown, scales, strict=True)])
    values = complete["val_macro_ap"].to_numpy(dtype=float)
    spread = max(values.max() - values.min(), 1e-12)
    for line, value in zip(heights, values, strict=True):
        strength = (value - values.min()) / spread
        colour = colormaps["viridis_r"](0.1 + 0.85 * strength)
        axes.plot(range(len(shown)), line, color=colour, alpha=0.35 + 0.6 * strength, linewidth=0.8 + 1.6 * strength)
    for position, scale in enumerate(scales):
        axes.axvline(position, color=_GREY, linewidth=0.7, zorder=0)
        for share, text in scale.labels():
            axes.text(position + 0.03, share, text, fontsize=SMALL_PT, va="center", color=_GREY, parse_math=False)
    axes.set_xticks(range(len(shown)), labels=[shortened(key, 26) for key in shown], rotation=35, ha="right")
    axes.tick_params(axis="x", labelsize=SMALL_PT, length=0)
    axes.set_xlim(-0.1, len(shown) - 0.4)
    axes.set_yticks([])
    keep_sides(axes, [])
    write_title(axes, f"Complete trials: val_macro_ap {values.min():.3f} (pale) to {values.max():.3f} (dark)")
    return figure


def learning_rates(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """The measured learning rate at the end of each epoch; curves: what a trial is called → its epochs."""
    figure = blank_figure(9.5, 4.6)
    axes = figure.add_subplot()
    for (name, epochs), colour in zip(curves.items(), (_BLUE, _ORANGE, _GREEN, _GREY), strict=False):
        measured = [(row["epoch"], row["learning_rate"]) for row in epochs if row.get("learning_rate", 0) > 0]
        axes.plot(*zip(*measured, strict=True), color=colour, marker=".", label=name) if measured else None
    axes.set_yscale("log")
    axes.set_xlabel("epoch", fontsize=TEXT_PT)
    axes.set_ylabel("learning rate", fontsize=TEXT_PT)
    axes.legend(fontsize=TEXT_PT, frameon=False)
    keep_sides(axes, ["left", "bottom"])
    write_title(axes, "Learning rates of the best and the worst complete trials, and of the defaults")
    return figure


class _Scale:
    """Where a parameter's values stand on an axis: numbers by size, others at equal distances."""

    def __init__(self, texts: pd.Series[str], parameter: ParameterConfig) -> None:
        from wastelens.tune_config import RangeConfig

        self._number = isinstance(parameter, RangeConfig)
        self._log = isinstance(parameter, RangeConfig) and parameter.log
        self._names = [] if self._number else sorted(set(texts))
        if self._number:
            positions = self.positions(texts)
            self._low, self._high = float(positions.min()), float(positions.max())
        else:
            self._low, self._high = 0.0, float(len(self._names) - 1)

    def positions(self, texts: pd.Series[str]) -> npt.NDArray[np.float64]:
        """On the axis."""
        if not self._number:
            return np.array([self._names.index(text) for text in texts], dtype=float)
        numbers = texts.astype(float).to_numpy()
        return np.asarray(np.log10(numbers) if self._log else numbers, dtype=float)

    def shares(self, texts: pd.Series[str]) -> npt.NDArray[np.float64]:
        """From 0 to 1 of the axis; -0.08 where the parameter was not varied."""
        shares = np.full(len(texts), -0.08)
        varied = (texts != "").to_numpy()
        width = self._high - self._low
        positions = self.positions(texts[varied])
        shares[varied] = (positions - self._low) / width if width else 0.5
        return shares

    def labels(self) -> list[tuple[float, str]]:
        """Share of the axis and what is written there."""
        if self._number:
            ends = [self._low, self._high] if self._high > self._low else [self._low]
            return [(number if len(ends) > 1 else 0.5, self._text(end)) for number, end in enumerate(ends)]
        width = max(len(self._names) - 1, 1)
        return [
            (number / width if len(self._names) > 1 else 0.5, shortened(name, _LETTERS))
            for number, name in enumerate(self._names)
        ]

    def _text(self, position: float) -> str:
        return f"{10**position if self._log else position:.3g}"

    def write(self, axes: Axes, side: str) -> None:
        """Label an axis of positions."""
        if not self._number:
            axes.set_xticks(range(len(self._names)), labels=[shortened(name, _LETTERS) for name in self._names])
            axes.set_xlim(-0.5, len(self._names) - 0.5)
            if max(len(name) for name in self._names) * len(self._names) > 24:
                axes.tick_params(axis="x", labelrotation=20)
        elif self._log:
            ticks = np.linspace(self._low, self._high, 3)
            axes.set_xticks(ticks, labels=[self._text(tick) for tick in ticks])
