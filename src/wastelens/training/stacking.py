"""Stack two answers: a ridge regression on features, and evidence that outlines taught."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wastelens.errors import NonFiniteLossError
from wastelens.system.arrays import Float32Array, FloatArray
from wastelens.training.probe import Probe, group_folds

STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0)  # of the ridge penalty, per row and standardised feature
_LEAST_SPREAD = 1e-6  # a column that hardly varies is left out


def fit_stacked(features: Float32Array, labels: npt.NDArray[np.uint8], groups: Sequence[str], *, seed: int) -> Probe:
    """Fit a ridge regression on labels; then, by logistic regression, how much it counts beside the evidence.

    The logit of a material is a · (ridge) + b · (evidence) + its own constant, on answers for photos of held-out folds,
    standardised (stacking, Wolpert 1992). All materials share a and b: few photos show some of them.

    Args:
        features: (rows, features); the last columns are the evidence of each material, which those rows did not teach.
        labels: 0 and 1, (rows, materials).
        groups: rows of one group are in the same fold.
        seed: of the folds.

    Returns:
        the whole as one linear layer; ``strength`` is that of the ridge penalty.

    Raises:
        NonFiniteLossError: a feature is not finite.
    """
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_val_predict

    rows, materials = labels.shape
    mean, scale = _standard(features)
    x, evidence = np.split((features - mean) * scale, [-materials], axis=1)
    targets, folds = labels.astype(np.float64), PredefinedSplit(group_folds(groups, seed))
    choices = {"alpha": [strength * rows for strength in STRENGTHS]}
    ridge = GridSearchCV(Ridge(), choices, scoring="neg_mean_squared_error", cv=folds).fit(x, targets).best_estimator_
    held_out = cross_val_predict(ridge, x, targets, cv=folds)
    middle, stretch = _standard(held_out)
    answers = (held_out - middle) * stretch
    # Half a row of each kind, so that a material on all photos or none gets a probability, not 0 or 1.
    shared = np.stack([answers.T.ravel(), evidence.T.ravel()], axis=1)
    own = np.repeat(np.eye(materials), rows, axis=0)
    smooth = np.hstack([np.zeros((materials, 2)), np.eye(materials)])
    stack = LogisticRegression(fit_intercept=False).fit(
        np.vstack([np.hstack([shared, own]), smooth, smooth]),
        np.concatenate([labels.T.ravel(), np.zeros(materials), np.ones(materials)]),
        np.concatenate([np.ones(rows * materials), np.full(2 * materials, 0.5)]),
    )
    of_ridge, of_evidence, *constants = stack.coef_[0]
    kernel = np.vstack([ridge.coef_.T * stretch * of_ridge, np.eye(materials) * of_evidence]) * scale[:, None]
    bias = constants + of_ridge * (ridge.intercept_ - middle) * stretch - mean @ kernel
    logits = features @ kernel + bias
    loss = float((np.logaddexp(0.0, logits) - labels * logits).mean())
    return Probe(kernel.astype(np.float32), bias.astype(np.float32), ridge.alpha / rows, loss)


def _standard(columns: npt.NDArray[np.floating]) -> tuple[FloatArray, FloatArray]:
    """Return each column's mean, and the factor that gives it a standard deviation of 1; 0 if it hardly varies."""
    mean, spread = columns.mean(axis=0, dtype=np.float64), columns.std(axis=0, dtype=np.float64)
    if not np.isfinite(spread).all():
        raise NonFiniteLossError("A feature of the probe is not finite. Give other weights.")
    return mean, np.where(spread > _LEAST_SPREAD, 1 / np.maximum(spread, _LEAST_SPREAD), 0.0)
