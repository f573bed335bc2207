"""Ridge regression from sums over rows, so that millions of rows in any folds need one pass and little memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt

from wastelens.system.arrays import FloatArray

STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0)  # of the penalty, per row and standardised feature
_LEAST_SPREAD = 1e-6  # a feature that hardly varies is left out


@dataclass(frozen=True)
class Moments:
    """Sums over rows of features x, with a 1 appended, and targets y.

    Attributes:
        xx: x xᵀ, float64 (features + 1, features + 1); the last number counts the rows.
        xy: x yᵀ, float64 (features + 1, targets).
        yy: y², float64 (targets,).
    """

    xx: FloatArray
    xy: FloatArray
    yy: FloatArray

    @classmethod
    def of(cls, x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]) -> Moments:
        """Sum over the rows of features (rows, features) and targets (rows, targets)."""
        x = np.concatenate([x, np.ones((len(x), 1), dtype=np.float32)], axis=1)
        return cls((x.T @ x).astype(np.float64), (x.T @ y).astype(np.float64), np.square(y, dtype=np.float64).sum(0))

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.xx + other.xx, self.xy + other.xy, self.yy + other.yy)

    def squared_error(self, kernel: FloatArray, bias: FloatArray) -> float:
        """Return the mean squared error of x · kernel + bias over these rows, summed over the targets."""
        weights = np.concatenate([kernel, bias[None]])
        errors = self.yy - 2 * (weights * self.xy).sum(0) + (weights * (self.xx @ weights)).sum(0)
        return float(errors.sum() / self.xx[-1, -1])


def ridge(moments: Moments, strength: float) -> tuple[FloatArray, FloatArray]:
    """Solve ridge regression on standardised features (Hoerl & Kennard 1970); return it for features as they are.

    Returns:
        kernel (features, targets) and bias (targets,), float64; the bias is not penalised.
    """
    from scipy.linalg import solve

    rows = moments.xx[-1, -1]
    mean, target_mean = moments.xx[-1, :-1] / rows, moments.xy[-1] / rows
    covariance = moments.xx[:-1, :-1] / rows - np.outer(mean, mean)
    spread = np.sqrt(np.clip(np.diag(covariance), 0, None))
    scale = np.where(spread > _LEAST_SPREAD, 1 / np.maximum(spread, _LEAST_SPREAD), 0.0)
    penalised = covariance * np.outer(scale, scale) + strength * np.eye(len(mean))
    common = (moments.xy[:-1] / rows - np.outer(mean, target_mean)) * scale[:, None]
    kernel = solve(penalised, common, assume_a="pos") * scale[:, None]
    return kernel, target_mean - mean @ kernel


def total(parts: Iterable[Moments]) -> Moments:
    """Add moments of different rows."""
    return reduce(Moments.__add__, parts)


def best_strength(folds: Sequence[Moments]) -> float:
    """Return the strength whose squared error is least on each fold, fitted on the others; of one fold, the middle."""
    if len(folds) < 2:
        return STRENGTHS[len(STRENGTHS) // 2]
    errors = np.zeros(len(STRENGTHS))
    for number, held_out in enumerate(folds):
        rest = total(fold for other, fold in enumerate(folds) if other != number)
        errors += [held_out.squared_error(*ridge(rest, strength)) for strength in STRENGTHS]
    return STRENGTHS[int(np.argmin(errors))]
