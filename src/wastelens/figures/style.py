"""Shared parts of figures: the materials' colours, labels and legend, blank figures, text sizes."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE_PT, TEXT_PT, SMALL_PT = 11.0, 9.0, 8.0
# Okabe & Ito 2008, "Color Universal Design"; yellow comes late because it is faint on white; black is for text.
_OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#999999")
_NAME_LETTERS = 34
_FLOOR_DASHES = ((3, 1.2), (1, 1), (6, 1.2, 1, 1.2))  # where a panel has several floors


def material_colours(materials: Sequence[str]) -> dict[str, str]:
    """Return a distinct colour ``#RRGGBB`` per material: Okabe and Ito's, then darker, then lighter ones."""
    palette = [
        *_OKABE_ITO,
        *(mixed(colour, "#000000", 0.45) for colour in _OKABE_ITO),
        *(mixed(colour, "#FFFFFF", 0.5) for colour in _OKABE_ITO),
    ]
    number = 0
    while len(palette) < len(materials):  # hues a golden section apart stay far from earlier ones for long
        number += 1
        rgb = colorsys.hsv_to_rgb(number * 0.618034 % 1.0, 0.55 + 0.1 * (number % 4), 0.5 + 0.1 * (number % 5))
        colour = "#" + "".join(f"{round(part * 255):02X}" for part in rgb)
        if colour not in palette:
            palette.append(colour)
    return dict(zip(materials, palette, strict=False))


def mixed(colour: str, other: str, share: float) -> str:
    """Mix this share (0 to 1) of ``other`` into ``colour``; colours are ``#RRGGBB``."""
    pairs = zip(bytes.fromhex(colour[1:]), bytes.fromhex(other[1:]), strict=True)
    parts = [round((1 - share) * ours + share * theirs) for ours, theirs in pairs]
    return "#" + bytes(parts).hex().upper()


def floor_style(what: str, number: int = 0) -> dict[str, Any]:
    """Return how every figure draws a floor, a value that an answer without looking reaches: as matplotlib's options.

    what: its name in the legend, after "floor: "; number: of the floor, where a panel has several.
    """
    dashes = (0, _FLOOR_DASHES[number % len(_FLOOR_DASHES)])
    return {"color": "#D55E00", "linestyle": dashes, "linewidth": 1.8, "label": f"floor: {what}", "zorder": 4}


def blank_figure(width_in: float, height_in: float) -> Figure:
    """Make a white figure of this size in inches, independent of pyplot, with constrained layout."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained", facecolor="white")


def keep_sides(axes: Axes, keep: Sequence[str]) -> None:
    """Hide the axes' frame except for these sides: ``left``, ``right``, ``top``, ``bottom``."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in keep)


def write_title(axes: Axes, text: str) -> None:
    """Write a title above the axes, left-aligned."""
    axes.set_title(text, loc="left", fontsize=TITLE_PT, pad=8)


def name_rows(axes: Axes, names: Sequence[str], fontsize: float = TEXT_PT) -> None:
    """Label the rows 0, 1, …, with row 0 on top."""
    axes.set_yticks(range(len(names)), labels=names, fontsize=fontsize)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)  # names are data: a $ in them must not start a formula
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)


def label_text(name: str) -> str:
    """Return a name as it is written in labels: ``other_objects`` → ``other objects``."""
    return name.replace("_", " ")


def shortened(name: str, letters: int = _NAME_LETTERS) -> str:
    """Shorten a long name in the middle, because its ends distinguish it from similar names."""
    half = (letters - 1) // 2
    return name if len(name) <= letters else f"{name[:half]}…{name[-half:]}"


def material_legend(figure: Figure, texts: Mapping[str, str], title: str | None = None) -> None:
    """Draw a legend below the axes, with one entry per material; texts: material → text, in order."""
    from matplotlib.patches import Patch

    colours = material_colours(list(texts))
    handles = [Patch(color=colours[material], label=text) for material, text in texts.items()]
    width_in = 0.5 + 0.075 * max((len(text) for text in texts.values()), default=1)
    rows = math.ceil(len(handles) * width_in / figure.get_figwidth())
    legend = figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=math.ceil(len(handles) / rows),
        title=title,
        fontsize=TEXT_PT,
        frameon=False,
    )
    legend.get_title().set_fontsize(TEXT_PT)
