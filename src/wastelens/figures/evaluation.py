"""The figure of a model on other photos beside its own test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from wastelens.figures.style import (
    TEXT_PT,
    blank_figure,
    floor_style,
    keep_sides,
    label_text,
    name_rows,
    shortened,
    write_title,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HERE, _OWN = "#0072B2", "#999999"  # Okabe & Ito 2008


def drop_figure(table: pd.DataFrame, name: str) -> Figure:
    """Draw each material's average precision with its interval, on other photos and on the model's own test.

    table: the columns ``material``, ``prevalence``, ``ap``, ``ap_low``, ``ap_high``, and the last three with ``own_``
    before them, which are for the same prevalence; name: of the other photos.
    """
    figure = blank_figure(8.5, 1.6 + 0.55 * len(table))
    axes = figure.add_subplot()
    rows = np.arange(len(table))
    for prefix, colour, shift, label in (
        ("", _HERE, -0.15, shortened(name)),
        ("own_", _OWN, 0.15, "its own test, weighted"),
    ):
        ap = table[f"{prefix}ap"].to_numpy()
        ends = np.abs(np.stack([table[f"{prefix}ap_low"].to_numpy(), table[f"{prefix}ap_high"].to_numpy()]) - ap)
        axes.errorbar(
            ap, rows + shift, xerr=ends, fmt="o", color=colour, capsize=3, label=f"{label}, with 95 % interval"
        )
    axes.vlines(table["prevalence"], rows - 0.3, rows + 0.3, **floor_style("prevalence"))
    name_rows(axes, [label_text(str(material)) for material in table["material"]])
    axes.set(xlim=(0, 1.02), xlabel="average precision")
    axes.grid(axis="x", color="#E6E6E6", linewidth=0.8)
    keep_sides(axes, ["left", "bottom"])
    write_title(axes, "The same model on other photos")
    legend = figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=TEXT_PT)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure
