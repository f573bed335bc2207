"""The report of near-duplicates: a table of the pairs, and a contact sheet of the most similar ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from wastelens.data.duplicates.correlation import pair_similarity
from wastelens.figures.style import SMALL_PT, TITLE_PT, blank_figure, shortened
from wastelens.system.arrays import FloatArray, IntArray, PhotoArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

COLUMNS = ("file_name_a", "file_name_b", "group", "hash_distance_bits", "correlation")
_MOST_PAIRS, _PAIRS_PER_ROW = 24, 3
_PAIR_IN, _TEXTS_IN, _TITLE_IN = 3.9, 0.6, 0.4  # width of a pair; height of its texts, and of the title
_NAME_LETTERS = 26
_MOST_STRETCHED = 2.5  # panoramas are drawn no wider, so that the other photo of the pair stays visible


def near_duplicate_table(labels: pd.DataFrame, photos: PhotoArray, pairs: IntArray) -> pd.DataFrame:
    """Tabulate near-duplicate pairs for near_duplicates.csv, the most similar first.

    Args:
        labels: row i describes ``photos[i]``; with ``file_name`` and ``group``.
        photos: uint8 (photos, side, side, 3).
        pairs: row positions, int64 (pairs, 2).

    Returns:
        ``COLUMNS``, with the differing bits of the perceptual hashes (of 64) and the correlation of the thumbnails.
    """
    bits, correlation = pair_similarity(photos, pairs)
    names, groups = labels["file_name"].to_numpy(dtype=object), labels["group"].to_numpy(dtype=object)
    a, b = names[pairs[:, 0]], names[pairs[:, 1]]
    # Rounded before sorting, because the last digits depend on the machine.
    columns = (a, b, groups[pairs[:, 0]], bits, correlation.round(4))
    table = pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))
    order = ["hash_distance_bits", "correlation", "file_name_a", "file_name_b"]
    return table.sort_values(order, ascending=[True, False, True, True], ignore_index=True)


def near_duplicate_sheet(table: pd.DataFrame, labels: pd.DataFrame, photos: PhotoArray) -> Figure:
    """Draw the first 24 pairs of the table side by side, in the photos' original proportions.

    Args:
        table: from ``near_duplicate_table``, at least one row.
        labels: row i describes ``photos[i]``; with ``file_name``, ``width`` and ``height`` (pixels).
        photos: uint8 (photos, side, side, 3), each stretched to a square.
    """
    shown = table.head(_MOST_PAIRS)
    columns = min(_PAIRS_PER_ROW, len(shown))
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
    most = f" (the {len(shown)} most similar)" if len(shown) < len(table) else ""
    figure.suptitle(f"Near-duplicate pairs: {len(table):,}{most}", x=0.01, ha="left", fontsize=TITLE_PT)
    return figure


def _row_heights_in(ratios: FloatArray, columns: int) -> list[float]:
    """Return the height of each row in inches, that of its tallest pair; ratios: width / height, (pairs, 2)."""
    tallest = [_PAIR_IN / ratios[row : row + columns].sum(axis=1).min() for row in range(0, len(ratios), columns)]
    return [float(height) + _TEXTS_IN for height in tallest]


def _draw_pair(cell: SubFigure, names: list[str], photos: list[PhotoArray], ratios: FloatArray, text: str) -> None:
    """Draw two photos with these ratios of width to height, at the same height if there is room, below their names."""
    axes = cell.subplots(1, 2, width_ratios=ratios.tolist())
    for panel, name, photo, ratio in zip(axes, names, photos, ratios, strict=True):
        panel.imshow(photo, extent=(0, ratio, 0, 1), aspect="equal", interpolation="lanczos")
        panel.set_axis_off()
        panel.set_anchor("S")  # close to the text below, away from the next pair
        panel.set_title(shortened(name, _NAME_LETTERS), fontsize=SMALL_PT - 1, pad=3, parse_math=False)
    cell.supxlabel(text, fontsize=SMALL_PT)
