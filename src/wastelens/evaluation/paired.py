"""Does a change help? Paired differences of training runs, with intervals for new photos and new trainings alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from wastelens.evaluation.bootstrap import multiplicities
from wastelens.evaluation.metrics import checked_labels, checked_probabilities, mean_of_defined
from wastelens.evaluation.metrics import per_material_average_precision as average_precisions
from wastelens.evaluation.multiple_comparisons import SIGNIFICANCE, Verdict, holm, verdict_of

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

ALL_MODELS = "all models"
MACRO_AP, MACRO_F1, AP = "macro_ap", "macro_f1", "ap_"
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Predictions:
    """What one run says of its n test photos and m materials.

    Attributes:
        file_names: the photos, (n,), each once.
        groups: which photos belong together (batch or scene), (n,).
        labels: what they show, bool (n, m).
        probabilities: in [0, 1], (n, m).
        decisions: what the run claims at its own thresholds, bool (n, m).

    Raises:
        ValueError: shapes that do not fit, a photo twice, labels or decisions other than 0 and 1, values that
            are no probabilities.
    """

    file_names: Sequence[str]
    groups: npt.NDArray[np.str_]
    labels: BoolArray
    probabilities: FloatArray
    decisions: BoolArray

    def __post_init__(self) -> None:
        labels, _ = checked_probabilities(self.labels, self.probabilities)
        if checked_labels(self.decisions).shape != labels.shape:
            raise ValueError(f"labels are {labels.shape}, the decisions {np.shape(self.decisions)}")
        if np.shape(self.groups) != labels.shape[:1] or len(self.file_names) != len(labels):
            raise ValueError(f"{len(labels)} rows of labels need as many file names and groups")
        if len(set(self.file_names)) != len(labels):
            raise ValueError("a photo is there twice; give each file name once")

    def rows(self, order: Sequence[int]) -> Predictions:
        """These photos, in this order."""
        names = [self.file_names[row] for row in order]
        return Predictions(
            names, self.groups[order], self.labels[order], self.probabilities[order], self.decisions[order]
        )


@dataclass(frozen=True)
class Pair:
    """Two runs on the same photos, trained with the same seed and fold: what the change did there.

    The second's rows are brought into the first's order by file name. Labels may differ (where the change is
    the mapping of categories to materials): each run is scored on its own. Groups are those of the first.

    Raises:
        ValueError: the runs were tested on different photos, or on different numbers of materials.
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
                f"seed {self.seed}, fold {self.fold}: {len(apart)} photos, {min(apart)} among them, were tested by "
                "one of the two runs only; pair runs on the same photos"
            )
        if np.shape(self.first.labels) != np.shape(self.second.labels):
            raise ValueError(f"seed {self.seed}, fold {self.fold}: the two runs know different numbers of materials")
        row_of = {name: row for row, name in enumerate(self.second.file_names)}
        object.__setattr__(self, "second", self.second.rows([row_of[name] for name in wanted]))


@dataclass(frozen=True)
class Difference:
    """Second minus first of one metric, for one model or all.

    Attributes:
        model, metric: of what.
        first_mean, second_mean, difference: mean over folds of the mean over seeds; models weigh alike.
        low, high: the 95 % interval of the difference; NaN where one group of photos is all there is.
        standard_error, degrees_of_freedom, p_value: of the test that the difference is 0 (Student's t).
        p_adjusted: the p value corrected for the number of comparisons (:func:`correct_together`).
        photo_variance: how much other photos would change the difference.
        training_variance: how much other seeds would beyond that; NaN with one seed a fold, where it cannot be
            known and counts as 0 in the interval.
        fixed_variance, seed_variance: the variance with S seeds a fold is fixed_variance + seed_variance / S.
        photo_degrees: degrees of freedom of photo_variance.
        cells: pairs of model and fold.
        seeds_a_cell: how many seeds each of them has (harmonic mean).
        pairs, seeds, folds, groups, photos: how many distinct ones went in.
    """

    model: str
    metric: str
    first_mean: float
    second_mean: float
    difference: float
    low: float
    high: float
    standard_error: float
    degrees_of_freedom: float
    p_value: float
    p_adjusted: float
    photo_variance: float
    training_variance: float
    fixed_variance: float
    seed_variance: float
    photo_degrees: float
    cells: int
    seeds_a_cell: float
    pairs: int
    seeds: int
    folds: int
    groups: int
    photos: int

    @property
    def verdict(self) -> Verdict:
        """Whether the change helps, after correction for the number of comparisons."""
        return verdict_of(self.difference, self.p_adjusted)
