"""Fit a linear probe: a logistic regression per material on fixed features, its strength chosen by folds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wastelens.errors import NonFiniteLossError
from wastelens.evaluation.metrics import macro_average_precision
from wastelens.system import interrupts
from wastelens.system.arrays import Float32Array, FloatArray, IndexArray

# Inverse strengths of the L2 penalty, per standardised feature, from strong to weak.
STRENGTHS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1)
FOLDS = 5
_LEAST_SPREAD = 1e-6  # a feature that hardly varies is left out
_ITERATIONS = 500


@dataclass(frozen=True)
class Probe:
    """A fitted probe, for features as they are, not standardised.

    Attributes:
        kernel: float32 (features, materials).
        bias: float32 (materials,).
        strength: the chosen inverse strength of the penalty, of scikit-learn's ``C``.
        loss: mean binary cross-entropy on the training rows, in nats.
    """

    kernel: Float32Array
    bias: Float32Array
    strength: float
    loss: float


def fit_probe(
    features: Float32Array,
    labels: npt.NDArray[np.uint8],
    groups: Sequence[str],
    *,
    seed: int,
    progress: Callable[[], None] = lambda: None,
) -> Probe:
    """Fit a logistic regression per material on standardised features; choose one strength for all by macro AP.

    Args:
        features: (rows, features).
        labels: 0 and 1, (rows, materials).
        groups: rows of one group are in the same of the folds that choose the strength.
        seed: of the folds.
        progress: called once a material.

    Raises:
        NonFiniteLossError: a feature is not finite.
    """
    mean, spread = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    if not np.isfinite(spread).all():
        raise NonFiniteLossError("A feature of the probe is not finite. Give other weights.")
    scale = np.where(spread > _LEAST_SPREAD, 1 / np.maximum(spread, _LEAST_SPREAD), 0.0)
    coordinates, basis = _rotated((features - mean) * scale)
    folds = group_folds(groups, seed)
    held_out = np.zeros((len(STRENGTHS), *labels.shape))
    for material in range(labels.shape[1]):
        for fold in range(int(folds.max()) + 1):
            inside, outside = folds != fold, folds == fold
            path = _path(coordinates[inside], labels[inside, material], STRENGTHS)
            held_out[:, outside, material] = [coordinates[outside] @ weights[:-1] + weights[-1] for weights in path]
        interrupts.check()
        progress()
    values = [float(macro_average_precision(labels, scores)) for scores in held_out]
    strength = STRENGTHS[int(np.argmax(values))]
    fitted = [_path(coordinates, labels[:, k], [strength])[0] for k in range(labels.shape[1])]
    weights = np.stack([one[:-1] for one in fitted], axis=1)
    kernel = (basis @ weights) * scale[:, None]
    bias = np.array([one[-1] for one in fitted]) - mean @ kernel
    logits = features @ kernel + bias
    loss = float((np.logaddexp(0.0, logits) - labels * logits).mean())
    return Probe(kernel.astype(np.float32), bias.astype(np.float32), strength, loss)


def _rotated(standardised: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the rows' coordinates (rows, rank), and the orthonormal basis (features, rank) that they refer to.

    A penalty on the squared norm does not change under rotation, and its solution lies in the span of the rows: fewer
    coordinates than features give the same answer, sooner.
    """
    if standardised.shape[1] <= len(standardised):
        return standardised, np.eye(standardised.shape[1])
    left, singular, right = np.linalg.svd(standardised, full_matrices=False)
    return left * singular, right.T


def group_folds(groups: Sequence[str], seed: int) -> IndexArray:
    """Return each row's fold, from 0, by whole groups; where all rows are one group, by rows."""
    several = len(set(groups)) > 1
    names, of_row, sizes = np.unique(
        np.asarray(groups) if several else np.arange(len(groups)), return_inverse=True, return_counts=True
    )
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]  # large groups first, each into the smallest fold
    fold_of = np.zeros(len(names), np.intp)
    filled = np.zeros(min(FOLDS, len(names)), np.intp)
    for group in order:
        fold_of[group] = int(np.argmin(filled))
        filled[fold_of[group]] += sizes[group]
    return fold_of[of_row]


def _path(coordinates: FloatArray, labels: npt.NDArray[np.uint8], strengths: Sequence[float]) -> list[FloatArray]:
    """Return weights and bias, (coordinates + 1,), for each strength, each found from the one before.

    A material that all rows show, or none, gets its prevalence, smoothed by half a row of each kind.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    if labels.min() == labels.max():
        present = float(labels.sum()) + 0.5
        bias = np.log(present / (len(labels) + 1 - present))
        return [np.append(np.zeros(coordinates.shape[1]), bias)] * len(strengths)
    model = LogisticRegression(warm_start=True, max_iter=_ITERATIONS)
    found = []
    # The products are too small to share: on a busy machine, threads that wait for each other take 25 times as long.
    with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # weak penalties converge late, and are not chosen
        for strength in strengths:
            model.set_params(C=strength)
            model.fit(coordinates, labels)
            found.append(np.append(model.coef_[0], model.intercept_))
    return found
