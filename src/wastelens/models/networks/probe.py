"""The linear probe: a logistic regression per material on a backbone's frozen features."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from wastelens.config.networks import NETWORKS, Pooling
from wastelens.models.layers import LOGITS, layer_seeds, pooled, probabilities_of
from wastelens.models.networks.transfer import BackboneNetworkConfig


@NETWORKS.register("probe")
class ProbeConfig(BackboneNetworkConfig):
    """A backbone and a dense layer that logistic regression fits (Alain & Bengio 2017): ``conf/model/probe.yaml``."""

    is_probe: ClassVar[bool] = True
    kind: Literal["probe"]
    enlarge_to_px: int = Field(ge=0, le=1024)
    pooling: Pooling

    def build(self, *, image_side_px: int, outputs: int, seed: int) -> Any:
        """Return the network with random weights, the backbone's too, until :meth:`load_weights` and the fit."""
        import keras

        seeds = layer_seeds(seed)
        photos = keras.Input((image_side_px, image_side_px, 3), name="photo_0_255")
        seen = photos
        if image_side_px < self.enlarge_to_px:
            resize = keras.layers.Resizing(self.enlarge_to_px, self.enlarge_to_px, dtype="float32", name="enlarge")
            seen = resize(photos)
        features = pooled(self.features(seen), self.pooling)
        kernel = keras.initializers.GlorotUniform(seed=next(seeds))
        logits = keras.layers.Dense(outputs, kernel_initializer=kernel, dtype="float32", name=LOGITS)(features)
        return self.drawn(keras.Model(photos, probabilities_of(logits), name=self.kind), seeds)
