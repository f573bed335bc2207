"""The contract that every model keeps; it covers a new ``conf/model/*.yaml`` without a change here."""

from __future__ import annotations

import numpy as np
import pytest
from tests.factories import config, photo_array

from wastelens.config.files import conf_folder
from wastelens.errors import ConfigError
from wastelens.explain.methods.gradcam import answers_by_keras
from wastelens.models.answers import answers_by_onnx
from wastelens.models.features import spatial_layers
from wastelens.models.freezing import freeze
from wastelens.models.networks.objects import CLOSE_UP, LITTER
from wastelens.models.onnx_export import write_onnx
from wastelens.models.onnx_network import OnnxNetwork
from wastelens.training.losses import BinaryCrossEntropy

SIDE = 32
OUTPUTS = 6
# Small where the shipped network is large: the contract is about its form.
OWN_SIDE = "network.side_px=0"
SMALLER = {
    "vgg16": "network.hidden=[16,8]",
    "probe": OWN_SIDE,
    "objects": f"{OWN_SIDE} network.close_up_px=32 network.places=4",
    "efficientnet_lite": OWN_SIDE,
}
MODELS = {
    **{
        file.stem: f"model={file.stem} {SMALLER.get(file.stem, '')}"
        for file in sorted((conf_folder() / "model").glob("*.yaml"))
    },
    "average": "network.pooling=average network.widths=[4,8]",
    "max, one block": "network.pooling=max network.widths=[4]",
    "dense autoencoder": "model=autoencoder network.method=dense_autoencoder",
    "rbm, gaussian, hidden layer": "model=dbn network.method=rbm network.learner.visible=gaussian network.hidden=[5]",
    "vgg16, pooled head": "model=vgg16 network.hidden=[] network.pooling=average",
}
SMALLEST_SIDE = {"vgg16": 32, "efficientnetv2b0": 32, "efficientnet_lite0": 32}

# Keras 3.15 meets NumPy 2 with an old signature of __array__.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


@pytest.fixture(params=MODELS)
def network(request, keras):
    """Return a model's config."""
    return config("train", MODELS[request.param]).network


def built(network, outputs=OUTPUTS, seed=0, side=SIDE):
    model = network.build(image_side_px=side, outputs=outputs, seed=seed)
    if network.is_probe:  # of which only the last layer ever learns
        freeze(model, 1.0)
    if network.learns_from_outlines:  # places are chosen by rank, which has no gradient
        for name in LITTER:
            model.get_layer(name).trainable = False
    return model


def predicted(model, photos):
    return np.asarray(model(photos, training=False))


def without_dropout(model):
    """Return the model without any randomness in a step, stochastic depth included."""
    for layer in model.layers:
        if hasattr(layer, "rate"):
            layer.rate = 0.0
    return model


def batch(photos=8, side=SIDE):
    labels = (np.random.default_rng(0).random((photos, OUTPUTS)) < 0.4).astype(np.float32)
    return photo_array(photos, side), labels


def losses(keras, model, steps, side=SIDE):
    """Return the training loss before each of some steps on one batch."""
    trained = keras.Model(model.input, model.get_layer("logits").output)
    optimizer = keras.optimizers.SGD(0.01)
    trained.compile(optimizer=optimizer, loss=BinaryCrossEntropy(kind="bce").__call__, run_eagerly=True)
    return [float(trained.train_on_batch(*batch(side=side))) for _ in range(steps)]


@pytest.mark.parametrize("outputs", [2, 6, 11])
def test_any_number_of_materials(network, outputs):
    model = built(network, outputs)
    probabilities = predicted(model, photo_array(3, SIDE))
    assert probabilities.shape == (3, outputs)
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    assert (probabilities <= 1).all()
    assert model.get_layer("logits").output.shape == (None, outputs)


@pytest.mark.parametrize("side", [16, 33, 160])
def test_any_side(network, side):
    if side < SMALLEST_SIDE.get(getattr(network, "backbone", ""), 0):
        with pytest.raises(ConfigError, match="32"):
            built(network, side=side)
        return
    assert predicted(built(network, side=side), photo_array(2, side)).shape == (2, OUTPUTS)


