"""From a backbone's features to a probability per material."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    return layers.Activation("sigmoid", dtype="float32", name="probabilities")(logits)


def pooled(features: Any, pooling: str) -> Any:
    """Pool a map (batch, height, width, channels) to vectors: flatten, average, max, or average_and_max."""
    from keras import layers

    def average() -> Any:
        return layers.GlobalAveragePooling2D(name="pool_average")(features)

    def maximum() -> Any:
        return layers.GlobalMaxPooling2D(name="pool_max")(features)

    ways: dict[str, Callable[[], Any]] = {
        "flatten": lambda: layers.Flatten(name="pool_flatten")(features),
        "average": average,
        "max": maximum,
        "average_and_max": lambda: layers.Concatenate(name="pool")([average(), maximum()]),
    }
    return ways[pooling]()


def is_head(layer_name: str) -> bool:
    """Return whether a layer belongs to the head, not to the backbone."""
    return layer_name.startswith(HEAD_PREFIX) or layer_name == LOGITS
