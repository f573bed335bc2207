"""Encoders: the layers they share, and their weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from wastelens.config.networks import LearnerConfig
from wastelens.data.photos.shrink import shrink_factor
from wastelens.models.layers import layer_seeds
from wastelens.system.arrays import Float32Array


def build_encoder(config: LearnerConfig, *, image_side_px: int, seed: int) -> Any:
    """Return the encoder alone: photos float (batch, side, side, 3) in 0–255 → code, a map or vectors."""
    import keras

    photos = keras.Input((image_side_px, image_side_px, 3), name="photo_0_255")
    return keras.Model(photos, config.encode(photos, layer_seeds(seed)), name="encoder")


def copy_weights(source: Any, target: Any) -> list[str]:
    """Copy the weights of each layer of ``source`` into the layer of that name in ``target``; return the names.

    Raises:
        ValueError: ``target`` lacks a layer, or its shapes differ.
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


def visible_pixels(photos_0_255: Any, side_px: int) -> Any:
    """Shrink and flatten photos (batch, side, side, 3) in 0–255 to pixels (batch, visible side² · 3) in [0, 1].

    Averages as ``shrink`` does, in float32 under any precision policy: averages of bfloat16 cannot tell 128 from 129.
    """
    from keras import layers

    x = photos_0_255
    factor = shrink_factor(x.shape[1], side_px)
    if factor > 1:
        x = layers.AveragePooling2D(factor, dtype="float32", name="shrink")(x)
    x = layers.Rescaling(1 / 255, dtype="float32", name="rescale")(x)
    return layers.Flatten(name="visible", dtype="float32")(x)


def unrolled_stack(visible: Any, hidden_units: Sequence[int], seeds: Iterator[int], *, standardised: bool) -> Any:
    """Apply a stack of Boltzmann machines, from the bottom up, as dense layers with random weights.

    From pixels (batch, n_visible) in [0, 1], standardised if the visible units are Gaussian, to the top machine's
    hidden probabilities (batch, hidden_units[-1]).
    """
    import keras
    from keras import layers

    x = layers.Normalization(dtype="float32", name="standardise")(visible) if standardised else visible
    for number, units in enumerate(hidden_units):
        kernel = keras.initializers.GlorotUniform(seed=next(seeds))
        x = layers.Dense(units, activation="sigmoid", kernel_initializer=kernel, name=f"rbm{number}")(x)
    return x


def set_dense_weights(network: Any, weights: Sequence[tuple[Float32Array, Float32Array]]) -> None:
    """Set the (kernel, bias) of each layer that :func:`unrolled_stack` made."""
    for number, (kernel, bias) in enumerate(weights):
        network.get_layer(f"rbm{number}").set_weights([kernel, bias])


def set_visible_statistics(network: Any, mean: Float32Array, scale: Float32Array) -> None:
    """Set what Gaussian visible units are standardised by: mean and scale, (n_visible,) each, of pixels in [0, 1]."""
    layer = network.get_layer("standardise")
    count = np.zeros_like(np.asarray(layer.get_weights()[2]))
    layer.set_weights([mean, np.square(scale), count])
    layer.finalize_state()
