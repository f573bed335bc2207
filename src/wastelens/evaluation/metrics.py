"""Metrics of multi-label predictions: average precision from probabilities, F1 and its relatives from decisions.

To add a metric, write a function of labels and probabilities or decisions and decorate it with :func:`metric`, which
keeps its title, unit and direction beside it; everything else takes it from :data:`METRICS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from wastelens.evaluation import bootstrap
from wastelens.system.arrays import Array, BoolArray, FloatArray, IndexArray
from wastelens.system.registry import Registry

# Resamples times photos handled at once: a few temporary arrays of 8 bytes each, so about 100 MB at the peak.
_CELLS_AT_ONCE = 4_000_000

Measure = TypeVar("Measure", bound=Callable[..., Any])


@dataclass(frozen=True)
class MetricValue:
    """A metric's value on one split.

    Attributes:
        value: over all materials; NaN if there is none.
        low, high: its 95 % interval; NaN for a metric without one.
        materials, materials_low, materials_high: value and 95 % interval per material, (m,), NaN for a material without
            positives; (0,) for a metric that is not measured per material.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    materials: FloatArray = field(default_factory=lambda: np.empty(0))
    materials_low: FloatArray = field(default_factory=lambda: np.empty(0))
    materials_high: FloatArray = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class Metric:
    """A number that says how good predictions are.

    Attributes:
        name: its MLflow name, without the split.
        title: as figures and tables show it.
        unit: of its values; empty for a number without one.
        better: which of two values is better.
        of: the second argument of the function, after the labels; both are (photos, materials).
        measure: the function. It returns one number or, if ``per_material``, one per material, (m,); with weights
            (resamples, photos) as a third argument, one row per resample, (resamples, m).
        per_material: whether it is measured for each material. The metric is then the mean over the materials that have
            a value, with a 95 % bootstrap interval.
        material_name: MLflow name of the values per material, ``<material_name>_<material>``; empty if they are not
            logged, because nobody compares runs by them.
    """

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    of: Literal["probabilities", "decisions"]
    measure: Callable[..., Any]
    per_material: bool = False
    material_name: str = ""

    def evaluate(
        self, labels: BoolArray, probabilities: FloatArray, decisions: BoolArray, weights: npt.NDArray[np.int32]
    ) -> MetricValue:
        """Measure predictions (photos, materials); weights: counts of photos in resamples, (resamples, photos)."""
        answers = probabilities if self.of == "probabilities" else decisions
        if not self.per_material:
            return MetricValue(float(self.measure(labels, answers)))
        resampled, each = self.measure(labels, answers, weights), self.measure(labels, answers)
        value = float(mean_of_defined(each))
        bounds = np.array([_interval(column, one) for column, one in zip(resampled.T, each.tolist(), strict=True)])
        return MetricValue(value, *_interval(mean_of_defined(resampled), value), each, bounds[:, 0], bounds[:, 1])

    def logged(self, value: MetricValue, materials: Sequence[str]) -> dict[str, float]:
        """Return a value by its MLflow names; a material without a value (no positives) gets no entry."""
        if not self.per_material:
            return {self.name: value.value}
        whole = {self.name: value.value, f"{self.name}_low": value.low, f"{self.name}_high": value.high}
        if not self.material_name:
            return whole
        pairs = zip(materials, value.materials.tolist(), strict=True)
        return whole | {f"{self.material_name}_{material}": one for material, one in pairs if not np.isnan(one)}


def _interval(resampled: FloatArray, estimate: float) -> tuple[float, float]:
    """Return the bias-corrected 95 % interval of a metric, within [0, 1]."""
    low, high = bootstrap.interval(resampled, estimate=estimate)
    return float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))


METRICS: Registry[Metric] = Registry("metric", __name__)


