"""Figures of pretraining: reconstructed photos, filters, samples and learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from wastelens.figures.style import SMALL_PT, TEXT_PT, blank_figure, floor_style, keep_sides, write_title
from wastelens.system.arrays import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _GREY = "#0072B2", "#595959"
SHOWN_PHOTOS = 10
_FILTERS, _COLUMNS = 64, 16
_CURVES = {
    "reconstruction_error": "reconstruction error (mean squared, pixels in [0, 1])",
    "pseudo_likelihood": "pseudo-likelihood (nats per photo)",
    "free_energy_gap": "free energy, val minus train (nats)",
}


def rebuilt_rows(rows: Mapping[str, Array], title: str) -> Figure:
    """Draw rows of photos: originals, inputs if corrupted, and reconstructions.

    rows: name → pictures (n, side, side, 3), uint8 in 0–255 or float in [0, 1]; every row shows the same photos.
    """
    count = len(next(iter(rows.values())))
    figure = blank_figure(0.9 * count + 1.2, 0.95 * len(rows) + 0.5)
    grid = figure.subplots(len(rows), count, squeeze=False)
    for row, (name, pictures) in enumerate(rows.items()):
        for column in range(count):
            _picture(grid[row, column], pictures[column])
        grid[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=TEXT_PT)
    figure.suptitle(title, fontsize=TEXT_PT, x=0.02, ha="left")
    return figure


def filter_grid(filters: Array, title: str) -> Figure:
    """Draw the weights of units, each stretched to its own range; grey is zero.

    filters: float (n, height, width, 3); the 64 with the largest norm are shown.
    """
    strongest = np.argsort(-np.linalg.norm(filters.reshape(len(filters), -1), axis=1), kind="stable")[:_FILTERS]
    return picture_grid([_stretched(filters[number]) for number in strongest], title)


def picture_grid(pictures: Sequence[Array], title: str) -> Figure:
    """Draw small pictures side by side; uint8 in 0–255 or float in [0, 1]."""
    rows = max(1, math.ceil(len(pictures) / _COLUMNS))
    columns = min(_COLUMNS, max(1, len(pictures)))
    figure = blank_figure(max(5.0, 0.62 * columns + 0.2), 0.62 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False)
    for place, axes in enumerate(grid.ravel()):
        if place < len(pictures):
            _picture(axes, pictures[place])
        else:
            axes.set_axis_off()
    figure.suptitle(title, fontsize=TEXT_PT, x=0.02, ha="left")
    return figure


def learning_curves(history: Sequence[Mapping[str, float]], floors: Mapping[str, float]) -> Figure:
    """Draw each metric over the epochs, train and val; layers of a stack are separated, since their inputs differ.

    Args:
        history: one dict per epoch with ``epoch`` and the metrics logged then; for a stack, also ``layer``.
        floors: reconstruction errors on val to be beaten, by what they are of.
    """
    names = [name for name in _CURVES if any(name in row or f"val/{name}" in row for row in history)]
    figure = blank_figure(9.0, 2.6 * max(1, len(names)) + 0.2)
    panels = figure.subplots(max(1, len(names)), 1, squeeze=False, sharex=True)[:, 0]
    for axes, name in zip(panels, names, strict=False):
        _curve(axes, history, name, "train", _GREY)
        _curve(axes, history, f"val/{name}", "val", _BLUE)
        if name == "reconstruction_error":
            for number, (text, floor) in enumerate(floors.items()):
                axes.axhline(floor, **floor_style(text, number))
            axes.set_ylim(bottom=0)
        if name == "free_energy_gap":
            axes.axhline(0, color=_GREY, linewidth=0.8)
        for before, after in pairwise(history):
            if before.get("layer") != after.get("layer"):
                axes.axvline(before["epoch"] + 0.5, color=_GREY, linewidth=0.8, linestyle=":")
        write_title(axes, _CURVES[name])
        keep_sides(axes, ["left", "bottom"])
        axes.tick_params(labelsize=SMALL_PT)
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend(fontsize=SMALL_PT, frameon=False)
    figure.supxlabel("epoch", fontsize=TEXT_PT)
    return figure


def _curve(axes: Axes, history: Sequence[Mapping[str, float]], name: str, label: str, colour: str) -> None:
    for layer in sorted({row.get("layer", 0) for row in history}):
        points = [(row["epoch"], row[name]) for row in history if name in row and row.get("layer", 0) == layer]
        if points:
            marker = "." if len(points) < 3 else None
            axes.plot(*zip(*points, strict=True), color=colour, label=label if layer <= 1 else None, marker=marker)


def _picture(axes: Axes, picture: Array) -> None:
    axes.imshow(picture if picture.dtype == np.uint8 else np.clip(picture, 0, 1), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    keep_sides(axes, [])


def _stretched(weights: Array) -> Array:
    return np.asarray(0.5 + 0.5 * weights / (float(np.abs(weights).max(initial=0.0)) or 1.0))
