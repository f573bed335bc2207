"""Where a map of evidence has its peak, as a box in the photo."""

from __future__ import annotations

import cv2
import numpy as np

from wastelens.figures.heatmap import shown_map
from wastelens.system.arrays import Float32Array

_OF_PEAK = 0.5
NOWHERE = (float("nan"),) * 4


def peak_box(evidence: Float32Array) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a map's peak, as shares of the upright photo's width and height.

    The box is that of the connected region around the maximum with at least half of its evidence, of the map as it is
    drawn (48 × 48 cells). A map without evidence has none: NaN.
    """
    shown = shown_map(evidence, signed=False)
    top = float(shown.max())
    if top <= 0:
        return NOWHERE
    _, regions = cv2.connectedComponents((shown >= _OF_PEAK * top).astype(np.uint8), connectivity=8)
    rows, columns = np.nonzero(regions == regions.flat[int(shown.argmax())])
    height, width = shown.shape
    return (
        float(columns.min() / width),
        float(rows.min() / height),
        float((columns.max() + 1) / width),
        float((rows.max() + 1) / height),
    )
