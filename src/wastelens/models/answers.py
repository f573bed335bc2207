"""All that a classifier tells about photos, in one pass: probabilities, features, and where the evidence is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from wastelens.models.features import features_tensor, spatial_layers
from wastelens.models.freezing import logits_tensor
from wastelens.models.layers import LOGITS, apart
from wastelens.models.networks.objects import CLOSE_UP, evidence_map
from wastelens.models.onnx_network import PROBABILITIES, OnnxNetwork
from wastelens.system import borrowed
from wastelens.system.arrays import Float32Array, PhotoArray

FEATURES, EVIDENCE = "features", "evidence"  # further outputs of an ONNX network, beside its probabilities


@dataclass(frozen=True)
class Answers:
    """The answers for some photos.

    Attributes:
        probabilities: float32 (n, materials).
        features: the inputs of the last layer, float32 (n, features); None: the network's file does not give them.
        maps: the network's own or of Grad-CAM, of each photo's most probable material, float32 (n, height, width);
            None: not asked for.
    """

    probabilities: Float32Array
    features: Float32Array | None = None
    maps: Float32Array | None = None


def answers_by_onnx(network: OnnxNetwork, batch_size: int) -> Callable[[PhotoArray], Answers]:
    """Return a function of photos, uint8 (n, side, side, 3), to a classifier's answers; maps, where it has them.

    It is called in batches of one size, filled up with black photos: a photo's answer does not depend on those beside
    it.
    """

    def answers(photos: PhotoArray) -> Answers:
        pieces = []
        for start in range(0, max(len(photos), 1), batch_size):
            piece = photos[start : start + batch_size]
            black = np.zeros((batch_size - len(piece), *photos.shape[1:]), np.uint8)
            outputs = network.all_outputs(np.concatenate([piece, black]))
            pieces.append({name: one[: len(piece)] for name, one in outputs.items()})
        found = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        return Answers(found[network.main_output], found.get(FEATURES), found.get(EVIDENCE))

    return answers


def answering(network: Any) -> Any:
    """Return a classifier with further outputs, by name: ``features`` and, where it is a formula, ``evidence``.

    A network that looks at close-ups has a map of its own. Where nothing but pooling and one dense layer follow the
    last map A, Grad-CAM needs no gradient: αₖ of a material is the sum of its weights for channel k, divided by the
    number of places, and the map relu(Σₖ αₖ Aₖ) (class activation mapping, Zhou et al. 2016; Selvaraju et al. 2017,
    section 3.1). So it can be exported. Networks without a layer ``logits`` are returned as they are.
    """
    import keras

    if LOGITS not in [layer.name for layer in network.layers]:
        return network
    outputs = {PROBABILITIES: network.output, FEATURES: features_tensor(network)}
    if has_own_map(network):
        outputs[EVIDENCE] = apart("evidence", _of_strongest, evidence_map(network), logits_tensor(network))
        return keras.Model(network.input, outputs)
    maps = spatial_layers(network)
    weights = _channel_weights(network, network.get_layer(maps[-1]).output) if maps else None
    if weights is not None:
        outputs[EVIDENCE] = _strongest_map(network.get_layer(maps[-1]).output, logits_tensor(network), weights)
    return keras.Model(network.input, outputs)


def has_own_map(network: Any) -> bool:
    """Return whether a network tells itself where its evidence is."""
    return CLOSE_UP in [layer.name for layer in network.layers]


def _strongest_map(activations: Any, logits: Any, weights: Float32Array) -> Any:
    """Return relu(Σₖ αₖ Aₖ) of the most probable material; ``weights``: α, float32 (channels, materials)."""
    from keras import ops

    of_photo = ops.matmul(_is_strongest(logits), weights.T)
    return ops.relu(ops.sum(ops.cast(activations, "float32") * of_photo[:, None, None, :], axis=-1))


def _of_strongest(maps: Any, logits: Any) -> Any:
    """Return the map of the most probable material, of maps (batch, height, width, materials)."""
    from keras import ops

    return ops.sum(maps * _is_strongest(logits)[:, None, None, :], axis=-1)


def _is_strongest(logits: Any) -> Any:
    """Return 1 for the most probable material, 0 for others, float32 (batch, materials); those in a tie share it."""
    from keras import ops

    strongest = ops.cast(ops.equal(logits, ops.max(logits, axis=1, keepdims=True)), "float32")
    return strongest / ops.sum(strongest, axis=1, keepdims=True)


def _channel_weights(network: Any, activations: Any) -> Float32Array | None:
    """Return α, float32 (channels, materials), of a network's last map (batch, height, width, channels).

    None: anything but global pooling, the joining of vectors and dropout is between the map and the last layer.
    """
    from keras import layers

    _, height, width, channels = activations.shape
    kernel = np.asarray(network.get_layer(LOGITS).get_weights()[0], dtype=np.float32)
    parts: list[Float32Array] = []
    place = 0
    for part in _joined(features_tensor(network)):
        maker = borrowed.keras_history(part).operation
        if not isinstance(maker, (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)):
            return None
        (pooled_map,) = borrowed.inputs_of_maker(part)
        if pooled_map is activations:
            parts.append(kernel[place : place + channels])
        elif pooled_map.shape[1] * pooled_map.shape[2] == 1:  # of a later layer; larger ones are of earlier layers
            return None
        place += part.shape[-1]
    return np.asarray(sum(parts) / (height * width), dtype=np.float32) if parts else None


def _joined(features: Any) -> list[Any]:
    """Return the vectors that features are joined from, in order, dropout left out."""
    from keras import layers

    if isinstance(borrowed.keras_history(features).operation, (layers.Dropout, layers.Concatenate)):
        return [part for one in borrowed.inputs_of_maker(features) for part in _joined(one)]
    return [features]
