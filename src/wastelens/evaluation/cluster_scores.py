"""Do clusters agree with materials? Scores of one material a photo, beside what chance gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wastelens.errors import DatasetError
from wastelens.evaluation.kmeans import IntArray
from wastelens.evaluation.metrics import BoolArray, FloatArray, checked_labels

LEAST_DEALS = 100
_CHANCE_LEVEL = 0.95
# Draws times photos handled at once: 8 bytes each in a few temporaries, so some 100 MB at the peak.
_CELLS_AT_ONCE = 2_000_000
# A mean of equal numbers is not quite that number.
ROUNDING = 1e-9


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
        return self.value > self.random_high + ROUNDING

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
