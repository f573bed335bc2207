"""Predictions in batches, and features: the vectors by which photos are clustered, compared and searched."""

from __future__ import annotations

from typing import Any

import numpy as np

from wastelens.models.head import LOGITS, pooled
from wastelens.system.arrays import Float32Array, IndexArray

PREDICTION_BATCH = 64


def predict_in_batches(network: Any, inputs: Any, rows: IndexArray) -> Float32Array:
    """Return the network's output for these rows of its inputs, float32 (rows, …)."""
    pieces = [rows[start : start + PREDICTION_BATCH] for start in range(0, len(rows), PREDICTION_BATCH)]
    return np.concatenate([np.asarray(network.predict_on_batch(inputs[piece]), dtype=np.float32) for piece in pieces])


def feature_network(model: Any) -> Any:
    """Return a network from photos in 0–255 to features, float32 (batch, features).

    The features of a classifier are the inputs of its last layer; those of an encoder are its code, where a map is
    pooled by average and maximum.
    """
    import keras

    names = [layer.name for layer in model.layers]
    features = model.get_layer(LOGITS).input if LOGITS in names else model.output
    features = pooled(features, "average_and_max") if len(features.shape) == 4 else features
    flat = keras.layers.Flatten(dtype="float32", name="features")(features)
    return keras.Model(model.input, flat, name="features")
