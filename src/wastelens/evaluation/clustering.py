"""Do clusters of photos agree with materials? k-means without labels, then scores beside what chance gives."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.data.duplicates import area_average
from wastelens.data.tables import LabelTable
from wastelens.errors import ConfigError, DatasetError
from wastelens.evaluation.control_predictors import HISTOGRAM_BINS, colour_features
from wastelens.evaluation.metrics import BoolArray, FloatArray, checked_labels

IntArray = npt.NDArray[np.intp]
Photos = npt.NDArray[np.uint8]

LARGEST_WIDTH = 64
SILHOUETTE_PHOTOS = 2000
LEAST_DEALS = 100
_PIXEL_SIDE_PX = 16
_PHOTOS_AT_ONCE = 64
_CHANCE_LEVEL = 0.95
# Of a feature's largest value: less is the rounding of float32 sums, which scaling would blow up to unit variance.
_CONSTANT_RANGE = 1e-5
# In standard deviations; see `fit_scaling`.
_LARGEST_SCALED = 3.0
# Draws times photos handled at once: 8 bytes each in a few temporaries, so some 100 MB at the peak.
_CELLS_AT_ONCE = 2_000_000
# A mean of equal numbers is not quite that number.
_ROUNDING = 1e-9


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
        rows = _checked_features(features)
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
    return _fit_scaling(_checked_features(train_features), seed)[0]


def _fit_scaling(rows: npt.NDArray[np.float32], seed: int) -> tuple[Scaling, npt.NDArray[np.float32]]:
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


def _checked_features(features: npt.ArrayLike) -> npt.NDArray[np.float32]:
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


@dataclass(frozen=True)
class Candidate:
    """One k that was tried.

    Attributes:
        k: number of clusters.
        inertia: squared distances of the training photos to their centres, summed, in squared standard
            deviations; of other features it is no measure.
        silhouette: mean over at most 2,000 training photos, in [-1, 1] (Rousseeuw 1987).
    """

    k: int
    inertia: float
    silhouette: float


@dataclass(frozen=True)
class Clustering:
    """Clusters of the training photos; cluster 0 is the largest of them.

    Attributes:
        scaling: from features to the space of the centres.
        centres: float64 (k, dims).
        candidates: every k that was tried, by rising k.
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
        """The candidate that was kept."""
        return next(one for one in self.candidates if one.k == self.k)

    def metrics(self, prefix: str) -> dict[str, float]:
        """k, inertia and silhouette of the training photos by their MLflow names."""
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
    """k-means (Lloyd 1982, started by k-means++: Arthur & Vassilvitskii 2007) on the scaled training features.

    Purity and mutual information rise with k whatever the features are: sets of features that are compared
    need the same k.

    Args:
        train_features: (photos, ...), each training photo once.
        k: clusters; ``auto``: the k within ``k_range`` of the best silhouette, the smallest of equals.
        k_range: smallest and largest k of ``auto``; the largest is lowered to what the photos allow.
        n_init: starts of k-means, of which the best is kept, or scikit-learn's ``auto``.
        seed: the same seed gives the same clusters.

    Raises:
        ConfigError: fewer training photos of different features than clusters.
        DatasetError: numbers that are not finite.
        ValueError: no photos, or no features.
    """
    from threadpoolctl import threadpool_limits

    scaling, scaled = _fit_scaling(_checked_features(train_features), seed)
    tried = _ks_to_try(k, k_range, scaled)
    points = scaling._rotate(scaled)
    sample = _sample(len(points), SILHOUETTE_PHOTOS, seed)
    with threadpool_limits(1):  # threads add up their photos in any order, and centres differ in their last digit
        fits = [_fit_k(points, one, n_init, seed, sample) for one in tried]
    centres, _ = max(fits, key=lambda fit: fit[1].silhouette)  # the first of equals
    return Clustering(scaling, centres, tuple(candidate for _, candidate in fits))


def _ks_to_try(
    k: int | Literal["auto"], k_range: tuple[int, int], scaled: npt.NDArray[np.float32]
) -> tuple[int, ...] | range:
    # before rotation: equal rows may leave a matrix product with other last digits
    different = len({row.tobytes() for row in scaled})
    low, high = k_range if k == "auto" else (k, k)
    if low > different:
        asked = f"k_range starts at {low}" if k == "auto" else f"k={low}"
        raise ConfigError(
            f"{asked}, but the {len(scaled):,} training photos have only {different:,} different sets of features. "
            f"Ask for fewer clusters, or cluster more photos."
        )
    return range(low, min(high, different) + 1) if k == "auto" else (k,)


