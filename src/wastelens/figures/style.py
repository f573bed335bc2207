"""What figures share: the materials' colours and legend, blank figures, names as people read them, sizes of text."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE_PT, TEXT_PT, SMALL_PT = 11.0, 9.0, 8.0
# Okabe & Ito 2008, "Color Universal Design"; yellow stands late, as it is faint on white; black is for text.
_OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#999999")
_NAME_LETTERS = 34


def material_colours(materials: Sequence[str]) -> dict[str, str]:
    """A colour a material, ``#RRGGBB``, all different: Okabe-Ito's, then the same darker, then lighter."""
    palette = [
        *_OKABE_ITO,
        *(mixed(colour, "#000000", 0.45) for colour in _OKABE_ITO),
        *(mixed(colour, "#FFFFFF", 0.5) for colour in _OKABE_ITO),
    ]
    number = 0
    while len(palette) < len(materials):  # hues a golden section apart come near no earlier one for long
        number += 1
        rgb = colorsys.hsv_to_rgb(number * 0.618034 % 1.0, 0.55 + 0.1 * (number % 4), 0.5 + 0.1 * (number % 5))
        if _hex(rgb) not in palette:
            palette.append(_hex(rgb))
    return dict(zip(materials, palette, strict=False))


def mixed(colour: str, other: str, share: float) -> str:
    """``colour`` with this share of ``other``, 0 to 1; all three colours ``#RRGGBB``."""
    pairs = zip(_rgb(colour), _rgb(other), strict=True)
    parts = [round((1 - share) * ours + share * theirs) for ours, theirs in pairs]
    return "#" + bytes(parts).hex().upper()


def _rgb(colour: str) -> bytes:
    """``#RRGGBB`` → three numbers, 0 to 255."""
    return bytes.fromhex(colour.removeprefix("#"))


def _hex(rgb: tuple[float, float, float]) -> str:
    """RGB in 0 to 1 → ``#RRGGBB``."""
    return "#" + "".join(f"{round(part * 255):02X}" for part in rgb)


def blank_figure(width_in: float, height_in: float) -> Figure:
    """A white figure of this size in inches, free of pyplot's state, that lays its axes out itself."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained", facecolor="white")


def keep_sides(axes: Axes, keep: Sequence[str]) -> None:
    """Leave only these sides of the frame: ``left``, ``right``, ``top``, ``bottom``."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in keep)


def write_title(axes: Axes, text: str) -> None:
    """Above the axes, at the left."""
    axes.set_title(text, loc="left", fontsize=TITLE_PT, pad=8)


def name_rows(axes: Axes, names: Sequence[str], fontsize: float = TEXT_PT) -> None:
    """Write a name at each of the rows 0, 1, …, with row 0 on top."""
    axes.set_yticks(range(len(names)), labels=names, fontsize=fontsize)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)  # names are data: a $ in them starts no formula
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)


def spoken(name: str) -> str:
    """A material's name as people write it: ``other_objects`` → ``other objects``."""
    return name.replace("_", " ")


def shortened(name: str, letters: int = _NAME_LETTERS) -> str:
    """A name with its middle left out where it is too long: its ends tell it from its neighbours."""
    half = (letters - 1) // 2
    return name if len(name) <= letters else f"{name[:half]}…{name[-half:]}"


def material_legend(figure: Figure, texts: Mapping[str, str], title: str | None = None) -> None:
    """Below the axes, one entry a material; texts: material → what to write, in the materials' order."""
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
