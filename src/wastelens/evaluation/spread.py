"""By how much a difference between trained models could have come out otherwise: other test photos, other seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import special

from wastelens.evaluation.metrics import mean_of_defined

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# Two groups of 22 and 14 photos are 1.9 equal ones. With fewer the interval reaches beyond ±1 (simulated), and
# Student's t with so few degrees of freedom beyond any difference.
_FEWEST_GROUPS = 1.9
_NOTHING = 1e-18  # a variance that rounding alone makes of numbers up to 1


@dataclass(frozen=True)
class Spread:
    """The variance of a difference and what it is made of.

    Attributes:
        photos: how much other test photos would change the difference; NaN where there are too few groups of them.
        training: how much other seeds would beyond that; NaN with one seed a fold, where it cannot be known
            and counts as 0.
        interaction: the part of ``photos`` that more seeds reduce: photos that suit one training and not another.
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
        """Of the difference: other test photos and other seeds together."""
        return self.photos + (0.0 if math.isnan(self.training) else self.training)

    @property
    def degrees(self) -> float:
        """Degrees of freedom of the variance (Satterthwaite 1946, Biometrics Bulletin 2).

        ``training`` is what is left of the variance between seeds without ``interaction``, so it is as uncertain
        as the whole. Where nothing is left, few seeds may resemble each other by chance: half of what photos
        explain counts as that uncertain. Both were found by simulation: with ``training`` as certain as its
        size, intervals of 3 seeds in one fold hold the truth in 91 % of cases where trainings differ much.
        """
        if math.isnan(self.training) or not self.variance:
            return self.photo_degrees
        between_seeds = self.training + self.interaction if self.training else self.interaction / 2
        below = self.photos**2 / self.photo_degrees + between_seeds**2 / self.training_degrees
        return max(self.variance**2 / below, min(self.photo_degrees, self.training_degrees))

    def with_times_the_seeds(self, factor: float) -> Spread:
        """What it would be with so many times the seeds a fold."""
        return replace(
            self,
            photos=max(self.photos - self.interaction, 0.0) + self.interaction / factor,
            training=self.training / factor,
            interaction=self.interaction / factor,
            training_degrees=round((self.training_degrees + self.cells) * factor) - self.cells,
        )


@dataclass(frozen=True)
class ModelPart:
    """What one model adds to a difference, and to its variance.

    Attributes:
        means: of both arms, (2,): over folds of the mean over seeds.
        resampled: of the difference, (resamples,).
        between_seeds: variance between trainings on the same photos; NaN where no fold has two seeds.
        interaction: the part of it that photos make, before correction for their number.
        training_degrees: degrees of freedom of ``between_seeds``.
        seeds: of each fold.
    """

    means: FloatArray
    resampled: FloatArray
    between_seeds: float
    interaction: float
    training_degrees: int
    seeds: npt.NDArray[np.int64]

    @property
    def left_in_mean(self) -> float:
        """How much of one training's variance is left in the mean over folds of the mean over seeds."""
        return float((1 / self.seeds).mean() / len(self.seeds))


def model_part(arms: FloatArray, draws: FloatArray, drawn: FloatArray, fold_of: npt.NDArray[np.int64]) -> ModelPart:
    """Components of one model's difference in one metric.

    All folds are taken to have the same variance between seeds.

    Args:
        arms: what each pair scores, (2, P).
        draws: the difference in each resample, (resamples, P); NaN where there is no such number.
        drawn: the share of each pair's photos that a resample draws, copies counted, (resamples, P).
        fold_of: (P,).
    """
    folds = [fold_of == fold for fold in np.unique(fold_of)]
    seeds = np.array([fold.sum() for fold in folds], dtype=np.int64)
    squares = np.sum([_between_seeds(arms[1, fold] - arms[0, fold], draws[:, fold]) for fold in folds], axis=0)
    degrees = int((seeds - 1).sum())
    between, interaction = squares / degrees if degrees else (np.nan, 0.0)
    means = _over_folds(arms, np.ones(arms.shape), folds)
    return ModelPart(means, _over_folds(draws, drawn, folds), float(between), float(interaction), degrees, seeds)


