"""Map the square that the network sees back to the photo's own frame, in which litter is outlined.

``data.photos`` stretches an upright photo to a square, so a place in the square is at the same share of the width and
of the height in the frame, and two factors map it back. Maps are compared with outlines on a grid of the frame's
proportions, fine enough for TACO's objects and the same for every method, whatever the resolution of its maps.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from wastelens.system.arrays import Float32Array, FloatArray

GRID_SIDE_PX = 256


def grid_shape(width: float, height: float) -> tuple[int, int]:
    """Return the (rows, columns) of the grid over a photo of this size in pixels: 256 cells along the longer side.

    Raises:
        ValueError: a side that is not a positive number.
    """
    if not (0 < width < np.inf and 0 < height < np.inf):
        raise ValueError(f"a photo of {width} x {height} pixels has no grid")
    cells_per_pixel = GRID_SIDE_PX / max(width, height)
    return max(1, round(height * cells_per_pixel)), max(1, round(width * cells_per_pixel))


def to_grid(evidence: npt.ArrayLike, shape: tuple[int, int]) -> Float32Array:
    """Stretch a map (h, w) to another shape, float32 (rows, columns): the inverse of how photos become squares.

    An axis that grows is interpolated linearly between its cells' centres, with its ends held; one that shrinks is
    averaged by area. No value exceeds the map's maximum or falls below its minimum, so a constant stays the same.

    Raises:
        ValueError: the map has no cells or not two axes, or the shape has no cells.
    """
    cells = np.asarray(evidence, dtype=np.float32)
    if cells.ndim != 2 or not cells.size or min(shape) < 1:
        raise ValueError(f"a map of shape {cells.shape} cannot be stretched to {shape}")
    rows, columns = (axis_weights(size, target) for size, target in zip(cells.shape, shape, strict=True))
    # Summed in float64: after rounding to float32, constants and bounds are exact.
    stretched: Float32Array = (rows @ cells @ columns.T).astype(np.float32)
    return stretched


@lru_cache(maxsize=64)
def axis_weights(size: int, target: int) -> FloatArray:
    """Return how much of each of ``size`` cells goes into each of ``target``: float64 (target, size), rows sum to 1."""
    return _averaging(size, target) if target < size else _interpolating(size, target)


def _averaging(size: int, target: int) -> FloatArray:
    edges = np.arange(target + 1) * size / target
    cells = np.arange(size)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    weights: FloatArray = np.clip(overlap, 0, None) * target / size
    return weights


def _interpolating(size: int, target: int) -> FloatArray:
    centres = np.clip((np.arange(target) + 0.5) * size / target - 0.5, 0, size - 1)
    weights: FloatArray = np.clip(1 - np.abs(centres[:, None] - np.arange(size)), 0, None)
    return weights
