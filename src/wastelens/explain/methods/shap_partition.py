"""SHAP values of rectangles by shap's partition explainer, which needs no gradient: it blurs parts of the photo."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from wastelens.config.explanation_methods import METHODS, MethodConfig, MethodInputs
from wastelens.explain.methods.evidence import Evidence
from wastelens.models.features import photos_at_once
from wastelens.models.freezing import logits_tensor
from wastelens.system.arrays import Array, FloatArray, IndexArray, PhotoArray

_PASS_PHOTOS = 50  # masked copies per forward pass


@METHODS.register("shap_partition")
class PartitionShapConfig(MethodConfig):
    """Settings of SHAP by partition: ``conf/explain/shap_partition.yaml``."""

    title: ClassVar[str] = "SHAP (partition)"
    signed: ClassVar[bool] = True

    evaluations: int = Field(ge=10)

    def build(self, network: Any, inputs: MethodInputs) -> PartitionShap:
        """Return the method, ready for this network."""
        return PartitionShap(network, evaluations=self.evaluations)


class PartitionShap:
    """Owen values of ever smaller rectangles of the photo (Lundberg & Lee 2017; shap's ``PartitionExplainer``).

    Masked parts are blurred; one set of at most ``evaluations`` masked copies of a photo serves all materials. The sums
    are exact by construction. The model must be flat, as a network's ``build`` makes it.
    """

    def __init__(self, model: Any, *, evaluations: int) -> None:
        import keras

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # shap 0.51 uses deprecated parts of matplotlib and numba
            import shap

        self._network = keras.Model(model.input, logits_tensor(model))
        side_px = model.input.shape[1]
        blur_px = max(1, side_px // 5)
        self._masker = shap.maskers.Image(f"blur({blur_px},{blur_px})", (side_px, side_px, 3))
        self._explainer = shap.PartitionExplainer(self._logits, self._masker)
        self._options = {"max_evals": evaluations, "batch_size": photos_at_once(model, _PASS_PHOTOS), "silent": True}

    def __call__(self, photos: PhotoArray, pairs: IndexArray) -> Evidence:
        wanted = np.unique(pairs[:, 0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            explained = self._explainer(photos[wanted], **self._options)
        rows = np.searchsorted(wanted, pairs[:, 0])
        values = np.asarray(explained.values, dtype=np.float64)[rows, ..., pairs[:, 1]]  # (pairs, side, side, 3)
        base = np.asarray(explained.base_values, dtype=np.float64)[rows, pairs[:, 1]]
        logits = self._logits(photos[wanted])[rows, pairs[:, 1]]
        return Evidence(values.sum(axis=-1).astype(np.float32), np.abs(values.sum(axis=(1, 2, 3)) - (logits - base)))

    def _logits(self, photos: Array) -> FloatArray:
        return np.asarray(self._network.predict_on_batch(np.asarray(photos, dtype=np.float32)), dtype=np.float64)
