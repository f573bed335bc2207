"""k-means on scaled features: their scaling, the choice of k, the centres, and each photo's nearest centre."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from wastelens.errors import ConfigError, DatasetError
from wastelens.system.arrays import BoolArray, Float32Array, FloatArray, IndexArray

SILHOUETTE_PHOTOS = 2000
LARGEST_WIDTH = 64
# Relative to a feature's largest value: a smaller range is rounding error of float32 sums, which scaling would amplify
# to unit variance.
_CONSTANT_RANGE = 1e-5
# In standard deviations; see `fit_scaling`.
_LARGEST_SCALED = 3.0


@dataclass(frozen=True)
class Candidate:
    """One k, the number of clusters, that was tried.

    Attributes:
        inertia: sum of squared distances of the training photos to their centres, in squared standard deviations; not
            comparable between sets of features.
        silhouette: mean over at most 2,000 training photos, in [-1, 1] (Rousseeuw 1987).
    """

    k: int
    inertia: float
    silhouette: float


@dataclass(frozen=True)
class Clustering:
    """Clusters of the training photos; cluster 0 is the largest.

    Attributes:
        scaling: from features to the space of the centres.
        centres: float64 (k, dims).
        candidates: every k that was tried, in rising order.
    """

    scaling: Scaling
    centres: FloatArray
    candidates: tuple[Candidate, ...]

    @property
    def k(self) -> int:
        """Number of clusters."""
        return len(self.centres)

    @property
    def chosen(self) -> Candidate:
        """The candidate that was chosen."""
        return next(one for one in self.candidates if one.k == self.k)

    def metrics(self, prefix: str) -> dict[str, float]:
        """Return k, inertia and silhouette of the training photos by their MLflow names."""
        values = {"k": float(self.k), "inertia": self.chosen.inertia, "silhouette": self.chosen.silhouette}
        return {f"{prefix}{name}": value for name, value in values.items()}


def fit_clusters(
    train_features: npt.ArrayLike,
    *,
    k: int | Literal["auto"],
    k_range: tuple[int, int],
    n_init: int | Literal["auto"],
    seed: int,
) -> Clustering:
    """Fit k-means (Lloyd 1982, with k-means++: Arthur & Vassilvitskii 2007) on the scaled training features.

    Purity and mutual information rise with k whatever the features are, so sets of features need the same k to be
    compared.

    Args:
        train_features: (photos, ...), each training photo once.
        k: number of clusters; ``auto`` takes the k within ``k_range`` with the best silhouette, the smallest of equals.
        k_range: smallest and largest k for ``auto``; the largest is lowered to the number of different photos.
        n_init: number of starts of k-means, the best of which is kept, or scikit-learn's ``auto``.
        seed: the same seed gives the same clusters.

    Raises:
        ConfigError: there are fewer training photos with different features than clusters.
        DatasetError: the features are not finite.
        ValueError: there are no photos or no features.
    """
    from threadpoolctl import threadpool_limits

    scaling, scaled = fit_scaling(train_features, seed)
    tried = _ks_to_try(k, k_range, scaled)
    points = scaling._rotate(scaled)
    sample = np.arange(len(points))
    if len(points) > SILHOUETTE_PHOTOS:
        sample = np.sort(np.random.default_rng(seed).choice(len(points), SILHOUETTE_PHOTOS, replace=False))
    with threadpool_limits(1):  # threads add up their photos in any order, and the last digit of the centres differs
        fits = [_fit_k(points, one, n_init, seed, sample) for one in tried]
    centres, _ = max(fits, key=lambda fit: fit[1].silhouette)  # the first of equals
    return Clustering(scaling, centres, tuple(candidate for _, candidate in fits))


def _ks_to_try(k: int | Literal["auto"], k_range: tuple[int, int], scaled: Float32Array) -> tuple[int, ...] | range:
    # before rotation: a matrix product may give equal rows different last digits
    different = len({row.tobytes() for row in scaled})
    low, high = k_range if k == "auto" else (k, k)
    if low > different:
        asked = f"k_range starts at {low}, which" if k == "auto" else f"k={low}"
        photos = f"{len(scaled):,} training photos"
        if different < len(scaled):
            photos = f"{different:,} different ones among the {photos}"
        raise ConfigError(f"{asked} is more than the {photos}. Choose fewer clusters, or cluster more photos.")
    return range(low, min(high, different) + 1) if k == "auto" else (k,)


def _fit_k(
    points: FloatArray, k: int, n_init: int | Literal["auto"], seed: int, sample: IndexArray
) -> tuple[FloatArray, Candidate]:
    """Run k-means for one k; return the centres (k, dims), most photos first, and their scores."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import silhouette_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly equal photos may leave a cluster empty
        found = KMeans(k, n_init=n_init, random_state=seed).fit(points)
    sizes = np.bincount(found.labels_, minlength=k)
    centres: FloatArray = found.cluster_centers_[np.argsort(-sizes, kind="stable")]
    clusters = found.labels_[sample]
    # 0, Rousseeuw's value for a single photo, if all are alone or all together
    defined = 1 < len(np.unique(clusters)) < len(clusters)
    silhouette = float(silhouette_score(points[sample], clusters)) if defined else 0.0
    return centres, Candidate(k, float(found.inertia_), silhouette)


