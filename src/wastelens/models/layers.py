"""Parts that networks share: random weights from known seeds, and the head from features to probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from wastelens.config.networks import HeadConfig

HEAD_PREFIX = "head_"
LOGITS = "logits"


def classification_head(features: Any, config: HeadConfig, *, outputs: int, seeds: Iterator[int]) -> Any:
    """Pool features, a map (batch, height, width, channels) or vectors, and return probabilities (batch, outputs).

    The dense layers of the config are named ``head_dense0`` …; dropout comes after the first of them or, without any,
    before the materials. Training and gradients use the layer ``logits`` before the sigmoid; both are float32. The
    base model pools by average and maximum: litter covers a hundredth of a photo, and an average alone drowns it.
    """
    import keras
    from keras import layers

    x = pooled(features, config.pooling) if len(features.shape) == 4 else features

    def dropped(x: Any) -> Any:
        return layers.Dropout(config.dropout, seed=next(seeds), name="dropout")(x)

    for number, units in enumerate(config.hidden):
        kernel = keras.initializers.HeNormal(seed=next(seeds))
        x = layers.Dense(units, activation="relu", kernel_initializer=kernel, name=f"{HEAD_PREFIX}dense{number}")(x)
        x = dropped(x) if number == 0 else x
    x = x if config.hidden else dropped(x)
    kernel = keras.initializers.GlorotUniform(seed=next(seeds))
    logits = layers.Dense(outputs, kernel_initializer=kernel, dtype="float32", name=LOGITS)(x)
    return probabilities_of(logits)


def probabilities_of(logits: Any) -> Any:
    """Return the sigmoid of logits (batch, outputs), float32."""
    import keras

    return keras.layers.Activation("sigmoid", dtype="float32", name="probabilities")(logits)


def pooled(features: Any, pooling: str) -> Any:
    """Pool a map (batch, height, width, channels) to vectors: flatten, average, max, or average_and_max."""
    from keras import layers

    kinds = {"flatten": layers.Flatten, "average": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}
    parts = [kinds[kind](name=f"pool_{kind}")(features) for kind in pooling.split("_and_")]
    return parts[0] if len(parts) == 1 else layers.Concatenate(name="pool")(parts)


def is_head(layer_name: str) -> bool:
    """Return whether a layer belongs to the head, not to the backbone."""
    return layer_name.startswith(HEAD_PREFIX) or layer_name == LOGITS


def layer_seeds(seed: int) -> Iterator[int]:
    """Yield seeds for a network's layers without end, a different one for each."""
    import numpy as np

    rng = np.random.default_rng(seed)
    while True:
        yield int(rng.integers(2**31))


def apart(name: str, function: Callable[..., Any], *tensors: Any) -> Any:
    """Apply operations as a network of its own, so that they may have the names of those in a network from a file.

    Keras numbers names per process, and refuses a network that has one twice.
    """
    import keras

    inputs = [keras.Input(tensor.shape[1:], dtype=tensor.dtype) for tensor in tensors]
    return keras.Model(inputs, function(*inputs), name=name)(list(tensors))


def inner_layers(layers: Iterable[Any]) -> Iterator[Any]:
    """Yield layers, and in place of a network that is one of them, its layers."""
    for layer in layers:
        yield from getattr(layer, "layers", [layer])


def reinitialise(layers: Iterable[Any], seeds: Iterator[int]) -> None:
    """Draw these layers' weights again by their own initialisers, each from its own seed; reset all other weights."""
    for layer in inner_layers(layers):
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
