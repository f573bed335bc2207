"""Contact sheets, to check the data by eye before training: photos with their outlines, and near-duplicate pairs.

The frame ``labels`` is described in ``wastelens.figures.dataset``. Nothing here reads or writes files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from wastelens.data.annotations.outlines import DrawnOutline
from wastelens.data.duplicates.correlation import pair_similarity
from wastelens.figures.style import (
    SMALL_PT,
    TITLE_PT,
    blank_figure,
    label_text,
    material_colours,
    material_legend,
    shortened,
)
from wastelens.system.arrays import FloatArray, IndexArray, IntArray, PhotoArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_BOX_MARGIN = 0.01  # of the photo's longer side, so that the box does not cover the object
_CELL_IN, _CAPTION_IN = 1.9, 0.3  # width of a photo, height of the text above it
_CAPTION_LETTERS = 30
_SMALL_OBJECT = 0.08  # of the photo's longer side; a thick line would cover smaller objects

PAIR_COLUMNS = ("file_name_a", "file_name_b", "group", "hash_distance_bits", "correlation")
_MOST_PAIRS, _PAIRS_PER_ROW = 24, 3
_PAIR_IN, _TEXTS_IN, _TITLE_IN = 3.9, 0.6, 0.4  # width of a pair; height of its texts, and of the title
_NAME_LETTERS = 26
_MOST_STRETCHED = 2.5  # panoramas are drawn no wider, so that the other photo of the pair stays visible


def contact_sheet(
    labels: pd.DataFrame,
    photos: PhotoArray,
    outlines_of: Callable[[str], Sequence[DrawnOutline]],
    materials: tuple[str, ...],
    *,
    rng: np.random.Generator,
    rows: int = 4,
    columns: int = 6,
) -> Figure:
    """Draw photos in their original proportions, with each object's box and outline in its material's colour.

    A photo without outlines has its materials named above it.

    Args:
        labels: row i describes ``photos[i]``.
        photos: uint8 (photos, side, side, 3), each stretched to a square.
        outlines_of: file name → the photo's objects; called only for photos that are shown.
        materials: each is shown equally often, as far as it has photos.
        rng: chooses the photos.
        rows, columns: the size of the sheet, in photos.
    """
    chosen = choose_photos(labels, materials, rows * columns, rng)
    ratios = (labels["height"] / labels["width"]).to_numpy()[chosen]
    order = np.argsort(ratios, kind="stable")  # widest first, so that the photos of a row need the same height
    chosen, ratios = chosen[order], ratios[order].clip(0.4, 1.8)
    by_row = (ratios[start : start + columns] for start in range(0, rows * columns, columns))
    heights_in = [_CELL_IN * float(of_row.max(initial=0.4)) + _CAPTION_IN for of_row in by_row]
    figure = blank_figure(_CELL_IN * columns, sum(heights_in) + 0.8)
    cells = figure.subplots(rows, columns, squeeze=False, height_ratios=heights_in).ravel()
    colours = material_colours(materials)
    for cell in cells:
        cell.set_axis_off()
    for cell, row in zip(cells, chosen, strict=False):
        record = labels.iloc[int(row)]
        size = (float(record["width"]), float(record["height"]))
        name, outlines = str(record["file_name"]), outlines_of(str(record["file_name"]))
        visible = ", ".join(label_text(material) for material in materials if record[material] and not outlines)
        facts = f"{record['split']}: {visible}" if visible else str(record["split"])
        captions = [shortened(text, _CAPTION_LETTERS) for text in (name, facts)]
        _draw_photo(cell, np.asarray(photos[row]), size, "\n".join(captions))
        for one in outlines:
            _draw_outline(cell, one, size, colours[one.material])
    figure.set_layout_engine("constrained", w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    shown = labels.iloc[chosen][list(materials)].sum()
    texts = {material: f"{label_text(material)} ({shown[material]})" for material in materials}
    material_legend(figure, texts, title="Materials (and number of these photos that show them)")
    return figure


def choose_photos(
    labels: pd.DataFrame, materials: tuple[str, ...], photos: int, rng: np.random.Generator
) -> IndexArray:
    """Choose rows of at most ``photos`` distinct photos that show every material about equally often.

    Each choice is a random photo of the material that has been chosen least. Photos without a material come last.
    """
    shown = labels[list(materials)].to_numpy(dtype=np.int64)
    waiting = list(rng.permutation(len(labels)))
    chosen: list[np.intp] = []
    while waiting and len(chosen) < photos:
        counts = shown[chosen].sum(axis=0)
        left = shown[waiting].any(axis=0)
        scarcest = int(np.argmin(np.where(left, counts, np.inf))) if left.any() else None
        place = 0 if scarcest is None else int(np.argmax(shown[waiting, scarcest]))
        chosen.append(waiting.pop(place))
    return np.array(chosen, dtype=np.intp)


def _draw_photo(axes: Axes, photo: PhotoArray, size: tuple[float, float], caption: str) -> None:
    """Draw a square photo at its original width and height; the axes are in pixels of the original."""
    width, height = size
    axes.imshow(photo, extent=(0, width, height, 0), aspect="equal", interpolation="lanczos")
    axes.set_anchor("N")  # aligns the captions of a row
    axes.set_title(caption, loc="left", fontsize=7, pad=2, linespacing=1.1, parse_math=False)


def _draw_outline(axes: Axes, outline: DrawnOutline, size: tuple[float, float], colour: str) -> None:
    """Draw an object's polygons, and a box around them all with a small margin."""
    from matplotlib.patches import Polygon, Rectangle
    from matplotlib.patheffects import withStroke

    polygons = [polygon * np.array(size) for polygon in outline.polygons if len(polygon)]
    if not polygons:
        return
    low = np.min([polygon.min(axis=0) for polygon in polygons], axis=0)
    high = np.max([polygon.max(axis=0) for polygon in polygons], axis=0)
    small = (high - low).max() < _SMALL_OBJECT * max(size)
    style: dict[str, Any] = {"fill": False, "edgecolor": colour, "linewidth": 0.5 if small else 1.1}
    if not small:  # a dark rim is visible on bright photos
        style["path_effects"] = [withStroke(linewidth=2.0, foreground="black", alpha=0.6)]
    for polygon in polygons:
        axes.add_patch(Polygon(polygon, **style))
    margin = _BOX_MARGIN * max(size)
    corner, opposite = np.maximum(0, low - margin), np.minimum(size, high + margin)
    width, height = opposite - corner
    axes.add_patch(Rectangle(tuple(corner), width, height, fill=False, edgecolor=colour, linewidth=0.9))


