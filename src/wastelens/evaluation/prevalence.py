"""How many of new photos show a material: counted decisions, corrected for the model's errors on its own test.

Forman 2008, "Quantifying counts and costs via classification", Data Mining and Knowledge Discovery 17, §2.2: adjusted
count. Of photos of which a share p shows the material, a share p · tpr + (1 - p) · fpr gets the decision yes. Solved
for p: (share of yes - fpr) / (tpr - fpr), clipped to 0–1. It assumes that photos with the material, and those without,
are of the same kind as in the test; only their shares may differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wastelens.evaluation.bootstrap import Interval, multiplicities
from wastelens.system.arrays import BoolArray, FloatArray

_LEVEL = 0.95


@dataclass(frozen=True)
class Share(Interval):
    """The estimated share of photos that show a material.

    Attributes:
        contradicted: whether the new photos cannot be of the same kind as the test's.
    """

    contradicted: bool = False


def adjusted_shares(
    labels: npt.ArrayLike,
    decisions: npt.ArrayLike,
    groups: npt.ArrayLike,
    counted: npt.ArrayLike,
    photos: int,
    rng: np.random.Generator,
    resamples: int = 1000,
) -> list[Share]:
    """Estimate the share of new photos that show each material, with a 95 % interval.

    The interval allows for both samples: the test's groups are drawn again for tpr and fpr, and the share of yes from
    its posterior under Jeffreys' prior, which is no point even where no photo has a yes (Brown, Cai & DasGupta 2001,
    Stat. Sci. 16). A resample whose tpr is not above its fpr tells nothing: it counts as 0 for the lower bound, and as
    1 for the upper. Where nearly all resamples give a share below 0, or above 1, the new photos have fewer yes, or
    more, than the test's errors alone would give: they contradict the assumption, and nothing is estimated.

    Args:
        labels, decisions: of the test photos, 0 or 1, (n, materials).
        groups: of the test photos, (n,).
        counted: number of new photos with the decision yes, (materials,).
        photos: number of new photos.
        rng: of the bootstrap.
        resamples: of the bootstrap.

    Returns:
        One for each material; the estimate is NaN, and the interval from 0 to 1, where the test itself has no tpr above
        its fpr, or the new photos contradict the assumption.

    Raises:
        ValueError: there are no new photos.
    """
    if photos < 1:
        raise ValueError("there are no photos to estimate shares of")
    truth, said = np.asarray(labels, dtype=bool), np.asarray(decisions, dtype=bool)
    yes = np.asarray(counted, dtype=np.int64)
    drawn = multiplicities(len(truth), resamples, rng, groups).astype(np.float64)
    estimates = _adjusted(truth, said, np.ones((1, len(truth))), yes[None] / photos)[0]
    resampled = _adjusted(truth, said, drawn, rng.beta(yes + 0.5, photos - yes + 0.5, (resamples, len(yes))))
    low = np.quantile(np.nan_to_num(resampled, nan=0.0), (1 - _LEVEL) / 2, axis=0)
    high = np.quantile(np.nan_to_num(resampled, nan=1.0), (1 + _LEVEL) / 2, axis=0)
    contradicted = ~np.isnan(estimates) & ((high < 0) | (low > 1))
    unknown = np.isnan(estimates) | contradicted
    estimates, low, high = (np.clip(one, 0, 1) for one in (estimates, low, high))
    return [
        Share(float("nan"), 0.0, 1.0, bool(other))
        if nothing
        else Share(float(at), min(float(a), at), max(float(b), at))
        for nothing, other, at, a, b in zip(unknown, contradicted, estimates, low, high, strict=True)
    ]


def _adjusted(truth: BoolArray, said: BoolArray, weights: FloatArray, share_of_yes: FloatArray) -> FloatArray:
    """Return the adjusted shares of resamples, not clipped, (resamples, materials); NaN where tpr is not above fpr."""
    with np.errstate(invalid="ignore", divide="ignore"):
        tpr = weights @ (truth & said) / (weights @ truth)
        fpr = weights @ (~truth & said) / (weights @ ~truth)
        shares = (share_of_yes - fpr) / (tpr - fpr)
    # Without any photo of one kind, a rate is unknown (NaN), and so is the share.
    return np.where(tpr - fpr > 0, shares, np.nan)
