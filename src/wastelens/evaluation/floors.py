"""Floors: the scores of the best predictor that gives every photo the same answer."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from wastelens.evaluation.metrics import checked_labels


@dataclass(frozen=True)
class Floors:
    """Scores of the best constant predictor on exactly the photos being scored.

    It is chosen in hindsight, separately for each metric: no constant can do better, so a model at or below a floor has
    shown nothing.
    """

    macro_ap: float
    macro_f1: float
    subset_accuracy: float

    def metrics(self) -> dict[str, float]:
        """Return the floors by their MLflow names."""
        return {f"floor_{name}": value for name, value in asdict(self).items()}


def floors(labels: npt.ArrayLike) -> Floors:
    """Return the floors for labels (n, m); p is the share of photos that show a material.

    Macro AP: any constant scores p, averaged over the materials that occur. Macro F1: predicting a material for every
    photo scores 2p/(1+p), for none 0. Subset accuracy: the share of the most frequent combination of materials.

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
    )
