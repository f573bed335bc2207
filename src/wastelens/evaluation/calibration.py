"""Calibrated probabilities: of the photos that get 0.3, three in ten should show the material."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from wastelens.data.prepared.tables import LabelTable, ValTable
from wastelens.evaluation.bootstrap import Interval, interval
from wastelens.evaluation.metrics import METRICS, MetricValue, brier_score, expected_calibration_error
from wastelens.system.arrays import Array, BoolArray, FloatArray
from wastelens.system.decision_rule import RisingMap, log_odds, sigmoid

NONE = "none"
_FOLDS = 5
_LEAST_SLOPE = 0.01  # of a map: the order of the photos stays even where val shows none
_SIMULATED = 200
_RESAMPLED_PARTS = 200
Fit = Callable[[BoolArray, FloatArray], list[RisingMap]]  # labels and log-odds, (n, materials)


@dataclass(frozen=True)
class Calibration:
    """A map of each material's probabilities, chosen on val.

    Attributes:
        kind: ``none``, ``temperature``, ``platt`` or ``isotonic``.
        maps: material → its map; empty for ``none``.
        brier: kind → macro Brier score on val, of maps that were fitted on the other folds.
    """

    kind: str
    maps: Mapping[str, RisingMap]
    brier: Mapping[str, float]


def calibrate_probabilities(table: LabelTable, probabilities: FloatArray, seed: int) -> Calibration:
    """Choose the kind of map whose Brier score is best over folds of val, and fit it to all of val.

    The folds are of whole groups, five at most. With a single group, nothing can be compared, and nothing is changed.

    Args:
        table: of val.
        probabilities: of the network for its photos, (n, materials).
        seed: of the folds.

    Raises:
        TypeError: the table holds another split. Maps that were fitted on test photos would look perfect.
    """
    from sklearn.model_selection import GroupKFold

    if not isinstance(table, ValTable):
        raise TypeError(f"probabilities are calibrated on a ValTable only, not on a {type(table).__name__}")
    truth, before = table.labels.astype(bool), log_odds(probabilities)
    units = len(set(table.groups))
    if units < 2:
        return Calibration(NONE, {}, {})
    split = GroupKFold(min(_FOLDS, units), shuffle=True, random_state=seed)
    folds = list(split.split(before, groups=list(table.groups)))
    brier = {NONE: float(brier_score(truth, sigmoid(before)).mean())}
    for kind, fit in KINDS.items():
        held_out = np.empty_like(before)
        for inside, outside in folds:
            held_out[outside] = _applied(fit(truth[inside], before[inside]), before[outside])
        brier[kind] = float(brier_score(truth, sigmoid(held_out)).mean())
    kind = min(brier, key=brier.__getitem__)
    maps = dict(zip(table.materials, KINDS[kind](truth, before), strict=True)) if kind != NONE else {}
    return Calibration(kind, maps, brier)


def _applied(maps: Sequence[RisingMap], before: FloatArray) -> FloatArray:
    return np.stack([one(column) for one, column in zip(maps, before.T, strict=True)], axis=1)


def _temperature(truth: BoolArray, before: FloatArray) -> list[RisingMap]:
    """Divide all log-odds by one number (Guo et al. 2017, ICML, §4.2), the one of least log loss."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        scaled = before * np.exp(-log_temperature)
        return float((np.logaddexp(0.0, scaled) - truth * scaled).mean())

    slope = float(np.exp(-minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded").x))
    return [_straight(slope, 0.0)] * truth.shape[1]


def _platt(truth: BoolArray, before: FloatArray) -> list[RisingMap]:
    """Fit a logistic regression of each material on its log-odds, with Platt's (1999) smoothed targets."""
    return [_platt_of(*columns) for columns in zip(truth.T, before.T, strict=True)]


def _platt_of(truth: BoolArray, before: FloatArray) -> RisingMap:
    from sklearn.linear_model import LogisticRegression

    positives, negatives = np.count_nonzero(truth), np.count_nonzero(~truth)
    target = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    inputs = np.tile(before, 2)[:, None]
    model = LogisticRegression(C=1e4, max_iter=1000)
    model.fit(inputs, np.repeat([1, 0], len(before)), sample_weight=np.concatenate([target, 1 - target]))
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope < _LEAST_SLOPE:  # val shows no relation, or a falling one
        slope = _LEAST_SLOPE
        offset = float(log_odds((positives + 1) / (len(truth) + 2)) - slope * before.mean())
    return _straight(slope, offset)


def _isotonic(truth: BoolArray, before: FloatArray) -> list[RisingMap]:
    """Fit each material's best rising function of its log-odds (Zadrozny & Elkan 2002, KDD), never quite 0 or 1."""
    return [_isotonic_of(*columns) for columns in zip(truth.T, before.T, strict=True)]


def _isotonic_of(truth: BoolArray, before: FloatArray) -> RisingMap:
    from sklearn.isotonic import IsotonicRegression

    least = 1 / (len(truth) + 2)
    fitted = IsotonicRegression(y_min=least, y_max=1 - least).fit(before, truth)
    x, y = np.asarray(fitted.X_thresholds_), log_odds(fitted.y_thresholds_)
    # Beyond the outer photos the function is flat: a steep last piece must not go on.
    x, y = np.array([x[0] - 1, *x, x[-1] + 1]), np.array([y[0], *y, y[-1]])
    return RisingMap(tuple(x.tolist()), tuple((y + _LEAST_SLOPE * x).tolist()))


def _straight(slope: float, offset: float) -> RisingMap:
    return RisingMap((0.0, 1.0), (offset, offset + slope))


KINDS: Mapping[str, Fit] = {"temperature": _temperature, "platt": _platt, "isotonic": _isotonic}


@dataclass(frozen=True)
class Reliability:
    """How well probabilities agree with what is seen; arrays are (materials,).

    The Brier score is miscalibration - discrimination + uncertainty, exactly (Dimitriadis, Gneiting & Jordan 2021, PNAS
    118: CORP, from isotonic regression, without bins).

    Attributes:
        brier, ece: Brier score and expected calibration error, over all and per material.
        miscalibration, discrimination: parts of the Brier score: value, lower and upper bound of the macro mean and of
            each material, (3, 1 + materials).
        calibrated_ece: the expected calibration error that such probabilities would have if they were right: labels
            drawn from them, mean of 200 draws.
    """

    brier: MetricValue
    ece: MetricValue
    miscalibration: FloatArray
    discrimination: FloatArray
    calibrated_ece: FloatArray


@dataclass(frozen=True)
class CalibrationReport:
    """Probabilities on test, before and after calibration.

    Attributes:
        kind: of the map.
        materials: in the order of all arrays.
        uncertainty: Brier score of the prevalence, (materials,): the floor.
        before, after: of the network, and calibrated.
        brier_change, ece_change: after minus before, over all materials.
    """

    kind: str
    materials: tuple[str, ...]
    uncertainty: FloatArray
    before: Reliability
    after: Reliability
    brier_change: Interval
    ece_change: Interval

    def metrics(self) -> dict[str, float]:
        """Return what is compared between runs, by its MLflow names."""
        changes = {"brier": self.brier_change, "ece": self.ece_change}
        return {
            "calibration/brier_before": self.before.brier.value,
            "calibration/ece_before": self.before.ece.value,
            "calibration/miscalibration": float(self.after.miscalibration[0, 0]),
            "calibration/discrimination": float(self.after.discrimination[0, 0]),
            **{
                f"calibration/{name}_change{end}": value
                for name, change in changes.items()
                for end, value in (("", change.estimate), ("_low", change.low), ("_high", change.high))
            },
            "floor/ece": float(self.after.calibrated_ece.mean()),
        }

    def table(self) -> pd.DataFrame:
        """Return calibration.csv: a row for the macro mean and each material, before and after."""
        return pd.concat([self._rows("before", self.before), self._rows("after", self.after)], ignore_index=True)

    def _rows(self, stage: str, found: Reliability) -> pd.DataFrame:
        columns: dict[str, object] = {"probabilities": stage, "material": ["all (macro)", *self.materials]}
        for name, value in (("brier", found.brier), ("ece", found.ece)):
            columns[name] = [value.value, *value.materials]
            columns[f"{name}_low"] = [value.low, *value.materials_low]
            columns[f"{name}_high"] = [value.high, *value.materials_high]
        for name, parts in (("miscalibration", found.miscalibration), ("discrimination", found.discrimination)):
            for end, part in zip(("", "_low", "_high"), parts, strict=True):
                columns[f"{name}{end}"] = part
        columns["uncertainty"] = [self.uncertainty.mean(), *self.uncertainty]
        columns["ece_if_calibrated"] = [found.calibrated_ece.mean(), *found.calibrated_ece]
        return pd.DataFrame(columns)

    @property
    def sentence(self) -> str:
        """The change by calibration, in one line."""
        before, after, change = self.before, self.after, self.brier_change
        if self.kind == NONE:
            return (
                f"Probabilities are the network's own: Brier score {after.brier.value:.3f} (floor "
                f"{self.uncertainty.mean():.3f}), expected calibration error {after.ece.value:.3f} (by chance "
                f"{after.calibrated_ece.mean():.3f})."
            )
        return (
            f"Probabilities are calibrated on val ({self.kind}): Brier score {before.brier.value:.3f} → "
            f"{after.brier.value:.3f} ({change.estimate:+.3f} [{change.low:+.3f}, {change.high:+.3f}]; floor "
            f"{self.uncertainty.mean():.3f}), expected calibration error {before.ece.value:.3f} → "
            f"{after.ece.value:.3f} (by chance {after.calibrated_ece.mean():.3f})."
        )


def report_calibration(
    labels: BoolArray,
    before: FloatArray,
    after: FloatArray,
    materials: Sequence[str],
    kind: str,
    weights: Array,
    rng: np.random.Generator,
) -> CalibrationReport:
    """Measure probabilities, (photos, materials), before and after calibration.

    Args:
        labels: (photos, materials).
        before, after: probabilities.
        materials: their names.
        kind: of the map.
        weights: counts of photos in resamples, (resamples, photos).
        rng: of the simulated labels.
    """
    sides = _reliability(labels, before, weights, rng), _reliability(labels, after, weights, rng)
    prevalence = labels.mean(axis=0)

    def change(measure: Callable[..., FloatArray]) -> Interval:
        resampled = [measure(labels, one, weights).mean(axis=1) for one in (before, after)]
        whole = [float(measure(labels, one).mean()) for one in (before, after)]
        estimate = whole[1] - whole[0]
        return Interval(estimate, *interval(resampled[1] - resampled[0], estimate=estimate))

    return CalibrationReport(
        kind,
        tuple(materials),
        prevalence * (1 - prevalence),
        *sides,
        brier_change=change(brier_score),
        ece_change=change(expected_calibration_error),
    )


def _reliability(labels: BoolArray, probabilities: FloatArray, weights: Array, rng: np.random.Generator) -> Reliability:
    values = {name: METRICS[name].evaluate(labels, probabilities, labels, weights) for name in ("brier", "ece")}
    simulated = [
        expected_calibration_error(rng.random(probabilities.shape) < probabilities, probabilities)
        for _ in range(_SIMULATED)
    ]
    miscalibration, discrimination = _parts_with_intervals(labels, probabilities, weights[:_RESAMPLED_PARTS])
    return Reliability(values["brier"], values["ece"], miscalibration, discrimination, np.mean(simulated, axis=0))


def _parts_with_intervals(labels: BoolArray, probabilities: FloatArray, weights: Array) -> FloatArray:
    """Return miscalibration and discrimination with 95 % intervals, macro mean first: (2, 3, 1 + materials)."""

    def parts(counts: Array | None) -> FloatArray:
        each = np.array([brier_parts(*one, counts) for one in zip(labels.T, probabilities.T, strict=True)])
        return np.concatenate([each.mean(axis=0)[None], each]).T

    whole, resampled = parts(None), np.array([parts(one) for one in weights])
    found = np.empty((2, 3, whole.shape[1]))
    for part, place in np.ndindex(*whole.shape):
        estimate = float(whole[part, place])
        found[part, :, place] = estimate, *interval(resampled[:, part, place], estimate=estimate)
    return np.clip(found, 0, None)


def brier_parts(labels: BoolArray, probabilities: FloatArray, weights: Array | None = None) -> tuple[float, float]:
    """Return miscalibration and discrimination, whose difference, with p (1 - p) added, is the Brier score.

    Args:
        labels, probabilities: of one material, (n,).
        weights: how often each photo counts, (n,).
    """
    counts = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
    best = recalibrated(labels, probabilities, counts)
    prevalence = np.average(labels, weights=counts)
    own, reached, constant = (
        float(np.average(np.square(forecast - labels), weights=counts))
        for forecast in (probabilities, best, prevalence)
    )
    return own - reached, constant - reached


def recalibrated(labels: BoolArray, probabilities: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Return the rising function of the probabilities that fits the labels best, at each photo: (n,)."""
    from scipy.optimize import isotonic_regression

    distinct, at = np.unique(probabilities, return_inverse=True)
    total = np.bincount(at, weights, len(distinct)).astype(np.float64)
    hits = np.bincount(at, labels if weights is None else weights * labels, len(distinct))
    seen = total > 0
    fitted = np.zeros(len(distinct))
    fitted[seen] = isotonic_regression(hits[seen] / total[seen], weights=total[seen]).x
    return np.asarray(fitted[at])
