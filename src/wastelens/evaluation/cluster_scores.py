"""Do clusters agree with materials? Scores for one drawn material per photo, beside those of chance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wastelens.errors import DatasetError
from wastelens.evaluation.metrics import checked_labels
from wastelens.system.arrays import BoolArray, FloatArray, IndexArray

LEAST_SHUFFLES = 100
_CHANCE_LEVEL = 0.95
# Draws times photos handled at once: a few temporary arrays of 8 bytes each, so about 100 MB at the peak.
_CELLS_AT_ONCE = 2_000_000
# The mean of equal numbers may differ from that number by rounding.
ROUNDING = 1e-9


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

    @property
    def lead(self) -> float:
        """The value minus that of chance, by which sets of features are compared."""
        return self.value - self.random


@dataclass(frozen=True)
class ClusterScores:
    """How well clusters agree with materials.

    Attributes:
        purity: share of photos that show their cluster's most frequent material.
        normalised_mutual_information: 2 I(C; M) / (H(C) + H(M)), in [0, 1].
        adjusted_rand_index: agreement on pairs of photos, 0 by chance and 1 at best (Hubert & Arabie 1985).
        matching_accuracy: share of photos that show their cluster's material under the best one-to-one matching of
            clusters and materials (Kuhn 1955); surplus clusters match nothing.
        photos: number of photos scored.
        several: how many of them show several materials.
        without: number of photos left out because they show no material.
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
        """Name → score, in the order of the reports."""
        return {name: getattr(self, name) for name in _SCORES}

    def metrics(self, prefix: str) -> dict[str, float]:
        """Return the scores and those of chance by their MLflow names; prefix: such as ``cluster_learned_``."""
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

    In each draw, every photo stands for one of its materials, all equally likely, and each score is the mean over the
    draws. Photos without any material are left out and counted. Chance is the score of the same drawn materials when
    the clusters are shuffled among the photos (so their sizes stay), over as many shuffles as draws, but at least 100
    for a meaningful 95 % quantile.

    With one draw, or one material per photo, the values equal scikit-learn's ``adjusted_rand_score`` and
    ``normalized_mutual_info_score`` (arithmetic mean).

    Args:
        clusters: integers ≥ 0, (photos,).
        labels: 0 or 1, (photos, materials).
        draws: number of draws of one material for each photo.
        rng: for draws and shuffles.

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
    scores = {name: Score(float(value), float(random), float(top)) for name, value, random, top in means}
    several = int((truth.sum(axis=1) > 1).sum())
    return ClusterScores(**scores, photos=len(truth), several=several, without=int((~shown).sum()))


def _values(
    truth: BoolArray, groups: IndexArray, draws: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return all four scores of each draw (4, draws), and of each shuffle (4, max(draws, 100))."""
    drawn_scores, shuffled_scores = [], []
    shape = (int(groups.max()) + 1, truth.shape[1])
    for first, drawn in _drawn_materials(truth, max(draws, LEAST_SHUFFLES), rng):
        if first < draws:
            drawn_scores.append(_score_tables(_count_tables(groups[None], drawn[: draws - first], shape)))
        shuffled = rng.permuted(np.broadcast_to(groups, drawn.shape), axis=1)
        shuffled_scores.append(_score_tables(_count_tables(shuffled, drawn, shape)))
    return np.concatenate(drawn_scores, axis=1), np.concatenate(shuffled_scores, axis=1)


def _drawn_materials(truth: BoolArray, draws: int, rng: np.random.Generator) -> Iterator[tuple[int, IndexArray]]:
    """Yield blocks of draws: the first draw's number, and the material drawn for each photo, (draws, photos)."""
    counts = truth.sum(axis=1)
    own_first = np.argsort(~truth, axis=1, kind="stable")
    step = max(1, _CELLS_AT_ONCE // len(truth))
    for first in range(0, draws, step):
        pick = (rng.random((min(step, draws - first), len(truth))) * counts).astype(np.intp)
        yield first, own_first[np.arange(len(truth)), pick]


def _count_tables(groups: IndexArray, drawn: IndexArray, shape: tuple[int, int]) -> IndexArray:
    """Count photos per cluster and material: groups (draws or 1, photos), drawn (draws, photos) → (draws, k, m)."""
    k, materials = shape
    draws = len(drawn)
    cells = (np.arange(draws)[:, None] * k + groups) * materials + drawn
    return np.bincount(cells.ravel(), minlength=draws * k * materials).reshape(draws, k, materials)


def _score_tables(tables: IndexArray) -> FloatArray:
    """Score counts (draws, k, materials) → (4, draws), in the order of `ClusterScores`."""
    return np.stack([measure(tables) for measure in _SCORES.values()])


def _purity(tables: IndexArray) -> FloatArray:
    purity: FloatArray = tables.max(axis=2).sum(axis=1) / tables.sum(axis=(1, 2))
    return purity


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
    entropy: FloatArray = -(share * logs).sum(axis=1) + 0.0
    return entropy


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
    accuracy: FloatArray = np.array(matched) / tables.sum(axis=(1, 2))
    return accuracy


_SCORES: dict[str, Callable[[IndexArray], FloatArray]] = {
    "purity": _purity,
    "normalised_mutual_information": _normalised_mutual_information,
    "adjusted_rand_index": _adjusted_rand_index,
    "matching_accuracy": _matching_accuracy,
}
