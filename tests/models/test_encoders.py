"""Encoders: unrolled stacks, weights copied by name, features to cluster."""

from __future__ import annotations

import numpy as np
import pytest
from tests.factories import config, train_stack

from wastelens.models.backend import multiplies_bfloat16, precision
from wastelens.models.dbn import DeepBeliefNetwork
from wastelens.models.encoders import build_encoder, copy_weights, set_dense_weights, set_visible_statistics
from wastelens.models.features import feature_network, predict_in_batches

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

SMALL = {
    "conv_autoencoder": "learner.widths=[4,6,8]",
    "rbm": "learner.side_px=8 learner.hidden_units=7",
    "dbn": "learner.side_px=8 learner.hidden_units=[7,5,3]",
}


def learner(method, settings=""):
    return config("pretrain", f"{SMALL[method]} {settings}", method=method).learner


def photos(count, side, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def predicted(model, pictures):
    return np.asarray(model(pictures.astype("float32"), training=False))


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("method", ["rbm", "dbn"])
def test_the_unrolled_network_gives_the_stacks_activations(keras, method, visible):
    how = learner(method, f"learner.visible={visible} learner.epochs=2 learner.batch_size=8")
    pictures = photos(24, 8)  # at the size the machines see, so that nothing is rounded on the way
    stack = train_stack(DeepBeliefNetwork(how.layers, how.visible), pictures, how, seed=0)
    encoder = build_encoder(how, image_side_px=8, seed=3)
    set_dense_weights(encoder, stack.dense_weights())
    if visible == "gaussian":
        set_visible_statistics(encoder, stack.machines[0].visible_mean_, stack.machines[0].visible_scale_)
    np.testing.assert_allclose(predicted(encoder, pictures), stack.transform(pictures), atol=1e-5)
    # And so within the network that is fine-tuned.
    network_config = config("train", f"network.method={method}", model="dbn").network
    network_config = network_config.model_copy(update={"learner": how})
    network = network_config.build(image_side_px=8, outputs=4, seed=5)
    copy_weights(encoder, network)
    top = keras.Model(network.input, network.get_layer(f"rbm{len(how.layers) - 1}").output)
    np.testing.assert_allclose(predicted(top, pictures), stack.transform(pictures), atol=1e-5)


def test_weights_of_another_shape_are_refused(keras):
    source = build_encoder(learner("rbm"), image_side_px=16, seed=0)
    target = build_encoder(learner("rbm", "learner.hidden_units=8"), image_side_px=16, seed=0)
    with pytest.raises(ValueError, match=r"rbm0|shape"):
        copy_weights(source, target)


def test_features_are_an_encoders_pooled_code_or_the_input_of_a_classifiers_last_layer(keras):
    encoder = build_encoder(learner("conv_autoencoder"), image_side_px=16, seed=0)
    pictures = photos(70, 16)
    rows = np.arange(69, -1, -1)
    features = predict_in_batches(feature_network(encoder), pictures, rows)
    code = predicted(encoder, pictures[rows])
    np.testing.assert_allclose(features, np.concatenate([code.mean(axis=(1, 2)), code.max(axis=(1, 2))], 1), atol=1e-4)
    network_config = config("train", "network.method=dense_autoencoder network.hidden=[6]", model="autoencoder").network
    classifier = network_config.build(image_side_px=16, outputs=4, seed=0)
    assert predict_in_batches(feature_network(classifier), pictures, rows).shape == (70, 6)


def test_precision_holds_inside_only(keras, monkeypatch, capsys):
    monkeypatch.setattr("wastelens.models.backend.multiplies_bfloat16", lambda: True)
    with precision(True) as policy:
        assert policy == keras.config.dtype_policy().name == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == "float32"
    with precision(False) as policy:
        assert policy == "float32"
    monkeypatch.setattr("wastelens.models.backend.multiplies_bfloat16", lambda: False)
    with precision(True) as policy:
        assert policy == "float32"
    assert "using float32" in capsys.readouterr().out


def test_processors_flags_are_read(keras, tmp_path, monkeypatch):
    for flags, wanted in (("sse avx512_bf16", True), ("sse avx2 notbf16", False)):
        (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
        monkeypatch.setattr("wastelens.models.backend._PROCESSOR", tmp_path / "cpuinfo")
        assert multiplies_bfloat16() is wanted
    monkeypatch.setattr("wastelens.models.backend._PROCESSOR", tmp_path / "none")
    assert multiplies_bfloat16() is False
