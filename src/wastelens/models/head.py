"""From a backbone's last map to a probability per material."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wastelens.config import CnnConfig


def classification_head(features: Any, config: CnnConfig, *, outputs: int, seeds: Iterator[int]) -> Any:
    """Pool a map (batch, height, width, channels), drop out, and give probabilities (batch, outputs), float32.

    The layer ``logits`` before the sigmoid is what training and gradients use.
    """
    import keras
    from keras import layers

    pooled = {
        "average": lambda: layers.GlobalAveragePooling2D(name="pool_average")(features),
        "max": lambda: layers.GlobalMaxPooling2D(name="pool_max")(features),
        "average_and_max": lambda: layers.Concatenate(name="pool")(
            [
                layers.GlobalAveragePooling2D(name="pool_average")(features),
                layers.GlobalMaxPooling2D(name="pool_max")(features),
            ]
        ),
    }[config.pooling]()
    dropped = layers.Dropout(config.dropout, seed=next(seeds), name="dropout")(pooled)
    logits = layers.Dense(
        outputs,
        kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds)),
        dtype="float32",
        name="logits",
    )(dropped)
    return layers.Activation("sigmoid", dtype="float32", name="probabilities")(logits)
