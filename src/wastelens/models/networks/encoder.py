"""Networks that start from an encoder: layers learned without labels, with a head for the materials."""

from __future__ import annotations

from typing import Any, Literal

from wastelens.config.networks import NETWORKS, EncoderNetworkConfig, HeadConfig
from wastelens.config.pretrain import AnyLearner
from wastelens.models.layers import classification_head, layer_seeds


class _EncoderWithHead(EncoderNetworkConfig, HeadConfig):
    learner: AnyLearner

    def build(self, *, image_side_px: int, outputs: int, seed: int) -> Any:
        """Return the encoder's layers with a head."""
        import keras

        seeds = layer_seeds(seed)
        photos = keras.Input((image_side_px, image_side_px, 3), name="photo_0_255")
        features = self.learner.encode(photos, seeds)
        probabilities = classification_head(features, self, outputs=outputs, seeds=seeds)
        return keras.Model(photos, probabilities, name=self.kind)


@NETWORKS.register("autoencoder")
class AutoencoderNetworkConfig(_EncoderWithHead):
    """An autoencoder's encoder with a head: ``conf/model/autoencoder.yaml``."""

    kind: Literal["autoencoder"]


@NETWORKS.register("dbn")
class DbnNetworkConfig(_EncoderWithHead):
    """A stack of RBMs unrolled into a network, with a head: ``conf/model/dbn.yaml``."""

    kind: Literal["dbn"]
