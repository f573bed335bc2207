"""Class activation maps: equal to those of tf-keras-vis, and refused for networks without convolutions."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from tests.factories import config

from wastelens.errors import ConfigError
from wastelens.explain.methods.gradcam import GradientMaps, gradcam, gradcam_plus_plus
from wastelens.explain.methods.scorecam import ScoreCam
from wastelens.models.features import choose_layer, spatial_layers
from wastelens.models.freezing import logits_tensor

MATERIALS = 3
RULES = {"gradcam": gradcam, "gradcam_plus_plus": gradcam_plus_plus}
BASE = "network.widths=[4,6,8]"


def network(model: str = "base", settings: str = BASE, side_px: int = 32) -> Any:
    """Build a network whose weights all differ from 0, so that no map is empty."""
    network = config("train", settings, model=model).network
    built = network.build(image_side_px=side_px, outputs=MATERIALS, seed=1)
    rng = np.random.default_rng(0)
    for layer in built.layers:
        if "norm" in layer.name or layer.name == "logits":
            layer.set_weights([one + rng.uniform(0, 0.5, one.shape) for one in layer.get_weights()])
    return built


def photos(count: int = 3, side_px: int = 32) -> Any:
    return np.random.default_rng(7).integers(0, 256, (count, side_px, side_px, 3), dtype=np.uint8)


def every_pair(count: int = 3) -> Any:
    return np.array([(photo, material) for photo in range(count) for material in range(MATERIALS)])


def visualised(method: str, model: Any, layer: str, material: int, seen: Any, **options: Any) -> Any:
    """Return the same maps drawn by tf-keras-vis, with one call per material."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf-keras-vis 0.8 uses deprecated names of SciPy
        import tf_keras_vis.gradcam
        import tf_keras_vis.gradcam_plus_plus
        import tf_keras_vis.scorecam

        kind = {
            "gradcam": tf_keras_vis.gradcam.Gradcam,
            "gradcam_plus_plus": tf_keras_vis.gradcam_plus_plus.GradcamPlusPlus,
            "scorecam": tf_keras_vis.scorecam.Scorecam,
        }[method]
        drawn = kind(model, clone=False)(
            lambda output: output[:, material],
            seen.astype(np.float32),
            penultimate_layer=layer,
            seek_penultimate_conv_layer=False,
            expand_cam=False,
            normalize_cam=False,
            **options,
        )
    return np.asarray(drawn)


def scaled(maps: Any) -> Any:
    return maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12)


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize(
    ("model", "settings", "side_px", "layer"),
    [
        ("base", BASE, 32, "auto"),
        ("base", BASE, 32, "block1_relu1"),
        ("autoencoder", "network.learner.widths=[4,6]", 40, "auto"),
        pytest.param("efficientnetv2", "weights=none", 64, "auto", marks=pytest.mark.slow),
    ],
)
def test_gradient_maps_are_those_of_tf_keras_vis(
    keras: Any, method: str, model: str, settings: str, side_px: int, layer: str
) -> None:
    built = network(model, settings, side_px)
    chosen = choose_layer(built, layer)
    seen = photos(side_px=side_px)
    ours = GradientMaps(built, chosen, RULES[method])(seen, every_pair())
    assert np.isnan(ours.additivity_error).all()
    logits = keras.Model(built.input, logits_tensor(built))
    for material in range(MATERIALS):
        theirs = visualised(method, logits, chosen, material, seen)
        maps = ours.maps[material::MATERIALS]
        assert maps.shape == theirs.shape == (3, *built.get_layer(chosen).output.shape[1:3])
        assert np.ptp(theirs) > 0
        if method == "gradcam":
            np.testing.assert_allclose(maps, theirs, atol=1e-4 * np.abs(theirs).max())
        # Grad-CAM++: but for exp(logit), the same factor at every place
        np.testing.assert_allclose(scaled(maps), scaled(theirs), atol=1e-4)


