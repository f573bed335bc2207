"""Scores of a model on one split, with intervals, and the difference between two models on the same photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wastelens.evaluation.bootstrap import Interval, interval, multiplicities
from wastelens.evaluation.metrics import METRICS, MetricValue, checked_probabilities, decide, macro_average_precision
from wastelens.system.arrays import FloatArray


@dataclass(frozen=True)
class Evaluation:
    """A model's scores on one split.

    Attributes:
        materials: the m names, in the order of every array here.
        prevalence: share of photos that show each material, (m,): the AP of any constant predictor.
        values: metric → its value, for every metric in ``METRICS``.
    """

    materials: tuple[str, ...]
    prevalence: FloatArray
    photos: int
    values: Mapping[str, MetricValue]

    @property
    def macro_ap(self) -> float:
        """Mean average precision of the materials that occur."""
        return self.values["macro_ap"].value

    @property
    def macro_ap_interval(self) -> tuple[float, float]:
        """The 95 % bootstrap interval of macro AP, corrected for bias (see ``bootstrap.interval``)."""
        return self.values["macro_ap"].low, self.values["macro_ap"].high

    def metrics(self, prefix: str) -> dict[str, float]:
        """Return all values by their MLflow names after a prefix."""
        return {
            f"{prefix}{name}": number
            for metric, value in self.values.items()
            for name, number in METRICS[metric].logged(value, self.materials).items()
        }


def evaluate(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    thresholds: npt.ArrayLike,
    materials: Sequence[str],
    rng: np.random.Generator,
    resamples: int = 1000,
    groups: npt.ArrayLike | None = None,
) -> Evaluation:
    """Score one split by every metric.

    Args:
        labels: 0 or 1, (n, m).
        probabilities: in [0, 1], (n, m).
        thresholds: (m,), chosen on validation photos.
        materials: the m names.
        rng, resamples: of the bootstrap over photos, or over whole ``groups`` (n,) of them.

    Raises:
        ValueError: the shapes do not match, labels are not 0 or 1, or probabilities are not within [0, 1].
    """
    truth, numbers = checked_probabilities(labels, probabilities)
    cuts = np.asarray(thresholds, dtype=np.float64)
    if cuts.shape != (truth.shape[1],) or len(materials) != truth.shape[1]:
        raise ValueError(f"{truth.shape[1]} label columns need as many thresholds and materials")
    weights = multiplicities(len(truth), resamples, rng, groups)
    decisions = decide(numbers, cuts)
    values = {name: metric.evaluate(truth, numbers, decisions, weights) for name, metric in METRICS.parts.items()}
    return Evaluation(tuple(materials), truth.mean(axis=0), len(truth), values)


def paired_difference(
    labels: npt.ArrayLike,
    scores_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    rng: np.random.Generator,
    resamples: int = 1000,
    groups: npt.ArrayLike | None = None,
) -> Interval:
    """Return the macro AP of a minus that of b, all (n, m), with its 95 % interval from common resamples.

    These are of photos, or of whole ``groups`` (n,) of them.

    An easy resample is easy for both, so the difference is known more precisely than either number. The interval is
    corrected for bias (:func:`bootstrap.interval`): without that, random scores lie "above" constant ones in half of
    all cases, since only they profit from chance order.

    Raises:
        ValueError: the shapes do not match, labels are not 0 or 1, or scores are not finite.
    """
    weights = multiplicities(len(np.asarray(labels)), resamples, rng, groups)
    resampled = [macro_average_precision(labels, scores, weights) for scores in (scores_a, scores_b)]
    whole = [float(macro_average_precision(labels, scores)) for scores in (scores_a, scores_b)]
    estimate = whole[0] - whole[1]
    return Interval(estimate, *interval(resampled[0] - resampled[1], estimate=estimate))
