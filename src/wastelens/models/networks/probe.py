"""Linear probes: a logistic regression per material on fixed features, of a pretrained backbone or an encoder."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from wastelens.config.networks import NETWORKS, EncoderNetworkConfig, NetworkConfig, Pooling
from wastelens.config.pretrain import AnyLearner
from wastelens.models.layers import LOGITS, layer_seeds, pooled, probabilities_of
from wastelens.models.networks.transfer import BackboneNetworkConfig


@NETWORKS.register("probe")
class ProbeConfig(BackboneNetworkConfig):
    """A backbone and a dense layer that logistic regression fits (Alain & Bengio 2017): ``conf/model/probe.yaml``."""

    is_probe: ClassVar[bool] = True
    probes_encoders: ClassVar[bool] = True
    kind: Literal["probe"]
    pooling: Pooling

    def build(self, *, image_side_px: int, outputs: int, seed: int) -> Any:
        """Return the network with random weights, the backbone's too, until :meth:`load_weights` and the fit."""
        import keras

        seeds = layer_seeds(seed)
        photos = keras.Input((image_side_px, image_side_px, 3), name="photo_0_255")
        probabilities = _linear_head(pooled(self.features(photos), self.pooling), outputs, next(seeds))
        return self.drawn(keras.Model(photos, probabilities, name=self.kind), seeds)

    def probe_of_start(self) -> NetworkConfig | None:
        """Return None: it is that probe."""
        return None


@NETWORKS.register("encoder_probe")
class EncoderProbeConfig(EncoderNetworkConfig):
    """The same on the encoder of a ``pretrain`` run, which ``model=probe`` becomes with ``pretrained=RUN_ID``."""

    is_probe: ClassVar[bool] = True
    probes_encoders: ClassVar[bool] = True
    any_learner: ClassVar[bool] = True
    kind: Literal["encoder_probe"]
    learner: AnyLearner
    pooling: Pooling

    def build(self, *, image_side_px: int, outputs: int, seed: int) -> Any:
        """Return the network with random weights, the encoder's too, until they are copied and the head is fitted."""
        import keras

        seeds = layer_seeds(seed)
        photos = keras.Input((image_side_px, image_side_px, 3), name="photo_0_255")
        code = self.learner.encode(photos, seeds)
        features = pooled(code, self.pooling) if len(code.shape) == 4 else code
        return keras.Model(photos, _linear_head(features, outputs, next(seeds)), name=self.kind)

    def probe_of_start(self) -> NetworkConfig | None:
        """Return the same network, which is built with random weights."""
        return self


def _linear_head(features: Any, outputs: int, seed: int) -> Any:
    """Return probabilities (batch, outputs) of features (batch, features)."""
    import keras

    kernel = keras.initializers.GlorotUniform(seed=seed)
    logits = keras.layers.Dense(outputs, kernel_initializer=kernel, dtype="float32", name=LOGITS)(features)
    return probabilities_of(logits)
