"""Read a trained network: predictions in batches, feature vectors of photos, layers to draw activation maps for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from wastelens.errors import ConfigError, did_you_mean
from wastelens.models.freezing import logits_tensor
from wastelens.models.layers import LOGITS, is_head, pooled
from wastelens.models.networks.objects import CLOSE_UP
from wastelens.system import borrowed
from wastelens.system.arrays import Float32Array, IndexArray, PhotoArray

AUTO = "auto"
PREDICTION_BATCH = 64


def predict_in_batches(network: Any, inputs: Any, rows: IndexArray) -> Float32Array:
    """Return the network's output for these rows of its inputs, float32 (rows, …)."""
    pieces = [rows[start : start + PREDICTION_BATCH] for start in range(0, len(rows), PREDICTION_BATCH)]
    return np.concatenate([np.asarray(network.predict_on_batch(inputs[piece]), dtype=np.float32) for piece in pieces])


def compiled(network: Any, batch_size: int) -> Callable[[PhotoArray], Float32Array]:
    """Return the network as a function of any number of photos, uint8 (n, side, side, 3) → float32 (n, …).

    It is called in batches of one size: see :func:`in_equal_batches`. Keras' ``predict`` has a fixed cost of some 20 ms
    per call.
    """
    import tensorflow as tf

    def answers(photos: Any) -> tuple[Any]:
        return (tf.cast(network(tf.cast(photos, network.input.dtype), training=False), tf.float32),)

    call = in_equal_batches(answers, network.input_shape[1:], batch_size)
    return lambda photos: call(photos)[0]


def in_equal_batches(
    function: Callable[[Any], tuple[Any, ...]], shape: Sequence[int], batch_size: int
) -> Callable[[PhotoArray], list[Float32Array]]:
    """Compile a function of a batch for any number of photos, uint8 (n, *shape) → arrays (n, …).

    The last batch is filled up with black photos: a photo's answer does not depend on the number of photos beside it,
    and nothing is traced twice.
    """
    import tensorflow as tf

    signature = [tf.TensorSpec((batch_size, *shape), tf.uint8)]
    batch = tf.function(function, input_signature=signature, autograph=False)

    def call(photos: PhotoArray) -> list[Float32Array]:
        pieces = []
        for start in range(0, max(len(photos), 1), batch_size):
            piece = photos[start : start + batch_size]
            if len(piece) < batch_size:
                piece = np.concatenate([piece, np.zeros((batch_size - len(piece), *shape), np.uint8)])
            pieces.append([answer.numpy()[: len(photos) - start] for answer in batch(piece)])
        return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]

    return call


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


def features_tensor(model: Any) -> Any:
    """Return the inputs of the layer ``logits`` of this very network, (batch, features): see :func:`logits_tensor`."""
    return borrowed.inputs_of_maker(logits_tensor(model))[0]


def photos_at_once(network: Any, most: int) -> int:
    """Return how many photos to compute in one pass: ``most``, or fewer where each is also looked at from close up."""
    close_ups = [layer.inputs[1].shape[1] for layer in network.layers if layer.name == CLOSE_UP]
    return max(1, most // int(max([1, *close_ups])))


def spatial_layers(model: Any) -> list[str]:
    """Return the layers whose output is a map (batch, height, width, channels) larger than 1 × 1, from input to output.

    Only from the first convolution on, as earlier layers hold the photo itself, and only up to the head.
    """
    import keras

    convolutions = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    found: list[str] = []
    for layer in takewhile(lambda layer: not is_head(layer.name), model.layers):
        if not found and not isinstance(layer, convolutions):
            continue
        shape = layer.output.shape
        if len(shape) == 4 and shape[1] * shape[2] > 1:
            found.append(layer.name)
    return found


def choose_layer(model: Any, name: str = AUTO) -> str:
    """Return the layer to draw maps for: the last spatial one, or the named one.

    Raises:
        ConfigError: the network has no such layer.
    """
    layers = spatial_layers(model)
    if not layers:
        raise ConfigError(
            f"The network {model.name} has no convolution with a map larger than 1 × 1, so there is no layer to draw a "
            "class activation map for. Use methods=shap, which works with every network."
        )
    if name == AUTO:
        return layers[-1]
    if name in layers:
        return name
    if name in (layer.name for layer in model.layers):
        raise ConfigError(
            f"layer={name} of {model.name} is not spatial: its output is no feature map. Use layer=auto, which is "
            f"{layers[-1]}."
        )
    hint = did_you_mean(name, layers) or f" Its last map is {layers[-1]}."
    raise ConfigError(f"The network {model.name} has no layer '{name}'.{hint}")
