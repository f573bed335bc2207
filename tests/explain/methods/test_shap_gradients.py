"""SHAP values: exact on linear networks, close to shap's own explainer, and with the sums' true errors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from wastelens.explain.methods.shap_gradients import ExpectedGradients, _even_alphas
from wastelens.explain.methods.shap_partition import PartitionShap

SIDE_PX, MATERIALS = 8, 3


def photos(count: int, seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)


def classifier(keras: Any, hidden: int = 0) -> tuple[Any, Any]:
    """Build a network, linear or with a curved layer; also return the linear one's weights (pixels, materials)."""
    inputs = keras.Input((SIDE_PX, SIDE_PX, 3))
    x = keras.layers.Flatten()(inputs)
    rng = np.random.default_rng(5)
    if hidden:
        kernel = rng.normal(0, 0.004, (SIDE_PX * SIDE_PX * 3, hidden))
        dense = keras.layers.Dense(hidden, activation="tanh")
        x = dense(x)
        dense.set_weights([kernel, np.zeros(hidden)])
    logits = keras.layers.Dense(MATERIALS, name="logits")
    out = logits(x)
    weights = rng.normal(0, 0.01 if not hidden else 1.0, (x.shape[-1], MATERIALS))
    logits.set_weights([weights, rng.normal(size=MATERIALS)])
    return keras.Model(inputs, keras.layers.Activation("sigmoid")(out)), weights


PAIRS = np.array([(0, 0), (0, 2), (1, 1), (3, 2)])


@pytest.mark.parametrize("backgrounds", [1, 5])
@pytest.mark.parametrize("repeats", [1, 3])
def test_a_linear_networks_values_are_weight_times_difference(keras: Any, backgrounds: int, repeats: int) -> None:
    model, weights = classifier(keras)
    seen, background = photos(4, 0), photos(backgrounds, 1)
    method = ExpectedGradients(model, background, samples=backgrounds * repeats, seed=0)
    found = method(seen, PAIRS)
    differences = seen.astype(float) - background.astype(float).mean(axis=0)
    for number, (photo, material) in enumerate(PAIRS):
        expected = (differences[photo] * weights[:, material].reshape(SIDE_PX, SIDE_PX, 3)).sum(axis=-1)
        np.testing.assert_allclose(found.maps[number], expected, atol=1e-4 * np.abs(expected).max())
    assert found.additivity_error == pytest.approx(np.zeros(4), abs=1e-4)


def test_partition_values_of_a_linear_network(keras: Any) -> None:
    """With enough evaluations to reach every pixel: weight · (pixel - blurred pixel)."""
    model, weights = classifier(keras)
    seen = photos(2, 0)
    pairs = np.array([(0, 0), (1, 2), (1, 1)])
    found = PartitionShap(model, evaluations=4000)(seen, pairs)
    import shap  # now without its warnings

    masker = shap.maskers.Image("blur(1,1)", (SIDE_PX, SIDE_PX, 3))
    nothing = np.zeros(SIDE_PX * SIDE_PX * 3, dtype=bool)
    for number, (photo, material) in enumerate(pairs):
        blurred = np.asarray(masker(nothing, seen[photo].astype(float))[0]).reshape(SIDE_PX, SIDE_PX, 3)
        expected = ((seen[photo] - blurred) * weights[:, material].reshape(SIDE_PX, SIDE_PX, 3)).sum(axis=-1)
        np.testing.assert_allclose(found.maps[number], expected, atol=1e-3 * max(1e-3, np.abs(expected).max()))
    assert found.additivity_error == pytest.approx(np.zeros(3), abs=1e-4)


def test_curved_networks_agree_with_shaps_own_explainer(keras: Any) -> None:
    """Compare theirs from 1,500 random draws with ours from 40 even steps, which agree for one background photo."""
    model, _ = classifier(keras, hidden=6)
    seen, background = photos(2, 0), photos(1, 1)
    pairs = np.array([(photo, material) for photo in range(2) for material in range(MATERIALS)])
    ours = ExpectedGradients(model, background, samples=40, seed=0)(seen, pairs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shap 0.51 on NumPy 2 and Keras 3
        import shap

        logits = keras.Model(model.input, model.get_layer("logits").output)
        explainer = shap.GradientExplainer(logits, background.astype(np.float32))
        theirs = np.asarray(explainer.shap_values(seen.astype(np.float32), nsamples=1500, rseed=0))
    assert ours.additivity_error.max() < 0.01
    for number, (photo, material) in enumerate(pairs):
        expected = theirs[photo, ..., material].sum(axis=-1)
        correlation = np.corrcoef(ours.maps[number].ravel(), expected.ravel())[0, 1]
        assert correlation > 0.999
        assert ours.maps[number].sum() == pytest.approx(expected.sum(), rel=0.05, abs=0.15)  # they draw at random


def test_the_additivity_error_is_the_missing_sum(keras: Any) -> None:
    model, _ = classifier(keras, hidden=6)
    seen, background = photos(4, 0), photos(5, 1)
    few = ExpectedGradients(model, background, samples=5, seed=0)(seen, PAIRS)
    many = ExpectedGradients(model, background, samples=500, seed=0)(seen, PAIRS)
    logits = keras.Model(model.input, model.get_layer("logits").output)
    gap = np.asarray(logits(seen.astype(np.float32))) - np.asarray(logits(background.astype(np.float32))).mean(axis=0)
    for found in (few, many):
        missing = [abs(found.maps[row].sum() - gap[photo, material]) for row, (photo, material) in enumerate(PAIRS)]
        assert found.additivity_error == pytest.approx(missing, abs=1e-4)
    assert many.additivity_error.mean() < 0.02 * few.additivity_error.mean() + 1e-3
    assert few.additivity_error.max() > 0.01


def test_every_background_photo_is_drawn_at_every_part_of_the_way() -> None:
    alphas = _even_alphas(4, 3, np.random.default_rng(0))
    assert sorted(alphas) == pytest.approx((np.arange(12) + 0.5) / 12)
    for photo in range(4):
        np.testing.assert_array_equal(np.floor(alphas[photo::4] * 3), [0, 1, 2])


def test_the_same_seed_gives_the_same_values(keras: Any) -> None:
    model, _ = classifier(keras, hidden=6)
    seen, background = photos(4, 0), photos(5, 1)
    maps = [ExpectedGradients(model, background, samples=5, seed=seed)(seen, PAIRS).maps for seed in (0, 0, 1)]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not np.allclose(maps[0], maps[2])
    alone = ExpectedGradients(model, background, samples=5, seed=0)(seen[3:], np.array([(0, 2)])).maps
    np.testing.assert_allclose(alone[0], maps[0][3], atol=1e-5)
