"""Scaling of features to one scale and few dimensions, fitted on the training photos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wastelens.errors import DatasetError
from wastelens.system.arrays import BoolArray, Float32Array, FloatArray

LARGEST_WIDTH = 64
# Relative to a feature's largest value: a smaller range is rounding error of float32 sums, which scaling would amplify
# to unit variance.
_CONSTANT_RANGE = 1e-5
# In standard deviations; see `fit_scaling`.
_LARGEST_SCALED = 3.0


@dataclass(frozen=True)
class Scaling:
    """A scaling fitted on the training photos.

    Attributes:
        kept: the features that vary over the training photos, bool (features,).
        mean: means of the kept features, float64 (kept,).
        deviation: their standard deviations, float64 (kept,), all above zero.
        axes: principal axes of the scaled features, float64 (kept, dims); None if there are few enough features.
        explained: share of the scaled features' variance that the axes explain, in [0, 1].
    """

    kept: BoolArray
    mean: FloatArray
    deviation: FloatArray
    axes: FloatArray | None
    explained: float

    def apply(self, features: npt.ArrayLike) -> FloatArray:
        """Scale features, (photos, ...) → float64 (photos, dims).

        Raises:
            DatasetError: the features are not finite.
            ValueError: there are no photos, or another number of features than the scaling was fitted on.
        """
        rows = checked_features(features)
        if rows.shape[1] != len(self.kept):
            raise ValueError(f"there are {rows.shape[1]} features, the training photos had {len(self.kept)}")
        return self._rotate(self._scale(rows))

    def _scale(self, rows: Float32Array) -> Float32Array:
        scaled = rows[:, self.kept] - self.mean
        scaled /= self.deviation
        narrow: Float32Array = np.clip(scaled, -_LARGEST_SCALED, _LARGEST_SCALED).astype(np.float32)
        return narrow + np.float32(0)  # turn -0 into 0

    def _rotate(self, scaled: Float32Array) -> FloatArray:
        wide = scaled.astype(np.float64)
        return wide if self.axes is None else wide @ self.axes


def fit_scaling(train_features: npt.ArrayLike, seed: int) -> tuple[Scaling, Float32Array]:
    """Scale each feature to unit variance, clip it at 3 standard deviations, and keep at most 64 principal axes.

    Without the first, features in large units dominate all distances. Without the second, features that are zero for
    most photos (a rare colour, a unit that seldom fires) put single photos so far out that each becomes a cluster:
    k-means of colour histograms on TrashNet then left 70 % of the photos in one of ten clusters. The third is for wide
    features (768 raw pixels, thousands in an autoencoder's map): in that many dimensions all distances become alike
    (Beyer et al. 1999, ICDT), and the cost of k-means and the silhouette grows with the width. Features that do not
    vary over the training photos are dropped.

    Args:
        train_features: (photos, ...), any numeric type; axes after the first are flattened.
        seed: of the randomised decomposition of wide features.

    Returns:
        The scaling, and the training photos scaled but not yet rotated, (photos, kept).

    Raises:
        DatasetError: the features are not finite as float32.
        ValueError: there are no photos or no features.
    """
    rows = checked_features(train_features)
    low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
    kept = high - low > _CONSTANT_RANGE * np.maximum(np.abs(low), np.abs(high))
    varying = rows[:, kept]
    mean, deviation = varying.mean(axis=0, dtype=np.float64), varying.std(axis=0, dtype=np.float64)
    plain = Scaling(kept, mean, deviation, None, 1.0)
    scaled = plain._scale(rows)
    if scaled.shape[1] <= LARGEST_WIDTH:
        return plain, scaled
    from sklearn.decomposition import PCA

    pca = PCA(min(LARGEST_WIDTH, len(scaled)), random_state=seed).fit(scaled)
    axes = pca.components_.T.astype(np.float64)
    return Scaling(kept, mean, deviation, axes, float(pca.explained_variance_ratio_.sum())), scaled


def checked_features(features: npt.ArrayLike) -> Float32Array:
    """Flatten features to float32, (photos, ...) → (photos, features), and check that all are finite."""
    with np.errstate(over="ignore"):  # values too large for float32 become infinite and are refused below
        rows = np.asarray(features, dtype=np.float32)
    if rows.ndim < 2 or rows.size == 0:
        raise ValueError(f"features must be (photos, features) and not be empty; their shape is {rows.shape}")
    rows = rows.reshape(len(rows), -1)
    bad = int((~np.isfinite(rows).all(axis=1)).sum())
    if bad:
        raise DatasetError(
            f"The features of {bad:,} of {len(rows):,} photos are not finite numbers. "
            f"Cluster a run whose loss stayed finite."
        )
    return rows
