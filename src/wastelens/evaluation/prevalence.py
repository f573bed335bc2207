"""How many of new photos show a material: counted decisions, corrected for the model's errors on its own test.

Forman 2008, "Quantifying counts and costs via classification", Data Mining and Knowledge Discovery 17, §2.2: adjusted
count. Of photos of which a share p shows the material, a share p · tpr + (1 - p) · fpr gets the decision yes. Solved
for p: (share of yes - fpr) / (tpr - fpr), clipped to 0–1. It assumes that photos with the material, and those without,
are of the same kind as in the test; only their shares may differ.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wastelens.evaluation.bootstrap import Interval, multiplicities
from wastelens.system.arrays import BoolArray, FloatArray

_LEVEL = 0.95


def adjusted_shares(
    labels: npt.ArrayLike,
    decisions: npt.ArrayLike,
    groups: npt.ArrayLike,
    counted: npt.ArrayLike,
    photos: int,
    rng: np.random.Generator,
    resamples: int = 1000,
) -> list[Interval]:
    """Estimate the share of new photos that show each material, with a 95 % interval.

    The interval allows for both samples: the test's groups are drawn again for tpr and fpr, and the number of yes from
    Binomial(photos, share of yes). A resample whose tpr is not above its fpr tells nothing: it counts as 0 for the
    lower bound, and as 1 for the upper.

    Args:
        labels, decisions: of the test photos, 0 or 1, (n, materials).
        groups: of the test photos, (n,).
        counted: number of new photos with the decision yes, (materials,).
        photos: number of new photos.
        rng: of the bootstrap.
        resamples: of the bootstrap.

    Returns:
        One for each material; the estimate is NaN where the test itself has no tpr above its fpr.

    Raises:
        ValueError: there are no new photos.
    """
    if photos < 1:
        raise ValueError("there are no photos to estimate shares of")
    truth, said = np.asarray(labels, dtype=bool), np.asarray(decisions, dtype=bool)
    yes = np.asarray(counted, dtype=np.int64)
    drawn = multiplicities(len(truth), resamples, rng, groups).astype(np.float64)
    estimates = _adjusted(truth, said, np.ones((1, len(truth))), yes[None] / photos)[0]
    resampled = _adjusted(truth, said, drawn, rng.binomial(photos, yes / photos, (resamples, len(yes))) / photos)
    low = np.quantile(np.nan_to_num(resampled, nan=0.0), (1 - _LEVEL) / 2, axis=0)
    high = np.quantile(np.nan_to_num(resampled, nan=1.0), (1 + _LEVEL) / 2, axis=0)
    return [
        Interval(float(at), min(float(bottom), float(at)), max(float(top), float(at)))
        if np.isfinite(at)
        else Interval(float("nan"), 0.0, 1.0)
        for at, bottom, top in zip(estimates, low, high, strict=True)
    ]


def _adjusted(truth: BoolArray, said: BoolArray, weights: FloatArray, share_of_yes: FloatArray) -> FloatArray:
    """Return the adjusted shares of resamples, (resamples, materials); NaN where tpr is not above fpr."""
    with np.errstate(invalid="ignore", divide="ignore"):
        tpr = weights @ (truth & said) / (weights @ truth)
        fpr = weights @ (~truth & said) / (weights @ ~truth)
        shares = np.clip((share_of_yes - fpr) / (tpr - fpr), 0, 1)
    # No photo without the material: fpr is unknown, and so is the share.
    return np.where(tpr - fpr > 0, shares, np.nan)
