"""The model's own map of evidence, of models that have one: where it looked, times how much it took for a material."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from wastelens.config.explanation_methods import METHODS, MethodConfig, MethodInputs
from wastelens.explain.methods.evidence import Evidence, without_sum
from wastelens.models.networks.objects import EVIDENCE
from wastelens.system.arrays import IndexArray, PhotoArray


@METHODS.register("evidence_map")
class EvidenceMapConfig(MethodConfig):
    """The evidence map, which has no settings of its own."""

    title: ClassVar[str] = "Evidence map"
    in_auto: ClassVar[bool] = True

    @classmethod
    def misfit(cls, network: Any) -> str:
        """Return why the network has no such map."""
        names = [layer.name for layer in network.layers]
        return "" if EVIDENCE in names else "only model=objects has an evidence map"

    def build(self, network: Any, inputs: MethodInputs) -> EvidenceMaps:
        """Return the method, ready for this network."""
        return EvidenceMaps(network)


class EvidenceMaps:
    """The output of the layer ``evidence``: float32 (photos, rows, columns, materials), at least 0."""

    def __init__(self, model: Any) -> None:
        import keras

        self._network = keras.Model(model.input, model.get_layer(EVIDENCE).output)

    def __call__(self, photos: PhotoArray, pairs: IndexArray) -> Evidence:
        maps = np.asarray(self._network.predict_on_batch(photos.astype(np.float32)), dtype=np.float32)
        return without_sum(np.moveaxis(maps, -1, 1)[pairs[:, 0], pairs[:, 1]])