def _fit_k(
    points: FloatArray, k: int, n_init: int | Literal["auto"], seed: int, sample: IntArray
) -> tuple[FloatArray, Candidate]:
    """k-means once: the centres (k, dims), most photos first, and what they are worth."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly equal photos may leave a cluster empty
        found = KMeans(k, n_init=n_init, random_state=seed).fit(points)
    sizes = np.bincount(found.labels_, minlength=k)
    centres: FloatArray = found.cluster_centers_[np.argsort(-sizes, kind="stable")]
    return centres, Candidate(k, float(found.inertia_), _silhouette(points[sample], found.labels_[sample]))


def _silhouette(points: FloatArray, clusters: IntArray) -> float:
    """Mean silhouette; 0, Rousseeuw's value for a photo on its own, where all are alone or all together."""
    from sklearn.metrics import silhouette_score

    if not 1 < len(np.unique(clusters)) < len(clusters):
        return 0.0
    return float(silhouette_score(points, clusters))


def _sample(rows: int, most: int, seed: int) -> IntArray:
    """At most ``most`` of the rows, in order."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


@dataclass(frozen=True)
class Assignment:
    """Which cluster each photo belongs to.

    Attributes:
        clusters: intp (photos,), 0 to k - 1; some clusters may have none of these photos.
        distances: to the cluster's centre in the scaled features, float64 (photos,).
        k: number of clusters.
    """

    clusters: IntArray
    distances: FloatArray
    k: int

    @property
    def sizes(self) -> IntArray:
        """Photos in each cluster, (k,)."""
        return np.bincount(self.clusters, minlength=self.k)

    @property
    def largest_first(self) -> IntArray:
        """The clusters by falling number of photos, empty ones included, (k,)."""
        return np.argsort(-self.sizes, kind="stable")


def assign(clustering: Clustering, features: npt.ArrayLike) -> Assignment:
    """Each photo to its nearest centre, the first of equally near ones; features: (photos, ...).

    Raises:
        DatasetError: numbers that are not finite.
        ValueError: no photos, or another number of features than the clusters have.
    """
    from scipy.spatial.distance import cdist

    distances = cdist(clustering.scaling.apply(features), clustering.centres)
    clusters = distances.argmin(axis=1)
    return Assignment(clusters, distances[np.arange(len(clusters)), clusters], clustering.k)


@dataclass(frozen=True)
class Score:
    """A score, and what it is for clusters of the same sizes that are dealt to the photos at random.

    Attributes:
        value: mean over the draws of one material a photo.
        random: mean over the deals.
        random_high: their 95 % quantile.
    """

    value: float
    random: float
    random_high: float

    @property
    def above_chance(self) -> bool:
        """Whether the value lies above 95 % of random deals."""
        return self.value > self.random_high + _ROUNDING

    @property
    def lead(self) -> float:
        """The value less what chance gives: what sets of features are compared by."""
        return self.value - self.random


@dataclass(frozen=True)
class ClusterScores:
    """How far clusters agree with materials.

    Attributes:
        purity: share of photos that are of their cluster's most frequent material.
        normalised_mutual_information: 2 I(C; M) / (H(C) + H(M)), in [0, 1].
        adjusted_rand_index: pairs of photos treated alike, 0 by chance and 1 at best (Hubert & Arabie 1985).
        matching_accuracy: share of photos that are of their cluster's material, where each cluster has one
            material and each material one cluster, in the best way (Kuhn 1955); with more clusters than
            materials the surplus clusters match nothing.
        photos: how many were scored.
        several: how many of them show several materials.
        without: how many were left out, as they show no material.
    """

    purity: Score
    normalised_mutual_information: Score
    adjusted_rand_index: Score
    matching_accuracy: Score
    photos: int
    several: int
    without: int

    @property
    def scores(self) -> dict[str, Score]:
        """Name → score, in the order of reports."""
        return {name: getattr(self, name) for name in _SCORES}

    def metrics(self, prefix: str) -> dict[str, float]:
        """The scores and their random ones by their MLflow names; prefix: for instance ``cluster_learned_``."""
        named: dict[str, float] = {}
        for name, score in self.scores.items():
            named[f"{prefix}{name}"] = score.value
            named[f"{prefix}{name}_random"] = score.random
            named[f"{prefix}{name}_random_high"] = score.random_high
        return named


def score_clusters(
    clusters: npt.ArrayLike, labels: npt.ArrayLike, *, draws: int, rng: np.random.Generator
) -> ClusterScores:
    """Compare clusters with materials, where a photo may show several materials or none.

    The rule: in each draw every photo stands for one of its materials, all of them equally likely, and each
    score is the mean over the draws. Photos without any material are left out and counted. Chance is what the
    same drawn materials score when the photos' clusters are dealt out anew (a permutation: the sizes stay),
    over as many deals as draws, but at least 100, so that their 95 % quantile means something.

    With one draw, or photos of one material each, the values are scikit-learn's ``adjusted_rand_score`` and
    ``normalized_mutual_info_score`` (arithmetic mean).

    Args:
        clusters: whole numbers ≥ 0, (photos,).
        labels: 0 or 1, (photos, materials).
        draws: of one material a photo.
        rng: for draws and deals.

    Raises:
        DatasetError: no photo shows a material.
        ValueError: shapes that do not fit, labels other than 0 and 1, no draws.
    """
    truth, groups = checked_labels(labels), np.asarray(clusters)
    if groups.shape != truth.shape[:1] or groups.dtype.kind not in "iu" or groups.min(initial=0) < 0 or draws < 1:
        raise ValueError(f"clusters {groups.dtype} {groups.shape}, labels {truth.shape}, {draws} draws do not fit")
    shown = truth.any(axis=1)
    if not shown.any():
        raise DatasetError(f"None of the {len(truth):,} photos shows a material, so clusters have nothing to match.")
    truth, groups = truth[shown], np.unique(groups[shown], return_inverse=True)[1]
    values, chance = _values(truth, groups, draws, rng)
    high = np.quantile(chance, _CHANCE_LEVEL, axis=1)
    means = zip(_SCORES, values.mean(axis=1), chance.mean(axis=1), high, strict=True)
    scores = {name: Score(float(value), float(random), float(top)) for name, value, random, top in means}
    several = int((truth.sum(axis=1) > 1).sum())
    return ClusterScores(**scores, photos=len(truth), several=several, without=int((~shown).sum()))


def _values(truth: BoolArray, groups: IntArray, draws: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """All four scores of each draw (4, draws), and of each deal (4, max(draws, 100))."""
    found, dealt = [], []
    shape = (int(groups.max()) + 1, truth.shape[1])
    for first, drawn in _drawn_materials(truth, max(draws, LEAST_DEALS), rng):
        if first < draws:
            found.append(_score_tables(_count_tables(groups[None], drawn[: draws - first], shape)))
        shuffled = rng.permuted(np.broadcast_to(groups, drawn.shape), axis=1)
        dealt.append(_score_tables(_count_tables(shuffled, drawn, shape)))
    return np.concatenate(found, axis=1), np.concatenate(dealt, axis=1)


def _drawn_materials(truth: BoolArray, draws: int, rng: np.random.Generator) -> Iterator[tuple[int, IntArray]]:
    """Blocks of draws: the first one's number, and the material each photo stands for, (draws, photos)."""
    counts = truth.sum(axis=1)
    own_first = np.argsort(~truth, axis=1, kind="stable")
    step = max(1, _CELLS_AT_ONCE // len(truth))
    for first in range(0, draws, step):
        pick = (rng.random((min(step, draws - first), len(truth))) * counts).astype(np.intp)
        yield first, own_first[np.arange(len(truth)), pick]


def _count_tables(groups: IntArray, drawn: IntArray, shape: tuple[int, int]) -> IntArray:
    """Photos of each cluster and material: groups (draws or 1, photos), drawn (draws, photos) → (draws, k, m)."""
    k, materials = shape
    draws = len(drawn)
    cells = (np.arange(draws)[:, None] * k + groups) * materials + drawn
    return np.bincount(cells.ravel(), minlength=draws * k * materials).reshape(draws, k, materials)


def _score_tables(tables: IntArray) -> FloatArray:
    """Counts (draws, k, materials) → the scores (4, draws), in the order of `ClusterScores`."""
    return np.stack([measure(tables) for measure in _SCORES.values()])


def _purity(tables: IntArray) -> FloatArray:
    purity: FloatArray = tables.max(axis=2).sum(axis=1) / tables.sum(axis=(1, 2))
    return purity


def _normalised_mutual_information(tables: IntArray) -> FloatArray:
    clusters, materials = _entropy(tables.sum(axis=2)), _entropy(tables.sum(axis=1))
    shared = clusters + materials - _entropy(tables.reshape(len(tables), -1))
    shared[shared < 1e-14] = 0.0  # differences of entropies of independent ones are a few roundings off
    both = clusters + materials
    # one cluster of one material is a perfect match
    return np.divide(2 * shared, both, out=np.ones(len(tables)), where=both > 0)


def _entropy(counts: IntArray) -> FloatArray:
    """In nats, of counts (draws, cells) → (draws,)."""
    share = counts / counts.sum(axis=1, keepdims=True)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    entropy: FloatArray = -(share * logs).sum(axis=1) + 0.0
    return entropy


def _adjusted_rand_index(tables: IntArray) -> FloatArray:
    """From pairs in ordered counts, as floats: whole numbers would overflow beyond 50,000 photos."""
    photos = tables.sum(axis=(1, 2)).astype(np.float64)
    together = (tables.astype(np.float64) ** 2).sum(axis=(1, 2))
    one_material = (tables.sum(axis=1).astype(np.float64) ** 2).sum(axis=1) - together
    one_cluster = (tables.sum(axis=2).astype(np.float64) ** 2).sum(axis=1) - together
    alike, apart = together - photos, photos**2 - together - one_material - one_cluster
    # alike: same cluster, same material; apart: neither
    above = 2 * (alike * apart - one_material * one_cluster)
    below = (alike + one_material) * (one_material + apart) + (alike + one_cluster) * (one_cluster + apart)
    index: FloatArray = np.ones(len(tables))
    np.divide(above, below, out=index, where=(one_material > 0) | (one_cluster > 0))
    return index


def _matching_accuracy(tables: IntArray) -> FloatArray:
    from scipy.optimize import linear_sum_assignment

    matched = [table[linear_sum_assignment(table, maximize=True)].sum() for table in tables]
    accuracy: FloatArray = np.array(matched) / tables.sum(axis=(1, 2))
    return accuracy


_SCORES: dict[str, Callable[[IntArray], FloatArray]] = {
    "purity": _purity,
    "normalised_mutual_information": _normalised_mutual_information,
    "adjusted_rand_index": _adjusted_rand_index,
    "matching_accuracy": _matching_accuracy,
}


@dataclass(frozen=True)
class FeatureClusters:
    """One set of features, clustered on the training photos and compared with materials on the scored ones.

    Attributes:
        features: ``learned``, ``pixels`` or ``colours``.
        clustering: fitted on the training photos.
        assignment: of the scored photos.
        scores: of the scored photos.
        points: the scored photos in the space of the centres, float64 (photos, dims), for a map.
    """

    features: str
    clustering: Clustering
    assignment: Assignment
    scores: ClusterScores
    points: FloatArray

    def metrics(self) -> dict[str, float]:
        """All numbers by their MLflow names, ``cluster_<features>_…``."""
        prefix = f"cluster_{self.features}_"
        return {**self.scores.metrics(prefix), **self.clustering.metrics(prefix)}


def cluster_features(
    name: str,
    train_features: npt.ArrayLike,
    scored_features: npt.ArrayLike,
    scored_labels: npt.ArrayLike,
    *,
    k: int | Literal["auto"],
    k_range: tuple[int, int],
    n_init: int | Literal["auto"],
    draws: int,
    seed: int,
) -> FeatureClusters:
    """Fit on the training photos, assign and score the others.

    Args:
        name: of the features: ``learned``, ``pixels`` or ``colours``.
        train_features: (training photos, ...).
        scored_features: (scored photos, ...).
        scored_labels: 0 or 1, (scored photos, materials).
        k, k_range, n_init: as in `fit_clusters`.
        draws: as in `score_clusters`.
        seed: of everything random; sets of features of one seed are scored on the same drawn materials.

    Raises:
        ConfigError, DatasetError, ValueError: as in `fit_clusters` and `score_clusters`.
    """
    clustering = fit_clusters(train_features, k=k, k_range=k_range, n_init=n_init, seed=seed)
    assignment = assign(clustering, scored_features)
    scores = score_clusters(assignment.clusters, scored_labels, draws=draws, rng=np.random.default_rng(seed))
    return FeatureClusters(name, clustering, assignment, scores, clustering.scaling.apply(scored_features))


def pixel_features(photos: Photos, index: IntArray) -> npt.NDArray[np.float32]:
    """Photos averaged over the areas of 16 x 16 cells, float32 0-255, (len(index), 768).

    photos: uint8 RGB (photos, side, side, 3), may be a memory map; index: which of them, in this order.
    """
    blocks = [index[at : at + _PHOTOS_AT_ONCE] for at in range(0, len(index), _PHOTOS_AT_ONCE)]
    shrunk = [area_average(np.asarray(photos[block]), _PIXEL_SIDE_PX).reshape(len(block), -1) for block in blocks]
    return np.concatenate([np.empty((0, 3 * _PIXEL_SIDE_PX**2), np.float32), *shrunk])


def colour_histograms(photos: Photos, index: IntArray) -> FloatArray:
    """Shares of 192 hue, saturation and value bins in [0, 1], float64 (len(index), 192).

    The histograms of the colour control without its thumbnail: with it, k-means agrees half as well with
    materials (mutual information above chance 0.081 instead of 0.149; TrashNet, k = 10, six splits), and a
    weaker control would flatter what was learnt.

    photos: uint8 RGB (photos, side, side, 3), may be a memory map; index: which of them, in this order.
    """
    bins = math.prod(HISTOGRAM_BINS)
    if not len(index):
        return np.empty((0, bins))
    return colour_features(photos, index)[:, :bins]


# What clusters can be told from without any learning; both take the photos and an index of them.
CONTROL_FEATURES: dict[str, Callable[[Photos, IntArray], npt.NDArray[np.floating]]] = {
    "pixels": pixel_features,
    "colours": colour_histograms,
}


def verdict(scores: Mapping[str, ClusterScores]) -> str:
    """What the clusters have shown, in one line; scores: ``learned`` (or not), ``pixels``, ``colours`` → scores.

    The yardstick is mutual information, since purity stays at the share of the most frequent material as long
    as that leads in every cluster. More than chance: above 95 % of random deals. More than a control: a lead
    over chance that is larger by more than 95 % of random deals spread, √(a² + b²) of the two spreads.

    Raises:
        ValueError: no scores.
    """
    if not scores:
        raise ValueError("no clusters to judge")
    if "learned" not in scores:
        return f"No learned features were clustered. {' '.join(_against_chance(*one) for one in scores.items())}"
    learned = scores["learned"]
    said = _against_chance("learned", learned)
    controls = {name: one for name, one in scores.items() if name != "learned"}
    more = [name for name, one in controls.items() if _says_more(learned, one)]
    no_more = [name for name in controls if name not in more]
    parts = [
        f"{word} than {' and '.join(f'{name} ({_numbers(controls[name])})' for name in names)}"
        for word, names in (("more", more), ("no more", no_more))
        if names
    ]
    return f"{said} They say {' but '.join(parts)}." if parts else said


def _against_chance(name: str, scores: ClusterScores) -> str:
    said = "more" if scores.normalised_mutual_information.above_chance else "no more"
    features = "learned features" if name == "learned" else name
    purity = scores.purity
    return (
        f"Clusters of {features} say {said} of the materials than chance "
        f"({_numbers(scores)}; purity {purity.value:.3f}, random {purity.random:.3f})."
    )


def _numbers(scores: ClusterScores) -> str:
    shared = scores.normalised_mutual_information
    return f"mutual information {shared.value:.3f}, random {shared.random:.3f}"


def _says_more(ours: ClusterScores, theirs: ClusterScores) -> bool:
    mine, other = ours.normalised_mutual_information, theirs.normalised_mutual_information
    spread = float(np.hypot(mine.random_high - mine.random, other.random_high - other.random))
    return mine.above_chance and mine.lead - other.lead > spread + _ROUNDING


def assignments_frame(table: LabelTable, assignment: Assignment) -> pd.DataFrame:
    """assignments.csv: file_name, split, cluster, distance, then ``label_<material>`` (0/1); one row a photo.

    table: the photos of the assignment in its order, with columns ``file_name`` and ``split``.

    Raises:
        ValueError: another number of photos than were assigned.
    """
    if len(table) != len(assignment.clusters):
        raise ValueError(f"{len(table)} photos, but {len(assignment.clusters)} were assigned")
    columns: dict[str, object] = {
        "file_name": table.file_names,
        "split": [str(split) for split in table.frame["split"]],
        "cluster": assignment.clusters,
        "distance": assignment.distances.round(6),
    }
    labels = {f"label_{material}": table.labels[:, j] for j, material in enumerate(table.materials)}
    return pd.DataFrame({**columns, **labels})
