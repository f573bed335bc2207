"""Multiple comparisons: p values corrected for their number, and the verdict that follows from them."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from wastelens.system.arrays import FloatArray

ChangeVerdict = Literal["helps", "hurts", "undecided"]

SIGNIFICANCE = 0.05


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """Return p values adjusted for their number, (k,) → (k,), so that any false finding stays unlikely (Holm 1979).

    The i-th smallest of k becomes max over j ≤ i of (k - j + 1)·pⱼ, at most 1 (Scand. J. Statist. 6, 65-70).
    It is valid for any dependence between the comparisons. NaN (no test) stays NaN and does not count.

    Raises:
        ValueError: values outside [0, 1], or not one-dimensional.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or (values < 0).any() or (values > 1).any():
        raise ValueError("p values must be one-dimensional and in [0, 1]")
    answer = np.full(values.shape, np.nan)
    made = np.flatnonzero(~np.isnan(values))
    order = made[np.argsort(values[made], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    answer[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1)
    return answer


def verdict_of(difference: float, p_adjusted: float) -> ChangeVerdict:
    """Return helps or hurts where the adjusted p value is below 0.05; undecided otherwise, and where it is NaN."""
    if math.isnan(p_adjusted) or p_adjusted >= SIGNIFICANCE:
        return "undecided"
    return "helps" if difference > 0 else "hurts"
