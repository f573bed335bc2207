"""Figures of the dataset's counts and sizes, to check the data by eye before training.

Each function takes the frames that ``prepare`` writes and returns a figure (or, for the categories, a table). None
reads or writes files. The photos themselves are on the ``contact_sheet``.

``labels``: one row per photo, with ``file_name``, ``width``, ``height`` (upright, pixels), ``group``, ``split`` and a
0/1 column for each material. ``objects``: one row per annotated object, with ``file_name``, ``category``,
``supercategory``, ``material`` and ``area_share`` (of the photo, 0 to 1; NaN if the outline is unusable).

A material has the same colour in every figure. Splits are shades (train dark, test light), not colours, so that they
are not mistaken for materials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from wastelens.figures.style import (
    SMALL_PT,
    TEXT_PT,
    TITLE_PT,
    blank_figure,
    keep_sides,
    label_text,
    material_colours,
    material_legend,
    mixed,
    name_rows,
    shortened,
    write_title,
)
from wastelens.system.arrays import FloatArray
from wastelens.system.text import natural_key

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SPLIT_WHITENESS = {"train": 0.0, "val": 0.45, "test": 0.75}  # 0 keeps a colour, 1 makes it white
_SPLIT_GREY = "#4D4D4D"
_GROUPS_SHOWN = 40
_CATEGORIES_PER_COLUMN = 35
_BINS_PER_DECADE = 8


def _shade(colour: str, split: str) -> str:
    return mixed(colour, "#FFFFFF", _SPLIT_WHITENESS[split])


def _splits_of(labels: pd.DataFrame) -> list[str]:
    """Return the splits that have photos, in the usual order."""
    present = set(labels["split"])
    return [split for split in _SPLIT_WHITENESS if split in present]


def _percent(share: float) -> str:
    """Format a share: 0.1234 → ``12 %``; small shares keep two digits."""
    percent = 100 * share
    if percent <= 0 or percent >= 9.95:
        return f"{percent:.0f} %"
    decimals = max(1, 1 - math.floor(math.log10(percent)))
    return f"{percent:.{decimals}f} %"


def _split_legend(figure: Figure, labels: pd.DataFrame) -> None:
    """Draw the legend of the splits below the axes, where it covers no bar."""
    from matplotlib.patches import Patch

    photos = labels["split"].value_counts()
    handles = [
        Patch(facecolor=_shade(_SPLIT_GREY, split), edgecolor=_SPLIT_GREY, label=f"{split}: {photos[split]:,} photos")
        for split in _splits_of(labels)
    ]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=TEXT_PT, frameon=False)


def photos_per_material(labels: pd.DataFrame, materials: tuple[str, ...]) -> Figure:
    """Draw the share of each split's photos that show each material as bars, labelled with counts and shares.

    Bars are shares of their split, in percent, so that splits of different sizes can be compared.
    """
    splits = _splits_of(labels)
    colours = material_colours(materials)
    figure = blank_figure(9.0, 1.3 + 0.24 * len(materials) * (len(splits) + 0.8))
    axes = figure.subplots()
    height = 0.8 / max(1, len(splits))
    for place, split in enumerate(splits):
        shown = labels.loc[labels["split"] == split, list(materials)]
        rows = np.arange(len(materials)) + (place - (len(splits) - 1) / 2) * height
        shares = shown.mean().to_numpy()
        faces = [_shade(colours[material], split) for material in materials]
        edges = [colours[material] for material in materials]
        bars = axes.barh(rows, 100 * shares, 0.9 * height, color=faces, edgecolor=edges, linewidth=0.8, label=split)
        texts = [f"{count:,}  ({_percent(share)})" for count, share in zip(shown.sum(), shares, strict=True)]
        axes.bar_label(bars, texts, padding=4, fontsize=SMALL_PT)
    name_rows(axes, [f"{label_text(name)}\n{labels[name].sum():,} photos" for name in materials])
    keep_sides(axes, ["left"])
    axes.margins(x=0.14)
    axes.set_xlim(left=0)
    axes.set_xlabel("share of the split's photos that show the material, in %", fontsize=TEXT_PT)
    axes.tick_params(axis="x", labelsize=SMALL_PT)
    write_title(axes, f"Photos per material: {len(labels):,} photos (a photo may show several materials)")
    _split_legend(figure, labels)
    return figure


def photos_per_category(objects: pd.DataFrame, materials: tuple[str, ...]) -> Figure:
    """Draw the photos that show each category as bars (logarithmic) in the colour of its material."""
    of_category = objects.groupby("category", as_index=False)
    counts = of_category.agg(material=("material", "first"), photos=("file_name", "nunique"))
    counts = counts.sort_values(["photos", "category"], ascending=[False, True], ignore_index=True)
    columns = max(1, math.ceil(len(counts) / _CATEGORIES_PER_COLUMN))
    rows = max(1, math.ceil(len(counts) / columns))
    figure = blank_figure(1.0 + 5.6 * max(columns, 1.4), 1.5 + 0.2 * rows)
    panels = figure.subplots(1, columns, sharex=True, squeeze=False)[0]
    colours = material_colours(materials)
    for panel, first in zip(panels, range(0, columns * rows, rows), strict=True):
        _category_bars(panel, counts.iloc[first : first + rows], rows, colours)
    panels[0].set_xlim(0.7, 2.2 * counts["photos"].max() if len(counts) else 10)
    photos = objects["file_name"].nunique()
    text = f"Photos per category: {len(counts)} categories, {photos:,} photos with objects"
    figure.suptitle(text, x=0.01, ha="left", fontsize=TITLE_PT)
    material_legend(figure, {material: label_text(material) for material in materials})
    return figure


def _category_bars(axes: Axes, counts: pd.DataFrame, rows: int, colours: Mapping[str, str]) -> None:
    axes.set_xscale("log")
    faces = [colours[material] for material in counts["material"]]
    bars = axes.barh(range(len(counts)), counts["photos"], 0.75, color=faces)
    axes.bar_label(bars, [f"{count:,}" for count in counts["photos"]], padding=3, fontsize=SMALL_PT)
    name_rows(axes, list(counts["category"]), SMALL_PT)
    axes.set_ylim(rows - 0.4, -0.6)  # a shorter last column keeps the others' bar width
    axes.xaxis.set_major_formatter(lambda photos, _: f"{photos:,.0f}")
    axes.tick_params(axis="x", labelsize=SMALL_PT)
    axes.set_xlabel("photos (logarithmic)", fontsize=TEXT_PT)
    keep_sides(axes, ["left", "bottom"])


def material_cooccurrence(labels: pd.DataFrame, materials: tuple[str, ...]) -> Figure:
    """Draw how many photos show two materials, and their share of the photos that show the row's material.

    The diagonal has the number of photos of each material. Colour is the share, 0 to 1.
    """
    shown = labels[list(materials)].to_numpy(dtype=np.int64)
    both = shown.T @ shown
    photos = np.diag(both)[:, None]
    share = np.divide(both, photos, out=np.zeros(both.shape), where=photos > 0)
    off_diagonal = np.ma.masked_array(share, mask=np.eye(len(materials), dtype=bool))
    darkest = max(0.4, float(np.ma.filled(off_diagonal, 0).max()))
    side_in = 0.8 * len(materials)
    figure = blank_figure(max(7.4, 1.6 + side_in * 1.1), 1.4 + side_in * 0.85)
    axes = figure.subplots()
    axes.set_facecolor("#E6E6E6")
    axes.imshow(off_diagonal, cmap="Blues", vmin=0, vmax=darkest, aspect="auto")
    for row, column in np.ndindex(both.shape):
        if row == column:
            _write(axes, (column, row), f"{both[row, row]:,}", fontsize=TITLE_PT, fontweight="bold")
            continue
        ink = "white" if share[row, column] > 0.6 * darkest else "black"
        percent = _percent(float(share[row, column])) if both[row, row] else "-"
        _write(axes, (column, row), f"{both[row, column]:,}", 6, fontsize=TITLE_PT, color=ink)
        _write(axes, (column, row), percent, -7, fontsize=SMALL_PT, color=ink)
    _name_rows_and_columns(axes, [label_text(material) for material in materials])
    write_title(axes, "Photos that show both materials (grey: all photos of one material)")
    axes.set_xlabel("in %: share of the photos of the row's material that also show the column's", fontsize=TEXT_PT)
    axes.xaxis.set_label_position("bottom")
    return figure


def _write(axes: Axes, place: tuple[float, float], text: str, up_pt: float = 0, **style: Any) -> None:
    """Write text centred on a point of the axes, moved up by some points."""
    axes.annotate(text, place, (0, up_pt), textcoords="offset points", ha="center", va="center", **style)


def _name_rows_and_columns(axes: Axes, names: Sequence[str]) -> None:
    """Label the rows and columns of a square of cells with the same names."""
    name_rows(axes, names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(names)), labels=names, fontsize=TEXT_PT)
    axes.tick_params(axis="x", length=0)
    if max(map(len, names), default=0) > 14:
        axes.tick_params(axis="x", labelrotation=25)
    keep_sides(axes, [])


def object_size(objects: pd.DataFrame, materials: tuple[str, ...], *, image_side_px: int | None = None) -> Figure:
    """Draw a histogram per material of the share of the photo that its objects cover, with the median marked.

    Args:
        objects: objects without a usable outline are left out, and counted in the title.
        materials: names of the materials, one row each.
        image_side_px: if given, an axis on top translates shares to the side of a square of the same area, in pixels
            of a photo of this side: the size at which a model sees the object.
    """
    usable = objects[objects["area_share"] > 0]
    figure = blank_figure(10.0, 1.9 + 0.72 * len(materials))
    axes = figure.subplots()
    percents = 100 * usable["area_share"]
    edges = _size_edges(percents)
    axes.set_xscale("log")
    axes.set_xlim(edges[0], edges[-1])
    for row, (material, colour) in enumerate(material_colours(materials).items()):
        _size_row(axes, row, percents[usable["material"] == material].to_numpy(), edges, colour)
    counts = usable["material"].value_counts()
    name_rows(axes, [f"{label_text(name)}\n{counts.get(name, 0):,} objects" for name in materials])
    axes.set_ylim(len(materials) - 0.45, -0.55)
    axes.xaxis.set_major_formatter(lambda percent, _: f"{np.format_float_positional(percent, trim='-')} %")
    axes.tick_params(axis="x", labelsize=SMALL_PT)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("share of the photo that the object covers (logarithmic)", fontsize=TEXT_PT)
    keep_sides(axes, ["bottom"])
    if image_side_px is not None:
        _pixel_axis(axes, image_side_px)
    left_out = len(objects) - len(usable)
    note = f"; {left_out:,} without a usable outline left out" if left_out else ""
    write_title(axes, f"Size of the objects: {len(usable):,} objects{note}")
    return figure


def _size_edges(percents: pd.Series[float]) -> FloatArray:
    """Return bin edges, eight per power of ten, from 1 % or below the smallest object up to 100 %."""
    # The 1e-9 keeps a size that equals an edge from falling below it by rounding.
    lowest = math.floor(_BINS_PER_DECADE * math.log10(percents.min()) - 1e-9) if len(percents) else 0
    return 10.0 ** (np.arange(min(0, lowest), 2 * _BINS_PER_DECADE + 1) / _BINS_PER_DECADE)


def _size_row(axes: Axes, row: int, percents: FloatArray, edges: FloatArray, colour: str) -> None:
    """Draw one material's histogram on the base line row + 0.4; its highest bin is 0.75 high."""
    if not len(percents):
        axes.text(1.01, row, "no objects", transform=axes.get_yaxis_transform(), va="center", fontsize=SMALL_PT)
        return
    counts, _ = np.histogram(percents, edges)
    floor = row + 0.4
    axes.stairs(floor - 0.75 * counts / counts.max(), edges, baseline=floor, fill=True, color=colour)
    median, low, high = np.percentile(percents, [50, 10, 90]) / 100
    axes.plot([100 * median] * 2, [floor, floor - 0.85], color="black", linewidth=1.8, solid_capstyle="butt")
    text = f"median {_percent(median)}\n80 % within {_percent(low)} to {_percent(high)}"
    axes.text(1.01, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=SMALL_PT)


