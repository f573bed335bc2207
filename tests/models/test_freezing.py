"""Freezing by share and by name, where a network can be cut, and the two halves against the whole."""

from __future__ import annotations

import numpy as np
import pytest
from tests.factories import photo_array

from wastelens.errors import ConfigError
from wastelens.models.freezing import backbone_layers, freeze, frozen_cut, logits_tensor, split_model
from wastelens.models.layers import is_head
from wastelens.models.networks.cnn import CnnConfig
from wastelens.models.networks.transfer import TransferConfig
from wastelens.training.losses import BinaryCrossEntropy

SIDE = 32

# Keras 3.15 meets NumPy 2 with an old signature of __array__.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


def built(name, hidden=(), pooling="average_and_max"):
    head = {"pooling": pooling, "hidden": hidden, "dropout": 0.2}
    size = {"image_side_px": SIDE, "outputs": 3, "seed": 0}
    if name == "cnn":
        return CnnConfig(kind="cnn", widths=(4, 8, 8), **head).build(**size)
    return TransferConfig(kind="transfer", side_px=0, backbone=name, **head).build(**size)


@pytest.fixture(scope="module")
def vgg16(keras):
    return built("vgg16", hidden=(8,), pooling="flatten")


@pytest.fixture(scope="module")
def efficientnet(keras):
    return built("efficientnetv2b0")


def frozen_names(model):
    return [layer.name for layer in backbone_layers(model) if not layer.trainable]


def dropout_rates(keras, model):
    return {layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)}


def photos_0_255(photos=2):
    return photo_array(photos, SIDE).astype(np.float32)


def predicted(model, inputs):
    return np.asarray(model(inputs, training=False))


@pytest.mark.parametrize(("share", "frozen"), [(0.0, 0), (0.03, 0), (0.04, 1), (0.5, 7), (1.0, 13)], ids=str)
def test_a_share_counts_from_the_input_and_rounds_half_up(vgg16, share, frozen):
    assert freeze(vgg16, share) == frozen
    names = [layer.name for layer in backbone_layers(vgg16)]
    assert len(names) == 13
    assert frozen_names(vgg16) == names[:frozen]
    assert all(layer.trainable for layer in vgg16.layers if is_head(layer.name))


@pytest.mark.parametrize(
    ("name", "frozen", "last"),
    [
        ("block1", 2, "block1_conv2"),
        ("block4", 10, "block4_conv3"),
        ("block4_conv1", 8, "block4_conv1"),
        ("block4_pool", 10, "block4_conv3"),
        ("block5", 13, "block5_conv3"),
    ],
)
def test_a_name_freezes_up_to_and_with_it(vgg16, name, frozen, last):
    assert freeze(vgg16, name) == frozen
    assert frozen_names(vgg16)[-1] == last


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("stem", "stem_bn"),
        ("block1", "block1a_project_bn"),
        ("block2", "block2b_project_bn"),
        ("block2a", "block2a_project_bn"),
        ("block5e_expand_conv", "block5e_expand_conv"),
        ("top", "top_bn"),
    ],
)
def test_blocks_with_letters(efficientnet, name, last):
    freeze(efficientnet, name)
    assert frozen_names(efficientnet)[-1] == last


def test_block_1_is_not_block_10(keras):
    x = photos = keras.Input((4,), name="photo_0_255")
    for name in ("block1_dense", "block1a_dense", "block10_dense", "block1extra"):
        x = keras.layers.Dense(2, name=name)(x)
    model = keras.Model(photos, keras.layers.Dense(2, name="logits")(x))
    assert freeze(model, "block1") == 2
    assert freeze(model, "block10") == 3


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("blok4", r"Did you mean 'block4'\?"),
        ("block4_cnv2", r"Did you mean 'block4_conv2'\?"),
        ("zzz", "Give one of block1, block2, block3, block4, block5, a layer, or a share"),
        ("", "Give one of block1"),
        ("logits", "The head always learns"),
    ],
)
def test_unknown_names_are_refused(vgg16, name, hint):
    before = [layer.trainable for layer in vgg16.layers]
    with pytest.raises(ConfigError, match=hint) as caught:
        freeze(vgg16, name)
    assert "\n" not in str(caught.value)
    assert [layer.trainable for layer in vgg16.layers] == before


def test_freezing_again_thaws(keras, efficientnet):
    freeze(efficientnet, 0.0)
    as_built = dropout_rates(keras, efficientnet)
    assert min(as_built.values()) > 0
    everything = len(efficientnet.trainable_weights)
    freeze(efficientnet, 1.0)
    assert len(efficientnet.trainable_weights) == 2  # the materials' kernel and bias
    off = {name for name, rate in dropout_rates(keras, efficientnet).items() if rate == 0}
    assert off == set(as_built) - {"dropout"}  # the head's own stays
    freeze(efficientnet, "block4")
    assert dropout_rates(keras, efficientnet)["block4b_drop"] == 0
    assert dropout_rates(keras, efficientnet)["block5b_drop"] == as_built["block5b_drop"]
    freeze(efficientnet, 0.0)
    assert dropout_rates(keras, efficientnet) == as_built
    assert len(efficientnet.trainable_weights) == everything


