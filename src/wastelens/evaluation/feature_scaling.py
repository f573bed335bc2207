"""Features on one scale, and in few dimensions, as learnt from the training photos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wastelens.errors import DatasetError
from wastelens.evaluation.metrics import BoolArray, FloatArray

LARGEST_WIDTH = 64
# Of a feature's largest value: less is the rounding of float32 sums, which scaling would blow up to unit variance.
_CONSTANT_RANGE = 1e-5
# In standard deviations; see `fit_scaling`.
_LARGEST_SCALED = 3.0


@dataclass(frozen=True)
class Scaling:
    """Features on one scale, as learnt from the training photos.

    Attributes:
        kept: which features vary over the training photos, bool (features,).
        mean: of the kept ones, float64 (kept,).
        deviation: their standard deviations, float64 (kept,), all above zero.
        axes: principal axes of the scaled features, float64 (kept, dims); None where they are few enough.
        explained: the share of the scaled features' variance that the axes hold, in [0, 1].
    """

    kept: BoolArray
    mean: FloatArray
    deviation: FloatArray
    axes: FloatArray | None
    explained: float

    def apply(self, features: npt.ArrayLike) -> FloatArray:
        """Features (photos, ...) → float64 (photos, dims).

        Raises:
            DatasetError: numbers that are not finite.
            ValueError: no photos, or another number of features than the scaling was learnt from.
        """
        rows = checked_features(features)
        if rows.shape[1] != len(self.kept):
            raise ValueError(f"features are {rows.shape[1]} wide, the training photos' {len(self.kept)}")
        return self._rotate(self._scale(rows))

    def _scale(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        scaled = rows[:, self.kept] - self.mean
        scaled /= self.deviation
        narrow: npt.NDArray[np.float32] = np.clip(scaled, -_LARGEST_SCALED, _LARGEST_SCALED).astype(np.float32)
        return narrow + np.float32(0)  # -0 and 0 are one value

    def _rotate(self, scaled: npt.NDArray[np.float32]) -> FloatArray:
        wide = scaled.astype(np.float64)
        return wide if self.axes is None else wide @ self.axes


def fit_scaling(train_features: npt.ArrayLike, seed: int) -> Scaling:
    """Unit variance for each feature, no value beyond 3 standard deviations, then at most 64 principal axes.

    Without the first, features in large units alone decide what is near. Without the second, those that are
    zero for most photos (a rare colour, a unit that seldom fires) put single photos so far out that each
    becomes a cluster: k-means of colour histograms on TrashNet then left 70 % of the photos in one of ten. The
    third is for wide features (768 raw pixels, thousands of an autoencoder's map): in so many dimensions all
    distances become alike (Beyer et al. 1999, ICDT), and k-means and the silhouette cost in proportion to the
    width. Features that do not vary over the training photos are dropped.

    Args:
        train_features: (photos, ...), any number type; what is behind the first axis is flattened.
        seed: of the randomised decomposition that wide features get.

    Raises:
        DatasetError: numbers that are not finite as float32.
        ValueError: no photos, or no features.
    """
    return fit_and_scale(checked_features(train_features), seed)[0]


def fit_and_scale(rows: npt.NDArray[np.float32], seed: int) -> tuple[Scaling, npt.NDArray[np.float32]]:
    """The scaling, and the training photos scaled by it, not rotated yet (photos, kept)."""
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


def checked_features(features: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """(photos, ...) → float32 (photos, features), all finite."""
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused as such
        rows = np.asarray(features, dtype=np.float32)
    if rows.ndim < 2 or rows.size == 0:
        raise ValueError(f"features must be (photos, features), each at least one, not {rows.shape}")
    rows = rows.reshape(len(rows), -1)
    bad = int((~np.isfinite(rows).all(axis=1)).sum())
    if bad:
        raise DatasetError(
            f"Features of {bad:,} of {len(rows):,} photos are not finite numbers. "
            f"Cluster a run whose loss stayed finite."
        )
    return rows
