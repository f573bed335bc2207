"""Does a change help? Paired differences of training runs, with intervals for other test photos and other seeds."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.evaluation.bootstrap import multiplicities
from wastelens.evaluation.metrics import checked_labels, checked_probabilities, mean_of_defined
from wastelens.evaluation.metrics import per_material_average_precision as average_precisions
from wastelens.evaluation.spread import (
    SIGNIFICANCE,
    ChangeVerdict,
    ModelPart,
    Spread,
    holm,
    model_part,
    spread_of,
    student,
    verdict_of,
)
from wastelens.system.arrays import BoolArray, FloatArray, IntArray

ALL_MODELS = "all models"
MACRO_AP, MACRO_F1, AP = "macro_ap", "macro_f1", "ap_"
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Predictions:
    """The predictions of one run for its n test photos and m materials.

    Attributes:
        file_names: of the photos, (n,), each once.
        groups: batch or scene of each photo, (n,).
        labels: materials shown, bool (n, m).
        probabilities: in [0, 1], (n, m).
        decisions: materials predicted at the run's own thresholds, bool (n, m).

    Raises:
        ValueError: shapes do not match, a photo occurs twice, labels or decisions are not 0 and 1, or values are
            not probabilities.
    """

    file_names: Sequence[str]
    groups: npt.NDArray[np.str_]
    labels: BoolArray
    probabilities: FloatArray
    decisions: BoolArray

    def __post_init__(self) -> None:
        labels, _ = checked_probabilities(self.labels, self.probabilities)
        if checked_labels(self.decisions).shape != labels.shape:
            raise ValueError(f"labels have shape {labels.shape}, decisions {np.shape(self.decisions)}")
        if np.shape(self.groups) != labels.shape[:1] or len(self.file_names) != len(labels):
            raise ValueError(f"{len(labels)} rows of labels need as many file names and groups")
        if len(set(self.file_names)) != len(labels):
            raise ValueError("a photo occurs twice; give each file name once")

    def rows(self, order: Sequence[int]) -> Predictions:
        """Return the predictions for these photos, in this order."""
        names = [self.file_names[row] for row in order]
        return Predictions(
            names, self.groups[order], self.labels[order], self.probabilities[order], self.decisions[order]
        )


@dataclass(frozen=True)
class Pair:
    """Two runs on the same photos, trained with the same seed and fold, without and with the change.

    The rows of the second are put in the order of the first by file name. Labels may differ (where the change is the
    mapping of categories to materials): each run is scored on its own. Groups are those of the first.

    Raises:
        ValueError: the runs were tested on different photos or different numbers of materials.
    """

    seed: int
    fold: int
    first: Predictions
    second: Predictions

    def __post_init__(self) -> None:
        wanted = list(self.first.file_names)
        apart = set(wanted) ^ set(self.second.file_names)
        if apart:
            raise ValueError(
                f"seed {self.seed}, fold {self.fold}: {len(apart)} photos, such as {min(apart)}, were tested by "
                "only one of the two runs; pair runs on the same photos"
            )
        if np.shape(self.first.labels) != np.shape(self.second.labels):
            raise ValueError(f"seed {self.seed}, fold {self.fold}: the two runs have different numbers of materials")
        row_of = {name: row for row, name in enumerate(self.second.file_names)}
        object.__setattr__(self, "second", self.second.rows([row_of[name] for name in wanted]))


@dataclass(frozen=True)
class Difference:
    """Second minus first of one metric, for one model or for all.

    Attributes:
        model, metric: of this comparison.
        first_mean, second_mean, difference: mean over folds of the mean over seeds, with equal weight for each model.
        low, high: the 95 % interval of the difference, within [-1, 1]; NaN where there are too few groups of photos,
            and where the difference is the same in every resample.
        p_value: of the test that there is no difference (Student's t); NaN where there is no interval.
        p_adjusted: the same, corrected for the number of comparisons (:func:`correct_together`).
        undecided: how many of the comparisons corrected together are undecided.
        spread: variance and degrees of freedom.
        pairs, seeds, folds, groups, photos: numbers of distinct ones (groups and photos of a material's average
            precision: those that show it).
    """

    model: str
    metric: str
    first_mean: float
    second_mean: float
    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float
    undecided: int
    spread: Spread
    pairs: int
    seeds: int
    folds: int
    groups: int
    photos: int

    @property
    def standard_error(self) -> float:
        """Standard error of the difference."""
        return math.sqrt(self.spread.variance)

    @property
    def degrees_of_freedom(self) -> float:
        """Degrees of freedom of the standard error."""
        return self.spread.degrees

    @property
    def training_known(self) -> bool:
        """Whether any fold has two seeds, so that the effect of other seeds is known."""
        return not math.isnan(self.spread.training)

    @property
    def verdict(self) -> ChangeVerdict:
        """Whether the change helps, after correction for the number of comparisons.

        With one seed per fold it is undecided whatever the numbers: no interval then covers the effect of other seeds,
        and a third of simulated changes without effect had a p value below 0.05.
        """
        if not self.training_known:
            return "undecided"
        return verdict_of(self.difference, self.p_adjusted)


COLUMNS = (
    "model",
    "metric",
    "first_mean",
    "second_mean",
    "difference",
    "low",
    "high",
    "standard_error",
    "degrees_of_freedom",
    "p_value",
    "p_adjusted",
    "training_known",
    "verdict",
    "seeds_needed",
    "pairs",
    "seeds",
    "folds",
    "groups",
    "photos",
)


def comparison_frame(differences: Sequence[Difference]) -> pd.DataFrame:
    """Return a row per difference; ``seeds_needed`` is NaN where no number of seeds would decide it."""
    rows = [
        {name: getattr(one, name) for name in COLUMNS if name != "seeds_needed"}
        | {"seeds_needed": float(seeds_needed(one) or math.nan)}
        for one in differences
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def seeds_needed(difference: Difference) -> int | None:
    """Return how many seeds per fold would decide a comparison if the estimate stays; the present number if decided.

    It would then be the next that Holm's correction decides: its p value is multiplied by the number of undecided ones.

    Returns:
        None where not even 1,000 seeds would (photos are missing, not seeds), and where it is unknown: with one seed
        per fold, or without an interval.
    """
    if difference.verdict != "undecided":
        return difference.seeds
    unknown = math.isnan(difference.p_value) or not difference.training_known
    if unknown or not _decided_by(difference, MOST_SEEDS):
        return None
    return bisect_left(range(MOST_SEEDS), True, lo=difference.seeds, key=lambda seeds: _decided_by(difference, seeds))


def _decided_by(difference: Difference, seeds: int) -> bool:
    spread = difference.spread.with_times_the_seeds(seeds / difference.seeds)
    _, _, p_value = student(difference.difference, spread)
    return p_value * difference.undecided < SIGNIFICANCE


def compare(
    pairs: Mapping[str, Sequence[Pair]], materials: Sequence[str], rng: np.random.Generator, resamples: int = 1000
) -> list[Difference]:
    """Compare the second runs with the first: for each model and, if there are several, for all together.

    The difference is T, the mean over folds of the mean over seeds. Two things could have changed it:

    1. Other test photos. Photos of one group resemble each other, so whole groups are resampled (Field & Welsh
       2007, JRSS B 69), with the same draw for all seeds, arms, folds and models; a fold is weighted by its drawn
       share, since other groups could have made up the folds. The variance of T over resamples is corrected by
       (G / (G - 1))², with G the effective number of groups. It covers the effect of photos on all trainings and on
       each alone.
    2. Other seeds. The variance between the seeds of a fold, minus the part that resampled photos already explain,
       divided by the number of trainings; 0 where it would be negative.

    Photos and trainings are crossed like rows and columns: their variances add up, and what they share is counted
    once (Cameron, Gelbach & Miller 2011, J. Bus. Econ. Stat. 29). Drawing rows and columns together would count it
    up to three times (Owen 2007, Ann. Appl. Stat. 1), and few seeds too little. The interval is T ± t·sqrt(variance),
    with degrees of freedom by Satterthwaite 1946 (:class:`Spread`).

    Measured on simulated studies (``python -m bench.study_intervals``): the intervals cover the true effect in 95 to
    97 % of cases with 24 groups, in 96 to 97 % with 8 to 11; verdicts without an effect are wrong in 3 to 6 %. With
    one seed per fold, where trainings count as if they were all alike, coverage is 67 %: there is no verdict then.

    All this holds for other test photos and other seeds, on these training photos, which all seeds of a fold share.
    The effect of other training photos on one arm and not the other shows only between folds, and is in no variance:
    where arms without a difference had such an effect (standard deviation 0.3, that of seeds 0.1 to 0.3), p was below
    0.05 in 19 to 36 % of 1,000 simulated studies with one fold, and in 12 to 14 % of those with four.

    A material without a positive in a fold has no average precision there and is left out, as in
    :func:`wastelens.evaluation.metrics.macro_average_precision`. For a material, only groups that show it count.

    Args:
        pairs: of each model, one per seed and fold.
        materials: names of the m label columns.
        rng: for the bootstrap.
        resamples: bootstrap resamples.

    Raises:
        ValueError: there is no pair, a seed and fold occurs twice, or labels do not match the materials.
    """
    _check(pairs, len(materials))
    names = np.unique(np.concatenate([pair.first.groups for of_model in pairs.values() for pair in of_model]))
    once = np.ones((1, len(names)), dtype=np.int32)
    drawn = np.concatenate([once, multiplicities(len(names), resamples, rng)])
    studied = {model: [_scored(of_model, names, drawn)] for model, of_model in pairs.items()}
    if len(studied) > 1:
        studied[ALL_MODELS] = [one for models in studied.values() for one in models]
    metrics = (MACRO_AP, MACRO_F1, *(f"{AP}{material}" for material in materials))
    sizes = {model: _group_sizes([pair for one in models for pair in one.pairs]) for model, models in studied.items()}
    differences = [
        _difference(model, metric, column, models, sizes[model][max(0, column - 1)])
        for column, metric in enumerate(metrics)
        for model, models in studied.items()
    ]
    return correct_together([differences])[0]


def _check(pairs: Mapping[str, Sequence[Pair]], materials: int) -> None:
    for model, of_model in pairs.items():
        cells = {(pair.seed, pair.fold) for pair in of_model}
        if not cells or len(cells) < len(of_model):
            raise ValueError(f"{model}: give at least one pair, and only one for each seed and fold")
        if any(pair.first.labels.shape[1] != materials for pair in of_model):
            raise ValueError(f"{model}: {materials} materials need as many columns of labels")
    if not pairs:
        raise ValueError("there is no pair to compare")


def correct_together(comparisons: Sequence[Sequence[Difference]]) -> list[list[Difference]]:
    """Return the comparisons with p values corrected for all of them together (Holm 1979).

    There are three families, each over all models and comparisons: macro AP, macro F1, and the average precisions of
    materials. :func:`compare` corrects within one comparison; where a study makes several (augmentation with 10 % of
    the labels, with 25 %, …), correct them together.
    """
    everything = [one for comparison in comparisons for one in comparison]
    families = np.array([AP if one.metric.startswith(AP) else one.metric for one in everything], dtype=str)
    p_values = np.array([one.p_value for one in everything], dtype=np.float64)
    corrected = list(everything)
    for family in np.unique(families):
        rows = np.flatnonzero(families == family)
        adjusted = holm(p_values[rows])
        undecided = int((adjusted >= SIGNIFICANCE).sum())
        for row, p_value in zip(rows.tolist(), adjusted.tolist(), strict=True):
            corrected[row] = replace(everything[row], p_adjusted=p_value, undecided=undecided)
    rest = iter(corrected)
    return [[next(rest) for _ in comparison] for comparison in comparisons]


@dataclass(frozen=True)
class _Scored:
    """The P pairs of a model: k metrics of both arms, and their difference in each resample."""

    pairs: Sequence[Pair]
    arms: FloatArray  # (k, 2, P)
    resampled: FloatArray  # (k, resamples, P)
    drawn: FloatArray  # share of the pair's photos, counting copies, (resamples, P)

    def defined(self, column: int) -> list[int]:
        """Return the pairs in which a metric has a value."""
        return [int(row) for row in np.flatnonzero(~np.isnan(self.arms[column]).any(axis=0))]

    def part(self, column: int) -> ModelPart | None:
        """Return this model's contribution to the difference in one metric; None where no pair has a value."""
        rows = self.defined(column)
        if not rows:
            return None
        folds = np.array([self.pairs[row].fold for row in rows], dtype=np.int64)
        return model_part(self.arms[column][:, rows], self.resampled[column][:, rows], self.drawn[:, rows], folds)


def _scored(pairs: Sequence[Pair], names: npt.NDArray[np.str_], drawn: npt.NDArray[np.int32]) -> _Scored:
    """Score a model's pairs; drawn: how often each of the G names of groups counts, (1 + resamples, G), first once."""
    weights = [drawn[:, np.searchsorted(names, pair.first.groups)] for pair in pairs]
    arms = np.array(
        [
            [_metrics(run, of_photos) for run in (pair.first, pair.second)]
            for pair, of_photos in zip(pairs, weights, strict=True)
        ]
    ).transpose(3, 1, 2, 0)
    shares = np.stack([of_photos[1:].mean(axis=1) for of_photos in weights], axis=-1)
    return _Scored(pairs, arms[:, :, 0], arms[:, 1, 1:] - arms[:, 0, 1:], shares)


def _metrics(run: Predictions, weights: npt.NDArray[np.int32]) -> FloatArray:
    """Return macro AP, macro F1, each material's AP under weights (resamples, n): (resamples, 2 + m), may be NaN."""
    ap = average_precisions(run.labels, run.probabilities, weights)
    hits, claimed, present = (
        weights @ table.astype(np.int32) for table in (run.labels & run.decisions, run.decisions, run.labels)
    )
    both = claimed + present
    f1 = np.divide(2.0 * hits, both, out=np.zeros(both.shape), where=both > 0).mean(axis=1)
    f1[weights.sum(axis=1) == 0] = np.nan  # no photo of this fold was drawn
    return np.column_stack([mean_of_defined(ap), f1, ap])


def _group_sizes(pairs: Sequence[Pair]) -> IntArray:
    """Count the distinct photos per group, then those that show each material: (1 + m, groups)."""
    files = np.concatenate([pair.first.file_names for pair in pairs])
    groups = np.concatenate([pair.first.groups for pair in pairs])
    shown = np.concatenate([pair.first.labels | pair.second.labels for pair in pairs])
    _, first_row, photo = np.unique(files, return_index=True, return_inverse=True)
    table = np.ones((len(first_row), 1 + shown.shape[1]), dtype=np.int64)
    table[:, 1:] = 0
    np.maximum.at(table[:, 1:], photo, shown)
    names, member = np.unique(groups[first_row], return_inverse=True)
    sizes = np.zeros((len(names), table.shape[1]), dtype=np.int64)
    np.add.at(sizes, member, table)
    return sizes.T


def _difference(model: str, metric: str, column: int, models: Sequence[_Scored], sizes: IntArray) -> Difference:
    """Return the difference in one metric, the mean over `models`; sizes: photos per group that count for it."""
    parts = [part for part in (one.part(column) for one in models) if part is not None]
    pairs = [one.pairs[row] for one in models for row in one.defined(column)]
    first, second = np.mean([part.means for part in parts], axis=0).tolist() if parts else (math.nan, math.nan)
    spread = spread_of(parts, sizes)
    low, high, p_value = student(second - first, spread)
    return Difference(
        model=model,
        metric=metric,
        first_mean=first,
        second_mean=second,
        difference=second - first,
        low=low,
        high=high,
        p_value=p_value,
        p_adjusted=p_value,
        undecided=1,
        spread=spread,
        pairs=len(pairs),
        seeds=len({pair.seed for pair in pairs}),
        folds=len({pair.fold for pair in pairs}),
        groups=int(np.count_nonzero(sizes)),
        photos=int(sizes.sum()),
    )
