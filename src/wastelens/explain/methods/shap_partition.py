"""SHAP values of regions by shap's partition explainer: no gradient, only photos with parts blurred."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from wastelens.explain.methods.evidence import Evidence, Index, Photos
from wastelens.models.freezing import logits_tensor


class PartitionShap:
    """Owen values of ever smaller rectangles of the photo (Lundberg & Lee 2017; shap's ``PartitionExplainer``).

    What is masked is blurred; one set of masked photos serves all materials. The sums are exact by construction.

    Args:
        model: flat, as ``models.registry`` makes it.
        evaluations: masked photos a photo, at most.
        batch_size: masked photos at once.
    """

    def __init__(self, model: Any, *, evaluations: int, batch_size: int) -> None:
        import keras

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # shap 0.51 uses of matplotlib and numba what will once be gone
            import shap

        self._network = keras.Model(model.input, logits_tensor(model))
        side_px = model.input.shape[1]
        blur_px = max(1, side_px // 5)
        self._masker = shap.maskers.Image(f"blur({blur_px},{blur_px})", (side_px, side_px, 3))
        self._explainer = shap.PartitionExplainer(self._logits, self._masker)
        self._options = {"max_evals": evaluations, "batch_size": batch_size, "silent": True}

    def __call__(self, photos: Photos, pairs: Index) -> Evidence:
        wanted = np.unique(pairs[:, 0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            explained = self._explainer(photos[wanted], **self._options)
        rows = np.searchsorted(wanted, pairs[:, 0])
        values = np.asarray(explained.values, dtype=np.float64)[rows, ..., pairs[:, 1]]  # (pairs, side, side, 3)
        base = np.asarray(explained.base_values, dtype=np.float64)[rows, pairs[:, 1]]
        logits = self._logits(photos[wanted])[rows, pairs[:, 1]]
        errors = np.abs(values.sum(axis=(1, 2, 3)) - (logits - base))
        return Evidence(values.sum(axis=-1).astype(np.float32), errors)

    def _logits(self, photos: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return np.asarray(self._network.predict_on_batch(np.asarray(photos, dtype=np.float32)), dtype=np.float64)
