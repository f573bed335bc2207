"""What a network makes of a photo before it decides: vectors to cluster, compare and search by."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from wastelens.models.head import LOGITS, pooled

PREDICTION_BATCH = 64


def feature_network(model: Any) -> Any:
    """Photos in 0–255 → features float32 (batch, features).

    Of a classifier, what its last layer decides by; of an encoder its code, a map pooled by average and maximum.
    """
    import keras

    names = [layer.name for layer in model.layers]
    features = model.get_layer(LOGITS).input if LOGITS in names else model.output
    features = pooled(features, "average_and_max") if len(features.shape) == 4 else features
    flat = keras.layers.Flatten(dtype="float32", name="features")(features)
    return keras.Model(model.input, flat, name="features")


def features_of(network: Any, photos: npt.NDArray[np.uint8], rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    """The features of the photos at these rows, float32 (rows, features), in batches."""
    pieces = [rows[start : start + PREDICTION_BATCH] for start in range(0, len(rows), PREDICTION_BATCH)]
    return np.concatenate([np.asarray(network.predict_on_batch(photos[piece]), dtype=np.float32) for piece in pieces])
