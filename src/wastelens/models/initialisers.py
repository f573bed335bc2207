"""Random weights from known seeds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


def layer_seeds(seed: int) -> Iterator[int]:
    """Yield seeds for a network's layers without end, a different one for each."""
    import numpy as np

    rng = np.random.default_rng(seed)
    while True:
        yield int(rng.integers(2**31))


def reinitialise(layers: Iterable[Any], seeds: Iterator[int]) -> None:
    """Draw these layers' weights again by their own initialisers, each from its own seed; reset all other weights."""
    for layer in layers:
        for weight in layer.weights:
            initializer = _initializer(layer, weight.name)
            if initializer is None and weight.trainable:
                raise ValueError(f"{layer.name} has no initialiser for its weight {weight.name}")
            if initializer is None:
                continue
            settings = initializer.get_config()
            if "seed" in settings:
                initializer = type(initializer).from_config({**settings, "seed": next(seeds)})
            weight.assign(initializer(weight.shape, dtype=weight.dtype))


def randomised_copy(model: Any, seed: int) -> Any:
    """Return the same network with random weights in every layer that learns: a model that has learned nothing.

    Pixel statistics (the layer ``standardise``) tell nothing about litter, and are copied.
    """
    import keras

    copy = keras.models.model_from_json(model.to_json())
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    learned = (layer for layer in copy.layers if not isinstance(layer, keras.layers.Normalization))
    reinitialise(learned, layer_seeds(seed))
    return copy


def _initializer(layer: Any, weight_name: str) -> Any:
    """Return the initialiser of a layer's weight; None if it is not a weight of the network (a dropout's seed)."""
    names = {
        "kernel": ("kernel_initializer", "depthwise_initializer"),
        "depthwise_kernel": ("depthwise_initializer",),
        "pointwise_kernel": ("pointwise_initializer",),
    }.get(weight_name, (f"{weight_name}_initializer",))
    return next((getattr(layer, name) for name in names if hasattr(layer, name)), None)
