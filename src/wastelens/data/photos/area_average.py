"""Photos shrunk by averaging areas, to any side: each pixel counts by the share of it that an area covers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def area_average(photos: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.float32]:
    """Photos (photos, s, s, 3) shrunk by area averaging, float32 0-255 (photos, side, side, 3)."""
    n, size = photos.shape[:2]
    area = area_matrix(size, side).astype(np.float32)
    rows = area @ photos.reshape(n, size, size * 3).astype(np.float32)
    shrunk: npt.NDArray[np.float32] = area @ rows.reshape(n * side, size, 3)
    return shrunk.reshape(n, side, side, 3)


def area_matrix(side: int, samples: int) -> FloatArray:
    """Share of each pixel in each sample of an area average, float64 (samples, side); rows add up to 1."""
    edges = np.linspace(0, side, samples + 1)
    pixels = np.arange(side)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    matrix: FloatArray = np.clip(covered, 0, None) * samples / side
    return matrix
