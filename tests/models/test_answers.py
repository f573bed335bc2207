"""All answers of an exported classifier in one pass: those of Keras, evidence included, where there is a formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.factories import config, photo_array

from wastelens.explain.methods.gradcam import answers_by_keras
from wastelens.models.answers import EVIDENCE, answering, answers_by_onnx
from wastelens.models.features import spatial_layers
from wastelens.models.onnx_export import write_onnx
from wastelens.models.onnx_network import OnnxNetwork

SIDE = 16
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


def built(settings: str, side: int = SIDE) -> Any:
    return config("train", settings).network.build(image_side_px=side, outputs=3, seed=0)


def test_onnx_gives_the_probabilities_features_and_maps_of_keras(keras: Any, tmp_path: Path) -> None:
    network, photos = built("network.widths=[4,8]"), photo_array(5, SIDE)
    write_onnx(network, tmp_path / "network.onnx", photos)
    found = answers_by_onnx(OnnxNetwork(tmp_path / "network.onnx"), 2)(photos)
    wanted = answers_by_keras(network, spatial_layers(network)[-1], 4)(photos)
    assert found.maps is not None
    assert found.maps.shape == (5, 4, 4)
    assert found.maps.max() > 0
    for name, value in vars(wanted).items():
        np.testing.assert_allclose(getattr(found, name), value, atol=1e-4, rtol=1e-4)


def test_a_photo_is_answered_alike_whatever_is_beside_it(keras: Any, tmp_path: Path) -> None:
    network, photos = built("network.widths=[4]"), photo_array(5, SIDE)
    write_onnx(network, tmp_path / "network.onnx", photos)
    answer = answers_by_onnx(OnnxNetwork(tmp_path / "network.onnx"), 4)
    together, alone = answer(photos), [answer(photos[row : row + 1]) for row in range(5)]
    np.testing.assert_array_equal(together.maps, np.concatenate([one.maps for one in alone]))
    np.testing.assert_array_equal(together.features, np.concatenate([one.features for one in alone]))
    assert answer(photos[:0]).probabilities.shape == (0, 3)


@pytest.mark.parametrize("pooling", ["average", "max", "average_and_max"])
def test_global_pooling_has_a_formula(keras: Any, pooling: str) -> None:
    assert EVIDENCE in answering(built(f"network.widths=[4] network.pooling={pooling}")).output


@pytest.mark.parametrize(
    ("settings", "side"),
    [("network.hidden=[5]", SIDE), ("network.pooling=flatten", SIDE), ("network.widths=[4,4,4,4]", SIDE)],
)
def test_hidden_layers_and_maps_of_one_cell_have_none(keras: Any, settings: str, side: int) -> None:
    network = answering(built(f"network.widths=[4] {settings}", side))
    assert sorted(network.output) == ["features", "probabilities"]


def test_an_encoder_stays_as_it_is(keras: Any) -> None:
    photos = keras.Input((SIDE, SIDE, 3))
    encoder = keras.Model(photos, keras.layers.Conv2D(2, 3)(photos))
    assert answering(encoder) is encoder
