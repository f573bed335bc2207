"""Random weights anew: each layer's own initialiser, from seeds that are known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from wastelens.models.seeds import layer_seeds


def initialise_anew(layers: Iterable[Any], seeds: Iterator[int]) -> None:
    """Draw these layers' weights again, each from a seed of its own; those that are not random go back to the start."""
    for layer in layers:
        for weight in layer.weights:
            initializer = _initializer(layer, weight.name)
            if initializer is None and weight.trainable:
                raise ValueError(f"{layer.name} has no initialiser of its weight {weight.name}")
            if initializer is None:
                continue
            settings = initializer.get_config()
            if "seed" in settings:
                initializer = type(initializer).from_config({**settings, "seed": next(seeds)})
            weight.assign(initializer(weight.shape, dtype=weight.dtype))


def randomised_copy(model: Any, seed: int) -> Any:
    """The same network with random weights in every layer that learns: what it knows without having learnt anything.

    Statistics of the pixels (``standardise``) are no knowledge of litter, and stay.
    """
    import keras

    copy = keras.models.model_from_json(model.to_json())
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    learnt = (layer for layer in copy.layers if not isinstance(layer, keras.layers.Normalization))
    initialise_anew(learnt, layer_seeds(seed))
    return copy


def _initializer(layer: Any, weight_name: str) -> Any:
    """The initialiser of one of a layer's weights; None for what is no weight of the network (a dropout's seed)."""
    names = {
        "kernel": ("kernel_initializer", "depthwise_initializer"),
        "depthwise_kernel": ("depthwise_initializer",),
        "pointwise_kernel": ("pointwise_initializer",),
    }.get(weight_name, (f"{weight_name}_initializer",))
    return next((getattr(layer, name) for name in names if hasattr(layer, name)), None)