def _pixel_axis(axes: Axes, image_side_px: int) -> None:
    # Arrays in, arrays out; matplotlib annotates these functions more widely than it calls them.
    def to_pixels(percent: Any) -> Any:
        return np.sqrt(np.asarray(percent) / 100) * image_side_px

    def to_percent(pixels: Any) -> Any:
        return 100 * (np.asarray(pixels) / image_side_px) ** 2

    above = axes.secondary_xaxis("top", functions=(to_pixels, to_percent))
    low, high = to_pixels(axes.get_xlim())
    ticks = [pixels for pixels in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if low <= pixels <= high]
    above.set_xticks(ticks, labels=[str(tick) for tick in ticks], fontsize=SMALL_PT)
    above.minorticks_off()
    text = f"side of a square of the same area, in pixels of a photo of {image_side_px} × {image_side_px}"
    above.set_xlabel(text, fontsize=TEXT_PT)
    above.spines["top"].set_visible(False)


def photos_per_group(labels: pd.DataFrame) -> Figure:
    """Draw the photos of each group, stacked by split; of many groups, the 40 largest, and the rest as one bar.

    The bar of the rest has an axis of its own, as it may be far longer than the others.
    """
    splits = _splits_of(labels)
    counts = pd.crosstab(labels["group"].astype(str), labels["split"]).reindex(columns=splits, fill_value=0)
    photos = counts.sum(axis=1)
    counts = counts.loc[sorted(counts.index, key=lambda name: (-photos[name], natural_key(name)))]
    shown, others = counts.iloc[:_GROUPS_SHOWN], counts.iloc[_GROUPS_SHOWN:]
    heights = [max(1, len(shown)) * 0.23, 0.3] if len(others) else [max(1, len(shown)) * 0.23]
    figure = blank_figure(9.0, 1.5 + sum(heights) + (0.5 if len(others) else 0))
    panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _group_bars(panels[0], shown, splits)
    write_title(panels[0], f"Photos per group: {len(counts):,} groups, {len(labels):,} photos")
    if len(others):
        together = others.sum().to_frame(f"{len(others):,} smaller groups\n(own scale)").T
        _group_bars(panels[1], together, splits)
    panels[-1].set_xlabel("photos", fontsize=TEXT_PT)
    _split_legend(figure, labels)
    return figure


