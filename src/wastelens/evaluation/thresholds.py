"""From probabilities to decisions: a threshold a material, chosen on validation photos and on no others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wastelens.data.prepared.tables import LabelTable, ValTable
from wastelens.evaluation.metrics import BoolArray, FloatArray, checked_probabilities

WITHOUT_POSITIVES = 0.5


def calibrate_on(table: LabelTable, probabilities: npt.ArrayLike) -> FloatArray:
    """:func:`calibrate` on a validation table; the way steps call it.

    Raises:
        TypeError: the table holds another split. Thresholds fitted on test photos would flatter every F1.
        ValueError: as :func:`calibrate`.
    """
    if not isinstance(table, ValTable):
        raise TypeError(f"thresholds are calibrated on a ValTable only, not on a {type(table).__name__}")
    return calibrate(table.labels, probabilities)


def calibrate(val_labels: npt.ArrayLike, val_probabilities: npt.ArrayLike) -> FloatArray:
    """Thresholds that maximise each material's F1 if probability ≥ threshold decides. (n, m) twice → (m,).

    Candidates lie midway between neighbouring distinct probabilities, and midway between 0 and the lowest one
    (everything on); of equally good ones the nearest to 0.5 is taken, then the lower. A material without a
    positive gets 0.5. Maximising F1 a material maximises macro F1 (Lipton, Elkan & Narayanaswamy 2014, ECML).

    Raises:
        ValueError: shapes that do not fit, labels other than 0 and 1, probabilities outside [0, 1].
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
    """The candidate thresholds, rising, and the F1 at each. (n,) twice → (candidates,) twice.

    Labels bool, probabilities float64. There is one candidate for each distinct probability: below it.
    """
    distinct, rank = np.unique(probabilities, return_inverse=True)
    below = np.concatenate([[0.0], distinct[:-1]])
    middle = below + (distinct - below) / 2
    # between two neighbouring floats there is no middle: the upper one itself keeps the lower one off
    candidates = np.where(middle > below, middle, distinct)
    claimed = np.cumsum(np.bincount(rank, minlength=len(distinct))[::-1])[::-1]
    hits = np.cumsum(np.bincount(rank, weights=positive, minlength=len(distinct))[::-1])[::-1]
    return candidates, 2 * hits / (claimed + positive.sum())