def near_duplicate_table(labels: pd.DataFrame, photos: PhotoArray, pairs: IntArray) -> pd.DataFrame:
    """Tabulate near-duplicate pairs for near_duplicates.csv, the most similar first.

    Row i of ``labels`` describes ``photos[i]``; ``pairs`` are row positions, int64 (pairs, 2). Returns
    ``PAIR_COLUMNS``, with the differing bits of the hashes (of 64) and the correlation of the thumbnails.
    """
    bits, correlation = pair_similarity(photos, pairs)
    names, groups = labels["file_name"].to_numpy(dtype=object), labels["group"].to_numpy(dtype=object)
    a, b = names[pairs[:, 0]], names[pairs[:, 1]]
    # Rounded before sorting, because the last digits depend on the machine.
    columns = (a, b, groups[pairs[:, 0]], bits, correlation.round(4))
    table = pd.DataFrame(dict(zip(PAIR_COLUMNS, columns, strict=True)))
    order = ["hash_distance_bits", "correlation", "file_name_a", "file_name_b"]
    return table.sort_values(order, ascending=[True, False, True, True], ignore_index=True)


def near_duplicate_sheet(table: pd.DataFrame, labels: pd.DataFrame, photos: PhotoArray) -> Figure:
    """Draw the first 24 pairs of a table of at least one side by side, in the photos' original proportions."""
    shown = table.head(_MOST_PAIRS)
    columns = min(_PAIRS_PER_ROW, len(shown))
    row_of = {str(name): row for row, name in enumerate(labels["file_name"])}
    places = np.array([[row_of[str(name)] for name in shown[column]] for column in PAIR_COLUMNS[:2]]).T
    ratios = (labels["width"] / labels["height"]).clip(1 / _MOST_STRETCHED, _MOST_STRETCHED).to_numpy()[places]
    widths = ratios.sum(axis=1)  # of pairs of height 1
    lowest = (widths[start : start + columns].min() for start in range(0, len(widths), columns))
    heights_in = [float(_PAIR_IN / width) + _TEXTS_IN for width in lowest]
    figure = blank_figure(_PAIR_IN * columns, sum(heights_in) + _TITLE_IN)
    cells = figure.subfigures(len(heights_in), columns, squeeze=False, height_ratios=heights_in).ravel()
    for cell, pair, both, proportions in zip(cells, shown.to_dict("records"), places, ratios, strict=False):
        text = f"{pair['hash_distance_bits']} bits, correlation {pair['correlation']:.3f}"
        names = [str(pair["file_name_a"]), str(pair["file_name_b"])]
        _draw_pair(cell, names, [np.asarray(photos[place]) for place in both], proportions, text)
    most = f" (the {len(shown)} most similar)" if len(shown) < len(table) else ""
    figure.suptitle(f"Near-duplicate pairs: {len(table):,}{most}", x=0.01, ha="left", fontsize=TITLE_PT)
    return figure


def _draw_pair(cell: SubFigure, names: list[str], photos: list[PhotoArray], ratios: FloatArray, text: str) -> None:
    """Draw two photos with these ratios of width to height, at the same height if there is room, below their names."""
    axes = cell.subplots(1, 2, width_ratios=ratios.tolist())
    for panel, name, photo, ratio in zip(axes, names, photos, ratios, strict=True):
        panel.imshow(photo, extent=(0, ratio, 0, 1), aspect="equal", interpolation="lanczos")
        panel.set_axis_off()
        panel.set_anchor("S")  # close to the text below, away from the next pair
        panel.set_title(shortened(name, _NAME_LETTERS), fontsize=SMALL_PT - 1, pad=3, parse_math=False)
    cell.supxlabel(text, fontsize=SMALL_PT)
