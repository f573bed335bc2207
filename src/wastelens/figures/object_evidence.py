"""How well a model's evidence finds the objects, and what it answers when it is told where to look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wastelens.evaluation.object_evidence import PLACES, ObjectEvidence
from wastelens.figures.style import blank_figure, floor_style, keep_sides, write_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLUE, _PALE = "#0072B2", "#B8B8B8"
_LOOKS = {
    "own": "where it looks itself",
    "true_outlines": "at the objects",
    "other_photo": "at another photo's objects",
    "random_place": "at places moved at random",
}


def object_evidence(evidence: ObjectEvidence) -> Figure:
    """Draw recall by size beside chance, and macro AP by where the model looks."""
    figure = blank_figure(10.0, 3.6)
    found, told = figure.subplots(1, 2)
    sizes = list(evidence.recall)
    columns = np.arange(len(sizes))
    found.bar(columns, [evidence.recall[size] for size in sizes], 0.6, color=_BLUE, label="map of litter")
    chance = [evidence.chance[size] for size in sizes]
    found.hlines(chance, columns - 0.36, columns + 0.36, **floor_style("random places"))
    found.set_xticks(columns, [f"{size}\n{evidence.counts[size]:,} objects" for size in sizes])
    found.set(ylim=(0, 1.35), yticks=np.arange(0, 1.1, 0.2), ylabel=f"found by {PLACES} places a photo")
    found.legend(frameon=False, loc="upper left")
    write_title(found, "Objects found, by size")
    rows = np.arange(len(_LOOKS))
    values = [evidence.macro_ap[name] for name in _LOOKS]
    told.barh(rows, values, 0.6, color=[_BLUE, *[_PALE] * (len(_LOOKS) - 1)])
    for row, value in zip(rows, values, strict=True):
        told.annotate(f"{value:.3f}", (value, row), (4, 0), textcoords="offset points", va="center")
    told.set_yticks(rows, list(_LOOKS.values()))
    told.invert_yaxis()
    told.set(xlim=(0, max(values) * 1.15), xlabel="macro AP on test")
    write_title(told, "The same model, told where to look")
    for axes in (found, told):
        keep_sides(axes, ("left", "bottom"))
    return figure