def _group_bars(axes: Axes, counts: pd.DataFrame, splits: Sequence[str]) -> None:
    left = np.zeros(len(counts))
    for split in splits:
        photos = counts[split].to_numpy()
        style: dict[str, Any] = {"edgecolor": _SPLIT_GREY, "linewidth": 0.6, "label": split}
        axes.barh(range(len(counts)), photos, 0.78, left, color=_shade(_SPLIT_GREY, split), **style)
        left += photos
    for row, (end, photos) in enumerate(zip(left, counts.to_numpy(), strict=True)):
        present = [(split, count) for split, count in zip(splits, photos, strict=True) if count]
        of_splits = [split if len(present) == 1 else f"{split} {count:,}" for split, count in present]
        axes.annotate(
            f"{end:,.0f}  {', '.join(of_splits)}",
            (end, row),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL_PT,
        )
    name_rows(axes, [shortened(name) for name in counts.index], SMALL_PT)
    axes.margins(x=0.2)
    axes.set_xlim(left=0)
    axes.tick_params(axis="x", labelsize=SMALL_PT)
    keep_sides(axes, ["left"])


def category_table(objects: pd.DataFrame, mapping: Mapping[str, str], reasons: Mapping[str, str]) -> pd.DataFrame:
    """Tabulate each category's material and its numbers of objects and photos, most photos first.

    Returns:
        category, supercategory, material, objects, photos, reason; categories without objects have zeros.
    """
    found = objects.groupby("category").agg(
        supercategory=("supercategory", "first"), objects=("file_name", "size"), photos=("file_name", "nunique")
    )
    table = found.reindex(pd.Index(list(mapping), name="category")).reset_index()
    table["supercategory"] = table["supercategory"].fillna("")
    table[["objects", "photos"]] = table[["objects", "photos"]].fillna(0).astype(np.int64)
    table.insert(2, "material", table["category"].map(dict(mapping)))
    table["reason"] = table["category"].map(dict(reasons)).fillna("")
    return table.sort_values(["photos", "objects"], ascending=False, kind="stable", ignore_index=True)