def test_mixed_precision_is_near_full_precision_and_learns(network, keras):
    full = built(network)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = without_dropout(built(network))
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(full.get_weights())
    photos = photo_array(4, SIDE)
    assert predicted(mixed, photos).dtype == np.float32
    np.testing.assert_allclose(predicted(mixed, photos), predicted(full, photos), atol=0.05)
    assert any(layer.compute_dtype == "bfloat16" for layer in mixed.layers)
    assert {weight.dtype for weight in mixed.trainable_weights} == {"float32"}
    first, *_, last = losses(keras, mixed, 3)
    assert last < first


def test_photos_come_in_0_to_255_and_the_model_rescales(network):
    model = built(network)
    photos = photo_array(4, SIDE)
    assert model.input.shape == (None, SIDE, SIDE, 3)
    assert model.input.dtype == "float32"
    np.testing.assert_allclose(predicted(model, photos), predicted(model, photos.astype(np.float32)), atol=1e-6)
    assert np.ptp(predicted(model, photos), axis=0).max() > 1e-4  # neither saturated nor blind


def test_probabilities_are_the_sigmoid_of_the_logits(network, keras):
    model = built(network)
    photos = photo_array(4, SIDE)
    logits = predicted(keras.Model(model.input, model.get_layer("logits").output), photos)
    np.testing.assert_allclose(predicted(model, photos), 1 / (1 + np.exp(-logits.astype(np.float64))), atol=1e-6)
    assert logits.dtype == np.float32


def test_graph_is_flat_and_its_layer_names_are_fixed(network, keras):
    layers = built(network).layers
    inner = [layer.name for layer in layers if isinstance(layer, keras.Model)]
    assert inner == ([CLOSE_UP] if network.learns_from_outlines else [])
    assert [layer.name for layer in layers] == [layer.name for layer in built(network).layers]


def test_config_and_json_round_trip(network, keras):
    model = built(network)
    photos = photo_array(4, SIDE)
    copies = [keras.models.model_from_json(model.to_json()), type(model).from_config(model.get_config())]
    for copy in copies:
        assert copy.to_json() == model.to_json()
        copy.set_weights(model.get_weights())
        np.testing.assert_allclose(predicted(copy, photos), predicted(model, photos), atol=1e-6)


def test_saved_and_loaded_predicts_the_same(network, keras, tmp_path):
    model = built(network)
    losses(keras, model, 1)  # away from the initial weights, moving averages included
    photos = photo_array(4, SIDE)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    whole = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(predicted(whole, photos), predicted(model, photos), atol=1e-6)
    other = built(network, seed=1)
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(predicted(other, photos), predicted(model, photos), atol=1e-6)


@pytest.mark.slow
def test_onnx_answers_as_keras_does(network, keras, tmp_path):
    side = 2 * SIDE  # so that each last map is larger than 1 × 1
    model = built(network, side=side)
    losses(keras, model, 1, side)
    photos = photo_array(4, side)
    assert write_onnx(model, tmp_path / "network.onnx", photos) <= 1e-4
    found = answers_by_onnx(OnnxNetwork(tmp_path / "network.onnx"), batch_size=3)(photos)
    layers = spatial_layers(model)
    wanted = answers_by_keras(model, layers[-1] if layers else None, batch_size=3)(photos)
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-4)
    np.testing.assert_allclose(found.features, wanted.features, atol=1e-3 * np.abs(wanted.features).max())
    # A head of hidden layers has no formula for its map.
    assert (found.maps is None) == (wanted.maps is None or bool(getattr(network, "hidden", ())))
    if found.maps is not None:
        np.testing.assert_allclose(found.maps, wanted.maps, atol=1e-3 * wanted.maps.max())


def test_steps_lower_the_loss_on_one_batch(network, keras):
    first, second, third = losses(keras, without_dropout(built(network)), 3)
    assert third < second < first


def test_same_seed_same_weights_and_first_losses(network, keras):
    one, same, other = built(network), built(network), built(network, seed=1)
    for a, b in zip(one.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    kernels = [weight.path for weight in one.weights if weight.path.endswith("kernel")]
    differing = [
        a.path for a, b in zip(one.weights, other.weights, strict=True) if not np.array_equal(a.numpy(), b.numpy())
    ]
    assert differing == kernels
    assert losses(keras, one, 2) == losses(keras, same, 2)
    assert losses(keras, built(network), 1) != losses(keras, other, 1)


def test_no_two_layers_start_from_the_same_numbers(network):
    kernels = [weight.numpy() for weight in built(network).weights if weight.path.endswith("kernel")]
    starts = [tuple(np.sign(kernel).ravel()[:40]) for kernel in kernels]
    assert len(set(starts)) == len(starts)
