"""Transfer models: preprocessing held to Keras' own, flat and portable graphs, starts from the seed alone."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from tests.factories import photo_array

from wastelens.errors import ConfigError
from wastelens.models.backbones import BACKBONES as REGISTERED
from wastelens.models.freezing import backbone_layers
from wastelens.models.networks.transfer import TransferConfig, at_side

SIDE = 32
BACKBONES = ("vgg16", "efficientnetv2b0")

# Keras 3.15 meets NumPy 2 with an old signature of __array__.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


@pytest.fixture(scope="module", params=BACKBONES)
def model(request, keras):
    return built(request.param)


def built(backbone, seed=0, side=SIDE, **changes):
    settings = {
        "kind": "transfer",
        "side_px": 0,
        "pooling": "average_and_max",
        "hidden": (),
        "dropout": 0.2,
        **changes,
    }
    config = TransferConfig(backbone=backbone, **settings)
    return config.build(image_side_px=side, outputs=4, seed=seed)


def predicted(model, photos):
    return np.asarray(model(photos, training=False))


def tensor_of(keras, model, layer, photos):
    return predicted(keras.Model(model.input, model.get_layer(layer).output), photos)


def photos_0_255():
    return photo_array(2, SIDE).astype(np.float32)


def test_vgg16_preprocessing_equals_kerass(keras):
    model = built("vgg16")
    known = np.zeros((1, SIDE, SIDE, 3), np.float32)
    known[..., 0], known[..., 2] = 255, 10
    assert tensor_of(keras, model, "rescale", known)[0, 0, 0] == pytest.approx([10 - 103.939, -116.779, 255 - 123.68])
    photos = photos_0_255()
    expected = keras.applications.vgg16.preprocess_input(photos.copy())
    np.testing.assert_allclose(tensor_of(keras, model, "rescale", photos), expected, atol=1e-4)


def test_efficientnet_preprocessing_equals_kerass(keras):
    model = built("efficientnetv2b0")
    theirs = keras.applications.EfficientNetV2B0(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3))
    before = theirs.get_layer("stem_conv").input
    photos = photos_0_255()
    expected = predicted(keras.Model(theirs.input, before), photos)
    np.testing.assert_allclose(tensor_of(keras, model, "rescale", photos), expected, atol=1e-5)


def test_last_map_is_keras_own_with_the_same_weights(keras):
    model = built("efficientnetv2b0")
    theirs = keras.applications.EfficientNetV2B0(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3))
    for layer in backbone_layers(model):
        theirs.get_layer(layer.name).set_weights(layer.get_weights())
    photos = photos_0_255()
    found = tensor_of(keras, model, "top_activation", photos)
    np.testing.assert_allclose(found, predicted(theirs, photos), rtol=1e-4, atol=1e-5)


def test_graph_is_flat_named_and_takes_0_to_255(model, keras):
    assert not [layer for layer in model.layers if isinstance(layer, keras.Model)]
    assert model.input.name == "photo_0_255"
    assert model.input.dtype == "float32"
    assert model.input.shape == (None, SIDE, SIDE, 3)
    assert built(model.name).to_json() == model.to_json()
    integers = photo_array(2, SIDE)
    np.testing.assert_allclose(predicted(model, integers), predicted(model, integers.astype(np.float32)), atol=1e-6)


def test_starts_from_the_seed_alone(model, keras):
    state = random.getstate()
    keras.utils.set_random_seed(1)
    same, other = built(model.name), built(model.name, seed=1)
    random.setstate(state)
    for one, two in zip(model.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    kernels = [weight for weight in model.weights if weight.path.endswith("kernel")]
    differing = [
        one.path
        for one, two in zip(model.weights, other.weights, strict=True)
        if not np.array_equal(one.numpy(), two.numpy())
    ]
    assert differing == [kernel.path for kernel in kernels]
    starts = [tuple(np.sign(kernel.numpy()).ravel()[:40]) for kernel in kernels]
    assert len(set(starts)) == len(starts)


def test_kernels_keep_their_layers_own_spread(keras):
    theirs = keras.applications.EfficientNetV2B0(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3))
    ours = built("efficientnetv2b0")
    for name in ("stem_conv", "block4a_dwconv2", "top_conv"):
        expected = theirs.get_layer(name).get_weights()[0].std()
        assert ours.get_layer(name).get_weights()[0].std() == pytest.approx(expected, rel=0.15)


def test_dropped_branches_follow_the_seed(keras):
    photos = np.repeat(photos_0_255()[:1], 8, axis=0)
    one, same, other = (np.asarray(built("efficientnetv2b0", seed=s)(photos, training=True)) for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_saved_and_loaded_without_our_code(model, keras, tmp_path):
    photos = photos_0_255()
    expected = predicted(model, photos)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    architecture = model.to_json()
    assert "wastelens" not in architecture
    assert "Lambda" not in {layer["class_name"] for layer in json.loads(architecture)["config"]["layers"]}
    whole = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(predicted(whole, photos), expected, atol=1e-6)
    rebuilt = keras.models.model_from_json(architecture)
    rebuilt.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(predicted(rebuilt, photos), expected, atol=1e-6)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_mixed_precision_keeps_preprocessing_and_outputs_in_float32(backbone, keras):
    photos = photos_0_255()
    plain = built(backbone)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = built(backbone)
    finally:
        keras.config.set_dtype_policy(before)
    assert backbone_layers(mixed)[0].compute_dtype == "bfloat16"
    np.testing.assert_array_equal(
        tensor_of(keras, mixed, "rescale", photos), tensor_of(keras, plain, "rescale", photos)
    )
    probabilities = predicted(mixed, photos)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, predicted(plain, photos), atol=0.05)


def test_gradients_reach_a_layers_map(model, keras):
    import tensorflow as tf

    last = {"vgg16": "block5_conv3", "efficientnetv2b0": "top_activation"}[model.name]
    outputs = [model.get_layer(last).output, model.get_layer("logits").output]
    with tf.GradientTape() as tape:
        activation, logits = keras.Model(model.input, outputs)(photos_0_255())
        tape.watch(activation)
        target = logits[:, 0]
    gradient = tape.gradient(target, activation)
    assert gradient is not None
    assert np.abs(gradient.numpy()).max() > 0
    assert keras.models.clone_model(model).count_params() == model.count_params()


@pytest.mark.parametrize("pooling", ["flatten", "average", "max"])
def test_every_pooling_and_dense_layers(pooling, keras):
    model = built("vgg16", pooling=pooling, hidden=(8, 5))
    assert predicted(model, photos_0_255()).shape == (2, 4)
    assert [layer.name for layer in model.layers if layer.name.startswith("head_")] == ["head_dense0", "head_dense1"]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_too_small_photos_are_refused(backbone):
    smallest = REGISTERED[backbone].smallest_side_px
    with pytest.raises(ConfigError, match=rf"{backbone} .*{smallest} px.*sees them at {smallest - 1}") as caught:
        built(backbone, side=smallest - 1)
    assert "\n" not in str(caught.value)


def test_the_other_sizes_of_efficientnet_are_built(keras):
    model = built("efficientnetv2b1")
    assert model.name == "efficientnetv2b1"
    assert predicted(model, photos_0_255()).shape == (2, 4)


@pytest.mark.parametrize(("side", "other"), [(512, 256), (100, 32), (512, 260), (160, 256)])
def test_photos_at_another_side_keep_even_parts_and_lose_finer_stripes(keras, side, other):
    photos = np.zeros((1, side, side, 3), np.float32)
    photos[:, :, side // 2 :] = 200.0
    stripes = np.zeros_like(photos)
    stripes[:, ::2] = 200.0
    given = keras.Input((side, side, 3))
    network = keras.Model(given, at_side(given, other, "photo"))
    seen = np.asarray(network.predict_on_batch(photos))
    assert seen.shape == (1, other, other, 3)
    np.testing.assert_allclose(seen[0, :, : other // 2 - 2], 0, atol=1e-3)
    np.testing.assert_allclose(seen[0, :, other // 2 + 2 :], 200, atol=1e-3)
    if side > other:
        assert np.asarray(network.predict_on_batch(stripes))[0, 1:-1].std() < 40
