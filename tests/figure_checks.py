"""Helpers shared by the tests of figures: labels to draw, and checks of a drawn figure."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

ALL_MATERIALS = tuple(f"stuff_{number}" for number in range(11))
MATERIALS = ALL_MATERIALS[:3]


def make_labels(photos: int, materials: tuple[str, ...], groups: int = 5, seed: int = 0) -> pd.DataFrame:
    """Return one row per photo with random labels, in the columns that ``prepare`` writes and figures read."""
    rng = np.random.default_rng(seed)
    numbers = np.arange(photos)
    frame = pd.DataFrame({"file_name": [f"photo_{number:04}.jpg" for number in numbers]})
    frame["width"], frame["height"] = 300, np.where(numbers % 2, 400, 200)
    for material in materials:
        frame[material] = (rng.random(photos) < 0.3).astype(np.int64)
    frame["group"] = [f"batch_{number % groups}" for number in numbers]
    frame["split"] = np.array(["train", "train", "val", "test"])[(numbers % groups) % 4]
    return frame


def draw(figure: Figure) -> int:
    """Render a figure and return the size of its PNG in bytes; warnings, such as of a poor layout, are errors."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return len(buffer.getvalue())


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]
