"""Clusters of photos by learned features, pixels and colours: do they agree with materials, and more than by chance?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.data.photos.shrink import area_average
from wastelens.data.prepared.tables import LabelTable
from wastelens.errors import DatasetError
from wastelens.evaluation.controls import HISTOGRAM_BINS, colour_features
from wastelens.evaluation.kmeans import Assignment, Clustering, assign, fit_clusters
from wastelens.evaluation.metrics import checked_labels
from wastelens.system.arrays import BoolArray, Float32Array, FloatArray, IndexArray, PhotoArray

LEAST_SHUFFLES = 100
_CHANCE_LEVEL = 0.95
# Draws times photos handled at once: a few temporary arrays of 8 bytes each, so about 100 MB at the peak.
_CELLS_AT_ONCE = 2_000_000
# The mean of equal numbers may differ from that number by rounding.
ROUNDING = 1e-9
_PIXEL_SIDE_PX = 16
_PHOTOS_AT_ONCE = 64


@dataclass(frozen=True)
class FeatureClusters:
    """Clusters by one set of features, fitted on the training photos and compared with materials on the scored ones.

    Attributes:
        features: ``learned``, ``pixels`` or ``colours``.
        points: the scored photos in the space of the centres, float64 (photos, dims), for the map.
    """

    features: str
    clustering: Clustering
    assignment: Assignment
    scores: ClusterScores
    points: FloatArray

    def metrics(self) -> dict[str, float]:
        """Return all numbers by their MLflow names, ``cluster/<features>/…``."""
        prefix = f"cluster/{self.features}/"
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
    """Fit clusters on the training photos, then assign and score the others; see `fit_clusters` and `score_clusters`.

    Features are (photos, ...), labels 0 or 1, (scored photos, materials). Sets of features with the same seed are
    scored on the same drawn materials.
    """
    clustering = fit_clusters(train_features, k=k, k_range=k_range, n_init=n_init, seed=seed)
    assignment = assign(clustering, scored_features)
    scores = score_clusters(assignment.clusters, scored_labels, draws=draws, rng=np.random.default_rng(seed))
    return FeatureClusters(name, clustering, assignment, scores, clustering.scaling.apply(scored_features))


def pixel_features(photos: PhotoArray, index: IndexArray) -> Float32Array:
    """Average photos over a grid of 16 × 16 cells: float32 in 0–255, (len(index), 768).

    photos: uint8 RGB (photos, side, side, 3), may be a memory map; index: the photos to use, in this order.
    """
    blocks = [index[at : at + _PHOTOS_AT_ONCE] for at in range(0, len(index), _PHOTOS_AT_ONCE)]
    shrunk = [area_average(np.asarray(photos[block]), _PIXEL_SIDE_PX).reshape(len(block), -1) for block in blocks]
    return np.concatenate(shrunk)


def colour_histograms(photos: PhotoArray, index: IndexArray) -> FloatArray:
    """Return shares of 192 hue, saturation and value bins in [0, 1], float64 (len(index), 192).

    These are the histograms of the colour control without its thumbnail: with it, k-means agrees half as well with
    materials (mutual information above chance 0.081 instead of 0.149; TrashNet, k = 10, six splits), and a weaker
    control would flatter the learned features.

    photos: uint8 RGB (photos, side, side, 3), may be a memory map; index: the photos to use, in this order.
    """
    return colour_features(photos, index)[:, : math.prod(HISTOGRAM_BINS)]


CONTROL_FEATURES: dict[str, Callable[[PhotoArray, IndexArray], npt.NDArray[np.floating]]] = {
    "pixels": pixel_features,
    "colours": colour_histograms,
}


def verdict(scores: Mapping[str, ClusterScores]) -> str:
    """Return the conclusion in one line; scores: ``learned`` (may be absent), ``pixels``, ``colours`` → scores.

    It goes by mutual information, since purity stays at the share of the most frequent material as long as that leads
    in every cluster. More than chance: above 95 % of random assignments. More than a control: the lead over chance is
    larger by more than √(a² + b²), where a and b are the spreads of the two sets' random assignments (95 % quantile
    minus mean).
    """
    if "learned" not in scores:
        return f"No learned features were clustered. {' '.join(_against_chance(*one) for one in scores.items())}"
    learned = scores["learned"]
    against_chance = _against_chance("learned", learned)
    controls = {name: one for name, one in scores.items() if name != "learned"}
    more = [name for name, one in controls.items() if _says_more(learned, one)]
    no_more = [name for name in controls if name not in more]
    parts = [
        f"{word} than {' and '.join(f'{name} ({_numbers(controls[name])})' for name in names)}"
        for word, names in (("more", more), ("no more", no_more))
        if names
    ]
    return f"{against_chance} They say {' but '.join(parts)}." if parts else against_chance


def _against_chance(name: str, scores: ClusterScores) -> str:
    amount = "more" if scores.normalised_mutual_information.above_chance else "no more"
    features = "learned features" if name == "learned" else name
    purity = scores.purity
    return (
        f"Clusters of {features} say {amount} about the materials than chance "
        f"({_numbers(scores)}; purity {purity.value:.3f}, random {purity.random:.3f})."
    )


def _numbers(scores: ClusterScores) -> str:
    shared = scores.normalised_mutual_information
    return f"mutual information {shared.value:.3f}, random {shared.random:.3f}"


def _says_more(ours: ClusterScores, theirs: ClusterScores) -> bool:
    mine, other = ours.normalised_mutual_information, theirs.normalised_mutual_information
    spread = float(np.hypot(mine.random_high - mine.random, other.random_high - other.random))
    lead = (mine.value - mine.random) - (other.value - other.random)
    return mine.above_chance and lead > spread + ROUNDING


def assignments_frame(table: LabelTable, assignment: Assignment) -> pd.DataFrame:
    """Return assignments.csv: file_name, split, cluster, distance, ``label_<material>`` (0/1); one row per photo.

    table: the assignment's photos in its order, with columns ``file_name`` and ``split``.

    Raises:
        ValueError: the table has another number of photos than were assigned.
    """
    columns: dict[str, object] = {
        "file_name": table.file_names,
        "split": [str(split) for split in table.frame["split"]],
        "cluster": assignment.clusters,
        "distance": assignment.distances.round(6),
    }
    labels = {f"label_{material}": table.labels[:, j] for j, material in enumerate(table.materials)}
    return pd.DataFrame({**columns, **labels})


@dataclass(frozen=True)
class Score:
    """A score, and its value when the clusters are shuffled among the photos.

    Attributes:
        value: mean over the draws of one material for each photo.
        random: mean over the shuffles.
        random_high: 95 % quantile over the shuffles.
    """

    value: float
    random: float
    random_high: float

    @property
    def above_chance(self) -> bool:
        """Whether the value is above 95 % of the shuffles."""
        return self.value > self.random_high + ROUNDING


@dataclass(frozen=True)
class ClusterScores:
    """How well clusters agree with materials.

    Attributes:
        purity: share of photos that show their cluster's most frequent material.
        normalised_mutual_information: 2 I(C; M) / (H(C) + H(M)), in [0, 1].
        adjusted_rand_index: agreement on pairs of photos, 0 by chance and 1 at best (Hubert & Arabie 1985).
        matching_accuracy: share of photos that show their cluster's material under the best one-to-one matching of
            clusters and materials (Kuhn 1955); surplus clusters match nothing.
    """

    purity: Score
    normalised_mutual_information: Score
    adjusted_rand_index: Score
    matching_accuracy: Score

    @property
    def scores(self) -> dict[str, Score]:
        """Name → score, in the order of the reports."""
        return {name: getattr(self, name) for name in _SCORES}

    def metrics(self, prefix: str) -> dict[str, float]:
        """Return the scores and those of chance by their MLflow names; prefix: such as ``cluster/learned/``."""
        parts = {"": "value", "_random": "random"}
        return {
            f"{prefix}{name}{suffix}": getattr(score, part)
            for name, score in self.scores.items()
            for suffix, part in parts.items()
        }


def score_clusters(
    clusters: npt.ArrayLike, labels: npt.ArrayLike, *, draws: int, rng: np.random.Generator
) -> ClusterScores:
    """Compare clusters with materials, where a photo may show several materials or none.

    In each draw, every photo stands for one of its materials, all equally likely, and each score is the mean over the
    draws. Photos without any material are left out. Chance is the score of the same drawn materials when
    the clusters are shuffled among the photos (so their sizes stay), over as many shuffles as draws, but at least 100
    for a meaningful 95 % quantile.

    With one draw, or one material per photo, the values equal scikit-learn's ``adjusted_rand_score`` and
    ``normalized_mutual_info_score`` (arithmetic mean).

    Args:
        clusters: integers ≥ 0, (photos,).
        labels: 0 or 1, (photos, materials).
        draws: number of draws of one material for each photo.

    Raises:
        DatasetError: no photo shows a material.
        ValueError: the shapes do not match, labels are not 0 or 1, or there are no draws.
    """
    truth, groups = checked_labels(labels), np.asarray(clusters)
    if groups.shape != truth.shape[:1] or groups.dtype.kind not in "iu" or groups.min(initial=0) < 0 or draws < 1:
        raise ValueError(f"clusters {groups.dtype} {groups.shape}, labels {truth.shape}, {draws} draws do not match")
    shown = truth.any(axis=1)
    if not shown.any():
        raise DatasetError(
            f"None of the {len(truth):,} photos shows a material, so there is nothing to compare clusters with. "
            "Cluster a dataset with labelled photos."
        )
    truth, groups = truth[shown], np.unique(groups[shown], return_inverse=True)[1]
    values, chance = _values(truth, groups, draws, rng)
    high = np.quantile(chance, _CHANCE_LEVEL, axis=1)
    means = zip(_SCORES, values.mean(axis=1), chance.mean(axis=1), high, strict=True)
    return ClusterScores(**{name: Score(float(value), float(random), float(top)) for name, value, random, top in means})


def _values(
    truth: BoolArray, groups: IndexArray, draws: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return all four scores of each draw (4, draws), and of each shuffle (4, max(draws, 100))."""
    drawn_scores, shuffled_scores = [], []
    shape = (int(groups.max()) + 1, truth.shape[1])
    for first, drawn in _drawn_materials(truth, max(draws, LEAST_SHUFFLES), rng):
        if first < draws:
            drawn_scores.append(_scores_of(groups[None], drawn[: draws - first], shape))
        shuffled = rng.permuted(np.broadcast_to(groups, drawn.shape), axis=1)
        shuffled_scores.append(_scores_of(shuffled, drawn, shape))
    return np.concatenate(drawn_scores, axis=1), np.concatenate(shuffled_scores, axis=1)


