"""Figures of a search: the results of its trials, which parameters mattered, and the learning rates they tried.

Each is a free-standing matplotlib ``Figure`` of a table with a row per trial: ``state``, ``val_macro_ap``,
``defaults`` and one column for each parameter, empty where it was not varied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from wastelens.config.base import as_text
from wastelens.config.tune import COMPLETE, FAILED, PRUNED, ChoiceConfig, ParameterConfig, RangeConfig
from wastelens.figures.style import SMALL_PT, TEXT_PT, blank_figure, keep_sides, name_rows, shortened, write_title
from wastelens.system.arrays import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREEN, _GREY, _PALE = "#0072B2", "#D55E00", "#009E73", "#595959", "#B8B8B8"
_NOT_VARIED = "not varied"
_NOT_VARIED_AT = -0.08  # below the axes' ends, which are 0 and 1
_MARKERS = {PRUNED: "v", COMPLETE: "o"}  # drawn in this order: the more important ones on top
_COLUMNS = 4
_LETTERS = 18
_LETTERS_PER_ROW = 36


def optimisation_history(table: pd.DataFrame) -> Figure:
    """Draw the val macro AP of every trial in order of start, and the best complete one so far."""
    from matplotlib.ticker import MaxNLocator

    figure = blank_figure(9.5, 4.6)
    axes = figure.add_subplot()
    scored = _scored(table)
    for state, marker in _MARKERS.items():
        part = scored[(scored["state"] == state) & ~scored["defaults"]]
        label = state.lower() if len(part) else None
        axes.scatter(part["trial"], part["val_macro_ap"], c=_colours(part), marker=marker, s=34, label=label)
    tried = scored[scored["defaults"]]
    axes.scatter(tried["trial"], tried["val_macro_ap"], c=_ORANGE, marker="D", s=44, label="the defaults", zorder=4)
    best = scored["val_macro_ap"].where(scored["state"] == COMPLETE).cummax().ffill()
    axes.step(scored["trial"], best, where="post", color=_BLUE, label="best so far")
    failed = table[table["state"] == FAILED]
    bottom = axes.get_ylim()[0]
    label = "failed" if len(failed) else None
    heights = np.full(len(failed), bottom)
    axes.scatter(failed["trial"], heights, c=_GREY, marker="x", label=label, clip_on=False, zorder=4)
    axes.set_ylim(bottom=bottom)
    axes.set_xlim(-0.5, table["trial"].max() + 0.5)
    axes.set_xlabel("trial", fontsize=TEXT_PT)
    axes.set_ylabel("val macro AP, best of its epochs", fontsize=TEXT_PT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    keep_sides(axes, ["left", "bottom"])
    axes.legend(fontsize=TEXT_PT, frameon=False, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    write_title(axes, "Result of each trial")
    return figure


def parameter_importances(importances: Mapping[str, float]) -> Figure:
    """Draw how much of the variance of val macro AP each parameter explains; the shares add up to 1."""
    names = list(importances)
    figure = blank_figure(9.5, 1.2 + 0.3 * len(names))
    axes = figure.add_subplot()
    axes.barh(range(len(names)), list(importances.values()), color=_BLUE, height=0.6)
    name_rows(axes, names)
    for row, value in enumerate(importances.values()):
        axes.text(value, row, f" {value:.2f}", va="center", fontsize=SMALL_PT)
    axes.set_xlabel("share of the variance of val macro AP over the space", fontsize=TEXT_PT)
    keep_sides(axes, ["bottom"])
    write_title(axes, "Which parameters mattered")
    return figure


def slices(table: pd.DataFrame, parameters: Mapping[str, ParameterConfig]) -> Figure:
    """Draw val macro AP over the values of each parameter, for complete and pruned trials."""
    scored = _scored(table)
    shown = _varied(scored, parameters)
    rows = math.ceil(len(shown) / _COLUMNS)
    figure = blank_figure(3.1 * _COLUMNS, 0.6 + 2.3 * rows)
    for number, key in enumerate(shown):
        axes = figure.add_subplot(rows, _COLUMNS, number + 1)
        tried = scored[scored[key] != ""]
        scale = _Scale(tried[key], parameters[key])
        for state, marker in _MARKERS.items():
            part = tried[tried["state"] == state].sort_values("defaults")
            axes.scatter(scale.positions(part[key]), part["val_macro_ap"], c=_colours(part), marker=marker, s=22)
        scale.write(axes)
        axes.set_title(key, fontsize=TEXT_PT, loc="left")
        axes.tick_params(labelsize=SMALL_PT)
        keep_sides(axes, ["left", "bottom"])
    figure.suptitle(
        "val macro AP over each parameter: complete (blue), pruned (grey), the defaults (orange)", fontsize=TEXT_PT
    )
    return figure


def parallel_coordinates(table: pd.DataFrame, parameters: Mapping[str, ParameterConfig]) -> Figure:
    """Draw a line for each complete trial through its values of all parameters; better trials are darker."""
    from matplotlib import colormaps

    complete = table[table["state"] == COMPLETE].sort_values("val_macro_ap")
    shown = _varied(complete, parameters)
    figure = blank_figure(max(9.5, 1.05 * len(shown)), 5.6)
    axes = figure.add_subplot()
    scales = [_Scale(complete[key][complete[key] != ""], parameters[key]) for key in shown]
    heights = np.empty((len(complete), len(shown)))
    for position, (key, scale) in enumerate(zip(shown, scales, strict=True)):
        heights[:, position] = scale.shares(complete[key])
    values = complete["val_macro_ap"].to_numpy(dtype=float)
    spread = values.max() - values.min()
    for line, value in zip(heights, values, strict=True):
        strength = (value - values.min()) / spread if spread else 1.0
        colour = colormaps["viridis_r"](0.1 + 0.85 * strength)
        axes.plot(range(len(shown)), line, color=colour, alpha=0.35 + 0.6 * strength, linewidth=0.8 + 1.6 * strength)
    for position, scale in enumerate(scales):
        axes.axvline(position, color=_GREY, linewidth=0.7, zorder=0)
        for share, text in scale.labels():
            _write_beside(axes, position, share, text)
    if (heights < 0).any():
        _write_beside(axes, 0, _NOT_VARIED_AT, _NOT_VARIED)
    axes.set_ylim(_NOT_VARIED_AT - 0.04, 1.04)
    axes.set_xticks(range(len(shown)), labels=[shortened(key, 26) for key in shown], rotation=35, ha="right")
    axes.tick_params(axis="x", labelsize=SMALL_PT, length=0)
    axes.set_xlim(-0.1, max(len(shown), 1) - 0.4)
    axes.set_yticks([])
    keep_sides(axes, [])
    shades = f"{values.min():.3f} (pale) to {values.max():.3f} (dark)" if spread else f"{values.max():.3f}"
    write_title(axes, f"Complete trials: val macro AP {shades}")
    return figure


def learning_rates(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Draw the measured learning rate at the end of each epoch; curves: name of a trial → its epochs."""
    from matplotlib.ticker import MaxNLocator

    figure = blank_figure(9.5, 4.6)
    axes = figure.add_subplot()
    for (name, epochs), colour in zip(curves.items(), (_BLUE, _ORANGE, _GREEN, _GREY), strict=False):
        measured = [(row["epoch"], row["learning_rate"]) for row in epochs if row.get("learning_rate", 0) > 0]
        axes.plot(*np.array(measured).reshape(-1, 2).T, color=colour, marker=".", label=name)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch", fontsize=TEXT_PT)
    axes.set_ylabel("learning rate", fontsize=TEXT_PT)
    if curves:
        axes.legend(fontsize=TEXT_PT, frameon=False)
    keep_sides(axes, ["left", "bottom"])
    write_title(axes, "Learning rates of the best and the worst complete trials, and of the defaults")
    return figure