@dataclass(frozen=True)
class Assignment:
    """The cluster of each photo.

    Attributes:
        clusters: intp (photos,), 0 to k - 1; some clusters may be empty.
        distances: distance of each photo to its cluster's centre in the scaled features, float64 (photos,).
    """

    clusters: IndexArray
    distances: FloatArray
    k: int

    @property
    def sizes(self) -> IndexArray:
        """Photos in each cluster, (k,)."""
        return np.bincount(self.clusters, minlength=self.k)

    @property
    def largest_first(self) -> IndexArray:
        """Clusters by falling number of photos, empty ones included, (k,)."""
        return np.argsort(-self.sizes, kind="stable")


def assign(clustering: Clustering, features: npt.ArrayLike) -> Assignment:
    """Assign each photo to its nearest centre, the first of equally near ones; features: (photos, ...).

    Raises:
        DatasetError: the features are not finite.
        ValueError: there are no photos, or another number of features than the clusters were fitted on.
    """
    from scipy.spatial.distance import cdist

    distances = cdist(clustering.scaling.apply(features), clustering.centres)
    clusters = distances.argmin(axis=1)
    return Assignment(clusters, distances[np.arange(len(clusters)), clusters], clustering.k)


@dataclass(frozen=True)
class Scaling:
    """A scaling fitted on the training photos.

    Attributes:
        kept: the features that vary over the training photos, bool (features,).
        mean: means of the kept features, float64 (kept,).
        deviation: their standard deviations, float64 (kept,), all above zero.
        axes: principal axes of the scaled features, float64 (kept, dims); None if there are few enough features.
    """

    kept: BoolArray
    mean: FloatArray
    deviation: FloatArray
    axes: FloatArray | None

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
        scaled = (rows[:, self.kept] - self.mean) / self.deviation
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
    plain = Scaling(kept, mean, deviation, None)
    scaled = plain._scale(rows)
    if scaled.shape[1] <= LARGEST_WIDTH:
        return plain, scaled
    from sklearn.decomposition import PCA

    pca = PCA(min(LARGEST_WIDTH, len(scaled)), random_state=seed).fit(scaled)
    return Scaling(kept, mean, deviation, pca.components_.T.astype(np.float64)), scaled


def checked_features(features: npt.ArrayLike) -> Float32Array:
    """Flatten features to float32, (photos, ...) → (photos, features), and check that all are finite."""
    with np.errstate(over="ignore"):  # values too large for float32 become infinite and are refused below
        rows = np.asarray(features, dtype=np.float32)
    if rows.ndim < 2 or rows.size == 0:
        raise ValueError(f"features must be (photos, features) and not be empty; their shape is {rows.shape}")
    rows = rows.reshape(len(rows), -1)
    if bad := int((~np.isfinite(rows).all(axis=1)).sum()):
        raise DatasetError(
            f"The features of {bad:,} of {len(rows):,} photos are not finite numbers. "
            "Cluster a run whose loss stayed finite."
        )
    return rows
