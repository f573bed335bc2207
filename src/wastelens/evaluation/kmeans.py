"""k-means on scaled features: the choice of k, the centres, and each photo's nearest centre."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from wastelens.errors import ConfigError
from wastelens.evaluation.feature_scaling import Scaling, fit_scaling
from wastelens.system.arrays import Float32Array, FloatArray, IndexArray

SILHOUETTE_PHOTOS = 2000


@dataclass(frozen=True)
class Candidate:
    """One k that was tried.

    Attributes:
        k: number of clusters.
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
        chosen = self.chosen
        return {
            f"{prefix}k": float(self.k),
            f"{prefix}inertia": chosen.inertia,
            f"{prefix}silhouette": chosen.silhouette,
        }


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
    sample = _sample(len(points), SILHOUETTE_PHOTOS, seed)
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

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly equal photos may leave a cluster empty
        found = KMeans(k, n_init=n_init, random_state=seed).fit(points)
    sizes = np.bincount(found.labels_, minlength=k)
    centres: FloatArray = found.cluster_centers_[np.argsort(-sizes, kind="stable")]
    return centres, Candidate(k, float(found.inertia_), _silhouette(points[sample], found.labels_[sample]))


def _silhouette(points: FloatArray, clusters: IndexArray) -> float:
    """Return the mean silhouette; 0, Rousseeuw's value for a single photo, if all are alone or all together."""
    from sklearn.metrics import silhouette_score

    if not 1 < len(np.unique(clusters)) < len(clusters):
        return 0.0
    return float(silhouette_score(points, clusters))


def _sample(rows: int, most: int, seed: int) -> IndexArray:
    """Draw at most ``most`` of the rows, in order."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


@dataclass(frozen=True)
class Assignment:
    """The cluster of each photo.

    Attributes:
        clusters: intp (photos,), 0 to k - 1; some clusters may be empty.
        distances: distance of each photo to its cluster's centre in the scaled features, float64 (photos,).
        k: number of clusters.
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