def test_a_frozen_part_computes_the_same_in_training(keras, efficientnet):
    freeze(efficientnet, 1.0)
    cut = frozen_cut(efficientnet)
    features, _ = split_model(efficientnet, cut)
    before = efficientnet.get_layer("stem_bn").get_weights()
    photos = photos_0_255()
    np.testing.assert_array_equal(np.asarray(features(photos, training=True)), predicted(features, photos))
    for one, two in zip(before, efficientnet.get_layer("stem_bn").get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_frozen_network_is_saved_and_loaded(keras, efficientnet, tmp_path):
    freeze(efficientnet, "block3")
    efficientnet.save(tmp_path / "model.keras")
    efficientnet.save_weights(tmp_path / "model.weights.h5")
    photos = photos_0_255()
    expected = predicted(efficientnet, photos)
    rebuilt = keras.models.model_from_json(efficientnet.to_json())
    rebuilt.load_weights(tmp_path / "model.weights.h5")
    for copy in (keras.saving.load_model(tmp_path / "model.keras", compile=False), rebuilt):
        np.testing.assert_allclose(predicted(copy, photos), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("what", "cut"),
    [
        (0.0, None),
        ("block4", "block4_pool"),
        ("block4_conv1", "block4_conv1"),
        (1.0, "pool_flatten"),
    ],
)
def test_vgg16_is_cut_after_the_pooling_that_follows(vgg16, what, cut):
    freeze(vgg16, what)
    assert frozen_cut(vgg16) == cut


@pytest.mark.parametrize(
    ("what", "cut"),
    [
        (0.0, None),
        ("stem", "stem_activation"),
        ("block2", "block2b_add"),
        (1.0, "pool"),
    ],
)
def test_residual_branches_are_not_cut(keras, efficientnet, what, cut):
    freeze(efficientnet, what)
    assert frozen_cut(efficientnet) == cut


def test_the_cut_stays_before_a_branch_that_goes_round_it(efficientnet):
    freeze(efficientnet, "block2b_expand_conv")
    cut = frozen_cut(efficientnet)
    assert efficientnet.get_layer("block2b_expand_conv").input is efficientnet.get_layer(cut).output


def test_dropout_stops_the_cut(keras):
    photos = keras.Input((4,), name="photo_0_255")
    x = keras.layers.Dense(3, name="block1_dense")(keras.layers.Reshape((4,), name="shape")(photos))
    x = keras.layers.Activation("relu", name="block1_relu")(x)
    x = keras.layers.GaussianNoise(0.1, name="block1_noise")(x)
    x = keras.layers.Dense(3, name="block2_dense")(x)
    model = keras.Model(photos, keras.layers.Dense(2, name="logits")(x))
    freeze(model, 1.0)
    assert frozen_cut(model) == "block1_relu"


def test_a_network_whose_first_layers_are_random_has_no_cut(keras):
    photos = keras.Input((4,), name="photo_0_255")
    x = keras.layers.GaussianNoise(0.1, name="noise")(photos)
    model = keras.Model(photos, keras.layers.Dense(2, name="logits")(keras.layers.Dense(3, name="dense")(x)))
    freeze(model, 1.0)
    assert frozen_cut(model) is None


def test_a_layer_that_branches_go_round_cannot_be_split_at(efficientnet):
    with pytest.raises(ValueError, match="not connected"):
        split_model(efficientnet, "block2b_expand_conv")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("vgg16", "block4"),
        ("vgg16", 1.0),
        pytest.param("efficientnetv2b0", "block3", marks=pytest.mark.slow),
        ("efficientnetv2b0", 1.0),
        ("cnn", "block1"),
    ],
)
def test_the_halves_are_the_whole_and_train_it(keras, name, what):
    model = built(name)
    freeze(model, what)
    architecture = model.to_json()
    photos = photos_0_255(4)
    features, head = split_model(model, frozen_cut(model))
    rows = predicted(features, photos)
    before = predicted(model, photos)
    np.testing.assert_allclose(predicted(head, rows), before, atol=1e-6)
    assert head.layers[-1].name == "probabilities"
    assert head.get_layer("logits") is model.get_layer("logits")

    trained = keras.Model(head.input, logits_tensor(head))
    trained.compile(optimizer=keras.optimizers.SGD(0.1), loss=BinaryCrossEntropy(kind="bce").__call__)
    labels = np.eye(4, 3, dtype=np.float32)
    trained.train_on_batch(rows, labels)
    after = predicted(model, photos)
    assert np.abs(after - before).max() > 1e-5
    np.testing.assert_allclose(predicted(head, rows), after, atol=1e-6)
    np.testing.assert_array_equal(predicted(features, photos), rows)
    assert model.to_json() == architecture
    freeze(model, 0.0)
    assert frozen_cut(model) is None


def test_logits_tensor_is_the_logits_layers_output(vgg16):
    assert logits_tensor(vgg16) is vgg16.get_layer("logits").output
