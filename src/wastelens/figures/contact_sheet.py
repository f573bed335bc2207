"""The contact sheet: photos with their objects' outlines, to check the data by eye before training.

The frame ``labels`` is described in ``wastelens.figures.dataset``. Nothing here reads or writes files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from wastelens.data.annotations.outlines import DrawnOutline
from wastelens.figures.style import blank_figure, label_text, material_colours, material_legend, shortened
from wastelens.system.arrays import IndexArray, PhotoArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BOX_MARGIN = 0.01  # of the photo's longer side, so that the box does not cover the object
_CELL_IN, _CAPTION_IN = 1.9, 0.3  # width of a photo, height of the text above it
_CAPTION_LETTERS = 30
_SMALL_OBJECT = 0.08  # of the photo's longer side; a thick line would cover smaller objects


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
        materials: names of the materials; each is shown equally often, as far as it has photos.
        rng: chooses the photos.
        rows: number of rows of the sheet.
        columns: number of columns of the sheet.
    """
    chosen = _widest_first(labels, choose_photos(labels, materials, rows * columns, rng))
    heights_in = _row_heights_in(labels.iloc[chosen], rows, columns)
    figure = blank_figure(_CELL_IN * columns, sum(heights_in) + 0.8)
    cells = figure.subplots(rows, columns, squeeze=False, height_ratios=heights_in).ravel()
    colours = material_colours(materials)
    for cell in cells:
        cell.set_axis_off()
    for cell, row in zip(cells, chosen, strict=False):
        record = labels.iloc[int(row)]
        size = (float(record["width"]), float(record["height"]))
        name, outlines = str(record["file_name"]), outlines_of(str(record["file_name"]))
        facts = str(record["split"]) if outlines else _split_and_materials(record, materials)
        captions = [shortened(text, _CAPTION_LETTERS) for text in (name, facts)]
        _draw_photo(cell, np.asarray(photos[row]), size, "\n".join(captions))
        for one in outlines:
            _draw_outline(cell, one, size, colours[one.material])
    figure.set_layout_engine("constrained", w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    shown = labels.iloc[chosen][list(materials)].sum()
    texts = {material: f"{label_text(material)} ({shown[material]})" for material in materials}
    material_legend(figure, texts, title="Materials (and number of these photos that show them)")
    return figure


def _split_and_materials(record: pd.Series[Any], materials: tuple[str, ...]) -> str:
    """Return ``train: paper, glass``, or the split alone if the photo shows no material."""
    shown = ", ".join(label_text(material) for material in materials if record[material])
    return f"{record['split']}: {shown}" if shown else str(record["split"])


def _widest_first(labels: pd.DataFrame, chosen: IndexArray) -> IndexArray:
    """Sort photos by their proportions, so that those of a row need the same height."""
    some = labels.iloc[chosen]
    return chosen[np.argsort((some["height"] / some["width"]).to_numpy(), kind="stable")]


def _row_heights_in(some: pd.DataFrame, rows: int, columns: int) -> list[float]:
    """Return the height of each row in inches: its tallest photo at full width, plus a caption."""
    ratios = (some["height"] / some["width"]).to_numpy().clip(0.4, 1.8)
    starts = range(0, rows * columns, columns)
    return [_CELL_IN * float(ratios[row : row + columns].max(initial=0.4)) + _CAPTION_IN for row in starts]


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
