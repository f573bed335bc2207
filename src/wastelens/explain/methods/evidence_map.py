"""The model's own map of evidence, of models that have one: its close-ups, by how much of a material it saw in each."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from wastelens.config.explanation_methods import METHODS, MethodConfig, MethodInputs
from wastelens.explain.methods.evidence import Evidence, without_sum
from wastelens.models.answers import has_own_map
from wastelens.models.networks.objects import evidence_map
from wastelens.system.arrays import IndexArray, PhotoArray


@METHODS.register("evidence_map")
class EvidenceMapConfig(MethodConfig):
    """The evidence map, which has no settings of its own."""

    title: ClassVar[str] = "Evidence map"
    in_auto: ClassVar[bool] = True

    @classmethod
    def misfit(cls, network: Any) -> str:
        """Return why the network has no such map."""
        return "" if has_own_map(network) else "only model=objects has an evidence map"

    def build(self, network: Any, inputs: MethodInputs) -> EvidenceMaps:
        """Return the method, ready for this network."""
        return EvidenceMaps(network)


class EvidenceMaps:
    """The maps of ``models.networks.objects.evidence_map``."""

    def __init__(self, model: Any) -> None:
        import keras

        self._network = keras.Model(model.input, evidence_map(model))

    def __call__(self, photos: PhotoArray, pairs: IndexArray) -> Evidence:
        maps = np.asarray(self._network.predict_on_batch(photos.astype(np.float32)), dtype=np.float32)
        return without_sum(np.moveaxis(maps, -1, 1)[pairs[:, 0], pairs[:, 1]])