def _scored(table: pd.DataFrame) -> pd.DataFrame:
    """Return the trials that have a value: complete ones, and pruned ones with the best of their epochs."""
    return table[table["val_macro_ap"].notna() & table["state"].isin(list(_MARKERS))]


def _varied(trials: pd.DataFrame, parameters: Mapping[str, ParameterConfig]) -> list[str]:
    """Return the parameters for which any of these trials has a value."""
    return [key for key in parameters if (trials[key] != "").any()]


def _colours(trials: pd.DataFrame) -> list[str]:
    plain = np.where(trials["state"] == COMPLETE, _BLUE, _PALE)
    return [str(colour) for colour in np.where(trials["defaults"].to_numpy(dtype=bool), _ORANGE, plain)]


def _write_beside(axes: Axes, position: float, share: float, text: str) -> None:
    """Write a value to the right of its axis, on white, as lines meet there."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
    axes.text(position + 0.04, share, text, fontsize=SMALL_PT, va="center", parse_math=False, zorder=5, bbox=box)


class _Scale:
    """The positions of a parameter's values on an axis: numbers by size, others evenly in the order of the space."""

    def __init__(self, texts: pd.Series[str], parameter: ParameterConfig) -> None:
        self._number = isinstance(parameter, RangeConfig)
        self._log = isinstance(parameter, RangeConfig) and parameter.log
        values = map(as_text, parameter.values) if isinstance(parameter, ChoiceConfig) else ()
        self._names = [text for text in dict.fromkeys(values) if text in set(texts)]
        positions = self.positions(texts) if self._number else np.array([0.0, len(self._names) - 1])
        self._low, self._high = float(positions.min()), float(positions.max())

    def positions(self, texts: pd.Series[str]) -> FloatArray:
        """Return the positions of values on the axis."""
        if not self._number:
            return np.array([self._names.index(text) for text in texts], dtype=float)
        numbers = texts.astype(float).to_numpy()
        return np.asarray(np.log10(numbers) if self._log else numbers, dtype=float)

    def shares(self, texts: pd.Series[str]) -> FloatArray:
        """Return positions as shares of the axis, 0 to 1; below 0 where the parameter was not varied."""
        shares = np.full(len(texts), _NOT_VARIED_AT)
        varied = (texts != "").to_numpy()
        width = self._high - self._low
        positions = self.positions(texts[varied])
        shares[varied] = (positions - self._low) / width if width else 0.5
        return shares

    def labels(self) -> list[tuple[float, str]]:
        """Return the labels of the axis: share and text."""
        ends = sorted({self._low, self._high})
        texts = map(self._text, ends) if self._number else (shortened(name, _LETTERS) for name in self._names)
        count = len(ends) if self._number else len(self._names)
        shares = np.linspace(0, 1, count).tolist() if count > 1 else [0.5]
        return list(zip(shares, texts, strict=True))

    def _text(self, position: float) -> str:
        return f"{10**position if self._log else position:.3g}"

    def write(self, axes: Axes) -> None:
        """Label a horizontal axis of positions."""
        if not self._number:
            names = [shortened(name, _LETTERS) for name in self._names]
            axes.set_xticks(range(len(names)), labels=names)
            axes.set_xlim(-0.5, len(names) - 0.5)
            for label in axes.get_xticklabels():
                label.set_parse_math(False)  # names are data: a $ in them starts no formula
            if max(len(name) for name in names) * len(names) > _LETTERS_PER_ROW:
                axes.tick_params(axis="x", labelrotation=20)
        elif self._log:
            ticks = np.unique(np.linspace(self._low, self._high, 3))
            axes.set_xticks(ticks, labels=[self._text(tick) for tick in ticks])
