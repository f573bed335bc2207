"""What a multi-label verdict is worth: average precision from scores, F1 and its relatives from decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wastelens.evaluation import bootstrap

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# Resamples times photos handled at once: 8 bytes each in a few temporaries, so some 100 MB at the peak.
_CELLS_AT_ONCE = 4_000_000


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> FloatArray:
    """Step-wise average precision of a material: Σₖ (Rₖ - Rₖ₋₁) Pₖ over the distinct scores, highest first.

    Photos of equal score enter together, so a constant predictor scores the prevalence. Unlike the trapezoid
    under the curve this never interpolates (Davis & Goadrich 2006, ICML; the definition of scikit-learn's
    ``average_precision_score``).

    Args:
        labels: 0 or 1, shape (n,).
        scores: any finite numbers, shape (n,); only their order counts.
        weights: how often each photo counts, ≥ 0: none (once each), (n,), or (resamples, n) for many
            weightings of the same scores, which are sorted once.

    Returns:
        float64 of shape () or (resamples,); NaN where no positive has weight.

    Raises:
        ValueError: shapes that do not fit, labels other than 0 and 1, scores that are not finite, negative
            weights.
    """
    truth, numbers = _checked_labels(labels, 1), _checked_scores(scores, 1)
    _same_shape(truth, numbers)
    counts = _checked_weights(weights, len(truth))
    order = np.argsort(-numbers, kind="stable")
    ends = _ends_of_ties(numbers[order])
    positive = truth[order]
    table = np.atleast_2d(counts)
    step = max(1, _CELLS_AT_ONCE // len(truth))
    parts = [_stepwise(table[at : at + step, order], positive, ends) for at in range(0, len(table), step)]
    return np.concatenate(parts).reshape(counts.shape[:-1])


def _stepwise(weights: npt.NDArray[Any], positive: BoolArray, ends: npt.NDArray[np.intp]) -> FloatArray:
    """AP of weightings (resamples, n) that are sorted by falling score already."""
    seen = np.cumsum(weights, axis=1)[:, ends]
    found = np.cumsum(weights * positive, axis=1)[:, ends]
    precision = _quotient(found, seen, 0.0)
    gained = np.diff(found, axis=1, prepend=0)
    total = found[:, -1].astype(np.float64)
    area = (gained * precision).sum(axis=1)
    return _quotient(area, total, np.nan)


def _ends_of_ties(falling: FloatArray) -> npt.NDArray[np.intp]:
    """The last position of each run of equal scores."""
    return np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)


def per_material_average_precision(
    labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> FloatArray:
    """:func:`average_precision` a material. labels, scores: (n, m) → (m,) or (resamples, m)."""
    truth, numbers = checked(labels, scores)
    columns = [average_precision(truth[:, j], numbers[:, j], weights) for j in range(truth.shape[1])]
    return np.stack(columns, axis=-1)


def macro_average_precision(
    labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> FloatArray:
    """Mean of the materials' average precisions. labels, scores: (n, m) → shape (), or (resamples,).

    A material without a positive has no average precision and is left out of the mean, in a resample as in
    the whole; the mean is NaN only where no material has one. (scikit-learn counts such a material as 0.)
    """
    return mean_of_defined(per_material_average_precision(labels, scores, weights))


def mean_of_defined(values: FloatArray) -> FloatArray:
    """Mean over the last axis of the entries that are not NaN; NaN where all are."""
    defined = ~np.isnan(values)
    count = np.asarray(defined.sum(axis=-1), dtype=np.float64)
    total = np.asarray(np.where(defined, values, 0.0).sum(axis=-1))
    return _quotient(total, count, np.nan)


def _quotient(above: npt.NDArray[Any], below: npt.NDArray[Any], otherwise: float) -> FloatArray:
    """Element by element, ``otherwise`` where the divisor is 0."""
    answer = np.full(np.shape(below), otherwise, dtype=np.float64)
    np.divide(above, below, out=answer, where=np.asarray(below > 0))
    return answer


def f1_per_material(labels: npt.ArrayLike, decisions: npt.ArrayLike) -> FloatArray:
    """F1 = 2·TP / (2·TP + FP + FN) a material, (n, m) → (m,); 0 where nothing is there or claimed."""
    truth, claimed = _checked_decisions(labels, decisions)
    return _f1((truth & claimed).sum(axis=0), claimed.sum(axis=0), truth.sum(axis=0))


def macro_f1(labels: npt.ArrayLike, decisions: npt.ArrayLike) -> float:
    """Mean F1 over all materials; those without a positive count 0, as in scikit-learn."""
    return float(f1_per_material(labels, decisions).mean())


def micro_f1(labels: npt.ArrayLike, decisions: npt.ArrayLike) -> float:
    """F1 of all (photo, material) decisions pooled."""
    truth, claimed = _checked_decisions(labels, decisions)
    return float(_f1((truth & claimed).sum(), claimed.sum(), truth.sum()))


def _f1(hits: npt.ArrayLike, claimed: npt.ArrayLike, present: npt.ArrayLike) -> FloatArray:
    both = np.asarray(claimed, dtype=np.float64) + np.asarray(present)
    return _quotient(2.0 * np.asarray(hits), both, 0.0)


def subset_accuracy(labels: npt.ArrayLike, decisions: npt.ArrayLike) -> float:
    """Share of the photos whose every material is decided rightly."""
    truth, claimed = _checked_decisions(labels, decisions)
    return float((truth == claimed).all(axis=1).mean())


def hamming_loss(labels: npt.ArrayLike, decisions: npt.ArrayLike) -> float:
    """Share of the (photo, material) decisions that are wrong."""
    truth, claimed = _checked_decisions(labels, decisions)
    return float((truth != claimed).mean())


def decide(probabilities: npt.ArrayLike, thresholds: npt.ArrayLike) -> BoolArray:
    """The decision rule of the whole project: probability ≥ threshold. (n, m) and (m,) → bool (n, m)."""
    return np.asarray(probabilities, dtype=np.float64) >= np.asarray(thresholds, dtype=np.float64)


@dataclass(frozen=True)
class Evaluation:
    """What a model scores on one split.

    Attributes:
        materials: their names, in the order of every array here (m of them).
        macro_ap: mean average precision of the materials that occur.
        macro_ap_interval: its 95 % bootstrap interval, corrected for bias (see ``bootstrap.interval``).
        ap: average precision a material, (m,); NaN for one that does not occur.
        ap_low, ap_high: their 95 % bootstrap intervals, (m,).
        prevalence: share of the photos that show the material, (m,): the AP of any constant predictor.
        macro_f1, micro_f1, subset_accuracy, hamming_loss: of the decisions at the calibrated thresholds.
        macro_f1_at_half: of the decisions at 0.5.
        photos: how many were scored.
    """

    materials: tuple[str, ...]
    macro_ap: float
    macro_ap_interval: tuple[float, float]
    ap: FloatArray
    ap_low: FloatArray
    ap_high: FloatArray
    prevalence: FloatArray
    macro_f1: float
    macro_f1_at_half: float
    micro_f1: float
    subset_accuracy: float
    hamming_loss: float
    photos: int

    def metrics(self, prefix: str) -> dict[str, float]:
        """By their MLflow names; a material without a positive gets no ``ap_…`` (there is no such number)."""
        low, high = self.macro_ap_interval
        named = {
            "macro_ap": self.macro_ap,
            "macro_ap_low": low,
            "macro_ap_high": high,
            "macro_f1": self.macro_f1,
            "macro_f1_at_half": self.macro_f1_at_half,
            "micro_f1": self.micro_f1,
            "subset_accuracy": self.subset_accuracy,
            "hamming_loss": self.hamming_loss,
        }
        pairs = zip(self.materials, self.ap, strict=True)
        named |= {f"ap_{material}": float(ap) for material, ap in pairs if not np.isnan(ap)}
        return {f"{prefix}{name}": value for name, value in named.items()}


def evaluate(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    thresholds: npt.ArrayLike,
    materials: Sequence[str],
    rng: np.random.Generator,
    resamples: int = 1000,
    *,
    groups: npt.ArrayLike | None = None,
) -> Evaluation:
    """Score one split.

    Args:
        labels: 0 or 1, (n, m).
        probabilities: in [0, 1], (n, m).
        thresholds: (m,), chosen on validation photos.
        materials: the m names.
        rng: for the bootstrap.
        resamples: bootstrap resamples.
        groups: what each photo belongs to, (n,), where whole groups are to be resampled; otherwise photos
            are.

    Raises:
        ValueError: shapes that do not fit, labels other than 0 and 1, probabilities outside [0, 1] or not
            finite.
    """
    truth, numbers = checked(labels, probabilities)
    _check_probabilities(numbers)
    cuts = np.asarray(thresholds, dtype=np.float64)
    if cuts.shape != (truth.shape[1],) or len(materials) != truth.shape[1]:
        raise ValueError(f"{truth.shape[1]} label columns need as many thresholds and materials")
    decisions = decide(numbers, cuts)
    weights = bootstrap.multiplicities(len(truth), resamples, rng, groups)
    resampled = per_material_average_precision(truth, numbers, weights)
    ap = per_material_average_precision(truth, numbers)
    macro_ap = float(mean_of_defined(ap))
    bounds = np.array([_interval(column, one) for column, one in zip(resampled.T, ap.tolist(), strict=True)])
    return Evaluation(
        materials=tuple(materials),
        macro_ap=macro_ap,
        macro_ap_interval=_interval(mean_of_defined(resampled), macro_ap),
        ap=ap,
        ap_low=bounds[:, 0],
        ap_high=bounds[:, 1],
        prevalence=truth.mean(axis=0),
        macro_f1=macro_f1(truth, decisions),
        macro_f1_at_half=macro_f1(truth, numbers >= 0.5),
        micro_f1=micro_f1(truth, decisions),
        subset_accuracy=subset_accuracy(truth, decisions),
        hamming_loss=hamming_loss(truth, decisions),
        photos=len(truth),
    )


def _interval(resampled: FloatArray, ap: float) -> tuple[float, float]:
    """The bias-corrected 95 % interval of an average precision, within [0, 1]."""
    low, high = bootstrap.interval(resampled, estimate=ap)
    return float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))


def checked(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[BoolArray, FloatArray]:
    """Labels as bool and scores as float64, both (n, m).

    Raises:
        ValueError: they do not fit each other, hold no photo, or hold other values than they may.
    """
    truth, numbers = _checked_labels(labels, 2), _checked_scores(scores, 2)
    _same_shape(truth, numbers)
    return truth, numbers


def checked_probabilities(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[BoolArray, FloatArray]:
    """As :func:`checked`, the scores within [0, 1]."""
    truth, numbers = checked(labels, probabilities)
    _check_probabilities(numbers)
    return truth, numbers


def checked_labels(labels: npt.ArrayLike) -> BoolArray:
    """Labels as bool, (n, m).

    Raises:
        ValueError: another shape, no photo, or values other than 0 and 1.
    """
    return _checked_labels(labels, 2)


def _check_probabilities(numbers: FloatArray) -> None:
    if numbers.min() < 0 or numbers.max() > 1:
        raise ValueError(f"probabilities must lie in [0, 1]; these span {numbers.min():g} to {numbers.max():g}")


def _checked_labels(labels: npt.ArrayLike, dimensions: int) -> BoolArray:
    values = np.asarray(labels)
    if values.ndim != dimensions or values.size == 0:
        raise ValueError(f"labels must fill {dimensions} dimension(s); their shape is {values.shape}")
    truth = values.astype(bool)
    if not np.array_equal(truth, values):
        raise ValueError("labels must be 0 or 1")
    return truth


def _checked_scores(scores: npt.ArrayLike, dimensions: int) -> FloatArray:
    numbers = np.asarray(scores, dtype=np.float64)
    if numbers.ndim != dimensions:
        raise ValueError(f"scores must have {dimensions} dimension(s); their shape is {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(numbers))} of {numbers.size} scores are not finite")
    return numbers


def _checked_weights(weights: npt.ArrayLike | None, photos: int) -> npt.NDArray[Any]:
    counts = np.ones(photos, dtype=np.int64) if weights is None else np.asarray(weights)
    if counts.ndim not in (1, 2) or counts.shape[-1] != photos:
        raise ValueError(f"weights must be ({photos},) or (resamples, {photos}); their shape is {counts.shape}")
    if counts.size and (not np.isfinite(counts).all() or counts.min() < 0):
        raise ValueError("weights must be finite and not negative")
    return counts


def _checked_decisions(labels: npt.ArrayLike, decisions: npt.ArrayLike) -> tuple[BoolArray, BoolArray]:
    truth, claimed = _checked_labels(labels, 2), _checked_labels(decisions, 2)
    _same_shape(truth, claimed)
    return truth, claimed


def _same_shape(labels: npt.NDArray[Any], others: npt.NDArray[Any]) -> None:
    if labels.shape != others.shape:
        raise ValueError(f"labels are {labels.shape}, what is scored against them {others.shape}")
