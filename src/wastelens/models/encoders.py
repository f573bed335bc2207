"""Networks that start from an encoder: what was learnt without labels, with a head for the materials."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wastelens.config.networks import DbnConfig, EncoderNetworkConfig, LearnerConfig, RbmConfig
from wastelens.models.autoencoders import encode
from wastelens.models.belief_network import unroll
from wastelens.models.head import classification_head
from wastelens.models.seeds import layer_seeds


def build_encoder_network(config: EncoderNetworkConfig, *, image_side_px: int, outputs: int, seed: int) -> Any:
    """A flat network of encoder and head, from random weights: photos in 0–255 → probabilities (batch, outputs)."""
    import keras

    seeds = layer_seeds(seed)
    photos = keras.Input((image_side_px, image_side_px, 3), name="photo_0_255")
    features = _encoded(photos, config.learner, seeds)
    probabilities = classification_head(features, config, outputs=outputs, seeds=seeds)
    return keras.Model(photos, probabilities, name=config.kind)


def build_encoder(config: LearnerConfig, *, image_side_px: int, seed: int) -> Any:
    """The encoder alone: photos float (batch, side, side, 3) in 0–255 → code, a map or a vector."""
    import keras

    photos = keras.Input((image_side_px, image_side_px, 3), name="photo_0_255")
    return keras.Model(photos, _encoded(photos, config, layer_seeds(seed)), name="encoder")


def _encoded(photos: Any, config: LearnerConfig, seeds: Iterator[int]) -> Any:
    return unroll(photos, config, seeds) if isinstance(config, RbmConfig | DbnConfig) else encode(photos, config, seeds)


def copy_weights(source: Any, target: Any) -> list[str]:
    """Put the weights of each layer of ``source`` into the layer of the same name of ``target``; returns their names.

    Raises:
        ValueError: a layer that ``target`` has not, or of other shapes.
    """
    copied = []
    for layer in source.layers:
        if layer.weights:
            twin = target.get_layer(layer.name)
            twin.set_weights(layer.get_weights())
            if hasattr(twin, "finalize_state"):  # standardisation is computed from its weights
                twin.finalize_state()
            copied.append(layer.name)
    return copied
