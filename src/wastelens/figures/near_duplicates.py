"""The report of near-duplicates: a table of the pairs, and a contact sheet of those that are most alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.data.duplicates.correlation import IntArray, pair_likeness
from wastelens.figures.style import SMALL_PT, TITLE_PT, blank_figure, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

Photos = npt.NDArray[np.uint8]

COLUMNS = ("file_name_a", "file_name_b", "group", "hash_distance_bits", "correlation")
_MOST_PAIRS, _PAIRS_A_ROW = 24, 3
_PAIR_IN, _TEXTS_IN, _TITLE_IN = 3.9, 0.6, 0.4  # width of a pair, height of its names and likeness, of the title
_NAME_LETTERS = 26
_MOST_STRETCHED = 2.5  # a panorama is drawn no wider: its neighbour would vanish


def near_duplicate_table(labels: pd.DataFrame, photos: Photos, pairs: IntArray) -> pd.DataFrame:
    """near_duplicates.csv: a row a pair, the most alike first.

    Args:
        labels: row i describes ``photos[i]``; with ``file_name`` and ``group``.
        photos: uint8 (photos, side, side, 3).
        pairs: positions, int64 (pairs, 2).

    Returns:
        ``COLUMNS``: bits of the perceptual hash that differ (of 64), correlation of the colour thumbnails.
    """
    bits, correlation = pair_likeness(photos, pairs)
    names, groups = labels["file_name"].to_numpy(dtype=object), labels["group"].to_numpy(dtype=object)
    a, b = names[pairs[:, 0]], names[pairs[:, 1]]
    # Rounded before it is sorted: the last digits depend on the machine.
    columns = (a, b, groups[pairs[:, 0]], bits, correlation.round(4))
    table = pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))
    order = ["hash_distance_bits", "correlation", "file_name_a", "file_name_b"]
    return table.sort_values(order, ascending=[True, False, True, True], ignore_index=True)


def near_duplicate_sheet(table: pd.DataFrame, labels: pd.DataFrame, photos: Photos) -> Figure:
    """Each pair side by side, in the photos' real proportions; at most 24 pairs, the first of the table.

    Args:
        table: from ``near_duplicate_table``, at least one row.
        labels: row i describes ``photos[i]``; with ``file_name``, ``width`` and ``height`` (pixels).
        photos: uint8 (photos, side, side, 3), each stretched to a square.
    """
    shown = table.head(_MOST_PAIRS)
    columns = min(_PAIRS_A_ROW, len(shown))
    row_of = {str(name): row for row, name in enumerate(labels["file_name"])}
    places = np.array([[row_of[str(name)] for name in shown[column]] for column in COLUMNS[:2]]).T
    ratios = (labels["width"] / labels["height"]).clip(1 / _MOST_STRETCHED, _MOST_STRETCHED).to_numpy()[places]
    heights_in = _row_heights_in(ratios, columns)
    figure = blank_figure(_PAIR_IN * columns, sum(heights_in) + _TITLE_IN)
    cells = figure.subfigures(len(heights_in), columns, squeeze=False, height_ratios=heights_in).ravel()
    for cell, pair, both, proportions in zip(cells, shown.to_dict("records"), places, ratios, strict=False):
        text = f"{pair['hash_distance_bits']} bits, correlation {pair['correlation']:.3f}"
        names = [str(pair["file_name_a"]), str(pair["file_name_b"])]
        _draw_pair(cell, names, [np.asarray(photos[place]) for place in both], proportions, text)
    most = f" (the {len(shown)} most alike)" if len(shown) < len(table) else ""
    figure.suptitle(f"Near-duplicate pairs: {len(table):,}{most}", x=0.01, ha="left", fontsize=TITLE_PT)
    return figure


def _row_heights_in(ratios: npt.NDArray[np.float64], columns: int) -> list[float]:
    """The height of each row of pairs in inches, that of its tallest; ratios: widths over heights, (pairs, 2)."""
    tallest = [_PAIR_IN / ratios[row : row + columns].sum(axis=1).min() for row in range(0, len(ratios), columns)]
    return [float(height) + _TEXTS_IN for height in tallest]


def _draw_pair(
    cell: SubFigure, names: list[str], photos: list[Photos], ratios: npt.NDArray[np.float64], text: str
) -> None:
    """Two photos of these widths over heights, of one height where there is room, each under its name."""
    axes = cell.subplots(1, 2, width_ratios=ratios.tolist())
    for panel, name, photo, ratio in zip(axes, names, photos, ratios, strict=True):
        panel.imshow(photo, extent=(0, ratio, 0, 1), aspect="equal", interpolation="lanczos")
        panel.set_axis_off()
        panel.set_anchor("S")  # near the likeness below, away from the next pair
        panel.set_title(shortened(name, _NAME_LETTERS), fontsize=SMALL_PT - 1, pad=3, parse_math=False)
    cell.supxlabel(text, fontsize=SMALL_PT)