def _over_folds(values: FloatArray, drawn: FloatArray, folds: Sequence[BoolArray]) -> FloatArray:
    """Mean over folds of the mean over seeds, (..., P) → (...); a fold weighs what was drawn of it."""
    means = np.stack([mean_of_defined(values[..., fold]) for fold in folds], axis=-1)
    weights = np.stack([drawn[..., fold].mean(axis=-1) for fold in folds], axis=-1)
    weights[np.isnan(means)] = 0
    total = weights.sum(axis=-1)
    answer = np.full(total.shape, np.nan)
    np.divide((np.nan_to_num(means) * weights).sum(axis=-1), total, out=answer, where=total > 0)
    return answer


def _between_seeds(differences: FloatArray, draws: FloatArray) -> FloatArray:
    """Sum of squares between the S seeds of a fold: what it is, and what photos alone would make it; (2,)."""
    seeds = len(differences)
    usable = draws[~np.isnan(draws).any(axis=1)]
    if len(usable) < 2:
        return np.array([seeds * differences.var(), 0.0])
    by_photos = usable.var(axis=0, ddof=1).sum() - seeds * usable.mean(axis=1).var(ddof=1)
    return np.array([seeds * differences.var(), by_photos])


def spread_of(parts: Sequence[ModelPart], group_sizes: npt.NDArray[np.int64]) -> Spread:
    """Join the models' parts: they share the draws of photos; each has trainings of its own.

    Groups of unequal size tell as much as fewer equal ones, G = (Σn)² / Σn² of them. Of a mean's variance,
    resampling G groups shows (G - 1) / G. Average precision compares photos with photos, each of them drawn,
    and shows less (92 % after that correction, in simulated studies of 24 groups): so the square is taken. That
    R resamples are not all there are takes some degrees of freedom, too. Fewer than about two equal groups tell
    nothing of others. A model of which nothing is known of what seeds do is taken to vary as the others do.

    Args:
        parts: of each model.
        group_sizes: photos of each group, (groups,); 0 for one that does not count.
    """
    if not parts:
        return Spread(math.nan, math.nan, 0.0, math.nan, 0, 0)
    drawn = mean_of_defined(np.stack([part.resampled for part in parts], axis=-1))
    drawn = drawn[~np.isnan(drawn)]
    sizes = group_sizes[group_sizes > 0]
    groups = float(sizes.sum() ** 2 / (sizes**2).sum())
    known = groups >= _FEWEST_GROUPS and len(drawn) > 1
    correction = (groups / (groups - 1)) ** 2 if known else 1.0
    weights = np.array([part.left_in_mean for part in parts]) / len(parts) ** 2
    between_seeds, by_photos = weights @ _filled(np.array([[part.between_seeds, part.interaction] for part in parts]))
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


def _filled(components: FloatArray) -> FloatArray:
    """Each model's variance between seeds and the part of photos in it, (models, 2); the unknown as the mean."""
    unknown = np.isnan(components[:, 0])
    if not unknown.all():
        components[unknown] = components[~unknown].mean(axis=0)
    return components


def student(difference: float, spread: Spread) -> tuple[float, float, float]:
    """The 95 % interval's ends and the p value of no difference, by Student's t.

    Both metrics lie in [0, 1], so the interval of their difference ends at -1 and 1. All are NaN where the variance
    is unknown, and where it is 0: what is the same in every resample of a few photos is no proof of anything.
    """
    if math.isnan(spread.variance) or spread.variance < _NOTHING:
        return math.nan, math.nan, math.nan
    error = math.sqrt(spread.variance)
    margin = error * float(special.stdtrit(spread.degrees, 0.975))
    p_value = float(2 * special.stdtr(spread.degrees, -abs(difference) / error))
    return max(difference - margin, -1.0), min(difference + margin, 1.0), p_value
