"""Many comparisons at once: p values that keep their promise together, and the verdict that follows from them."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
ChangeVerdict = Literal["helps", "hurts", "undecided"]

SIGNIFICANCE = 0.05


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """p values adjusted for their number, (k,) → (k,): the chance of any false finding is held. Holm 1979.

    The i-th smallest of k becomes max over j ≤ i of (k - j + 1)·pⱼ, at most 1 (Scand. J. Statist. 6, 65-70).
    It holds however the comparisons depend on each other. NaN (no test was made) stays NaN and does not count.

    Raises:
        ValueError: values outside [0, 1], or not in one dimension.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or (values < 0).any() or (values > 1).any():
        raise ValueError("p values must lie in [0, 1], in one dimension")
    answer = np.full(values.shape, np.nan)
    made = np.flatnonzero(~np.isnan(values))
    order = made[np.argsort(values[made], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    answer[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1)
    return answer


def verdict_of(difference: float, p_adjusted: float) -> ChangeVerdict:
    """Helps or hurts where the adjusted p value is below 0.05; undecided otherwise, and where it is NaN."""
    if math.isnan(p_adjusted) or p_adjusted >= SIGNIFICANCE:
        return "undecided"
    return "helps" if difference > 0 else "hurts"