def test_score_cam_is_that_of_tf_keras_vis(keras: Any) -> None:
    """On a map as large as the photo, since the two enlarge smaller ones differently.

    tf-keras-vis takes the softmax of a network's output; that of (logit, 0) is our probability, from which we subtract
    that of a black photo.
    """
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    draws = keras.initializers.GlorotUniform(seed=0)
    x = keras.layers.Conv2D(5, 3, padding="same", activation="relu", kernel_initializer=draws, name="conv")(x)
    logits = keras.layers.Dense(MATERIALS, name="logits")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, keras.layers.Activation("sigmoid")(logits))
    # Channels for a material, against it, and both.
    head = np.array([[3.0, -3, 3], [3, -3, -1], [2, -2, 2], [2, -2, -1], [1, -1, 3]])
    model.get_layer("logits").set_weights([head, np.zeros(MATERIALS)])
    seen = photos(2, 12)
    ours = ScoreCam(model, "conv", channels=99)(seen, every_pair(2)).maps
    fewer = ScoreCam(model, "conv", channels=2)(seen, every_pair(2)).maps
    total = np.asarray(keras.Model(inputs, model.get_layer("conv").output)(seen.astype(np.float32))).sum(axis=-1)
    of_black = np.asarray(model(np.zeros((1, 12, 12, 3), np.float32)))[0]
    for material in range(MATERIALS):
        one = logits[:, material : material + 1]
        pair = keras.Model(inputs, keras.layers.Concatenate()([one, keras.layers.Rescaling(0.0)(one)]))
        theirs = np.maximum(visualised("scorecam", pair, "conv", 0, seen) - of_black[material] * total, 0)
        assert (theirs.max() > 1e-3) == (material != 1)
        np.testing.assert_allclose(ours[material::MATERIALS], theirs, atol=1e-4 * theirs.max() + 1e-6)
        assert material or not np.allclose(fewer[material::MATERIALS], theirs, atol=1e-3 * theirs.max())


def test_tiny_gradients_still_give_finite_maps(keras: Any) -> None:
    built = network()
    head = built.get_layer("logits")
    head.set_weights([one * 1e-25 for one in head.get_weights()])
    for rule in RULES.values():
        assert np.isfinite(GradientMaps(built, "block2_pool", rule)(photos(), every_pair()).maps).all()


def test_pairs_choose_among_the_maps(keras: Any) -> None:
    built = network()
    every = GradientMaps(built, "block2_pool", gradcam)(photos(), every_pair()).maps
    some = np.array([(2, 0), (0, 1), (0, 2)])
    np.testing.assert_array_equal(
        GradientMaps(built, "block2_pool", gradcam)(photos(), some).maps, every[some[:, 0] * MATERIALS + some[:, 1]]
    )


def test_mixed_precision_gives_maps_in_float32(keras: Any) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        built = network()
    finally:
        keras.config.set_dtype_policy("float32")
    for rule in RULES.values():
        maps = GradientMaps(built, "block2_pool", rule)(photos(), every_pair()).maps
        assert maps.dtype == np.float32
        assert np.isfinite(maps).all()


def test_the_last_layer_that_knows_places() -> None:
    base = network()
    assert spatial_layers(base)[0] == "block0_conv0"  # not the photo itself
    assert choose_layer(base) == "block2_pool"
    assert choose_layer(base, "block1_relu1") == "block1_relu1"
    one_place = network(settings="network.widths=[4,6,8,8,8]")  # 32 px, halved five times
    assert one_place.get_layer("block4_pool").output.shape[1:3] == (1, 1)
    assert choose_layer(one_place) == "block4_relu1"


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("block1_relu9", "has no layer 'block1_relu9'. Did you mean 'block1_relu1'?"),
        ("nothing_like_it", "has no layer 'nothing_like_it'. Its last map is block2_pool."),
        (
            "logits",
            "layer=logits of base_cnn is not spatial: its output is no feature map. "
            "Use layer=auto, which is block2_pool.",
        ),
        ("rescale", "layer=rescale of base_cnn is not spatial"),
    ],
)
def test_layers_that_cannot_be_drawn(layer: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        choose_layer(network(), layer)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("dbn", "network.learner.hidden_units=[6,4] network.learner.side_px=8"),
        ("autoencoder", "network.method=dense_autoencoder network.learner.hidden_units=[6,4]"),
    ],
)
def test_a_network_without_convolutions_says_what_fits_it(model: str, settings: str) -> None:
    with pytest.raises(ConfigError, match=r"has no convolution .* Use methods=shap, which works with every network"):
        choose_layer(network(model, settings))
