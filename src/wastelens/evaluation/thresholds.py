"""Thresholds that turn probabilities into decisions: one per material, chosen on validation photos only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wastelens.data.prepared.tables import LabelTable, ValTable
from wastelens.evaluation.metrics import checked_probabilities
from wastelens.system.arrays import BoolArray, FloatArray

WITHOUT_POSITIVES = 0.5


def calibrate_on(table: LabelTable, probabilities: npt.ArrayLike) -> FloatArray:
    """Calibrate thresholds on a validation table (see :func:`calibrate`); steps call this.

    Raises:
        TypeError: the table holds another split. Thresholds fitted on test photos would inflate every F1.
        ValueError: as for :func:`calibrate`.
    """
    if not isinstance(table, ValTable):
        raise TypeError(f"thresholds are calibrated on a ValTable only, not on a {type(table).__name__}")
    return calibrate(table.labels, probabilities)


def calibrate(val_labels: npt.ArrayLike, val_probabilities: npt.ArrayLike) -> FloatArray:
    """Return the thresholds that maximise each material's F1 under probability ≥ threshold. (n, m) twice → (m,).

    Candidates are midway between neighbouring distinct probabilities, and midway between 0 and the lowest one (which
    predicts everything). Among equally good ones, the nearest to 0.5 is taken, then the lower. A material without
    positives gets 0.5. Maximising the F1 of each material maximises macro F1 (Lipton, Elkan & Narayanaswamy 2014,
    ECML).

    Raises:
        ValueError: the shapes differ, labels are not 0 or 1, or probabilities are not within [0, 1].
    """
    truth, numbers = checked_probabilities(val_labels, val_probabilities)
    return np.array([_best_threshold(truth[:, j], numbers[:, j]) for j in range(truth.shape[1])])


def _best_threshold(positive: BoolArray, probabilities: FloatArray) -> float:
    if not positive.any():
        return WITHOUT_POSITIVES
    candidates, f1 = f1_over_thresholds(positive, probabilities)
    best = candidates[f1 == f1.max()]
    return float(best[np.argmin(np.abs(best - 0.5))])


def f1_over_thresholds(positive: BoolArray, probabilities: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the candidate thresholds, rising, and the F1 at each. (n,) twice → (candidates,) twice.

    Labels are bool, probabilities float64. There is one candidate just below each distinct probability.
    """
    distinct, rank = np.unique(probabilities, return_inverse=True)
    below = np.concatenate([[0.0], distinct[:-1]])
    middle = below + (distinct - below) / 2
    # adjacent floats have no midpoint: the upper one itself excludes the lower one
    candidates = np.where(middle > below, middle, distinct)
    predicted = np.cumsum(np.bincount(rank, minlength=len(distinct))[::-1])[::-1]
    hits = np.cumsum(np.bincount(rank, weights=positive, minlength=len(distinct))[::-1])[::-1]
    return candidates, 2 * hits / (predicted + positive.sum())
