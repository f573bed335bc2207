"""Score maps of evidence against the outlines of the litter; every score has its value by chance beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wastelens.system.arrays import Float32Array, FloatArray

COVERED_TOO_MUCH = 0.5  # share of the photo; beyond it, no map can miss the litter by much


@dataclass(frozen=True)
class Localisation:
    """How well a map of evidence finds the litter.

    Attributes:
        energy: the evidence inside the outlines as a multiple of what an even map would have there, 0 to
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
