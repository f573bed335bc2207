"""The parts of the network that looks at close-ups, against slow, obvious answers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from tests.factories import config

from wastelens.models.answers import answering
from wastelens.models.networks.objects import (
    CLOSE_UP,
    FEATURES,
    LITTER,
    LITTER_MAP,
    MATERIALS,
    PLACES,
    SHARPNESS,
    WINDOWS,
    evidence_map,
    windows_at,
)

SIDE, MATERIALS_COUNT = 96, 3
SMALL = "model=objects network.side_px=64 network.close_up_px=32 network.places=4 network.close_up_shares=[0.125,0.5]"


@pytest.fixture(scope="module")
def found(keras):
    """Return the network, photos, and the outputs of its named layers for them."""
    model = config("train", SMALL).network.build(image_side_px=SIDE, outputs=MATERIALS_COUNT, seed=3)
    photos = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3)).astype(np.float32)
    outputs = {name: model.get_layer(name).output for name in (LITTER_MAP, PLACES, WINDOWS, MATERIALS, FEATURES)}
    outputs["evidence"] = evidence_map(model)
    answers = keras.Model(model.input, outputs).predict_on_batch(photos)
    return model, photos, {name: np.asarray(one) for name, one in answers.items()}


def test_places_are_the_peaks_of_the_litter_map_from_the_highest(found):
    _, _, outputs = found
    for litter, places in zip(outputs[LITTER_MAP][..., 0], outputs[PLACES], strict=True):
        rows, columns = litter.shape
        ranked = []
        for row in range(rows):
            for column in range(columns):
                around = litter[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
                ranked.append((litter[row, column] < around.max(), -litter[row, column], row, column))
        expected = [((row + 0.5) / rows, (column + 0.5) / columns) for _, _, row, column in sorted(ranked)[:4]]
        np.testing.assert_allclose(places, expected, atol=1e-6)


def test_windows_are_around_the_places_and_inside_the_photo(found):
    _, _, outputs = found
    windows = outputs[WINDOWS]
    assert windows.shape == (3, 8, 4)
    np.testing.assert_array_equal(windows, windows_at(outputs[PLACES], [12, 48], SIDE, np))
    assert ((windows >= 0) & (windows <= SIDE)).all()
    np.testing.assert_array_equal(windows[..., 2] - windows[..., 0], [[12.0] * 4 + [48.0] * 4] * 3)
    middle = np.tile(outputs[PLACES] * SIDE, (1, 2, 1))
    assert ((windows[..., :2] <= middle) & (middle < windows[..., 2:])).all()


def test_close_ups_are_the_pixels_of_the_windows_enlarged(found, keras):
    model, photos, outputs = found
    close_up = model.get_layer(CLOSE_UP)
    inner = next(layer for layer in close_up.layers if layer.name == "rescale")
    seen = keras.Model(close_up.inputs, inner.output).predict_on_batch([photos, outputs[WINDOWS]])
    seen = np.asarray(seen).reshape(3, 8, 32, 32, 3) * 128 + 127
    for photo, windows, close_ups in zip(photos, outputs[WINDOWS].astype(int), seen, strict=True):
        for (top, left, bottom, right), pixels in zip(windows, close_ups, strict=True):
            expected = cv2.resize(photo[top:bottom, left:right], (32, 32), interpolation=cv2.INTER_LINEAR)
            np.testing.assert_allclose(pixels, expected, atol=0.05)


def test_the_answer_is_a_smooth_maximum_of_the_estimates(found):
    _, _, outputs = found
    estimates = outputs[MATERIALS].astype(np.float64)
    expected = np.log(np.exp(SHARPNESS * estimates).sum(axis=1)) / SHARPNESS
    np.testing.assert_allclose(outputs[FEATURES][:, -MATERIALS_COUNT:], expected, atol=1e-5)


def test_evidence_is_what_each_close_up_added_on_the_cells_that_it_covers(found):
    _, _, outputs = found
    evidence = outputs["evidence"]
    cell_px = SIDE / evidence.shape[1]
    for estimates, windows, maps in zip(outputs[MATERIALS], outputs[WINDOWS], evidence, strict=True):
        exponents = np.exp(SHARPNESS * estimates.astype(np.float64))
        shares = exponents / exponents.sum(axis=0)
        expected = np.zeros_like(maps)
        for number, (top, left, bottom, right) in enumerate(windows):
            for row in range(maps.shape[0]):
                for column in range(maps.shape[1]):
                    y, x = (row + 0.5) * cell_px, (column + 0.5) * cell_px
                    if top <= y < bottom and left <= x < right:
                        expected[row, column] += shares[number] * np.maximum(estimates[number], 0)
        np.testing.assert_allclose(maps, expected, atol=1e-5)


def test_more_places_than_cells_repeat_them(keras):
    settings = "model=objects network.side_px=0 network.close_up_px=32 network.places=24 network.close_up_shares=[0.5]"
    model = config("train", settings).network.build(image_side_px=32, outputs=2, seed=0)
    places = keras.Model(model.input, model.get_layer(PLACES).output).predict_on_batch(np.zeros((1, 32, 32, 3)))
    assert np.asarray(places).shape == (1, 24, 2)
    np.testing.assert_array_equal(places[0, :8], places[0, 16:])


@pytest.mark.parametrize("backbone", ["efficientnet_lite2", "efficientnet_lite0_and_2", "efficientnetv2b0", "vgg16"])
def test_the_litter_map_has_the_cells_of_the_third_last_scale(keras, backbone):
    settings = f"{SMALL} network.backbone={backbone}"
    model = config("train", settings).network.build(image_side_px=SIDE, outputs=2, seed=0)
    assert model.get_layer(LITTER_MAP).output.shape[1:3] == (8, 8)  # of 2 × 2 cells at 64 px
    assert [model.get_layer(name).input.shape[1] for name in LITTER] == [8, 4, 2]


def test_the_digest_of_the_weights_does_not_depend_on_the_seed(keras):
    network = config("train", SMALL).network
    models = [network.build(image_side_px=SIDE, outputs=2, seed=seed) for seed in (0, 1)]
    assert len({network.load_weights(model, "imagenet") for model in models}) == 1


def test_evidence_is_found_in_a_network_that_another_process_saved(found, keras, tmp_path):
    """In a new process Keras numbers names from the start again: with those of the file they must not clash."""
    model, photos, outputs = found
    model.save(tmp_path / "network.keras")
    keras.utils.clear_session()
    loaded = keras.saving.load_model(tmp_path / "network.keras", compile=False)
    answers = answering(loaded).predict_on_batch(photos)
    strongest = np.asarray(answers["probabilities"]).argmax(axis=1)
    expected = outputs["evidence"][np.arange(len(photos)), :, :, strongest]
    np.testing.assert_allclose(answers["evidence"], expected, atol=1e-5)
