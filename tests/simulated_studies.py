"""Simulated studies with a known effect: scores of both arms, with effects of groups, photos and trainings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from wastelens.evaluation.metrics import mean_of_defined
from wastelens.evaluation.paired import Pair, Predictions

MATERIALS = ("metal", "paper")
PREVALENCE = np.array([0.25, 0.5])
SIGNAL = 1.2  # how far a material moves its score, in standard deviations of the photo's noise


@dataclass(frozen=True)
class Regime:
    """How to draw a study.

    Attributes:
        groups, folds, seeds, models: how many; each group is tested in one fold.
        effect: how much more signal the second arm has.
        by_training: standard deviation of the signal between trainings (arm, seed, fold).
        by_group: standard deviation of the signal between an arm's groups, the same for all its trainings.
        own_noise: standard deviation of a photo's effect on one training alone; that of its effect on all is 1.
        mean_size: mean number of photos per group.
    """

    name: str
    groups: int = 24
    folds: int = 1
    seeds: int = 3
    models: int = 1
    effect: float = 0.0
    by_training: float = 0.1
    by_group: float = 0.4
    own_noise: float = 0.7
    mean_size: int = 5

    @cached_property
    def group_of(self) -> npt.NDArray[np.int64]:
        """The group of each photo; the largest has about four times as many as the smallest."""
        shares = np.geomspace(0.5, 2, self.groups)
        sizes = np.maximum(np.rint(shares / shares.mean() * self.mean_size), 1).astype(int)
        return np.repeat(np.arange(self.groups), sizes)

    @cached_property
    def fold_of(self) -> npt.NDArray[np.int64]:
        """The fold of each photo."""
        return self.group_of % self.folds


@dataclass(frozen=True)
class Studies:
    """N studies of a regime: labels (N, n, m) and scores (N, models, arms, seeds, n, m)."""

    regime: Regime
    labels: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float64]

    def pairs(self, study: int) -> dict[str, list[Pair]]:
        """Return the pairs of a study, for :func:`wastelens.evaluation.paired.compare`."""
        return {
            f"model {model}": [
                Pair(seed, fold, *(self._run(study, model, arm, seed, fold) for arm in (0, 1)))
                for fold in range(self.regime.folds)
                for seed in range(self.regime.seeds)
            ]
            for model in range(self.regime.models)
        }

    def _run(self, study: int, model: int, arm: int, seed: int, fold: int) -> Predictions:
        at = np.flatnonzero(self.regime.fold_of == fold)
        probabilities = 1 / (1 + np.exp(-self.scores[study, model, arm, seed, at]))
        names = [f"{photo}.jpg" for photo in at]
        groups = np.array([f"batch {group:02d}" for group in self.regime.group_of[at]])
        return Predictions(names, groups, self.labels[study, at], probabilities, probabilities >= 0.5)

    def effects(self) -> npt.NDArray[np.float64]:
        """Return the difference in macro AP of each study, (N,), over all models."""
        folds = []
        for fold in range(self.regime.folds):
            at = self.regime.fold_of == fold
            labels = np.broadcast_to(self.labels[:, None, None, None, at], self.scores[..., at, :].shape)
            order = np.argsort(-self.scores[..., at, :], axis=-2)
            positive = np.take_along_axis(labels, order, axis=-2)
            precision = positive.cumsum(axis=-2) / np.arange(1, at.sum() + 1)[:, None]
            found = positive.sum(axis=-2)
            ap = np.where(found, (precision * positive).sum(axis=-2) / np.maximum(found, 1), np.nan)
            macro = mean_of_defined(ap)
            folds.append((macro[:, :, 1] - macro[:, :, 0]).mean(axis=(1, 2)))
        return mean_of_defined(np.stack(folds, axis=-1))


def drawn(regime: Regime, studies: int, rng: np.random.Generator) -> Studies:
    """Draw studies that differ in photos, groups and trainings."""
    group_of, fold_of = regime.group_of, regime.fold_of
    photos, materials = len(group_of), len(PREVALENCE)
    shift = 0.5 * rng.normal(size=(studies, regime.groups, materials))[:, group_of]
    labels = np.log(PREVALENCE / (1 - PREVALENCE)) + shift > rng.logistic(size=(studies, photos, materials))
    runs = (studies, regime.models, 2, regime.seeds)
    by_training = regime.by_training * rng.normal(size=(*runs, regime.folds, 1))[..., fold_of, :]
    by_group = regime.by_group * rng.normal(size=(*runs[:3], 1, regime.groups, 1))[..., group_of, :]
    effect = np.array([0.0, regime.effect])[:, None, None, None]
    noise = rng.normal(size=(studies, 1, 1, 1, photos, materials)) + regime.own_noise * rng.normal(
        size=(*runs, photos, materials)
    )
    shared = 0.5 * rng.normal(size=(studies, 1, 1, 1, regime.groups, materials))[..., group_of, :]
    signal = SIGNAL + effect + by_training + by_group
    return Studies(regime, labels, signal * (labels[:, None, None, None] - 0.5) + noise + shared)
