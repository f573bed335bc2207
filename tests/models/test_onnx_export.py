"""ONNX files of networks: they answer as Keras does, or none is left and the reason is said."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.factories import photo_array

from wastelens.models import onnx_export
from wastelens.models.onnx_export import LARGEST_DIFFERENCE, NotExportedError, write_onnx
from wastelens.models.onnx_network import OnnxNetwork

SIDE = 16
PHOTOS = photo_array(5, SIDE)
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


@pytest.fixture
def network(keras: Any) -> Any:
    """Build what does not export by itself: resizing before batch normalisation, and many pixel statistics."""
    photos = keras.Input((SIDE, SIDE, 3), name="photo_0_255")
    x = keras.layers.Resizing(24, 24)(photos)
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(x))
    pixels = keras.layers.Normalization(name="standardise")
    x = pixels(keras.layers.Flatten()(x))
    made = keras.Model(photos, keras.layers.Dense(2, activation="sigmoid")(x))
    made.layers[3].set_weights([np.full(4, value, np.float32) for value in (2, 1, 100, 300)])
    pixels.set_weights([np.arange(pixels.mean.shape[1], dtype=np.float32), *pixels.get_weights()[1:]])
    pixels.finalize_state()
    return made


def test_onnx_answers_as_keras_does_and_leaves_the_network_as_it_was(network: Any, tmp_path: Path) -> None:
    before, weights = network.predict_on_batch(PHOTOS), [weight.copy() for weight in network.get_weights()]
    assert write_onnx(network, tmp_path / "network.onnx", PHOTOS) <= LARGEST_DIFFERENCE
    np.testing.assert_array_equal(network.predict_on_batch(PHOTOS), before)
    for after, weight in zip(network.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(after, weight)
    answers = OnnxNetwork(tmp_path / "network.onnx")
    assert answers.image_side_px == SIDE
    np.testing.assert_allclose(answers(PHOTOS), before, atol=LARGEST_DIFFERENCE)
    assert answers(PHOTOS[:0]).shape == (0, 2)
    with ThreadPoolExecutor(8) as threads:
        for number, got in enumerate(threads.map(answers, [PHOTOS[i % 5 : i % 5 + 1] for i in range(40)])):
            np.testing.assert_allclose(got[0], before[number % 5], atol=LARGEST_DIFFERENCE)


@pytest.mark.parametrize("wrong", [2.0, np.nan])
def test_another_answer_leaves_no_file(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    monkeypatch.setattr(onnx_export, "_export", lambda network, file: file.write_bytes(b""))
    monkeypatch.setattr(onnx_export, "OnnxNetwork", lambda file: lambda photos: np.full((len(photos), 2), wrong))
    with pytest.raises(NotExportedError, match=r"the answers of ONNX differ by .* from those of Keras"):
        write_onnx(network, tmp_path / "network.onnx", PHOTOS)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_does_not_export_leaves_no_file_and_one_line(keras: Any, tmp_path: Path) -> None:
    class Strange(keras.layers.Layer):  # type: ignore[misc,name-defined]
        def call(self, photos: Any) -> Any:
            import tensorflow as tf

            return tf.py_function(lambda x: x, [photos], tf.float32) if keras.backend.backend() else photos

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

    photos = keras.Input((SIDE, SIDE, 3))
    network = keras.Model(photos, Strange()(photos))
    with pytest.raises(NotExportedError) as caught:
        write_onnx(network, tmp_path / "network.onnx", PHOTOS)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