def metric(
    name: str,
    title: str,
    *,
    of: Literal["probabilities", "decisions"],
    unit: str = "",
    better: Literal["higher", "lower"] = "higher",
    per_material: bool = False,
    material_name: str = "",
) -> Callable[[Measure], Measure]:
    """Return a decorator that registers a function as a metric; for the arguments see :class:`Metric`.

    Raises:
        ValueError: a ``material_name`` for a metric that is not measured per material.
    """
    if material_name and not per_material:
        raise ValueError(f"{name} has a material_name: say per_material=True, too")

    def add(measure: Measure) -> Measure:
        METRICS.register(name)(Metric(name, title, unit, better, of, measure, per_material, material_name))
        return measure

    return add


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> FloatArray:
    """Return the step-wise average precision of a material: Σₖ (Rₖ - Rₖ₋₁) Pₖ over the distinct scores, highest first.

    Photos of equal score count together, so a constant predictor scores the prevalence. Unlike the trapezoidal area
    under the curve, this never interpolates (Davis & Goadrich 2006, ICML; scikit-learn's ``average_precision_score``
    uses the same definition).

    Args:
        labels: 0 or 1, shape (n,).
        scores: any finite numbers, shape (n,); only their order matters.
        weights: how often each photo counts, ≥ 0: None (once each), (n,), or (resamples, n) for many weightings of
            the same scores, which are sorted only once.

    Returns:
        float64 of shape () or (resamples,); NaN where no positive has weight.

    Raises:
        ValueError: the shapes do not match, labels are not 0 or 1, scores are not finite, or weights are negative.
    """
    truth, numbers = checked(labels, scores, 1)
    counts = _checked_weights(weights, len(truth))
    order = np.argsort(-numbers, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(numbers[order])), len(numbers) - 1)  # of each run of equal scores
    table, step = np.atleast_2d(counts), max(1, _CELLS_AT_ONCE // len(truth))
    parts = [_stepwise(table[at : at + step, order], truth[order], ends) for at in range(0, len(table), step)]
    return np.concatenate(parts).reshape(counts.shape[:-1])


def _stepwise(weights: Array, positive: BoolArray, ends: IndexArray) -> FloatArray:
    """Return the AP of weightings (resamples, n) already sorted by falling score."""
    seen = np.cumsum(weights, axis=1)[:, ends]
    found = np.cumsum(weights * positive, axis=1)[:, ends]
    area = (np.diff(found, axis=1, prepend=0) * _quotient(found, seen, 0.0)).sum(axis=1)
    return _quotient(area, found[:, -1].astype(np.float64), np.nan)


@metric("macro_ap", "macro AP", of="probabilities", per_material=True, material_name="ap")
def per_material_average_precision(
    labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> FloatArray:
    """Return :func:`average_precision` per material. labels, scores: (n, m) → (m,) or (resamples, m)."""
    truth, numbers = checked(labels, scores)
    columns = [average_precision(truth[:, j], numbers[:, j], weights) for j in range(truth.shape[1])]
    return np.stack(columns, axis=-1)


def macro_average_precision(
    labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> FloatArray:
    """Return the mean of the materials' average precisions. labels, scores: (n, m) → shape () or (resamples,).

    A material without positives has no average precision and is left out of the mean, in resamples too; the mean is
    NaN only if no material has positives. (scikit-learn counts such a material as 0.)
    """
    return mean_of_defined(per_material_average_precision(labels, scores, weights))


def mean_of_defined(values: FloatArray) -> FloatArray:
    """Return the mean over the last axis of the entries that are not NaN; NaN where all are."""
    defined = ~np.isnan(values)
    count = np.asarray(defined.sum(axis=-1), dtype=np.float64)
    total = np.asarray(np.where(defined, values, 0.0).sum(axis=-1))
    return _quotient(total, count, np.nan)


def _quotient(above: Array, below: Array, otherwise: float) -> FloatArray:
    """Divide element by element; return ``otherwise`` where the divisor is 0."""
    answer = np.full(np.shape(below), otherwise, dtype=np.float64)
    np.divide(above, below, out=answer, where=np.asarray(below > 0))
    return answer


@metric("macro_f1", "macro F1", of="decisions")
def macro_f1(labels: npt.ArrayLike, decisions: npt.ArrayLike) -> float:
    """Return the mean over all materials of F1 = 2·TP / (2·TP + FP + FN).

    A material that is neither present nor predicted counts as 0, as in scikit-learn.
    """
    truth, predicted = checked_decisions(labels, decisions)
    return float(_f1((truth & predicted).sum(axis=0), predicted.sum(axis=0), truth.sum(axis=0)).mean())


@metric("macro_f1_at_half", "macro F1 at threshold 0.5", of="probabilities")
def macro_f1_at_half(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Return :func:`macro_f1` of the decisions at threshold 0.5."""
    return macro_f1(labels, np.asarray(probabilities) >= 0.5)


@metric("micro_f1", "micro F1", of="decisions")
def micro_f1(labels: npt.ArrayLike, decisions: npt.ArrayLike) -> float:
    """Return the F1 of all (photo, material) decisions pooled."""
    truth, predicted = checked_decisions(labels, decisions)
    return float(_f1((truth & predicted).sum(), predicted.sum(), truth.sum()))


def _f1(hits: npt.ArrayLike, predicted: npt.ArrayLike, present: npt.ArrayLike) -> FloatArray:
    both = np.asarray(predicted, dtype=np.float64) + np.asarray(present)
    return _quotient(2.0 * np.asarray(hits), both, 0.0)


@metric("subset_accuracy", "subset accuracy", of="decisions", unit="share of photos")
def subset_accuracy(labels: npt.ArrayLike, decisions: npt.ArrayLike) -> float:
    """Return the share of photos with all materials decided correctly."""
    truth, predicted = checked_decisions(labels, decisions)
    return float((truth == predicted).all(axis=1).mean())


@metric("hamming_loss", "Hamming loss", of="decisions", unit="share of decisions", better="lower")
def hamming_loss(labels: npt.ArrayLike, decisions: npt.ArrayLike) -> float:
    """Return the share of (photo, material) decisions that are wrong."""
    truth, predicted = checked_decisions(labels, decisions)
    return float((truth != predicted).mean())


EQUAL_BINS = 10  # of probabilities, for the expected calibration error


@metric("brier", "Brier score", of="probabilities", better="lower", per_material=True)
def brier_score(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> FloatArray:
    """Return the mean of (probability - label)² per material (Brier 1950). (n, m) twice → (m,) or (resamples, m)."""
    truth, numbers = checked_probabilities(labels, probabilities)
    return _weighted_means(np.square(numbers - truth), _checked_weights(weights, len(truth)))


@metric("ece", "expected calibration error", of="probabilities", better="lower", per_material=True)
def expected_calibration_error(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> FloatArray:
    """Return Σ over ten equal bins of |mean probability - share of positives|, weighted by the photos in the bin.

    Guo et al. 2017, ICML, eq. 3, for each material. It is above 0 by chance, the more the fewer photos there are.
    (n, m) twice → (m,) or (resamples, m).
    """
    truth, numbers = checked_probabilities(labels, probabilities)
    counts = _checked_weights(weights, len(truth))
    in_bin = np.minimum((numbers * EQUAL_BINS).astype(np.intp), EQUAL_BINS - 1)
    excess = numbers - truth
    parts = [np.abs(_weighted_means(np.where(in_bin == one, excess, 0.0), counts)) for one in range(EQUAL_BINS)]
    return np.asarray(np.sum(parts, axis=0))


@metric("aurc", "area under risk–coverage", of="probabilities", better="lower", per_material=True)
def area_under_risk_coverage(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> FloatArray:
    """Return the mean share of wrong answers among the surest photos, over all shares of photos that are answered.

    The answer is yes from a probability of 0.5, and the surer the farther from it; photos as sure as each other count
    together (Geifman & El-Yaniv 2017, NeurIPS). A constant gets min(p, 1 - p). (n, m) twice → (m,) or (resamples, m).
    """
    truth, numbers = checked_probabilities(labels, probabilities)
    counts = _checked_weights(weights, len(truth))
    columns = [_area_of_risk(truth[:, j], numbers[:, j], counts) for j in range(truth.shape[1])]
    return np.stack(columns, axis=-1)


def _area_of_risk(truth: BoolArray, numbers: FloatArray, counts: Array) -> FloatArray:
    table, step = np.atleast_2d(counts), max(1, _CELLS_AT_ONCE // len(truth))
    areas = []
    for at in range(0, len(table), step):
        coverage, risk = risk_over_coverage(truth, numbers, table[at : at + step])
        areas.append((np.diff(coverage, axis=1, prepend=0) * risk).sum(axis=1))
    return np.concatenate(areas).reshape(counts.shape[:-1])


def risk_over_coverage(
    truth: BoolArray, probabilities: FloatArray, weights: Array | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return the share of photos answered, rising, and the share of wrong answers among them.

    Args:
        truth: of one material, (n,).
        probabilities: (n,).
        weights: how often each photo counts, (resamples, n); None: once.

    Returns:
        Both (resamples, distinct distances from 0.5).
    """
    sureness = np.abs(probabilities - 0.5)
    order = np.argsort(-sureness, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(sureness[order])), len(sureness) - 1)
    counts = np.ones((1, len(truth))) if weights is None else weights
    seen = np.cumsum(counts[:, order], axis=1)[:, ends]
    wrong = np.cumsum(counts[:, order] * ((probabilities >= 0.5) != truth)[order], axis=1)[:, ends]
    return _quotient(seen, np.repeat(seen[:, -1:], seen.shape[1], axis=1), np.nan), _quotient(wrong, seen, 0.0)


def _weighted_means(values: FloatArray, weights: Array) -> FloatArray:
    """Return means over photos of values (n, m): (m,), or (resamples, m) for weights (resamples, n)."""
    table, step = np.atleast_2d(weights), max(1, _CELLS_AT_ONCE // len(values))
    sums = [table[at : at + step].astype(np.float64) @ values for at in range(0, len(table), step)]
    means = np.concatenate(sums) / table.sum(axis=1, dtype=np.float64)[:, None]
    return np.asarray(means.reshape(*weights.shape[:-1], values.shape[1]))


def decide(probabilities: npt.ArrayLike, thresholds: npt.ArrayLike) -> BoolArray:
    """Apply the decision rule of the whole project: probability ≥ threshold. (n, m) and (m,) → bool (n, m)."""
    return np.asarray(probabilities, dtype=np.float64) >= np.asarray(thresholds, dtype=np.float64)


def checked(labels: npt.ArrayLike, scores: npt.ArrayLike, dimensions: int = 2) -> tuple[BoolArray, FloatArray]:
    """Return labels as bool and scores as float64, both (n, m) or, in one dimension, (n,).

    Raises:
        ValueError: the shapes differ, there are no photos, labels are not 0 or 1, or scores are not finite.
    """
    truth, numbers = checked_labels(labels, dimensions), np.asarray(scores, dtype=np.float64)
    if truth.shape != numbers.shape:
        raise ValueError(f"labels have shape {truth.shape}, their predictions {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(numbers))} of {numbers.size} scores are not finite")
    return truth, numbers


def checked_probabilities(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[BoolArray, FloatArray]:
    """Do as :func:`checked`, and check that the scores lie within [0, 1]."""
    truth, numbers = checked(labels, probabilities)
    if numbers.min() < 0 or numbers.max() > 1:
        raise ValueError(f"probabilities must lie in [0, 1]; these range from {numbers.min():g} to {numbers.max():g}")
    return truth, numbers


def checked_labels(labels: npt.ArrayLike, dimensions: int = 2) -> BoolArray:
    """Return labels as bool, (n, m) or, in one dimension, (n,).

    Raises:
        ValueError: there are other dimensions or no photos, or values are not 0 or 1.
    """
    values = np.asarray(labels)
    if values.ndim != dimensions or values.size == 0:
        raise ValueError(f"labels must have {dimensions} dimension(s) and not be empty; their shape is {values.shape}")
    truth = values.astype(bool)
    if not np.array_equal(truth, values):
        raise ValueError("labels must be 0 or 1")
    return truth


def _checked_weights(weights: npt.ArrayLike | None, photos: int) -> Array:
    counts = np.ones(photos, dtype=np.int64) if weights is None else np.asarray(weights)
    if counts.ndim not in (1, 2) or counts.shape[-1] != photos:
        raise ValueError(f"weights must be ({photos},) or (resamples, {photos}); their shape is {counts.shape}")
    if counts.size and (not np.isfinite(counts).all() or counts.min() < 0):
        raise ValueError("weights must be finite and not negative")
    return counts


def checked_decisions(labels: npt.ArrayLike, decisions: npt.ArrayLike) -> tuple[BoolArray, BoolArray]:
    """Return labels and decisions as bool, both (n, m); raise ValueError if their shapes differ, or as for labels."""
    truth, predicted = checked_labels(labels), checked_labels(decisions)
    if truth.shape != predicted.shape:
        raise ValueError(f"labels have shape {truth.shape}, their decisions {predicted.shape}")
    return truth, predicted


@dataclass(frozen=True)
class Floors:
    """Scores of the best constant predictor on exactly the photos being scored.

    It is chosen in hindsight, separately for each metric: no constant can do better, so a model at or below a floor has
    shown nothing.
    """

    macro_ap: float
    macro_f1: float
    subset_accuracy: float
    brier: float
    aurc: float

    def metrics(self) -> dict[str, float]:
        """Return the floors by their MLflow names."""
        return {f"floor/{name}": value for name, value in asdict(self).items()}


def floors(labels: npt.ArrayLike) -> Floors:
    """Return the floors for labels (n, m); p is the share of photos that show a material.

    Macro AP: any constant scores p, averaged over the materials that occur. Macro F1: predicting a material for every
    photo scores 2p/(1+p), for none 0. Subset accuracy: the share of the most frequent combination of materials. Brier
    score: p (1 - p), of the constant p. Area under risk–coverage: min(p, 1 - p).

    Raises:
        ValueError: labels are not (n, m) or not 0 or 1.
    """
    truth = checked_labels(labels)
    prevalence = truth.mean(axis=0)
    occurring = prevalence[prevalence > 0]
    _, copies = np.unique(truth, axis=0, return_counts=True)
    return Floors(
        macro_ap=float(occurring.mean()) if len(occurring) else float("nan"),
        macro_f1=float((2 * prevalence / (1 + prevalence)).mean()),
        subset_accuracy=float(copies.max() / len(truth)),
        brier=float((prevalence * (1 - prevalence)).mean()),
        aurc=float(np.minimum(prevalence, 1 - prevalence).mean()),
    )