def _drawn_materials(truth: BoolArray, draws: int, rng: np.random.Generator) -> Iterator[tuple[int, IndexArray]]:
    """Yield blocks of draws: the first draw's number, and the material drawn for each photo, (draws, photos)."""
    counts = truth.sum(axis=1)
    own_first = np.argsort(~truth, axis=1, kind="stable")
    step = max(1, _CELLS_AT_ONCE // len(truth))
    for first in range(0, draws, step):
        pick = (rng.random((min(step, draws - first), len(truth))) * counts).astype(np.intp)
        yield first, own_first[np.arange(len(truth)), pick]


def _scores_of(groups: IndexArray, drawn: IndexArray, shape: tuple[int, int]) -> FloatArray:
    """Score clusters (draws or 1, photos) against drawn materials (draws, photos) → (4, draws); shape: (k, m)."""
    k, materials = shape
    cells = (np.arange(len(drawn))[:, None] * k + groups) * materials + drawn
    tables = np.bincount(cells.ravel(), minlength=len(drawn) * k * materials).reshape(len(drawn), k, materials)
    return np.stack([measure(tables) for measure in _SCORES.values()])


def _purity(tables: IndexArray) -> FloatArray:
    return np.asarray(tables.max(axis=2).sum(axis=1) / tables.sum(axis=(1, 2)))


def _normalised_mutual_information(tables: IndexArray) -> FloatArray:
    clusters, materials = _entropy(tables.sum(axis=2)), _entropy(tables.sum(axis=1))
    shared = clusters + materials - _entropy(tables.reshape(len(tables), -1))
    shared[shared < 1e-14] = 0.0  # for independent ones, the difference of entropies is a rounding error
    both = clusters + materials
    # a single cluster of a single material is a perfect match
    return np.divide(2 * shared, both, out=np.ones(len(tables)), where=both > 0)


def _entropy(counts: IndexArray) -> FloatArray:
    """Return the entropy in nats of counts, (draws, cells) → (draws,)."""
    share = counts / counts.sum(axis=1, keepdims=True)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    return np.asarray(-(share * logs).sum(axis=1) + 0.0)


def _adjusted_rand_index(tables: IndexArray) -> FloatArray:
    """Compute the index from ordered pairs, in floats: integers would overflow beyond 50,000 photos."""
    photos = tables.sum(axis=(1, 2)).astype(np.float64)
    together = (tables.astype(np.float64) ** 2).sum(axis=(1, 2))
    one_material = (tables.sum(axis=1).astype(np.float64) ** 2).sum(axis=1) - together
    one_cluster = (tables.sum(axis=2).astype(np.float64) ** 2).sum(axis=1) - together
    alike, apart = together - photos, photos**2 - together - one_material - one_cluster
    # alike: same cluster and material; apart: different cluster and material
    above = 2 * (alike * apart - one_material * one_cluster)
    below = (alike + one_material) * (one_material + apart) + (alike + one_cluster) * (one_cluster + apart)
    index: FloatArray = np.ones(len(tables))
    np.divide(above, below, out=index, where=(one_material > 0) | (one_cluster > 0))
    return index


def _matching_accuracy(tables: IndexArray) -> FloatArray:
    from scipy.optimize import linear_sum_assignment

    matched = [table[linear_sum_assignment(table, maximize=True)].sum() for table in tables]
    return np.asarray(matched / tables.sum(axis=(1, 2)))


_SCORES: dict[str, Callable[[IndexArray], FloatArray]] = {
    "purity": _purity,
    "normalised_mutual_information": _normalised_mutual_information,
    "adjusted_rand_index": _adjusted_rand_index,
    "matching_accuracy": _matching_accuracy,
}
