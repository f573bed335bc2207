"""Trained networks as ONNX, so that they can be served without TensorFlow; each is compared with Keras first."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from wastelens.models.answers import answering
from wastelens.models.onnx_network import OnnxNetwork
from wastelens.system.arrays import PhotoArray
from wastelens.system.standard_error import standard_error_held

LARGEST_DIFFERENCE = 1e-4
PHOTOS_COMPARED = 16


class NotExportedError(Exception):
    """A network that ONNX cannot stand in for; the message is the reason."""


def write_onnx(network: Any, file: Path, photos_0_255: PhotoArray) -> float:
    """Write a network as ONNX, and return by how much its answers differ at most from those of Keras.

    A classifier gets the outputs of :func:`answering`: probabilities, features and, where it can, evidence.

    Args:
        network: a Keras network from photos in 0–255.
        file: to write; none is left where the export fails.
        photos_0_255: to compare the answers for, uint8 (n, side, side, 3).

    Raises:
        NotExportedError: a layer does not export, or an answer differs by more than ``LARGEST_DIFFERENCE``.
    """
    try:
        _export(network, file)
        answers = OnnxNetwork(file)(photos_0_255)
    except Exception as error:  # whatever the converter and the runtime raise; a finished training must not end by it
        file.unlink(missing_ok=True)
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160].rstrip(".")
        raise NotExportedError(reason) from error
    expected = np.asarray(network.predict_on_batch(photos_0_255), dtype=np.float32)
    difference = float(np.abs(answers - expected).max(initial=0.0))
    if not difference <= LARGEST_DIFFERENCE:  # not a number is no small difference
        file.unlink()
        raise NotExportedError(
            f"the answers of ONNX differ by {difference:.2g} from those of Keras, more than {LARGEST_DIFFERENCE:g}"
        )
    return difference


def _export(network: Any, file: Path) -> None:
    """Let Keras write a network with its further outputs.

    It would trace ``network(photos)``, in which Keras 3.15 passes on the default of the first layer's ``training``:
    True for ``Resizing``, so that the batch normalisations after it would use the batch. Hence a network around it.
    """
    import keras

    name = "photo_0_255"
    photos = keras.Input(network.input.shape[1:], name=name)
    inference = keras.Model(photos, answering(network)(photos, training=False))
    signature = [keras.InputSpec(shape=network.input.shape, dtype="float32", name=name)]
    _make_constant(network)
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    # TensorFlow tells at length what it optimises.
    with warnings.catch_warnings(), standard_error_held(shown_on_failure=False):
        warnings.simplefilter("ignore")  # Keras looks for np.object, to fix tf2onnx for NumPy 2
        inference.export(str(file), format="onnx", verbose=False, input_signature=signature)


def _make_constant(network: Any) -> None:
    """Hold pixel statistics as NumPy arrays, which become constants; tf2onnx takes TensorFlow's for further inputs."""
    import keras

    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
