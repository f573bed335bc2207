"""Score maps of evidence against the outlines of the litter; every score has its value by chance beside it.

``data.photos`` stretches an upright photo to a square, so a place in the square is at the same share of the width and
of the height in the photo's own frame, in which litter is outlined: two factors map it back. Maps are compared with
outlines on a grid of the frame's proportions, fine enough for TACO's objects and the same for every method, whatever
the resolution of its maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from wastelens.system.arrays import Float32Array, FloatArray

GRID_SIDE_PX = 256
COVERED_TOO_MUCH = 0.5  # share of the photo; beyond it, no map can miss the litter by much


@dataclass(frozen=True)
class Localisation:
    """How well a map of evidence finds the litter.

    Attributes:
        energy: the evidence inside the outlines as a multiple of an even map's there, 0 to
            1 / area_share; 1 is chance (the proportion of the energy-based pointing game, Wang et al. 2020, Score-CAM,
            §4.3, divided by the area).
        pointing: the share of the map's maximum that is inside, 0 to 1; chance is area_share (pointing game, Zhang
            et al. 2018, IJCV 126, without tolerance; cells that tie for the maximum share it).
        iou: intersection over union of the outlines and the cells at or above the best threshold; chance is at least
            area_share, as the lowest threshold selects everything.
        iou_threshold: that threshold, as a share of the map's maximum; NaN for an empty map.
        area_share: the outlines' share of the photo.
        empty: the map is the same everywhere; it shows nothing and is scored as chance.
    """

    energy: float
    pointing: float
    iou: float
    iou_threshold: float
    area_share: float
    empty: bool


def is_empty(evidence: Float32Array) -> bool:
    """Return whether the positive part of a map (rows, columns) is the same everywhere, so that it points nowhere."""
    return bool(np.ptp(np.maximum(evidence, 0)) == 0)


def localise(evidence: Float32Array, coverage: Float32Array) -> Localisation:
    """Score a map against the outlines of one material. Only evidence for the material counts, not evidence against.

    Args:
        evidence: (rows, columns), any sign and scale.
        coverage: (rows, columns), the share of each cell inside the outlines, 0 to 1.

    Raises:
        ValueError: different shapes, evidence that is not finite, or outlines that cover nothing.
    """
    if evidence.shape != coverage.shape:
        raise ValueError(f"evidence of {evidence.shape} does not match coverage of {coverage.shape}")
    if not np.isfinite(evidence).all():
        raise ValueError("evidence holds values that are not finite")
    inside = coverage.astype(np.float64)
    area_share = float(inside.mean())
    if not area_share > 0:
        raise ValueError("the outlines cover nothing, so there is nothing to find")
    if is_empty(evidence):
        return Localisation(1.0, area_share, area_share, float("nan"), area_share, empty=True)
    positive = np.maximum(evidence, 0).astype(np.float64)
    energy = float((positive * inside).sum() / positive.sum()) / area_share
    pointing = float(inside[positive == positive.max()].mean())
    iou, threshold = _best_iou(positive.ravel(), inside.ravel())
    return Localisation(energy, pointing, iou, threshold / float(positive.max()), area_share, empty=False)


def _best_iou(evidence: FloatArray, inside: FloatArray) -> tuple[float, float]:
    """Return the largest intersection over union of ``evidence >= threshold``, and its threshold; arrays: (cells,)."""
    falling = np.argsort(-evidence)
    ranked = evidence[falling]
    intersection = np.cumsum(inside[falling])
    union = np.arange(1, len(ranked) + 1) + inside.sum() - intersection
    is_threshold = np.append(ranked[:-1] > ranked[1:], True)  # equal evidence is selected together
    iou = np.where(is_threshold, intersection / union, -1.0)
    best = int(np.argmax(iou))
    return float(iou[best]), float(ranked[best])


def centre_map(shape: tuple[int, int]) -> Float32Array:
    """Return the control: a Gaussian in the middle of the photo, a quarter of each side wide; float32 (rows, columns).

    It ignores the photo's content. People put the litter they photograph in the middle, so a map has to beat it.
    """
    rows, columns = (np.exp(-0.5 * (((np.arange(side) + 0.5) / side - 0.5) / 0.25) ** 2) for side in shape)
    return np.outer(rows, columns).astype(np.float32)


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
    return np.asarray(rows @ cells @ columns.T, dtype=np.float32)


@lru_cache(maxsize=64)
def axis_weights(size: int, target: int) -> FloatArray:
    """Return how much of each of ``size`` cells goes into each of ``target``: float64 (target, size), rows sum to 1."""
    cells = np.arange(size)
    weights: FloatArray
    if target < size:
        edges = np.arange(target + 1) * size / target
        overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
        weights = np.clip(overlap, 0, None) * target / size
    else:
        centres = np.clip((np.arange(target) + 0.5) * size / target - 0.5, 0, size - 1)
        weights = np.clip(1 - np.abs(centres[:, None] - cells), 0, None)
    return weights
