"""A stack of restricted Boltzmann machines as a network: each machine's hidden probabilities are a dense layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wastelens.config.networks import DbnConfig, RbmConfig
from wastelens.models.visible import visible_pixels

Array = npt.NDArray[np.float32]


def unroll(photos_0_255: Any, config: RbmConfig | DbnConfig, seeds: Iterator[int]) -> Any:
    """Photos (batch, side, side, 3) in 0–255 → the top machine's hidden probabilities, from random weights."""
    import keras
    from keras import layers

    x = visible_pixels(photos_0_255, config)
    if config.visible == "gaussian":
        x = layers.Normalization(dtype="float32", name="standardise")(x)
    for number, units in enumerate(config.layers):
        kernel = keras.initializers.GlorotUniform(seed=next(seeds))
        x = layers.Dense(units, activation="sigmoid", kernel_initializer=kernel, name=f"rbm{number}")(x)
    return x


def set_dense_weights(network: Any, weights: Sequence[tuple[Array, Array]]) -> None:
    """Put a stack's (kernel, bias) into the layers that ``unroll`` made."""
    for number, (kernel, bias) in enumerate(weights):
        network.get_layer(f"rbm{number}").set_weights([kernel, bias])


def set_visible_statistics(network: Any, mean: Array, scale: Array) -> None:
    """Let Gaussian visible units be standardised by these, (n_visible,) each, in units of [0, 1]."""
    layer = network.get_layer("standardise")
    count = np.zeros_like(np.asarray(layer.get_weights()[2]))
    layer.set_weights([mean, np.square(scale), count])
    layer.finalize_state()
