"""Variance of a difference between trained models, and its interval, p value and verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from wastelens.evaluation.metrics import mean_of_defined
from wastelens.system.arrays import BoolArray, FloatArray, IntArray

ChangeVerdict = Literal["helps", "hurts", "undecided"]
SIGNIFICANCE = 0.05

# Two groups of 22 and 14 photos count as 1.9 equal ones. With fewer, the interval reaches beyond ±1 (simulated), and
# Student's t with so few degrees of freedom exceeds any difference.
_FEWEST_GROUPS = 1.9
_NOTHING = 1e-18  # variance that rounding alone causes in numbers up to 1


@dataclass(frozen=True)
class Spread:
    """The variance of a difference, and its components.

    Attributes:
        photos: how much other test photos would change the difference; NaN where there are too few groups.
        training: how much other seeds would change it beyond that; NaN with one seed per fold, where it is unknown
            and counts as 0.
        interaction: the part of ``photos`` that more seeds reduce, from photos that suit one training and not another.
        photo_degrees, training_degrees: degrees of freedom of ``photos`` and of the variance between seeds.
        cells: pairs of model and fold.
    """

    photos: float
    training: float
    interaction: float
    photo_degrees: float
    training_degrees: int
    cells: int

    @property
    def variance(self) -> float:
        """The variance of the difference, for other test photos and other seeds together."""
        return self.photos + (0.0 if math.isnan(self.training) else self.training)

    @property
    def degrees(self) -> float:
        """Degrees of freedom of the variance (Satterthwaite 1946, Biometrics Bulletin 2).

        ``training`` is the variance between seeds minus ``interaction``, so it is as uncertain as the whole. Where
        nothing remains, a few seeds may resemble each other by chance: half of what photos explain counts as that
        uncertain. Both rules were found by simulation: with ``training`` as certain as its size, intervals of 3 seeds
        in one fold cover the truth in 91 % of cases where trainings differ much.
        """
        if math.isnan(self.training) or not self.variance:
            return self.photo_degrees
        between_seeds = self.training + self.interaction if self.training else self.interaction / 2
        below = self.photos**2 / self.photo_degrees + between_seeds**2 / self.training_degrees
        return max(self.variance**2 / below, min(self.photo_degrees, self.training_degrees))

    def with_times_the_seeds(self, factor: float) -> Spread:
        """Return the spread expected with `factor` times the seeds per fold."""
        return replace(
            self,
            photos=max(self.photos - self.interaction, 0.0) + self.interaction / factor,
            training=self.training / factor,
            interaction=self.interaction / factor,
            training_degrees=round((self.training_degrees + self.cells) * factor) - self.cells,
        )


@dataclass(frozen=True)
class ModelPart:
    """The contribution of one model to a difference and its variance.

    Attributes:
        means: of both arms, (2,): mean over folds of the mean over seeds.
        resampled: the difference in each resample, (resamples,).
        between_seeds: variance between trainings on the same photos; NaN where no fold has two seeds.
        interaction: the part of it due to photos, before correction for their number.
        training_degrees: degrees of freedom of ``between_seeds``.
        seeds: number of seeds in each fold.
    """

    means: FloatArray
    resampled: FloatArray
    between_seeds: float
    interaction: float
    training_degrees: int
    seeds: IntArray


def model_part(arms: FloatArray, draws: FloatArray, drawn: FloatArray, fold_of: IntArray) -> ModelPart:
    """Compute the contribution of one model to the difference in one metric.

    The variance between seeds is assumed to be the same in all folds.

    Args:
        arms: scores of each pair, (2, P).
        draws: the difference in each resample, (resamples, P); NaN where undefined.
        drawn: the share of each pair's photos that a resample draws, counting copies, (resamples, P).
        fold_of: fold of each pair, (P,).
    """
    folds = [fold_of == fold for fold in np.unique(fold_of)]
    seeds = np.array([fold.sum() for fold in folds], dtype=np.int64)
    squares = np.sum([_between_seeds(arms[1, fold] - arms[0, fold], draws[:, fold]) for fold in folds], axis=0)
    degrees = int((seeds - 1).sum())
    between, interaction = squares / degrees if degrees else (np.nan, 0.0)
    means = _over_folds(arms, np.ones(arms.shape), folds)
    return ModelPart(means, _over_folds(draws, drawn, folds), float(between), float(interaction), degrees, seeds)


def _over_folds(values: FloatArray, drawn: FloatArray, folds: Sequence[BoolArray]) -> FloatArray:
    """Return the mean over folds of the mean over seeds, (..., P) → (...); folds are weighted by their drawn share."""
    means = np.stack([mean_of_defined(values[..., fold]) for fold in folds], axis=-1)
    weights = np.stack([drawn[..., fold].mean(axis=-1) for fold in folds], axis=-1)
    weights[np.isnan(means)] = 0
    total = weights.sum(axis=-1)
    answer = np.full(total.shape, np.nan)
    np.divide((np.nan_to_num(means) * weights).sum(axis=-1), total, out=answer, where=total > 0)
    return answer


def _between_seeds(differences: FloatArray, draws: FloatArray) -> FloatArray:
    """Return the sum of squares between the S seeds of a fold, and the part expected from photos alone, (2,)."""
    seeds = len(differences)
    usable = draws[~np.isnan(draws).any(axis=1)]
    if len(usable) < 2:
        return np.array([seeds * differences.var(), 0.0])
    by_photos = usable.var(axis=0, ddof=1).sum() - seeds * usable.mean(axis=1).var(ddof=1)
    return np.array([seeds * differences.var(), by_photos])


def spread_of(parts: Sequence[ModelPart], group_sizes: IntArray) -> Spread:
    """Combine the models' parts: they share the draws of photos, but not the trainings.

    Groups of unequal size are worth G = (Σn)² / Σn² equal ones. Resampling G groups shows (G - 1) / G of a mean's
    variance. Average precision compares photos with photos, both of them drawn, and shows less (intervals cover 92 %
    after that correction, in simulated studies of 24 groups), so the square is taken. The limited number of resamples
    R costs some degrees of freedom too. Fewer than about two equal groups say nothing about others. A model with an
    unknown variance between seeds is assumed to vary like the others.

    Args:
        parts: of each model.
        group_sizes: number of photos in each group, (groups,); 0 for a group that does not count.
    """
    if not parts:
        return Spread(math.nan, math.nan, 0.0, math.nan, 0, 0)
    drawn = mean_of_defined(np.stack([part.resampled for part in parts], axis=-1))
    drawn = drawn[~np.isnan(drawn)]
    sizes = group_sizes[group_sizes > 0]
    groups = float(sizes.sum() ** 2 / (sizes**2).sum())
    known = groups >= _FEWEST_GROUPS and len(drawn) > 1
    correction = (groups / (groups - 1)) ** 2 if known else 1.0
    # The share of one training's variance that remains in the mean over folds of the mean over seeds.
    left = np.array([(1 / part.seeds).mean() / len(part.seeds) for part in parts])
    components = np.array([[part.between_seeds, part.interaction] for part in parts])
    unknown = np.isnan(components[:, 0])
    if not unknown.all():
        components[unknown] = components[~unknown].mean(axis=0)
    between_seeds, by_photos = (left / len(parts) ** 2) @ components
    interaction = max(correction * float(by_photos), 0.0)
    training = float(between_seeds) - interaction
    return Spread(
        photos=correction * float(drawn.var(ddof=1)) if known else math.nan,
        training=training if math.isnan(training) else max(training, 0.0),
        interaction=interaction,
        photo_degrees=1 / (1 / (groups - 1) + 1 / (len(drawn) - 1)) if known else math.nan,
        training_degrees=sum(part.training_degrees for part in parts),
        cells=sum(len(part.seeds) for part in parts),
    )


def student(difference: float, spread: Spread) -> tuple[float, float, float]:
    """Return the ends of the 95 % interval and the p value of no difference, by Student's t.

    Both metrics are in [0, 1], so the interval of their difference is cut at -1 and 1. All are NaN where the variance
    is unknown, and where it is 0: a difference that is the same in every resample of a few photos proves nothing.
    """
    if math.isnan(spread.variance) or spread.variance < _NOTHING:
        return math.nan, math.nan, math.nan
    error = math.sqrt(spread.variance)
    margin = error * float(special.stdtrit(spread.degrees, 0.975))
    p_value = float(2 * special.stdtr(spread.degrees, -abs(difference) / error))
    return max(difference - margin, -1.0), min(difference + margin, 1.0), p_value


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """Return p values adjusted for their number, (k,) → (k,), so that any false finding stays unlikely (Holm 1979).

    The i-th smallest of k becomes max over j ≤ i of (k - j + 1)·pⱼ, at most 1 (Scand. J. Statist. 6, 65-70).
    It is valid for any dependence between the comparisons. NaN (no test) stays NaN and does not count.

    Raises:
        ValueError: values outside [0, 1], or not one-dimensional.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or (values < 0).any() or (values > 1).any():
        raise ValueError("p values must be one-dimensional and in [0, 1]")
    answer = np.full(values.shape, np.nan)
    made = np.flatnonzero(~np.isnan(values))
    order = made[np.argsort(values[made], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    answer[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1)
    return answer


def verdict_of(difference: float, p_adjusted: float) -> ChangeVerdict:
    """Return helps or hurts where the adjusted p value is below 0.05; undecided otherwise, and where it is NaN."""
    if math.isnan(p_adjusted) or p_adjusted >= SIGNIFICANCE:
        return "undecided"
    return "helps" if difference > 0 else "hurts"
